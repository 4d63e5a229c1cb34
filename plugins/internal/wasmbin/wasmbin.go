// Package wasmbin reads from a Wasm binary what a host decides on before it
// compiles anything: imports, exports, signatures and size limits. It
// validates no code and runs none.
package wasmbin

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotWasm is wrapped when a file does not begin like a Wasm binary at all.
var ErrNotWasm = errors.New("not a WebAssembly binary")

// ErrComponent is wrapped when a file is a component: the same magic, another
// layer.
var ErrComponent = errors.New("a WebAssembly component, not a core module")

// ErrMalformed is wrapped when a binary ends early or contradicts itself.
var ErrMalformed = errors.New("malformed WebAssembly binary")

// ValType is a value type by its number in the binary format.
type ValType byte

// The value types that a function of a host may have.
const (
	I32 ValType = 0x7f
	I64 ValType = 0x7e
	F32 ValType = 0x7d
	F64 ValType = 0x7c
)

// String returns the type's name in the text format.
func (t ValType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case 0x7b:
		return "v128"
	case 0x70:
		return "funcref"
	case 0x6f:
		return "externref"
	}
	return fmt.Sprintf("type 0x%02x", byte(t))
}

// Signature is the type of a function.
type Signature struct {
	Params  []ValType
	Results []ValType
}

// String returns s as "(i32, i64) → i32", with "()" for no results.
func (s Signature) String() string {
	return "(" + join(s.Params) + ") → " + results(s.Results)
}

func join(types []ValType) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.String()
	}
	return strings.Join(names, ", ")
}

func results(types []ValType) string {
	if len(types) == 1 {
		return types[0].String()
	}
	return "(" + join(types) + ")"
}

// Kind is what an import or export is, by its number in the binary format.
type Kind byte

// The kinds of imports and exports.
const (
	Func   Kind = 0
	Table  Kind = 1
	Memory Kind = 2
	Global Kind = 3
	Tag    Kind = 4
)

// String returns the kind's name in the text format.
func (k Kind) String() string {
	switch k {
	case Func:
		return "func"
	case Table:
		return "table"
	case Memory:
		return "memory"
	case Global:
		return "global"
	case Tag:
		return "tag"
	}
	return fmt.Sprintf("kind 0x%02x", byte(k))
}

// Import is one import of a module. Sig is set for functions only.
type Import struct {
	Module, Name string
	Kind         Kind
	Sig          Signature
}

// Export is one export of a module. Sig is set for functions only.
type Export struct {
	Name string
	Kind Kind
	Sig  Signature
}

// Limits are the sizes of a memory, in pages of 64 KiB, or of a table, in
// elements.
type Limits struct {
	Min    uint64
	Max    uint64 // meaningless unless HasMax
	HasMax bool
	Shared bool
}

// Module is what a binary declares.
type Module struct {
	Imports  []Import
	Exports  []Export
	Memories []Limits // declared by the module itself, not imported
	Tables   []Limits // declared by the module itself, not imported
	Funcs    int      // with code, imports not counted
	Start    bool     // there is a start section
}

// Export returns the export with the given name.
func (m *Module) Export(name string) (Export, bool) {
	for _, e := range m.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}
