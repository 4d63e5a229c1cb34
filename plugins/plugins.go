// Package plugins loads guest modules and calls them: validation, compilation,
// the sandbox and its budgets, captured logs and buffered writes. It knows no
// queue, no response and no database; package host/guest turns a Plugin into a
// tool or a policy.
package plugins

import (
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// Class says how a call ended; a closed set. Its strings are the guest part of
// the outcome classes of the host.
type Class string

// The classes of a call.
const (
	OK            Class = "ok"
	Trap          Class = "guest_trap"           // unreachable, out of bounds, division, own proc_exit
	Fuel          Class = "guest_fuel"           // out of fuel
	Deadline      Class = "guest_deadline"       // the wall clock of the call ran out
	Memory        Class = "guest_memory"         // asked for more memory than it may have
	Depth         Class = "guest_depth"          // call stack too deep
	Output        Class = "guest_output"         // output over its cap
	Denied        Class = "guest_denied"         // the call was refused before it began
	Failed        Class = "guest_error"          // the guest reported a failure, or returned non-zero
	InvalidOutput Class = "guest_invalid_output" // returned zero without (valid) output
	Unavailable   Class = "plugin_unavailable"   // closed, or cannot be instantiated
	Throttled     Class = "guest_throttled"      // no instance was free in time, or the tenant's fuel is used up
	Canceled      Class = "canceled"             // the caller's context was canceled
	HostError     Class = "host_error"           // a port of the host failed
)

// Limits bound one call. Zero fields take the defaults of the entry's kind:
// policies 50 M fuel, 100 ms, 16 MiB, 16 KiB; tools 500 M fuel, 30 s, 64 MiB,
// 1 MiB.
type Limits struct {
	// Fuel is about one unit for each instruction that the guest executes, and
	// more for what works on many bytes, host functions included.
	Fuel uint64
	// Wall is the time from instance in hand to the end of the call, host
	// functions included. A call waits as long, at most, for an instance.
	Wall        time.Duration
	MemoryBytes uint64 // linear memory
	OutputBytes int    // bytes of output
	LogLines    int    // log calls kept, 1,000
	LogBytes    int    // log volume kept, 256 KiB
	Emits       int    // 100
	Calls       int    // capability calls, 256
}

// Call is one call of a plugin.
type Call struct {
	Entry string // abi.ExportToolCall, ExportRoute, ExportRetry or ExportDescribe
	Input []byte // JSON envelope of the entry
	Env   capability.Env
	// Limits override the defaults of the entry where they are not zero.
	Limits Limits
	// Nested is set for a call that another call waits for: it takes the place
	// of that one and waits for none of its own.
	Nested bool
	// Seed and NowMS make a policy call repeatable: random_get is a stream of
	// Seed and the clocks stand at NowMS. Tools ignore them.
	Seed  int64
	NowMS int64
}

// Result is what a call left behind. Output and Puts are nil unless Class is OK.
type Result struct {
	Class  Class
	Output []byte
	reason string // why not OK, in words that are never the guest's
	// Fail holds what the guest passed to abi.ImportFail, when Class is Failed.
	// A guest that returned non-zero without a word failed with
	// abi.FailInternal and no text. It is nil for all other classes.
	Fail *Failure
	// Detail tells the plugin's owner why a call did not end in OK: the trap's
	// text with function names, and the fuel used until then. It is tenant data:
	// never for a client or a host log.
	Detail string
	Logs   []LogLine        // what the guest logged and printed, capped; for nobody but the caller
	Puts   []capability.Put // kv.put/1 in order, to be committed with the step
	Usage  Usage
}

// Failure is what a guest said of its own failure.
type Failure struct {
	Code       abi.FailCode
	RetryAfter time.Duration // negative: not said
	Text       string        // at most abi.MaxFailText bytes, valid UTF-8
}

// LogLine is one captured line of a guest: tenant data.
type LogLine struct {
	Level abi.Level
	Text  string
}

// Usage is what a call used.
type Usage struct {
	Wall      time.Duration
	Fuel      uint64 // exact: the same call on the same module uses the same
	Memory    uint64 // linear memory at the end, bytes
	Output    int    // bytes written, kept or not
	HostCalls int    // capability calls, refused ones included
	LogBytes  int    // kept
	// LogsDropped counts lines of log that were over a cap.
	LogsDropped int
}

// Observation is one call as an operator may count it: closed sets and numbers,
// and names that the operator gave.
type Observation struct {
	Plugin string // its file's name, as given to Load
	Entry  string
	Tenant string
	Class  Class
	Usage  Usage
	// Opened is set when the call opened the breaker of plugin and tenant.
	Opened bool
	// Checked is set when a policy was asked a second time, on an instance of
	// its own, to see whether it is a function of its input; Impure when the
	// answers or the fuel differed.
	Checked, Impure bool
}

// Stats is the state of a Manager's instances.
type Stats struct {
	Idle      int    // instances that wait for a call
	IdleBytes uint64 // that they hold, about
	Made      uint64 // instances made from an image, ever
	Restored  uint64 // calls after which an instance was restored, ever
	Lost      uint64 // instances closed because they could not be restored, ever
}
