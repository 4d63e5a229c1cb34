package rewrite

// memorySize validates memory.size and memory.grow.
func (v *validator) memorySize(code byte, at uint32) {
	v.memoryByte()
	if code == 0x40 {
		v.spend(growTrip)
		v.pop(i32)
		v.dynamic(markMemoryGrow, at, 2)
	}
	v.push(i32)
}

// tableAccess validates table.get and table.set.
func (v *validator) tableAccess(code byte) {
	elem := v.table()
	if code == 0x26 {
		v.pop(elem)
		v.m.unrestore.add("table.set")
	}
	v.pop(i32)
	if code == 0x25 {
		v.push(elem)
	}
}

func (v *validator) reference(code byte, at uint32) {
	switch code {
	case 0xd0: // ref.null
		v.push(refType(v.r))
	case 0xd1: // ref.is_null
		if t := v.pop(unknown); t != unknown && !isRef(t) {
			v.fail("type mismatch: a reference expected, got %s", typeName(t))
		}
		v.push(i32)
	case 0xd2: // ref.func
		f, _ := v.function()
		if v.err == nil && v.r.Err() == nil && (v.m.declared == nil || !v.m.declared[f]) {
			v.fail("undeclared function reference %d", f)
		}
		v.spend(refTrip)
		v.mark(markRefFunc, at, f)
		if !v.dead {
			v.m.unrestore.add("ref.func")
		}
		v.push(funcref)
	}
}

// miscellaneous validates what begins with 0xfc.
func (v *validator) miscellaneous(at uint32) {
	n := v.r.U32()
	if v.r.Err() != nil {
		return
	}
	switch n {
	case 0, 1, 2, 3, 4, 5, 6, 7:
		v.operate(&saturating[n])
	case 8: // memory.init
		v.dataSegment()
		v.memoryByte()
		v.popRange()
		v.dynamic(markMemoryInit, at, 1)
	case 9: // data.drop
		v.dataSegment()
		v.m.unrestore.add("data.drop")
	case 10: // memory.copy
		v.memoryByte()
		v.memoryByte()
		v.popRange()
		v.dynamic(markMemoryCopy, at, 1)
	case 11: // memory.fill
		v.memoryByte()
		v.popRange()
		v.dynamic(markMemoryFill, at, 1)
	case 12, 13, 14, 15, 16, 17:
		v.tableBulk(n, at)
	default:
		v.malformed("illegal opcode 0xfc 0x%x", n)
	}
}

// popRange pops a destination, a source and a length.
func (v *validator) popRange() {
	for range 3 {
		v.pop(i32)
	}
}

func (v *validator) tableBulk(n, at uint32) {
	switch n {
	case 12: // table.init
		seg := v.elemSegment()
		v.mustMatch(seg, v.table())
		v.popRange()
		v.dynamic(markTableInit, at, 1)
		v.m.unrestore.add("table.init")
	case 13: // elem.drop
		v.elemSegment()
		v.m.unrestore.add("elem.drop")
	case 14: // table.copy
		dst := v.table()
		v.mustMatch(dst, v.table())
		v.popRange()
		v.dynamic(markTableCopy, at, 1)
		v.m.unrestore.add("table.copy")
	case 15: // table.grow
		v.spend(growTrip)
		elem := v.table()
		v.pop(i32)
		v.pop(elem)
		v.push(i32)
		v.dynamic(markTableGrow, at, 2)
		v.m.unrestore.add("table.grow")
	case 16: // table.size
		v.table()
		v.push(i32)
	case 17: // table.fill
		elem := v.table()
		v.pop(i32)
		v.pop(elem)
		v.pop(i32)
		v.dynamic(markTableFill, at, 1)
		v.m.unrestore.add("table.fill")
	}
}

func (v *validator) mustMatch(a, b byte) {
	if a != b {
		v.fail("type mismatch: elements of type %s and %s", typeName(a), typeName(b))
	}
}

// dynamic notes an operation that is charged by a length, in code that runs.
func (v *validator) dynamic(kind markKind, at uint32, scratch byte) {
	v.yields()
	if v.dead {
		return
	}
	v.mark(kind, at, 0)
	v.pressure.blocks += v.around(4) // for what is added around it
	if !v.held {
		v.fresh = -1
	}
	v.b.scratch = max(v.b.scratch, scratch)
	v.m.usesBulk = v.m.usesBulk || kind == markMemoryCopy || kind == markMemoryFill
}
