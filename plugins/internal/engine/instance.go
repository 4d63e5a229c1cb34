package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// Code is a compiled module. It is safe for concurrent use.
type Code struct {
	rt        wazero.Runtime
	compiled  wazero.CompiledModule
	minMemory uint64
}

// MinMemory returns how many bytes of memory each instance has at its start.
func (c *Code) MinMemory() uint64 { return c.minMemory }

// Close frees the code. Every instance must have been closed before.
func (c *Code) Close(ctx context.Context) error {
	if err := c.compiled.Close(ctx); err != nil {
		return fmt.Errorf("engine: close code: %w", err)
	}
	return nil
}

// Instantiate returns a fresh instance that may have up to memoryLimit bytes
// of memory. It runs the module's start section, if there is one, under ctx
// and nothing else; errors are those of Call.
func (c *Code) Instantiate(ctx context.Context, memoryLimit uint64) (_ *Instance, err error) {
	if c.minMemory > memoryLimit {
		return nil, fmt.Errorf("%w: %d bytes at the start, the limit is %d", ErrMemory, c.minMemory, memoryLimit)
	}
	mem := &memory{limit: memoryLimit}
	alloc := experimental.MemoryAllocatorFunc(func(uint64, uint64) experimental.LinearMemory { return mem })
	defer func() {
		if p := recover(); p != nil {
			err = &HostPanic{Value: p}
		}
	}()
	// No name, or two instances could not exist at once. No start functions:
	// the caller decides what is called when.
	cfg := wazero.NewModuleConfig().WithName("").WithStartFunctions()
	mod, err := c.rt.InstantiateModule(experimental.WithMemoryAllocator(ctx, alloc), c.compiled, cfg)
	if err != nil {
		return nil, translate(ctx, err)
	}
	return &Instance{mod: mod, mem: mem, funcs: map[string]api.Function{}}, nil
}

// Instance is one instance of a module. It is not safe for concurrent use.
type Instance struct {
	mod   api.Module
	mem   *memory
	funcs map[string]api.Function // looking one up allocates its stack
}

// ErrNoExport is returned by Call when the module has no such function.
var ErrNoExport = errors.New("engine: no such export")

// Call calls an exported function without parameters. result is its result,
// or 0 if it has none. Errors:
//
//   - ErrStopped, wrapped with the context's error, when ctx ended;
//   - ErrDepth when the guest's call stack was too deep;
//   - *HostPanic when a host function panicked;
//   - *Trap for all else that ends a guest; its Cause is what Abort was given,
//     or names the instruction's fault.
//
// After an error the instance must be closed: its memory may be half-written.
func (i *Instance) Call(ctx context.Context, name string) (result int32, err error) {
	fn, ok := i.funcs[name]
	if !ok {
		fn = i.mod.ExportedFunction(name)
		if fn == nil {
			return 0, fmt.Errorf("%w: %s", ErrNoExport, name)
		}
		i.funcs[name] = fn
	}
	var stack [1]uint64
	if err := fn.CallWithStack(ctx, stack[:]); err != nil {
		return 0, translate(ctx, err)
	}
	return api.DecodeI32(stack[0]), nil
}

// Alive reports whether the instance can be called again. It cannot once a
// context ended during a call, even if the call returned without an error.
func (i *Instance) Alive() bool { return !i.mod.IsClosed() }

// MemorySize returns the size of the memory in bytes.
func (i *Instance) MemorySize() uint64 { return uint64(len(i.mem.buf)) }

// GrowRefused reports whether the guest was refused memory since the last
// SetMemoryLimit.
func (i *Instance) GrowRefused() bool { return i.mem.refused }

// SetMemoryLimit bounds the memory from now on and forgets what was refused.
// Memory that the guest has already stays.
func (i *Instance) SetMemoryLimit(bytes uint64) {
	i.mem.limit, i.mem.refused = bytes, false
}

// Close frees the instance. It must not be in a call. There is nothing of the
// system in an instance, so closing one cannot fail.
func (i *Instance) Close(ctx context.Context) { _ = i.mod.Close(ctx) }
