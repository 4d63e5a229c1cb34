package engine

import (
	"context"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// HostCallFuel is what each call of a host function costs, apart from what the
// function itself spends: about what the way to the host and back takes.
const HostCallFuel = 256

// HostFunc is a function that guests may import.
type HostFunc struct {
	Name string
	Sig  wasmbin.Signature
	// SeesCancel lets Fn run after the call's context was canceled, so that
	// it can tell the guest. All others are not entered then.
	SeesCancel bool
	// Fn gets its arguments in stack and leaves its result in stack[0]. It
	// ends the guest's call with Abort; any other panic is a fault of the
	// host, contained in the call. What it does for a number that the guest
	// chose, it pays for with Spend before it does it.
	Fn func(c *Caller, stack []uint64)
}

// HostModule is a module of host functions, linked by its name.
type HostModule struct {
	Name  string
	Funcs []HostFunc
}

// Abort ends the guest's call with cause. Only host functions may call it; it
// does not return.
func Abort(cause error) { panic(&abort{cause}) }

type abort struct{ cause error }

func (a *abort) Error() string { return a.cause.Error() }
func (a *abort) Unwrap() error { return a.cause }

// hostFunc wraps f: it is not entered after the call's time is over, and no
// panic but that of Abort leaves it as it was.
func hostFunc(f HostFunc) api.GoModuleFunc {
	return func(ctx context.Context, _ api.Module, stack []uint64) {
		defer contain()
		c := ctx.(*guestContext).caller // Instance.Call passes nothing else
		c.seesCancel = f.SeesCancel
		c.debit(HostCallFuel)
		c.check()
		f.Fn(c, stack)
		c.seesCancel = false
	}
}

// contain turns a panic of the host's own making into a *HostPanic.
func contain() {
	switch p := recover().(type) {
	case nil:
	case *abort:
		panic(p)
	default:
		panic(&HostPanic{Value: p})
	}
}
