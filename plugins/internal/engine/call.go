package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// The stack of a guest, in bytes as the rewriter estimates them. A call may go
// past the soft limit once; then what it made wazero allocate is let go of.
const (
	softStack = 256 << 10
	hardStack = 8 << 20
)

// Run says what one call may use.
type Run struct {
	Fuel     uint64    // most that the call may use
	Deadline time.Time // zero: none but that of the context
	// Refill is asked after each slice of fuel with what was used so far; an
	// error ends the call with it as cause. nil asks nobody.
	Refill func(used uint64) error
	Data   any // for host functions
}

// Call calls an exported function without parameters. result is its result,
// or 0 if it has none. Errors:
//
//   - ErrStopped, wrapped with context.Canceled or context.DeadlineExceeded,
//     when ctx or the deadline ended;
//   - *HostPanic when a host function panicked;
//   - *Trap for all else that ends a guest; its Cause wraps ErrFuel or ErrDepth,
//     is what Abort or Refill gave, or names the instruction's fault;
//   - ErrNoExport.
//
// After an error the memory may be half-written: restore the instance or close
// it. A host function must not call its own instance.
func (i *Instance) Call(ctx context.Context, name string, r Run) (result int32, err error) {
	if !i.begin() {
		return 0, errInUse
	}
	defer i.end()
	i.used = 0
	fn, ok := i.funcs[name]
	if !ok {
		if fn = i.lookUp(name); fn == nil {
			return 0, fmt.Errorf("%w: %s", ErrNoExport, name)
		}
	}
	c := &i.caller
	c.begin(ctx, r)
	if err := c.over(); err != nil {
		c.end()
		return 0, err
	}
	i.stack.Set(0)
	i.stackLimit.Set(softStack)
	i.deep = false
	i.result[0] = 0
	err = fn.CallWithStack(&c.guest, i.result[:])
	used := c.end()
	i.used = uint64(min(used, c.total))
	if err != nil {
		return 0, i.ended(err)
	}
	if i.deep {
		i.forget()
	}
	if used > c.total {
		return 0, &Trap{Cause: ErrFuel} // by less than there is between two checks
	}
	return api.DecodeI32(i.result[0]), nil
}

// ended is why a call ended, by wazero's error. It finds out whether the
// instance is still good.
func (i *Instance) ended(err error) error {
	err, sound := translate(err)
	if !sound || i.mod.IsClosed() {
		i.broken = true
	}
	// A deep stack would stay allocated for as long as its function is kept.
	i.forget()
	return err
}

// lookUp returns an export that Call can call, or nil.
func (i *Instance) lookUp(name string) api.Function {
	fn := i.mod.ExportedFunction(name)
	if fn == nil {
		return nil
	}
	d := fn.Definition()
	if len(d.ParamTypes()) > 0 || len(d.ResultTypes()) > 1 ||
		len(d.ResultTypes()) == 1 && d.ResultTypes()[0] != api.ValueTypeI32 {
		return nil
	}
	i.funcs[name] = fn
	return fn
}

// forget lets go of the functions, whose stacks have grown.
func (i *Instance) forget() { clear(i.funcs) }

// deeper is for a guest that has used its stack up.
func (i *Instance) deeper() {
	if i.deep {
		Abort(ErrDepth)
	}
	i.deep = true
	i.stackLimit.Set(hardStack)
}
