package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// Instance is one instance of a module. It is for one goroutine at a time, and
// must be closed.
type Instance struct {
	code       *Code
	mod        api.Module
	mem        *memory
	image      *Image // nil: made from the code
	globals    []api.MutableGlobal
	stack      api.MutableGlobal
	stackLimit api.MutableGlobal
	funcs      map[string]api.Function // looking one up allocates its stack
	caller     Caller
	slice      int64
	result     [1]uint64
	used       uint64 // fuel of the last call
	deep       bool   // the call went past the soft limit of the stack
	broken     bool   // wazero's instance may be half of something

	state atomic.Uint32
}

// The bits of Instance.state.
const (
	running = 1 << iota
	closing
)

// instantiate returns an instance of c on mem. What it is given belongs to the
// instance, also when it fails.
func (c *Code) instantiate(ctx context.Context, mem *memory, image *Image) (_ *Instance, err error) {
	i := &Instance{code: c, mem: mem, image: image, funcs: map[string]api.Function{}, slice: c.engine.slice}
	defer func() {
		if p := recover(); p != nil {
			err = &HostPanic{Value: p}
		}
		if err != nil {
			i.free(context.WithoutCancel(ctx))
		}
	}()
	ctx = experimental.WithMemoryAllocator(ctx, mem)
	// No name, or two instances could not exist at once. No start functions:
	// the caller decides what is called when.
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	if i.mod, err = c.engine.rt.InstantiateModule(ctx, c.compiled, cfg); err != nil {
		err, _ = translate(err)
		return nil, err
	}
	if err := i.bind(c.module.Globals); err != nil {
		return nil, err
	}
	return i, nil
}

// bind looks up the globals that the rewriter exported.
func (i *Instance) bind(names []string) error {
	find := func(name string) (api.MutableGlobal, error) {
		g, ok := i.mod.ExportedGlobal(name).(api.MutableGlobal)
		if !ok {
			return nil, fmt.Errorf("engine: module has no mutable global %q: rewrite it first", name)
		}
		return g, nil
	}
	for _, name := range names {
		g, err := find(name)
		if err != nil {
			return err
		}
		i.globals = append(i.globals, g)
	}
	var errs [3]error
	i.caller.in = i
	i.caller.guest.caller = &i.caller
	i.caller.fuel, errs[0] = find(rewrite.FuelGlobal)
	i.stack, errs[1] = find(rewrite.StackGlobal)
	i.stackLimit, errs[2] = find(rewrite.StackLimit)
	return errors.Join(errs[:]...)
}

// HasExport reports whether Call finds a function of that name.
func (i *Instance) HasExport(name string) bool {
	_, ok := i.funcs[name]
	return ok || i.lookUp(name) != nil
}

// FuelUsed returns what the last Call used. It is exact: the same call on the
// same state uses the same, on every host, however its time was sliced.
func (i *Instance) FuelUsed() uint64 { return i.used }

// MemorySize returns the size of the memory in bytes.
func (i *Instance) MemorySize() uint64 { return uint64(len(i.mem.bytes)) }

// GrowRefused reports whether the guest was refused memory since the last
// SetMemoryLimit.
func (i *Instance) GrowRefused() bool { return i.mem.refused }

// SetMemoryLimit bounds the memory from now on and forgets what was refused.
// Memory that the guest has already stays.
func (i *Instance) SetMemoryLimit(bytes uint64) {
	i.mem.limit, i.mem.refused = bytes, false
}

// Restorable reports whether Restore can put the instance back. It cannot when
// the instance has no image, and after an error of wazero's own.
func (i *Instance) Restorable() bool { return i.image != nil && !i.broken }

// Restore puts the instance back to the state of its image: memory, its size,
// and globals. After an error the instance must be closed.
func (i *Instance) Restore() error {
	if !i.begin() {
		return errInUse
	}
	defer i.end()
	if !i.Restorable() {
		return errors.New("engine: instance cannot be restored: close it")
	}
	if err := i.mem.restore(i.mod.Memory(), i.image.bytes); err != nil {
		i.broken = true
		return err
	}
	i.setGlobals()
	return nil
}

func (i *Instance) setGlobals() {
	for n, g := range i.globals {
		g.Set(i.image.globals[n])
	}
}

// What wazero and this package hold for an instance besides its memory, in
// bytes, as measured: the stacks of one or two functions, and an entry for each
// function that a table refers to, which may be all.
const (
	instanceBytes = 20 << 10
	functionBytes = 64
)

// Resident returns about how many bytes of the system's memory an idle
// instance holds.
func (i *Instance) Resident() uint64 {
	return instanceBytes + functionBytes*uint64(i.code.module.Functions) + i.mem.resident()
}

// Close frees the instance, at once or when the call that runs is over.
func (i *Instance) Close(ctx context.Context) {
	for {
		s := i.state.Load()
		if s&closing != 0 {
			return
		}
		if !i.state.CompareAndSwap(s, s|closing) {
			continue
		}
		if s == 0 {
			i.free(ctx)
		}
		return
	}
}

// begin takes the instance for a call; false when it has none to give.
func (i *Instance) begin() bool { return i.state.CompareAndSwap(0, running) }

func (i *Instance) end() {
	if !i.state.CompareAndSwap(running, 0) {
		i.free(context.Background())
	}
}

// free gives everything back; no call runs. Nothing of the system's is in
// wazero's part, so that closing it cannot fail, and the rest has no one to
// tell.
func (i *Instance) free(ctx context.Context) {
	if i.mod != nil {
		_ = i.mod.Close(ctx)
	}
	i.mem.free()
	if i.image != nil {
		_ = i.image.release()
	}
}
