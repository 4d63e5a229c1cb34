package wasmgen

// body is the code of a function under construction. What its methods write
// is balanced: an expression leaves one value, a statement none.
type body struct {
	*module
	out    []byte
	locals []byte  // types, parameters first
	spare  [5]int  // a local of each numeric type that no other code uses
	labels []label // innermost last
	left   int     // instructions that may still be written, about
}

// label is what a branch goes to.
type label struct {
	types []byte // of the values that a branch takes along
	loop  bool
}

// makeBody writes function f: locals, code and end.
func (m *module) makeBody(f int) []byte {
	s := m.signature(f)
	b := &body{module: m, locals: append([]byte{}, s.params...), left: 20 + m.n(100)}
	for i, typ := range numeric {
		b.spare[i] = len(s.params) + i
		b.locals = append(b.locals, typ)
	}
	for range m.n(5) {
		b.locals = append(b.locals, m.valueType())
	}
	depth := 3
	if m.one(8) {
		b.left, depth = 600, 6
	}
	if m.one(24) { // a large frame
		b.locals = append(b.locals, make100(V128)...)
	}
	m.wide = m.wide || len(b.locals) > 12
	b.labels = []label{{types: s.results}}
	switch {
	case !m.wild || m.one(2):
		b.leaveWithoutBudget(s.results)
	case m.one(2): // without an end
		for p := range s.params {
			b.op(0x20, p)
		}
		b.op(0x10, f)
		b.popAll(s.results)
	}
	b.statements(depth)
	b.values(s.results, depth)
	b.op(0x0b)
	code := b.out
	out := appendU32(nil, len(b.locals)-len(s.params))
	for _, typ := range b.locals[len(s.params):] {
		out = append(out, 1, typ)
	}
	return append(out, code...)
}

func make100(typ byte) []byte {
	list := make([]byte, 100)
	for i := range list {
		list[i] = typ
	}
	return list
}

// op writes an opcode and indexes after it.
func (b *body) op(code uint32, operands ...int) {
	b.used[code] = true
	b.left--
	b.count(code)
	b.out = appendOpcode(b.out, code)
	for _, v := range operands {
		b.out = appendU32(b.out, v)
	}
}

func (b *body) constant(typ byte, bits uint64) {
	b.left--
	code := uint32(0xd0)
	switch typ {
	case I32, I64, F32, F64:
		code = 0x41 + uint32(I32-typ)
	case V128:
		code = 0xfd000c
	}
	b.used[code] = true
	b.count(code)
	b.out = appendConst(b.out, typ, bits)
}

// vector leaves a constant vector.
func (b *body) vector(low, high uint64) {
	b.count(0xfd000c)
	b.out = appendV128(b.out, low, high)
}

func (b *body) i32(v int32) { b.constant(I32, uint64(uint32(v))) }

// spareOf returns the spare local of a numeric type.
func (b *body) spareOf(typ byte) int { return b.spare[I32-typ] }

// budget spends a step of the budget and leaves whether there was one.
func (b *body) budget() {
	b.op(0x23, 0)
	b.i32(1)
	b.op(0x6b)
	b.op(0x24, 0)
	b.op(0x23, 0)
	b.i32(0)
	b.op(0x4a) // i32.gt_s
}

// leaveWithoutBudget returns zeros when no steps are left.
func (b *body) leaveWithoutBudget(results []byte) {
	b.budget()
	b.op(0x45)
	b.op(0x04)
	b.out = append(b.out, 0x40)
	for _, typ := range results {
		b.constant(typ, 0)
	}
	b.op(0x0f)
	b.op(0x0b)
}

// pop takes the value of a type from the stack, into a local when there is one.
func (b *body) pop(typ byte) {
	if b.one(2) {
		b.op(0x1a)
		return
	}
	if l, ok := b.localOf(typ); ok {
		b.op(0x21, l)
		return
	}
	b.op(0x1a)
}

// popAll takes values from the stack, last first.
func (b *body) popAll(types []byte) {
	for i := len(types) - 1; i >= 0; i-- {
		b.pop(types[i])
	}
}

// localOf returns some local of a type that is no spare one.
func (b *body) localOf(typ byte) (int, bool) {
	var found []int
	for i, t := range b.locals {
		spare := i >= b.spare[0] && i <= b.spare[4]
		if t == typ && !spare {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	return found[b.n(len(found))], true
}

// globalOf returns some global of a type that is not the budget; mutable if
// it will be written.
func (b *body) globalOf(typ byte, mutable bool) (int, bool) {
	var found []int
	for i, g := range b.globals {
		if i > 0 && g.typ == typ && (g.mutable || !mutable) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	return found[b.n(len(found))], true
}

// tableOf returns some table of a type of elements.
func (b *body) tableOf(elem byte) (int, bool) {
	var found []int
	for i, t := range b.tables {
		if t.elem == elem {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	return found[b.n(len(found))], true
}
