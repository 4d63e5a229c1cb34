package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"
)

// ErrStopped is wrapped, with the context's error, when a context ended a call.
var ErrStopped = errors.New("engine: stopped")

// ErrDepth is wrapped when a guest's call stack was too deep.
var ErrDepth = errors.New("engine: call stack too deep")

// ErrMemory is wrapped when a module needs more memory at its start than it
// may have.
var ErrMemory = errors.New("engine: too much memory")

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
	text := t.Cause.Error()
	for _, f := range faults {
		// What stands before it may be the name of a start function.
		if strings.HasSuffix(text, f) {
			return f
		}
	}
	return ""
}

// faults are the ends of wazero's texts for what an instruction can do wrong.
var faults = []string{
	"unreachable", "out of bounds memory access", "invalid table access", "indirect call type mismatch",
	"integer divide by zero", "integer overflow", "invalid conversion to integer", "null reference",
	"uncaught exception", "unaligned atomic", "expected shared memory", "too many waiters", "stack overflow",
}

// HostPanic is a panic of a host function or of the engine during a call.
type HostPanic struct{ Value any }

// Error returns the text of the panic's value, which may hold details of the
// host.
func (p *HostPanic) Error() string { return fmt.Sprintf("engine: host panic: %v", p.Value) }

// Abort ends the guest's call with cause. Only host functions may call it; it
// does not return.
func Abort(cause error) { panic(&abort{cause}) }

type abort struct{ cause error }

func (a *abort) Error() string { return a.cause.Error() }
func (a *abort) Unwrap() error { return a.cause }

// hostFunc wraps f: it is not entered after the context ended, and no panic
// but that of Abort leaves it as it was.
func hostFunc(f HostFunc) api.GoModuleFunc {
	return func(ctx context.Context, mod api.Module, stack []uint64) {
		if err := ctx.Err(); err != nil && (!f.SeesCancel || !errors.Is(err, context.Canceled)) {
			Abort(stopped(ctx))
		}
		defer func() {
			switch p := recover().(type) {
			case nil:
			case *abort:
				panic(p)
			default:
				panic(&HostPanic{Value: p})
			}
		}()
		f.Fn(ctx, Memory{mod.Memory()}, stack)
	}
}

func stopped(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrStopped, ctx.Err())
}

// Stopped is what a host function that waits passes to Abort when ctx ended.
func Stopped(ctx context.Context) error { return stopped(ctx) }

// translate turns an error of wazero into one of this package.
func translate(ctx context.Context, err error) error {
	var exit *sys.ExitError
	if errors.As(err, &exit) {
		// Guests cannot exit: their proc_exit is ours. So the context did.
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		return fmt.Errorf("%w: instance is closed", ErrStopped)
	}
	var hp *HostPanic
	if errors.As(err, &hp) {
		return hp
	}
	var re runtime.Error
	if errors.As(err, &re) {
		return &HostPanic{Value: re}
	}
	var a *abort
	if errors.As(err, &a) {
		if errors.Is(a.cause, ErrStopped) {
			return a.cause
		}
		_, trace := splitTrace(err.Error())
		return &Trap{Cause: a.cause, Trace: trace}
	}
	text, trace := splitTrace(err.Error())
	text = strings.TrimPrefix(text, "wasm error: ")
	if text == "stack overflow" {
		return &Trap{Cause: ErrDepth, Trace: trace}
	}
	return &Trap{Cause: errors.New(text), Trace: trace}
}

// splitTrace cuts wazero's text into message and stack trace.
func splitTrace(text string) (message, trace string) {
	message, trace, _ = strings.Cut(text, "\nwasm stack trace:\n")
	// Instances have no name, so that each line begins with a tab and a dot.
	return message, strings.ReplaceAll(strings.TrimPrefix(trace, "\t."), "\n\t.", "\n")
}
