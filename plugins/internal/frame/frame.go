// Package frame holds one call of a guest as the host sees it: the input, the
// bounded output, the failure, the captured logs, clock, entropy and budget.
// All guest ABIs share it. It knows neither Wasm nor the powers of a plugin.
package frame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// MaxEmit is the longest progress report, in bytes.
const MaxEmit = 64 << 10

// Frame is one call. It belongs to one goroutine.
type Frame struct {
	Input []byte
	// Pure is set for policies and before the snapshot: there is nothing to
	// emit to and nobody to call, and the budget is the limit however much of
	// it is used, so that all hosts tell the same.
	Pure  bool
	Clock *Clock
	Rand  io.Reader
	Log   Log
	// Powerless is set while nothing may be asked for: start-up and describe.
	Powerless bool
	// Caps answers capability calls; nil when Pure or Powerless.
	Caps *hostfn.Session
	// Emit receives progress; nil drops it.
	Emit func(kind int32, data []byte) error

	Wall      time.Duration // limit
	Deadline  time.Time     // Wall after the start
	Fuel      uint64        // limit
	MaxOutput int           // bytes
	MaxEmits  int

	out     []byte
	refused bool
	cut     bool
	failed  *Failure
	emits   int
}

// Failure is what the guest said of its own failure.
type Failure struct {
	Code       abi.FailCode
	RetryAfter time.Duration // negative: not said
	Text       string
}

// Fault is a mistake of the guest that ends its call like a trap.
type Fault string

// Error returns what the guest did wrong.
func (f Fault) Error() string { return string(f) }

// Exit is the end of a call by the guest's own exit.
type Exit uint32

// Error names the code.
func (e Exit) Error() string { return fmt.Sprintf("guest exited with code %d", uint32(e)) }

// HostFault is a failure of a port of the host. Its text is for the host's
// log, not for the plugin's owner.
type HostFault struct {
	Port string
	Err  error
}

// Error returns the port and the cause.
func (f *HostFault) Error() string { return f.Port + ": " + f.Err.Error() }

// Unwrap returns the cause.
func (f *HostFault) Unwrap() error { return f.Err }

// Room takes a write of n bytes into account: 0, or E2BIG, and then it must not
// be made. Once a part was written, a refusal cuts the output for good: see
// OutputCut.
func (f *Frame) Room(n int) abi.Errno {
	if n > f.MaxOutput-len(f.out) {
		f.refused = true
		f.cut = f.cut || len(f.out) > 0
		return abi.E2BIG
	}
	return 0
}

// Write appends p, a part of what there is room for, to the output.
func (f *Frame) Write(p []byte) { f.out = append(f.out, p...) }

// Output returns what was written so far.
func (f *Frame) Output() []byte { return f.out }

// OutputCut reports whether a write was refused after another was taken, so
// that the output ends somewhere in its middle. A guest whose first write is
// refused has lost nothing and may write something shorter.
func (f *Frame) OutputCut() bool { return f.cut }

// OutputRefused reports whether any write was refused.
func (f *Frame) OutputRefused() bool { return f.refused }

// Fail records the guest's failure and discards its output. A code that is not
// one of the ABI counts as internal. The last call counts.
func (f *Frame) Fail(code abi.FailCode, retryAfterMS int64, text []byte) {
	if code < abi.FailInvalidArgs || code > abi.FailInternal {
		code = abi.FailInternal
	}
	after := time.Duration(-1)
	if retryAfterMS >= 0 {
		after = time.Duration(min(retryAfterMS, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	f.failed = &Failure{Code: code, RetryAfter: after, Text: Text(text, abi.MaxFailText)}
	f.out, f.cut = nil, false
}

// Failure returns what Fail recorded last, or nil.
func (f *Frame) Failure() *Failure { return f.failed }

// Progress passes a report of the guest on and answers 0 or an errno. The
// error is a *HostFault.
func (f *Frame) Progress(ctx context.Context, kind int32, data []byte) (abi.Errno, error) {
	switch {
	case f.Powerless:
		return abi.EPERM, nil
	case f.Pure:
		return abi.ENOSYS, nil
	case kind < 0:
		return abi.EINVAL, nil
	case ctx.Err() != nil:
		return abi.ECANCELED, nil
	case f.emits >= f.MaxEmits:
		return abi.EDQUOT, nil
	case len(data) > MaxEmit:
		return abi.E2BIG, nil
	}
	f.emits++
	if f.Emit == nil {
		return 0, nil
	}
	err := f.Emit(kind, append([]byte(nil), data...))
	switch {
	case err == nil:
		return 0, nil
	case errors.Is(err, context.Canceled):
		return abi.ECANCELED, nil
	}
	return 0, &HostFault{Port: "emit", Err: err}
}

// Budget answers what is left of a budget, or false for one that is not known.
// fuel is what is left of it.
func (f *Frame) Budget(which abi.Budget, fuel uint64) (int64, bool) {
	switch which {
	case abi.BudgetMillis:
		if f.Pure {
			return f.Wall.Milliseconds(), true
		}
		return max(0, time.Until(f.Deadline).Milliseconds()), true
	case abi.BudgetFuel:
		if f.Pure {
			fuel = f.Fuel
		}
		return int64(min(fuel, math.MaxInt64)), true
	case abi.BudgetOutput:
		if f.Pure {
			return int64(f.MaxOutput), true
		}
		return int64(f.MaxOutput - len(f.out)), true
	}
	return 0, false
}

// Text returns at most n bytes of b as valid UTF-8, cut between runes.
func Text(b []byte, n int) string {
	// The look beyond n is short: invalid bytes may become longer, never
	// shorter.
	if len(b) > n {
		b = b[:n]
		for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
			if c := b[len(b)-i]; utf8.RuneStart(c) {
				if !utf8.FullRune(b[len(b)-i:]) {
					b = b[:len(b)-i]
				}
				break
			}
		}
	}
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	for len(s) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
