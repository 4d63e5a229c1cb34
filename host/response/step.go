// Package response is the meaning of one /v1/responses request: its items, its
// steps, the pure function that plans the next ones and the grammar of its
// events. It does no I/O and knows no upstream's API.
package response

import (
	"strconv"

	"github.com/casemate/casemate/host/queue"
)

// StepKind says what a step does.
type StepKind string

// The kinds.
const (
	ModelCall StepKind = "model_call"
	ToolCall  StepKind = "tool_call"
	// ListTools asks a remote MCP server, Step.Plugin, for its tools: a list of
	// RemoteTool as JSON is its output. One that failed for good fails nothing:
	// the model is offered none of that server's tools.
	ListTools StepKind = "list_tools"
)

// StepState is where a step stands.
type StepState string

// The states. The last four are settled: nothing changes them.
const (
	Planned   StepState = "planned" // recorded, not begun (or put off until its next try)
	Running   StepState = "running" // begun under Step.Attempt
	Completed StepState = "completed"
	Failed    StepState = "failed"    // settled only with Verdict Final
	Skipped   StepState = "skipped"   // never run: over a cap, unknown tool, broken arguments
	Abandoned StepState = "abandoned" // a once step that had begun an effect when its worker died
)

// Verdict is what the retry policy said of a failed try.
type Verdict string

// The verdicts. A failed step without one waits for the policy's answer.
const (
	Unasked Verdict = ""
	Retry   Verdict = "retry"
	Final   Verdict = "final"
)

// Step is one unit of a response, identified by (response, Scope, Ordinal).
type Step struct {
	// Scope is "" for what the response itself does, and the Key of a tool call
	// for the calls that its tool makes.
	Scope   string
	Ordinal int // from 0, in planning order
	Kind    StepKind
	State   StepState
	Verdict Verdict // not stored: settled writes happen after the verdict
	// CallID, Tool, Plugin and Effects belong to tool calls. CallID is the
	// model's id of the call, and NestedID of one that a tool made; Effects is
	// "pure", "idempotent" or "once".
	CallID  string
	Tool    string
	Plugin  string
	Effects string
	Tries   int // begun so far
	Attempt int // the request's attempt that began the last try
	// Generation is the digest of the module that ran a tool call.
	Generation string
	Input      []byte // tool call: its arguments, as the model wrote them; model call: nil
	// Output is, of a completed model call, a ModelOutput as JSON; of a tool
	// call, the text that the model is given, errors included.
	Output     []byte
	Class      queue.Class
	Status     int    // upstream's HTTP status, 0: none
	Code       string // "rate_limit_exceeded", "invalid_args", …
	RetryAfter int64  // milliseconds, -1: not said
	Usage      Usage
	Fuel       uint64
	Used       Used
	// EffectStarted says that a try of a tool call began to change something
	// outside. It is stored before the change is made.
	EffectStarted bool
	// Detail says why the last try failed, with the plugin's own names, and Log
	// is what it logged: the tenant's, not for the model or the client. They are
	// at most MaxDetail and MaxLog bytes of any text.
	Detail string
	Log    string
}

// Used is what the last try of a tool call used beside its fuel.
type Used struct {
	WallMS    int64  `json:"wall_ms,omitempty"`
	Memory    uint64 `json:"memory,omitempty"`     // bytes at its end
	Output    int    `json:"output,omitempty"`     // bytes written, kept or not
	Log       int    `json:"log,omitempty"`        // bytes kept
	HostCalls int    `json:"host_calls,omitempty"` // of capabilities, refused ones included
}

// The most bytes of a step's Detail and Log.
const (
	MaxDetail = 4 << 10
	MaxLog    = 16 << 10
)

// Settled reports whether nothing changes the step any more.
func (s Step) Settled() bool {
	switch s.State {
	case Completed, Skipped, Abandoned:
		return true
	case Failed:
		return s.Verdict == Final
	case Planned, Running:
		return false
	}
	return false
}

// Begin returns the step in its next try, which attempt makes with tool.
func (s Step) Begin(attempt int, tool ServerTool) Step {
	s.State, s.Verdict, s.Attempt = Running, Unasked, attempt
	s.Tries++
	s.EffectStarted = s.EffectStarted || tool.Opaque
	return s
}

// Began reports whether a try of the step may have changed something outside.
func (s Step) Began() bool { return s.EffectStarted }

// Repeatable reports whether the step may be begun again once it was begun: a
// once tool as long as no try has begun an effect, and an agent always, since
// its effects are those of its own steps.
func (s Step) Repeatable() bool {
	return s.Kind != ToolCall || s.Agent() || s.harmless() || !s.EffectStarted
}

// harmless reports whether the tool says that it may be run again.
func (s Step) harmless() bool { return s.Effects == "pure" || s.Effects == "idempotent" }

// Key returns "<scope>/<ordinal>".
func (s Step) Key() string { return s.Scope + "/" + strconv.Itoa(s.Ordinal) }

// IdempotencyKey returns "<response>/<scope>/<ordinal>": the same in every try
// and attempt of the step.
func (s Step) IdempotencyKey(id queue.ID) string { return id.String() + "/" + s.Key() }

// Usage counts tokens.
type Usage struct {
	Input      int64 `json:"input"`
	Output     int64 `json:"output"`
	Cached     int64 `json:"cached,omitempty"`
	CacheWrite int64 `json:"cache_write,omitempty"`
	Reasoning  int64 `json:"reasoning,omitempty"`
}

// Add returns the sum of both.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		Input: u.Input + v.Input, Output: u.Output + v.Output,
		Cached: u.Cached + v.Cached, CacheWrite: u.CacheWrite + v.CacheWrite,
		Reasoning: u.Reasoning + v.Reasoning,
	}
}

// Event is one event of a response's stream.
type Event struct {
	Seq  int64  // sequence_number, from 0, without a gap
	Data []byte // the JSON object, on one line; it begins with {"type":"…"
}
