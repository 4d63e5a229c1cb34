package wasmgen

// values leaves one value of each type.
func (b *body) values(types []byte, depth int) {
	for _, typ := range types {
		b.value(typ, depth)
	}
}

// value leaves a value of a type, from expressions up to depth deep.
func (b *body) value(typ byte, depth int) {
	if depth <= 0 || b.left <= 0 {
		b.leaf(typ)
		return
	}
	switch b.n(16) {
	case 0:
		b.leaf(typ)
	case 1:
		b.tee(typ, depth-1)
	case 2:
		b.choose(typ, depth-1)
	case 3:
		b.blockValue(typ, depth-1)
	case 4:
		b.callValue(typ, depth-1)
	case 5:
		b.branchWith(typ, depth-1)
	case 6:
		b.statement(depth - 1)
		b.value(typ, depth-1)
	default:
		b.compute(typ, depth-1)
	}
}

// leaf leaves a value without further expressions.
func (b *body) leaf(typ byte) {
	switch b.n(3) {
	case 0:
		if l, ok := b.localOf(typ); ok {
			b.op(0x20, l)
			return
		}
	case 1:
		if g, ok := b.globalOf(typ, false); ok {
			b.op(0x23, g)
			return
		}
	}
	if typ == FuncRef && b.one(2) {
		b.op(0xd2, b.n(b.functions()))
		return
	}
	b.constant(typ, b.bits())
}

func (b *body) tee(typ byte, depth int) {
	b.value(typ, depth)
	if l, ok := b.localOf(typ); ok {
		b.op(0x22, l)
	}
}

// choose writes a select, with its type when it needs one.
func (b *body) choose(typ byte, depth int) {
	b.value(typ, depth)
	b.value(typ, depth)
	b.value(I32, depth)
	if typ == FuncRef || typ == ExternRef || b.one(4) {
		b.op(0x1c, 1, int(typ))
		return
	}
	b.op(0x1b)
}

// compute leaves a value from an operator or from a memory or a table.
func (b *body) compute(typ byte, depth int) {
	switch {
	case typ == FuncRef || typ == ExternRef:
		b.element(typ, depth)
	case b.memory.min > 0 && b.one(4):
		b.load(typ, depth)
	case typ == I32 && b.one(6):
		b.size(depth)
	default:
		b.operator(typ, depth)
	}
}

func (b *body) operator(typ byte, depth int) {
	o := ops[typ][b.n(len(ops[typ]))]
	for i := range len(o.in) {
		in := letters[o.in[i]]
		b.value(in, depth)
		if o.div && i == 1 && !b.one(4) {
			b.constant(in, 1)
			b.op(map[byte]uint32{I32: 0x72, I64: 0x84}[in])
		}
	}
	b.op(o.code)
	switch {
	case o.code == shuffle:
		for range 16 {
			b.out = append(b.out, byte(b.n(32)))
		}
	case o.lanes > 0:
		b.out = append(b.out, byte(b.n(o.lanes)))
	case o.canon != 0:
		b.canonical(o)
	}
}

// canonical replaces NaNs, whose payload the specification leaves open.
func (b *body) canonical(o op) {
	s := b.spareOf(o.out)
	b.op(0x21, s)
	b.op(0x20, s)
	const nan32, nan64 = 0x7fc0_0000, 0x7ff8 << 48
	switch {
	case o.out == F32:
		b.constant(F32, nan32)
	case o.out == F64:
		b.constant(F64, nan64)
	case o.canon == F32:
		b.vector(nan32<<32|nan32, nan32<<32|nan32)
	default:
		b.vector(nan64, nan64)
	}
	b.op(0x20, s)
	b.op(0x20, s)
	switch {
	case o.out == F32:
		b.op(0x5b)
	case o.out == F64:
		b.op(0x61)
	case o.canon == F32:
		b.op(0xfd0041)
	default:
		b.op(0xfd0047)
	}
	if o.out == V128 {
		b.op(0xfd0052) // bitselect
		return
	}
	b.op(0x1b)
}

// element leaves a reference from a table, if there is one.
func (b *body) element(typ byte, depth int) {
	t, ok := b.tableOf(typ)
	if !ok {
		b.leaf(typ)
		return
	}
	b.index(t, depth)
	b.op(0x25, t)
}

// index leaves an index into table t, mostly one that exists.
func (b *body) index(t, depth int) {
	b.value(I32, depth)
	if n := b.tables[t].min; n > 0 && !b.one(8) {
		b.i32(int32(n))
		b.op(0x70) // i32.rem_u
	}
}

// size leaves a size, or makes a memory or table larger and leaves the old one.
func (b *body) size(depth int) {
	switch {
	case len(b.tables) > 0 && b.one(3):
		t := b.n(len(b.tables))
		if b.one(2) {
			b.op(0xfc0010, t)
			return
		}
		b.value(b.tables[t].elem, depth)
		b.growth(depth, b.tables[t].max > 0, func() { b.op(0xfc0010, t) })
		b.grow(0, 0xfc000f, t)
	case len(b.tables) > 0 && b.one(2):
		b.value(b.tables[b.n(len(b.tables))].elem, depth)
		b.op(0xd1) // ref.is_null
	case b.memory.min == 0:
		b.leaf(I32)
	case b.one(2):
		b.op(0x3f, 0)
	default:
		b.growth(depth, b.memory.max > 0, func() { b.op(0x3f, 0) })
		b.grow(pageShift, 0x40, 0)
	}
}

// growth leaves by how much to grow: anything when there is a maximum, else one
// until size is 16.
func (b *body) growth(depth int, capped bool, size func()) {
	b.value(I32, depth)
	if capped && b.one(3) {
		return
	}
	b.i32(1)
	b.op(0x71)
	if !capped {
		size()
		b.i32(16)
		b.op(0x49) // i32.lt_u
		b.op(0x71)
	}
}
