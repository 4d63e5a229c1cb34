package wasmgen

import "fmt"

// steps is the budget of a call of an export.
const steps = 100

// bytes writes the module. Code comes first, for it may add types.
func (m *module) bytes() []byte {
	var code []byte
	for i := range m.funcs {
		code = appendBytes(code, m.makeBody(len(m.imports)+i))
	}
	wrappers, types := m.makeWrappers()
	code = append(code, wrappers...)
	count := len(m.funcs) + len(types)

	out := []byte("\x00asm\x01\x00\x00\x00")
	out = m.custom(out)
	out = appendVector(out, 1, len(m.types), m.typeSection())
	out = appendVector(out, 2, len(m.imports), m.importSection())
	out = m.custom(out)
	funcs := []byte(nil)
	for _, t := range append(append([]int{}, m.funcs...), types...) {
		funcs = appendU32(funcs, t)
	}
	out = appendVector(out, 3, count, funcs)
	out = m.tableAndMemory(out)
	globals := len(m.globals)
	if m.counted {
		globals++
	}
	out = appendVector(out, 6, globals, m.globalSection())
	exports, n := m.exportSection()
	out = appendVector(out, 7, n, exports)
	if start, ok := m.start(); ok {
		out = appendSection(out, 8, appendU32(nil, start))
	}
	out = appendVector(out, 9, len(m.elems), m.elem)
	out = appendSection(out, 12, appendU32(nil, len(m.datas)))
	out = appendVector(out, 10, count, code)
	out = appendVector(out, 11, len(m.datas), m.data)
	return m.names(m.custom(out))
}

func (m *module) typeSection() (out []byte) {
	for _, t := range m.types {
		out = appendBytes(append(out, 0x60), t.params)
		out = appendBytes(out, t.results)
	}
	return out
}

func (m *module) importSection() (out []byte) {
	for _, i := range m.imports {
		out = appendName(appendName(out, ImportModule), Imports[i].Name)
		out = appendU32(append(out, 0), 2+i)
	}
	return out
}

func (m *module) tableAndMemory(out []byte) []byte {
	var tables []byte
	for _, t := range m.tables {
		tables = appendLimits(append(tables, t.elem), t.min, t.max)
	}
	out = appendVector(out, 4, len(m.tables), tables)
	if m.memory.min > 0 {
		out = appendVector(out, 5, 1, appendLimits(nil, m.memory.min, m.memory.max))
	}
	return out
}

func (m *module) globalSection() (out []byte) {
	for i, g := range m.globals {
		mutable := byte(0)
		if g.mutable {
			mutable = 1
		}
		out = append(out, g.typ, mutable)
		switch {
		case i == 0:
			out = appendConst(out, I32, steps)
		case g.typ == FuncRef && m.one(2):
			out = appendU32(append(out, 0xd2), m.n(m.functions()))
		default:
			out = appendConst(out, g.typ, m.bits())
		}
		out = append(out, 0x0b)
	}
	if m.counted {
		out = append(out, I64, 1, 0x42, 0, 0x0b)
	}
	return out
}

func (m *module) exportSection() (out []byte, n int) {
	export := func(kind byte, index int, format string, args ...any) {
		out = appendU32(append(appendName(out, fmt.Sprintf(format, args...)), kind), index)
		n++
	}
	for i := range m.funcs {
		export(0, m.functions()+i, "f%d", i)
	}
	for i := range m.tables {
		export(0, m.functions()+len(m.funcs)+i, "t%d", i)
	}
	for i := range m.globals {
		export(3, i, "g%d", i)
	}
	if m.memory.min > 0 {
		export(2, 0, "memory")
	}
	if m.counted {
		export(3, len(m.globals), "count")
	}
	for i, f := range m.imports {
		if m.one(6) {
			export(0, i, "import %s", Imports[f].Name)
		}
	}
	return out, n
}

// start returns a function to start with, if there is one.
func (m *module) start() (f int, ok bool) {
	if !m.one(4) {
		return 0, false
	}
	for f := range m.functions() {
		if s := m.signature(f); len(s.params)+len(s.results) == 0 {
			return f, true
		}
	}
	return 0, false
}

// custom adds a custom section now and then.
func (m *module) custom(out []byte) []byte {
	if !m.one(6) {
		return out
	}
	return appendSection(out, 0, append(appendName(nil, "note"), m.byte(), m.byte()))
}

// names adds names of the module and some of its functions now and then.
func (m *module) names(out []byte) []byte {
	if !m.one(3) {
		return out
	}
	body := appendSection(appendName(nil, "name"), 0, appendName(nil, "generated"))
	var list []byte
	count := 0
	for f := range m.functions() {
		if m.one(2) {
			list = appendName(appendU32(list, f), fmt.Sprintf("function %d", f))
			count++
		}
	}
	body = appendSection(body, 1, append(appendU32(nil, count), list...))
	return appendSection(out, 0, body)
}
