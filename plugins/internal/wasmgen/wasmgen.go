// Package wasmgen makes valid Wasm modules of any bytes, for tests that compare
// what different programs make of a module: every instruction of version 2,
// bounded loops and recursion in most modules, and no value that depends on who
// computes it. It runs nothing, checks nothing and no program imports it.
package wasmgen

// Value types, as the binary format writes them.
const (
	I32       = 0x7f
	I64       = 0x7e
	F32       = 0x7d
	F64       = 0x7c
	V128      = 0x7b
	FuncRef   = 0x70
	ExternRef = 0x6f
)

// numeric are the types of numbers and vectors.
var numeric = []byte{I32, I64, F32, F64, V128}

// ImportModule is the module that generated modules import Imports from.
const ImportModule = "env"

// Import is a function that a generated module may import.
type Import struct {
	Name            string
	Params, Results []byte
}

// Imports are all of them.
var Imports = []Import{
	{"none", nil, nil},
	{"take", []byte{I32}, nil},
	{"mix", []byte{I32, I64}, []byte{I64}},
	{"floats", []byte{F32, F64}, []byte{F64}},
	{"two", nil, []byte{I32, I64}},
	{"vector", []byte{V128}, []byte{V128}},
	{"trap", []byte{I32}, []byte{I32}},
}

// sig is a function type.
type sig struct{ params, results []byte }

// table is a table of references.
type table struct {
	elem     byte
	min, max uint32 // max 0: none
}

// global is a global variable; its index is that among all.
type global struct {
	typ     byte
	mutable bool
}

// segment is an element or data segment.
type segment struct {
	typ     byte // of elements
	passive bool
	count   int // elements or bytes
}

// module is a module under construction.
type module struct {
	*source
	wild    bool // loops and recursion may have no end
	wide    bool // a function has many locals
	types   []sig
	imports []int // indexes into Imports
	funcs   []int // types of the functions with code
	tables  []table
	memory  struct{ min, max uint32 } // min 0: no memory; max 0: none
	globals []global
	elems   []segment
	datas   []segment
	elem    []byte // encoded segments
	data    []byte
	placed  map[int]place   // functions in tables, by index
	used    map[uint32]bool // opcodes
	counted bool            // code counts itself
}

// Generate returns the module that seed stands for: the same for the same
// bytes. Small changes of seed make small changes of the module where they can.
//
// The module exports its functions as f0, f1, …, each with a budget of steps of
// its own, digests of its tables as t0, t1, …, its globals as g0, g1, … and its
// memory as memory.
func Generate(seed []byte) []byte {
	return newModule(seed).bytes()
}

// Wide reports whether a function of the module of Generate has so many locals
// that more than a dozen values may be moved where ways meet.
func Wide(seed []byte) bool {
	m := newModule(seed)
	m.bytes()
	return m.wide
}

func newModule(seed []byte) *module {
	m := &module{source: newSource(seed), used: map[uint32]bool{}}
	m.wild = m.one(10)
	m.makeTypes()
	m.makeImports()
	m.makeFuncs()
	m.makeGlobals()
	m.makeTables()
	m.makeMemory()
	m.makeElems()
	m.makeDatas()
	return m
}

func (m *module) makeTypes() {
	m.types = []sig{{nil, nil}, {nil, []byte{I64}}}
	for _, i := range Imports {
		m.types = append(m.types, sig{i.Params, i.Results})
	}
	for range 2 + m.n(8) {
		m.types = append(m.types, sig{m.typeList(4), m.typeList(3)})
	}
}

// typeList returns fewer than or as many types as most.
func (m *module) typeList(most int) []byte {
	list := make([]byte, m.n(most+1))
	for i := range list {
		list[i] = m.valueType()
	}
	return list
}

func (m *module) valueType() byte {
	if m.one(16) {
		return m.refType()
	}
	return numeric[m.n(len(numeric))]
}

func (m *module) refType() byte {
	if m.one(2) {
		return FuncRef
	}
	return ExternRef
}

func (m *module) makeImports() {
	for i := range Imports {
		if m.one(2) {
			m.imports = append(m.imports, i)
		}
	}
}

func (m *module) makeFuncs() {
	for range 1 + m.n(6) {
		m.funcs = append(m.funcs, m.n(len(m.types)))
	}
}

// makeGlobals makes the budget of steps first: index 0.
func (m *module) makeGlobals() {
	m.globals = []global{{I32, true}}
	for range m.n(8) {
		m.globals = append(m.globals, global{m.valueType(), !m.one(4)})
	}
}

func (m *module) makeTables() {
	for range m.n(3) {
		t := table{elem: FuncRef, min: uint32(m.n(12))}
		if m.one(4) {
			t.elem = ExternRef
		}
		if m.one(2) {
			t.max = t.min + uint32(1+m.n(20))
		}
		m.tables = append(m.tables, t)
	}
}

func (m *module) makeMemory() {
	if m.one(8) {
		return
	}
	m.memory.min = []uint32{1, 1, 2, 8}[m.n(4)]
	if m.one(2) {
		m.memory.max = m.memory.min + uint32(m.n(4))
	}
}

// functions returns how many functions there are to call: imports and those
// with code, without the exported wrappers.
func (m *module) functions() int { return len(m.imports) + len(m.funcs) }

// signature returns the type of function f.
func (m *module) signature(f int) sig {
	if f < len(m.imports) {
		i := Imports[m.imports[f]]
		return sig{i.Params, i.Results}
	}
	return m.types[m.funcs[f-len(m.imports)]]
}

// typeOf returns the index of the type of function f.
func (m *module) typeOf(f int) int {
	if f < len(m.imports) {
		return 2 + m.imports[f]
	}
	return m.funcs[f-len(m.imports)]
}
