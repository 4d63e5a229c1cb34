package rewrite

import (
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// readCode validates every function body.
func (m *module) readCode(r *wasmbin.Reader) error {
	at := r.Offset()
	n := r.U32()
	if r.Err() == nil && int(n) != len(m.funcs)-m.importedFuncs {
		return fmt.Errorf("%w: function and code section have inconsistent lengths: %d and %d, at byte %d", ErrMalformed, len(m.funcs)-m.importedFuncs, n, at)
	}
	m.bodies = make([]body, 0, n)
	m.marks = make([]mark, 0, r.Len()/8)
	v := &validator{m: m}
	for ; n > 0; n-- {
		sizeAt := r.Offset()
		size := r.U32()
		if err := atMost("bytes of code in a function", uint64(size), maxBody, sizeAt); err != nil {
			return err
		}
		bodyAt := r.Offset()
		code := r.Bytes(size)
		if r.Err() != nil {
			return r.Err()
		}
		t := m.types[m.funcs[m.importedFuncs+len(m.bodies)]]
		if err := v.check(t, code, bodyAt); err != nil {
			return fmt.Errorf("function %d: %w", m.importedFuncs+len(m.bodies), err)
		}
		m.bodies = append(m.bodies, v.b)
		if err := atMost("basic blocks and calls", uint64(len(m.marks)), maxMarks, bodyAt); err != nil {
			return err
		}
	}
	return r.Err()
}

// readLocals reads the declarations of a body.
func (v *validator) readLocals(t funcType, r *wasmbin.Reader) error {
	v.locals = append(v.locals[:0], t.params...)
	at := r.Offset()
	v.b.groups = r.U32()
	if err := atMost("declarations of locals", uint64(v.b.groups), maxLocals, at); err != nil {
		return err
	}
	list := *r
	total := uint64(0)
	for i := uint32(0); i < v.b.groups && r.Err() == nil; i++ {
		n := r.U32()
		total += uint64(n)
		if err := atMost("locals", total, maxLocals, at); err != nil {
			return err
		}
		typ := valType(r)
		for ; n > 0; n-- {
			v.locals = append(v.locals, typ)
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	v.b.locals = list.Bytes(uint32(list.Len() - r.Len()))
	v.b.localsCount = uint32(len(v.locals))
	return nil
}

// check validates one body.
func (v *validator) check(t funcType, code []byte, at int) error {
	r := wasmbin.NewReader(code, at)
	v.b = body{}
	if err := v.readLocals(t, r); err != nil {
		return err
	}
	v.b.code = code[r.Pos():]
	v.r = wasmbin.NewReader(v.b.code, at+r.Pos())
	v.types, v.ctrls, v.err, v.dead = v.types[:0], v.ctrls[:0], nil, false
	v.pressure.reset(v.locals, len(v.b.code))
	v.b.marks[0] = len(v.m.marks)
	v.held, v.loop, v.loops = false, 0, 0
	v.block()
	v.ctrls = append(v.ctrls, control{typ: funcType{results: t.results}, flow: v.beginFlow(0, 0)})
	for len(v.ctrls) > 0 && v.err == nil {
		if v.r.Len() == 0 {
			v.r.Byte()
			return fmt.Errorf("END opcode expected: %w", v.r.Err())
		}
		v.instruction()
		if v.err == nil {
			v.err = v.r.Err()
		}
	}
	if v.err != nil {
		return v.err
	}
	if v.r.Len() > 0 {
		return fmt.Errorf("%w: END opcode expected: code behind the end of the function at byte %d", ErrMalformed, v.r.Offset())
	}
	meetings := v.pressure.ways * v.pressure.assigned
	if err := atMost("values to choose where ways meet", meetings, maxMeetings, at); err != nil {
		return err
	}
	if err := atMost("basic blocks in a function", v.pressure.blocks, maxBlocks, at); err != nil {
		return err
	}
	values := v.pressure.assigned + uint64(len(t.params)+v.pressure.highest)
	if err := atMost("values to keep through blocks", v.pressure.blocks*values, maxLive, at); err != nil {
		return err
	}
	v.b.marks[1] = len(v.m.marks)
	v.b.frame = v.b.atLeast(v.pressure.frame(t))
	return nil
}

// instruction validates the next instruction.
func (v *validator) instruction() {
	v.opAt = v.r.Offset()
	at := v.pos()
	code := v.r.Byte()
	v.pressure.now++
	switch {
	case code >= 0x28 && code <= 0xc4 && numeric[code].ok:
		v.charge()
		v.operate(&numeric[code])
	case code >= 0x20 && code <= 0x24:
		v.charge()
		v.variable(code)
	case code <= 0x0f:
		v.controlFlow(code, at)
	default:
		v.charge()
		v.other(code, at)
	}
}

// operate applies the signature and immediates of an operation.
func (v *validator) operate(o *operation) {
	switch o.imm {
	case immNone:
	case immMem:
		v.memArg(o.align)
	case immLane:
		v.lane(o.lanes)
	case immMemLane:
		v.memArg(o.align)
		v.lane(o.lanes)
	case immShuffle:
		for range 16 {
			v.lane(32)
		}
	case immV128:
		v.r.Bytes(16)
	}
	for i := int(o.n) - 1; i >= 0; i-- {
		v.pop(o.in[i])
	}
	if o.out != 0 {
		v.push(o.out)
	}
}

func (v *validator) lane(lanes byte) {
	if n := v.r.Byte(); n >= lanes {
		v.fail("invalid lane index %d", n)
	}
}

func (v *validator) variable(code byte) {
	switch code {
	case 0x20: // local.get
		i, t := v.local()
		if v.err == nil {
			v.push(t)
			v.pressure.get(i, t)
		}
	case 0x21: // local.set
		i, t := v.local()
		v.pop(t)
		if v.err == nil {
			v.pressure.set(i, t)
		}
	case 0x22: // local.tee
		i, t := v.local()
		v.pop(t)
		if v.err == nil {
			v.push(t)
			v.pressure.set(i, t)
		}
	case 0x23: // global.get
		v.push(v.global().typ)
	case 0x24: // global.set
		g := v.global()
		if v.err == nil && !g.mutable {
			v.fail("global is immutable")
		}
		v.pop(g.typ)
	}
}

// other validates what is neither control flow nor in a table of one byte.
func (v *validator) other(code byte, at uint32) {
	switch code {
	case 0x10, 0x11:
		v.call(code, at)
	case 0x1a: // drop
		v.pop(unknown)
	case 0x1b: // select
		v.pop(i32)
		a := v.pop(unknown)
		b := v.pop(unknown)
		if isRef(a) || isRef(b) || a != b && a != unknown && b != unknown {
			v.fail("type mismatch: select of %s and %s", typeName(b), typeName(a))
		}
		if a == unknown {
			a = b
		}
		v.push(a)
	case 0x1c: // select with a type
		v.typedSelect()
	case 0x25, 0x26:
		v.tableAccess(code)
	case 0x3f, 0x40:
		v.memorySize(code, at)
	case 0x41:
		v.r.S32()
		v.push(i32)
	case 0x42:
		v.r.S64()
		v.push(i64)
	case 0x43:
		v.r.Bytes(4)
		v.push(f32)
	case 0x44:
		v.r.Bytes(8)
		v.push(f64)
	case 0xd0, 0xd1, 0xd2:
		v.reference(code, at)
	case 0xfc:
		v.miscellaneous(at)
	case 0xfd:
		v.vector()
	default:
		v.unknownOpcode(code)
	}
}

func (v *validator) typedSelect() {
	switch n := v.r.Byte(); {
	case n >= 0x80:
		v.refuse("a select whose types are counted in more bytes than needed")
		return
	case n != 1 && v.r.Err() == nil:
		v.fail("invalid result arity: a select of %d types", n)
		return
	}
	t := valType(v.r)
	v.pop(i32)
	v.pop(t)
	v.pop(t)
	v.push(t)
}

// vector reads an opcode behind 0xfd. Engines read one byte of it, so that a
// longer encoding than needed would be another instruction to them.
func (v *validator) vector() {
	from := v.r.Pos()
	n := v.r.U32()
	size := v.r.Pos() - from
	switch {
	case v.r.Err() != nil:
	case n < 0x80 && size > 1 || n < 0x4000 && size > 2:
		v.refuse(fmt.Sprintf("an opcode in more bytes than it needs (0xfd 0x%x)", n))
	case n >= 0x100 && n < 0x200:
		v.refuse(fmt.Sprintf("relaxed SIMD (opcode 0xfd 0x%x)", n))
	case n >= uint32(len(vector)) || !vector[n].ok:
		v.malformed("illegal opcode 0xfd 0x%x", n)
	default:
		v.operate(&vector[n])
	}
}

func (v *validator) unknownOpcode(code byte) {
	what := ""
	switch code {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		what = "exceptions"
	case 0x12, 0x13:
		what = "tail calls"
	case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
		what = "typed references"
	case 0xfb:
		what = "garbage collection"
	case 0xfe:
		what = "threads (atomic operations)"
	default:
		v.malformed("illegal opcode 0x%02x", code)
		return
	}
	v.refuse(fmt.Sprintf("%s (opcode 0x%02x)", what, code))
}
