// Package rewrite turns a guest's binary into one that a host can meter, stop
// and restore: it validates the original in full, counts fuel per basic block,
// bounds the stack, exports the mutable globals, takes the data and the start
// function out for the host to apply, and refuses what it does not know. Bytes
// in, bytes out: it compiles nothing, runs nothing and imports no engine.
package rewrite

import (
	"errors"
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// Version is raised whenever the same input gives other bytes or other fuel.
const Version = 1

// Prefix begins every name that a rewritten module has more than its original;
// a guest with a name that begins so is refused.
const Prefix = "casemate:"

// Names in a rewritten module.
const (
	// HostModule and HostYield name the added import: (reason i32) → (). Its
	// index is the number of functions that the guest imports.
	HostModule = Prefix + "host"
	HostYield  = "yield"
	// FuelGlobal is a mutable i64 that counts down, one for an instruction. Below
	// zero the guest calls yield(ReasonFuel) at the next check.
	FuelGlobal = Prefix + "fuel"
	// StackGlobal is a mutable i32: the bytes of stack in use by the callers of
	// the next function. The host sets 0 before a call from outside.
	StackGlobal = Prefix + "stack"
	// StackLimit is a mutable i32: a function that would use more stack calls
	// yield(ReasonStack) when it is entered.
	StackLimit = Prefix + "stack_limit"
	// StartExport is the function of the guest's start section, () → ().
	StartExport = Prefix + "start"
	// GlobalPrefix and the index of a mutable global name its export.
	GlobalPrefix = Prefix + "g"
)

// The reasons why a guest calls yield.
const (
	ReasonFuel  = 0
	ReasonStack = 1
)

// ErrMalformed is wrapped when the bytes are not the binary format.
var ErrMalformed = wasmbin.ErrMalformed

// ErrInvalid is wrapped when a module breaks the rules of validation.
var ErrInvalid = errors.New("invalid WebAssembly module")

// ErrUnsupported is wrapped when a module uses a feature that is refused.
var ErrUnsupported = errors.New("unsupported WebAssembly feature")

// ErrTooLarge is wrapped when a module is over one of the structural limits.
var ErrTooLarge = errors.New("WebAssembly module too large")

// Segment is bytes that the host writes into the memory.
type Segment struct {
	Offset uint32
	Bytes  []byte // of the original binary
}

// Module is a rewritten module.
type Module struct {
	// Wasm is the rewritten binary.
	Wasm []byte
	// Data are the active data segments, in order. The host writes them before
	// the start function runs; one that ends outside of the memory is a trap. It
	// is empty when an offset is not a constant: the segments are then left in
	// Wasm.
	Data []Segment
	// Globals are the export names of the guest's own mutable globals of number
	// types, in index order.
	Globals []string
	// Start says that StartExport is there.
	Start bool
	// Unrestorable says why memory and Globals are not all of an instance's
	// state; nil when they are.
	Unrestorable []string
	// MemoryMin and MemoryMax are the pages of 64 KiB that the original declares;
	// MemoryMax is 65,536 when it declares none. In Wasm a declared maximum is one
	// page higher, up to 65,536.
	MemoryMin, MemoryMax uint32
	// Functions is the number of functions with code in the original.
	Functions int
}

// Rewrite validates wasm and rewrites it. The same input gives the same output.
// Errors wrap ErrMalformed, ErrInvalid, ErrUnsupported, ErrTooLarge,
// wasmbin.ErrNotWasm or wasmbin.ErrComponent; they name what is wrong and the
// byte offset.
func Rewrite(wasm []byte) (*Module, error) {
	if len(wasm) > maxBinary {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooLarge, len(wasm), maxBinary)
	}
	m := &module{}
	if err := m.decode(wasm); err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	out, err := m.encode()
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	return out, nil
}
