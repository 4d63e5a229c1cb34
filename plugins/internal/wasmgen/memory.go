package wasmgen

// load leaves a value from memory.
func (b *body) load(typ byte, depth int) {
	list := loadsOf[typ]
	a := list[b.n(len(list))]
	b.address(depth)
	if a.lanes > 0 {
		b.value(V128, depth)
	}
	b.access(a)
}

// store writes a value to memory.
func (b *body) store(depth int) {
	a := stores[b.n(len(stores))]
	b.address(depth)
	b.value(a.typ, depth)
	b.access(a)
}

func (b *body) access(a access) {
	b.op(a.code)
	b.out = appendU32(b.out, b.n(a.align+1))
	offset := b.n(64)
	if b.one(16) {
		offset = int(uint32(b.bits()))
	}
	b.out = appendU32(b.out, offset)
	if a.lanes > 0 {
		b.out = append(b.out, byte(b.n(a.lanes)))
	}
}

// address leaves an address, mostly in the first page.
func (b *body) address(depth int) {
	b.value(I32, depth)
	if !b.one(12) {
		b.i32(0xfff0)
		b.op(0x71)
	}
}

// length leaves a number of bytes: few, or as many as take the rewriter more
// than one step.
func (b *body) length(depth int) {
	if b.one(4) {
		b.i32([]int32{0, 65536, 65537, 131_072, 262_144, 262_145, 300_000, -1}[b.n(8)])
		return
	}
	b.value(I32, depth)
	b.i32(0xff)
	b.op(0x71)
}

// bulk writes an instruction on many bytes.
func (b *body) bulk(depth int) {
	switch b.n(4) {
	case 0:
		b.address(depth)
		b.address(depth)
		b.length(depth)
		b.bulkOp(bytesShift, 0xfc000a, 0, 0)
	case 1:
		b.address(depth)
		b.value(I32, depth)
		b.length(depth)
		b.bulkOp(bytesShift, 0xfc000b, 0)
	case 2:
		d, ok := b.passiveData()
		if !ok {
			b.op(0x01)
			return
		}
		b.address(depth)
		b.within(b.datas[d].count, depth)
		b.within(b.datas[d].count, depth)
		b.bulkOp(bytesShift, 0xfc0008, d, 0)
	default:
		if len(b.datas) > 0 {
			b.op(0xfc0009, b.n(len(b.datas)))
		}
	}
}

// passiveData returns some passive data segment. Active ones are empty once the
// module runs, though not in every engine.
func (b *body) passiveData() (int, bool) {
	var found []int
	for i, d := range b.datas {
		if d.passive {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	return found[b.n(len(found))], true
}

// within leaves a number that is mostly at most half of n, so that two of them
// are an offset and a length.
func (b *body) within(n, depth int) {
	b.value(I32, depth)
	if !b.one(8) {
		b.i32(int32(n/2 + 1))
		b.op(0x70)
	}
}

// tableStatement writes an instruction that changes a table.
func (b *body) tableStatement(depth int) {
	t := b.n(len(b.tables))
	half := int(b.tables[t].min)
	switch b.n(5) {
	case 0:
		b.index(t, depth)
		b.value(b.tables[t].elem, depth)
		b.op(0x26, t)
	case 1:
		b.index(t, depth)
		b.value(b.tables[t].elem, depth)
		b.within(half, depth)
		b.bulkOp(0, 0xfc0011, t)
	case 2:
		from, _ := b.tableOf(b.tables[t].elem)
		b.within(half, depth)
		b.index(from, depth)
		b.within(half, depth)
		b.bulkOp(0, 0xfc000e, t, from)
	case 3:
		b.tableInit(t, depth)
	default:
		if len(b.elems) > 0 {
			b.op(0xfc000d, b.n(len(b.elems)))
		}
	}
}

// tableInit copies an element segment of the table's type, if there is one.
func (b *body) tableInit(t, depth int) {
	for e, s := range b.elems {
		if s.typ == b.tables[t].elem && !b.one(3) {
			b.index(t, depth)
			b.within(s.count, depth)
			b.within(s.count, depth)
			b.bulkOp(0, 0xfc000c, e, t)
			return
		}
	}
}
