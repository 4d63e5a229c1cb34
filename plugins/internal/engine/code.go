package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/tetratelabs/wazero"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// wasmPage is the unit of a memory's size, in bytes.
const wasmPage = 64 << 10

// maxPages is the largest memory that a guest gets, in pages: the one above is
// the headroom that putting an instance back needs.
const maxPages = 1<<16 - 1

// Code is a compiled module. It is safe for concurrent use.
type Code struct {
	engine   *Engine
	module   *rewrite.Module
	compiled wazero.CompiledModule
}

// MinMemory returns how many bytes of memory each instance has at its start.
func (c *Code) MinMemory() uint64 { return uint64(c.module.MemoryMin) * wasmPage }

// maxMemory returns how many bytes of memory an instance can have.
func (c *Code) maxMemory() uint64 { return uint64(min(c.module.MemoryMax, maxPages)) * wasmPage }

// Unrestorable says why there can be no image of the module's instances; it is
// nil when there can.
func (c *Code) Unrestorable() []string { return slices.Clone(c.module.Unrestorable) }

// Close frees the code, once no instance of it is left.
func (c *Code) Close(ctx context.Context) error {
	if err := c.compiled.Close(ctx); err != nil {
		return fmt.Errorf("engine: close code: %w", err)
	}
	return nil
}

// Instantiate returns a fresh instance that may have up to memoryLimit bytes
// of memory. Its data segments are in place; its start function, the export
// rewrite.StartExport, is the caller's to call. Errors wrap ErrMemory or are a
// *Trap when the module's segments do not fit; the rest is the host's.
func (c *Code) Instantiate(ctx context.Context, memoryLimit uint64) (*Instance, error) {
	mem, err := c.newMemory(memoryLimit, c.MinMemory(), nil)
	if err != nil {
		return nil, err
	}
	i, err := c.instantiate(ctx, mem, nil)
	if err != nil {
		return nil, err
	}
	for _, s := range c.module.Data {
		if uint64(s.Offset)+uint64(len(s.Bytes)) > uint64(len(mem.bytes)) {
			i.Close(ctx)
			return nil, &Trap{Cause: outOfBounds}
		}
		copy(mem.bytes[s.Offset:], s.Bytes)
	}
	return i, nil
}
