package rewrite

import (
	"math"
	"strconv"
)

// encode writes the rewritten module.
func (m *module) encode() (*Module, error) {
	out := &Module{
		MemoryMax: maxPages, Start: m.start >= 0, Functions: len(m.bodies),
		Unrestorable: m.unrestore, Data: m.activeData(),
	}
	if len(m.mems) > 0 {
		out.MemoryMin = m.mems[0].min
		if m.mems[0].hasMax {
			out.MemoryMax = m.mems[0].max
		}
	}
	e := m.newEmitter()
	w := []byte("\x00asm\x01\x00\x00\x00")
	w = section(w, secType, uint32(len(m.types))+2, m.raw[secType], []byte{0x60, 1, i32, 0, 0x60, 3, i32, i32, i32, 0})
	w = section(w, secImport, m.counts[secImport]+1, m.raw[secImport], m.yieldImport())
	w = section(w, secFunction, uint32(len(m.bodies)+m.helpers()), m.raw[secFunction], m.helperTypes(e.three))
	w = section(w, secTable, uint32(len(m.tables)-m.importedTables), m.raw[secTable])
	w = section(w, secMemory, uint32(len(m.mems)-m.importedMems), m.raw[secMemory])
	w = section(w, secGlobal, uint32(len(m.globals)-m.importedGlobals)+3, m.raw[secGlobal], ownGlobals())
	var count uint32
	var exports []byte
	out.Globals, count, exports = m.newExports(e)
	w = section(w, secExport, count, exports)
	w = section(w, secElement, uint32(len(m.elems)), m.raw[secElement])
	if m.keepsData() && m.dataCount >= 0 {
		w = append(w, secDataCount, byte(len(u32(nil, uint32(m.dataCount)))))
		w = u32(w, uint32(m.dataCount))
	}
	code, err := m.code(e)
	if err != nil {
		return nil, err
	}
	w = section(w, secCode, uint32(len(m.bodies)+m.helpers()), code)
	if m.keepsData() {
		w = section(w, secData, uint32(len(m.data)), m.leftData())
	}
	out.Wasm = m.appendNames(w)
	return out, nil
}

// section appends a section of n entries, and none at all when there are none.
func section(w []byte, id byte, n uint32, parts ...[]byte) []byte {
	if n == 0 {
		return w
	}
	count := u32(nil, n)
	size := len(count)
	for _, p := range parts {
		size += len(p)
	}
	w = append(u32(append(w, id), uint32(size)), count...)
	for _, p := range parts {
		w = append(w, p...)
	}
	return w
}

func (m *module) newEmitter() *emitter {
	first := uint32(len(m.globals))
	return &emitter{
		m: m, fuel: first, stack: first + 1, limit: first + 2,
		three: uint32(len(m.types)) + 1, helpers: uint32(len(m.funcs)) + 1,
	}
}

func (m *module) yieldImport() []byte {
	return u32(append(str(str(nil, HostModule), HostYield), kindFunc), uint32(len(m.types)))
}

// helpers is how many functions are added.
func (m *module) helpers() int {
	if m.usesBulk {
		return 2
	}
	return 0
}

func (m *module) helperTypes(t uint32) []byte {
	if !m.usesBulk {
		return nil
	}
	return u32(u32(nil, t), t)
}

// ownGlobals are the fuel, the stack in use and its limit. With their initial
// values a module runs without a host that sets them.
func ownGlobals() []byte {
	out := append(s64([]byte{i64, 1, 0x42}, math.MaxInt64/2), 0x0b)
	out = append(out, i32, 1, 0x41, 0, 0x0b)
	return append(s64(append(out, i32, 1, 0x41), math.MaxInt32), 0x0b)
}

// newExports returns the names of the guest's globals and all exports.
func (m *module) newExports(e *emitter) (names []string, n uint32, out []byte) {
	add := func(name string, kind byte, index uint32) {
		out = u32(append(str(out, name), kind), index)
		n++
	}
	for _, x := range m.exports {
		if x.kind == kindFunc {
			x.index = m.newFunc(x.index)
		}
		add(x.name, x.kind, x.index)
	}
	add(FuelGlobal, kindGlobal, e.fuel)
	add(StackGlobal, kindGlobal, e.stack)
	add(StackLimit, kindGlobal, e.limit)
	for i, g := range m.globals {
		if i >= m.importedGlobals && g.mutable && g.typ != v128 && !isRef(g.typ) {
			names = append(names, GlobalPrefix+strconv.Itoa(i))
			add(names[len(names)-1], kindGlobal, uint32(i))
		}
	}
	if m.start >= 0 {
		add(StartExport, kindFunc, m.newFunc(uint32(m.start)))
	}
	return names, n, out
}

// code writes all bodies.
func (m *module) code(e *emitter) ([]byte, error) {
	size := 0
	for i := range m.bodies {
		size += len(m.bodies[i].code)
	}
	out := make([]byte, 0, 2*size)
	add := func(body []byte) { out = append(u32(out, uint32(len(body))), body...) }
	for i := range m.bodies {
		add(e.function(&m.bodies[i]))
		if err := atMost("bytes after rewriting", uint64(len(out)), maxOutput, headerLen); err != nil {
			return nil, err
		}
	}
	if m.usesBulk {
		add(e.copyHelper())
		add(e.fillHelper())
	}
	return out, nil
}

// inPlace says whether active segments stay where they are: the offset of one
// is known at instantiation only, and the order counts when they overlap.
func (m *module) inPlace() bool {
	for _, s := range m.data {
		if s.mode == dataActive {
			return true
		}
	}
	return false
}

// keepsData says whether there is a data section.
func (m *module) keepsData() bool { return m.usesData || m.inPlace() }

// activeData are the segments for the host.
func (m *module) activeData() (out []Segment) {
	if m.inPlace() {
		return nil
	}
	for _, s := range m.data {
		if s.mode == dataConst {
			out = append(out, Segment{Offset: s.offset, Bytes: s.bytes})
		}
	}
	return out
}

// leftData are the segments in their places. What the host writes is empty, as
// it is in an instance after that.
func (m *module) leftData() (out []byte) {
	taken := !m.inPlace()
	for _, s := range m.data {
		if taken && s.mode == dataConst {
			out = append(out, 1, 0)
			continue
		}
		out = append(out, s.raw...)
	}
	return out
}
