package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// ErrStopped is wrapped, with context.Canceled or context.DeadlineExceeded,
// when a context or a deadline ended a call.
var ErrStopped = errors.New("engine: stopped")

// ErrFuel is wrapped when a call used more fuel than it had.
var ErrFuel = errors.New("engine: out of fuel")

// ErrDepth is wrapped when a guest's call stack was too deep.
var ErrDepth = errors.New("engine: call stack too deep")

// ErrMemory is wrapped when a module needs more memory at its start than it
// may have.
var ErrMemory = errors.New("engine: too much memory")

// ErrNoExport is wrapped by Call when the module has no such function.
var ErrNoExport = errors.New("engine: no such export")

// errInUse is a mistake of the caller: an instance is for one at a time.
var errInUse = errors.New("engine: instance is in a call, or closed")

// Trap says why a guest's call ended.
type Trap struct {
	Cause error
	// Trace holds the functions that the guest was in, innermost first, one a
	// line. The names in it are the guest's.
	Trace string
}

// Error returns the cause and the trace.
func (t *Trap) Error() string {
	if t.Trace == "" {
		return t.Cause.Error()
	}
	return t.Cause.Error() + "\n" + t.Trace
}

// Unwrap returns the cause.
func (t *Trap) Unwrap() error { return t.Cause }

// Fault names the instruction's fault that ended the guest; it is "" when
// another thing did. Unlike all else of t it never holds a word of the guest's.
func (t *Trap) Fault() string {
	if errors.Is(t.Cause, ErrDepth) {
		return ErrDepth.Error()
	}
	var f fault
	if errors.As(t.Cause, &f) {
		return string(f)
	}
	return ""
}

// fault is what an instruction did wrong, in the words of wazero.
type fault string

func (f fault) Error() string { return string(f) }

// outOfBounds is the fault of an access outside of the memory.
const outOfBounds fault = "out of bounds memory access"

// faults are all that an instruction can do wrong. After each of them wazero's
// instance is sound: the guest's code just did not go on.
var faults = map[fault]bool{
	"unreachable": true, outOfBounds: true, "invalid table access": true,
	"indirect call type mismatch": true, "integer divide by zero": true, "integer overflow": true,
	"invalid conversion to integer": true, "null reference": true,
}

// overflow is wazero's word for a stack that is larger than any we allow.
const overflow = "stack overflow"

// HostPanic is a panic of a host function or of the engine during a call.
type HostPanic struct{ Value any }

// Error returns the text of the panic's value, which may hold details of the
// host.
func (p *HostPanic) Error() string { return fmt.Sprintf("engine: host panic: %v", p.Value) }

// stopped is why a call ended that err, a context's error, ended.
func stopped(err error) error { return fmt.Errorf("%w: %w", ErrStopped, err) }

// Stopped is what a host function that waits passes to Abort when ctx ended.
func Stopped(ctx context.Context) error { return stopped(ctx.Err()) }

// translate turns an error of wazero into one of this package. sound is false
// when it is none of those after which an instance is known to be as good as
// before.
func translate(err error) (_ error, sound bool) {
	var hp *HostPanic
	if errors.As(err, &hp) {
		return hp, true
	}
	text, trace := splitTrace(err.Error())
	var a *abort
	if errors.As(err, &a) {
		if errors.Is(a.cause, ErrStopped) {
			return a.cause, true
		}
		return &Trap{Cause: a.cause, Trace: trace}, true
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		// Guests cannot exit, and nothing closes an instance in a call.
		return &HostPanic{Value: err}, false
	}
	text = strings.TrimPrefix(text, "wasm error: ")
	if f := fault(text); faults[f] {
		return &Trap{Cause: f, Trace: trace}, true
	}
	if text == overflow {
		return &Trap{Cause: ErrDepth, Trace: trace}, true
	}
	return &HostPanic{Value: text}, false
}

// splitTrace cuts wazero's text into message and stack trace.
func splitTrace(text string) (message, trace string) {
	message, trace, _ = strings.Cut(text, "\nwasm stack trace:\n\t")
	var lines []string
	for line := range strings.SplitSeq(trace, "\n\t") {
		switch {
		case strings.HasPrefix(line, rewrite.Prefix): // not the guest's doing
		case strings.HasPrefix(line, "..."):
			lines = append(lines, line)
		default: // instances have no name before the dot
			lines = append(lines, strings.TrimPrefix(line, "."))
		}
	}
	return message, strings.Join(lines, "\n")
}
