package rewrite

// controlFlow validates the instructions up to 0x0f.
func (v *validator) controlFlow(code byte, at uint32) {
	switch code {
	case 0x00: // unreachable
		v.charge()
		v.unreach()
	case 0x01: // nop
	case 0x02, 0x03: // block, loop
		t := v.blockType()
		v.popAll(t.params)
		v.enter(code, t, at)
		if code == 0x03 {
			v.yields()
		}
	case 0x04: // if
		v.charge()
		t := v.blockType()
		v.pop(i32)
		v.popAll(t.params)
		v.enter(code, t, at)
	case 0x05:
		v.elseArm()
	case 0x0b:
		v.end()
	case 0x0c: // br
		v.charge()
		c, i := v.label(v.r.U32())
		v.branch(c, i)
		v.popAll(c.labelTypes())
		v.unreach()
	case 0x0d: // br_if
		v.charge()
		v.pop(i32)
		c, i := v.label(v.r.U32())
		v.branch(c, i)
		v.popAll(c.labelTypes())
		v.pushAll(c.labelTypes())
		v.fork(c, i, at)
	case 0x0e:
		v.charge()
		v.brTable()
	case 0x0f: // return
		v.charge()
		v.branch(&v.ctrls[0], 0)
		v.popAll(v.ctrls[0].typ.results)
		v.unreach()
	default:
		v.unknownOpcode(code)
	}
}

func (v *validator) elseArm() {
	if v.ctrls[len(v.ctrls)-1].op != 0x04 {
		v.malformed("else without an if")
		return
	}
	c := v.leave()
	v.elseFlow(c)
	c.op, c.unreachable = 0x05, false
	v.pushAll(c.typ.params)
}

func (v *validator) end() {
	c := v.leave()
	if c.op == 0x04 && !same(c.typ.params, c.typ.results) {
		v.fail("type mismatch: an if without an else whose parameters are not its results")
	}
	v.endFlow(c, len(v.ctrls)-1)
	if c.op == 0x03 {
		v.loops--
	}
	results := c.typ.results
	v.ctrls = v.ctrls[:len(v.ctrls)-1]
	v.pushAll(results)
}

func (v *validator) brTable() {
	n := v.r.U32()
	if v.tooMany("targets of a br_table", uint64(n), maxBrTable) {
		return
	}
	if !v.dead {
		v.pressure.blocks += v.around(n) / 4 // they share what is costly of one
	}
	v.pop(i32)
	arity := -1
	for i := uint32(0); i <= n && v.r.Err() == nil && v.err == nil; i++ {
		c, at := v.label(v.r.U32())
		types := c.labelTypes()
		if arity >= 0 && len(types) != arity {
			v.fail("type mismatch: targets of a br_table differ in the number of values")
			return
		}
		arity = len(types)
		v.branch(c, at)
		v.checkTop(types)
	}
	v.unreach()
}

// checkTop checks the operands like a branch that is not the last one.
func (v *validator) checkTop(types []byte) {
	if len(types) == 0 {
		return
	}
	height := len(v.types)
	low := max(height-len(types), v.ctrls[len(v.ctrls)-1].height)
	saved := append([]byte(nil), v.types[low:]...)
	v.popAll(types)
	v.types = append(v.types[:low], saved...)
}

// call validates call and call_indirect.
func (v *validator) call(code byte, at uint32) {
	v.b.calls++
	var t funcType
	if code == 0x10 {
		var f uint32
		f, t = v.function()
		v.mark(markCall, at, f)
	} else {
		t = v.typeAt(uint64(v.r.U32()))
		if v.table() != funcref {
			v.fail("type mismatch: call_indirect through a table that does not hold functions")
		}
		v.pop(i32)
		v.mark(markCallIndirect, at, 0)
	}
	v.popAll(t.params)
	v.moves(len(t.params) + len(t.results))
	v.spends()
	v.pressure.outgoing = max(v.pressure.outgoing, passed(t))
	v.pressure.call(v.types)
	v.pushAll(t.results)
}

// yields notes a place where the host may be called.
func (v *validator) yields() {
	v.b.yields = true
	v.pressure.call(v.types)
}
