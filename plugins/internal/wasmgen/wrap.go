package wasmgen

// makeWrappers writes the functions that are exported: one for each function
// with code, which gives it a new budget, and one for each table, which digests
// it. It returns their code and types.
func (m *module) makeWrappers() (code []byte, types []int) {
	for i, t := range m.funcs {
		b := &body{module: m}
		b.i32(steps)
		b.op(0x24, 0)
		for p := range m.types[t].params {
			b.op(0x20, p)
		}
		b.op(0x10, len(m.imports)+i)
		b.op(0x0b)
		code = appendBytes(code, append([]byte{0}, b.out...))
		types = append(types, t)
	}
	for t := range m.tables {
		b := &body{module: m}
		b.digest(t)
		code = appendBytes(code, append([]byte{2, 1, I32, 1, I64}, b.out...))
		types = append(types, 1)
	}
	return code, types
}

// digest leaves a number made of which elements of table t are null.
func (b *body) digest(t int) {
	const i, sum = 0, 1 // locals
	b.begin(0x02, sig{})
	b.begin(0x03, sig{})
	b.op(0x20, i)
	b.op(0xfc0010, t)
	b.op(0x4f) // i32.ge_u
	b.op(0x0d, 1)
	b.op(0x20, sum)
	b.constant(I64, 3)
	b.op(0x7e) // i64.mul
	b.op(0x20, i)
	b.op(0x25, t)
	b.op(0xd1)
	b.op(0xad) // i64.extend_i32_u
	b.op(0x7c)
	b.constant(I64, 1)
	b.op(0x7c)
	b.op(0x21, sum)
	b.op(0x20, i)
	b.i32(1)
	b.op(0x6a)
	b.op(0x21, i)
	b.op(0x0c, 0)
	b.end()
	b.end()
	b.op(0x20, sum)
	b.op(0x0b)
}
