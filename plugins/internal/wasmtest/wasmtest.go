// Package wasmtest builds small Wasm modules, broken ones included, for tests:
// sections, functions and raw opcodes. It checks nothing, so that what it
// builds may be invalid, and no program imports it.
package wasmtest

import (
	"encoding/binary"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// Sig returns a signature from one letter a type: i for i32, l for i64, f for
// f32, d for f64.
func Sig(params, results string) wasmbin.Signature {
	return wasmbin.Signature{Params: types(params), Results: types(results)}
}

func types(letters string) (out []wasmbin.ValType) {
	for _, c := range letters {
		switch c {
		case 'i':
			out = append(out, wasmbin.I32)
		case 'l':
			out = append(out, wasmbin.I64)
		case 'f':
			out = append(out, wasmbin.F32)
		case 'd':
			out = append(out, wasmbin.F64)
		}
	}
	return out
}

// Module is a module under construction. The zero value is empty.
type Module struct {
	types    [][]byte
	imports  [][]byte
	funcs    [][]byte // type indices
	code     [][]byte
	tables   [][]byte
	memories [][]byte
	globals  [][]byte
	exports  [][]byte
	elems    [][]byte
	data     [][]byte
	counted  bool
	start    []byte
	customs  []byte
	imported uint32
}

// Import adds an imported function and returns its index. All imports come
// before the first Func.
func (m *Module) Import(module, name string, sig wasmbin.Signature) uint32 {
	m.ImportRaw(module, name, append([]byte{0}, u32(m.typeIndex(sig))...))
	m.imported++
	return m.imported - 1
}

// ImportRaw adds an import with a description of any kind.
func (m *Module) ImportRaw(module, name string, desc []byte) {
	m.imports = append(m.imports, cat(str(module), str(name), desc))
}

// Func adds a function with one i32 and one i64 local after its parameters and
// returns its index. Its end is added.
func (m *Module) Func(sig wasmbin.Signature, body ...[]byte) uint32 {
	return m.FuncRaw(m.Type(sig), cat([]byte{2, 1, byte(wasmbin.I32), 1, byte(wasmbin.I64)}, cat(body...), End))
}

// FuncRaw adds a function of the type with index t, and returns its index. The
// code has its locals and its end.
func (m *Module) FuncRaw(t uint32, code []byte) uint32 {
	m.funcs = append(m.funcs, u32(t))
	m.code = append(m.code, cat(u32(uint32(len(code))), code))
	return m.imported + uint32(len(m.funcs)) - 1
}

// Type adds a function type unless it is there, and returns its index.
func (m *Module) Type(sig wasmbin.Signature) uint32 { return m.typeIndex(sig) }

// NextFunc returns the index that the next Func will have, for a function that
// calls itself.
func (m *Module) NextFunc() uint32 { return m.imported + uint32(len(m.funcs)) }

// Export exports the function with index f.
func (m *Module) Export(name string, f uint32) *Module { return m.ExportRaw(name, 0, f) }

// ExportRaw exports anything, by kind and index.
func (m *Module) ExportRaw(name string, kind byte, index uint32) *Module {
	m.exports = append(m.exports, cat(str(name), []byte{kind}, u32(index)))
	return m
}

// Memory adds a memory of min pages and no maximum, and exports it as
// "memory".
func (m *Module) Memory(min uint32) *Module {
	return m.MemoryRaw(cat([]byte{0}, u32(min))).ExportRaw("memory", 2, 0)
}

// MemoryRaw adds a memory with any limits and does not export it.
func (m *Module) MemoryRaw(limits []byte) *Module {
	m.memories = append(m.memories, limits)
	return m
}

// Table adds a table of functions with min elements.
func (m *Module) Table(min uint32) *Module {
	return m.TableRaw(cat([]byte{0x70, 0}, u32(min)))
}

// TableRaw adds a table of any kind.
func (m *Module) TableRaw(table []byte) *Module {
	m.tables = append(m.tables, table)
	return m
}

// Global adds a mutable i32 and returns its index.
func (m *Module) Global(v int32) uint32 {
	return m.GlobalRaw(cat([]byte{byte(wasmbin.I32), 1}, I32(v), []byte{0x0b}))
}

// GlobalRaw adds a global of any kind and returns its index.
func (m *Module) GlobalRaw(global []byte) uint32 {
	m.globals = append(m.globals, global)
	return uint32(len(m.globals)) - 1
}

// Elem adds an element segment of any kind.
func (m *Module) Elem(segment []byte) *Module {
	m.elems = append(m.elems, segment)
	return m
}

// DataRaw adds a data segment of any kind.
func (m *Module) DataRaw(segment []byte) *Module {
	m.data = append(m.data, segment)
	return m
}

// DataCount adds a data count section with the right count.
func (m *Module) DataCount() *Module {
	m.counted = true
	return m
}

// Data puts b into the memory at off.
func (m *Module) Data(off int32, b []byte) *Module {
	m.data = append(m.data, cat([]byte{0}, I32(off), []byte{0x0b}, u32(uint32(len(b))), b))
	return m
}

// Elements puts functions into table 0, from its start.
func (m *Module) Elements(fs ...uint32) *Module {
	seg := cat([]byte{0}, I32(0), []byte{0x0b}, u32(uint32(len(fs))))
	for _, f := range fs {
		seg = cat(seg, u32(f))
	}
	m.elems = append(m.elems, seg)
	return m
}

// Start makes f the start function.
func (m *Module) Start(f uint32) *Module {
	m.start = u32(f)
	return m
}

// Custom adds a custom section at the end.
func (m *Module) Custom(name string, data []byte) *Module {
	m.customs = append(m.customs, Section(0, cat(str(name), data))...)
	return m
}

// Bytes returns the binary.
func (m *Module) Bytes() []byte {
	out := Header()
	vec := func(id byte, items [][]byte) {
		if len(items) > 0 {
			out = append(out, Section(id, cat(u32(uint32(len(items))), cat(items...)))...)
		}
	}
	vec(1, m.types)
	vec(2, m.imports)
	vec(3, m.funcs)
	vec(4, m.tables)
	vec(5, m.memories)
	vec(6, m.globals)
	vec(7, m.exports)
	if m.start != nil {
		out = append(out, Section(8, m.start)...)
	}
	vec(9, m.elems)
	if m.counted {
		out = append(out, Section(12, u32(uint32(len(m.data))))...)
	}
	vec(10, m.code)
	vec(11, m.data)
	return append(out, m.customs...)
}

// Header returns the magic and version of a core module.
func Header() []byte { return []byte("\x00asm\x01\x00\x00\x00") }

// Section returns a section.
func Section(id byte, body []byte) []byte {
	return cat([]byte{id}, u32(uint32(len(body))), body)
}

func (m *Module) typeIndex(sig wasmbin.Signature) uint32 {
	list := func(types []wasmbin.ValType) []byte {
		out := u32(uint32(len(types)))
		for _, t := range types {
			out = append(out, byte(t))
		}
		return out
	}
	t := cat([]byte{0x60}, list(sig.Params), list(sig.Results))
	for i, have := range m.types {
		if string(have) == string(t) {
			return uint32(i)
		}
	}
	m.types = append(m.types, t)
	return uint32(len(m.types)) - 1
}

func u32(v uint32) []byte { return binary.AppendUvarint(nil, uint64(v)) }
func str(s string) []byte { return cat(u32(uint32(len(s))), []byte(s)) }
func cat(b ...[]byte) []byte {
	var out []byte
	for _, p := range b {
		out = append(out, p...)
	}
	return out
}
