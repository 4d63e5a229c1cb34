package wasmgen

// What the rewriter charges for many bytes and for new pages, and for what
// leaves the machine code.
const (
	bytesShift = 4  // 16 bytes are one instruction
	pageShift  = 10 // a page is 1,024
	growTrip   = 64
	refTrip    = 1024
)

// Counted returns the module of Generate with code that counts the instructions
// that it runs in the global "count", an exported mutable i64. nop, block, loop,
// else and end are no instructions here. What works on many bytes, elements or
// pages counts more: one for each 16 bytes or each element, 1,024 for a page; so
// do memory.grow and table.grow, by 64, and ref.func, by 1,024.
func Counted(seed []byte) []byte {
	m := newModule(seed)
	m.counted = true
	return m.bytes()
}

// count counts the instruction that follows.
func (b *body) count(code uint32) {
	n := int64(1)
	switch code {
	case 0x01, 0x02, 0x03, 0x05, 0x0b:
		return
	case 0x40, 0xfc000f:
		n += growTrip
	case 0xd2:
		n += refTrip
	}
	b.add(func() { b.raw(appendS64([]byte{0x42}, n)...) })
}

// add adds what value leaves, an i64, to the count.
func (b *body) add(value func()) {
	if !b.counted {
		return
	}
	counter := byte(len(b.globals))
	b.raw(0x23, counter)
	value()
	b.raw(0x7c, 0x24, counter) // i64.add, global.set
}

func (b *body) raw(code ...byte) { b.out = append(b.out, code...) }

// bulkOp writes an instruction that works on as many bytes or elements as the
// top of the stack says.
func (b *body) bulkOp(shift byte, code uint32, operands ...int) {
	length := byte(b.spareOf(I32))
	if b.counted {
		b.raw(0x22, length) // local.tee
	}
	b.op(code, operands...)
	b.add(func() { b.raw(0x20, length, 0xad, 0x42, shift, 0x88) })
}

// grow writes an instruction that adds as many pages or elements as the top of
// the stack says, and counts those that it added.
func (b *body) grow(shift byte, code uint32, operands ...int) {
	if !b.counted {
		b.op(code, operands...)
		return
	}
	asked, result := byte(b.spareOf(I64)), byte(b.spareOf(I32))
	b.raw(0x22, result, 0xad, 0x21, asked, 0x20, result) // asked is an i64
	b.op(code, operands...)
	b.raw(0x22, result, 0x41, 0x7f, 0x47, 0x04, 0x40) // if it is not −1
	b.add(func() { b.raw(0x20, asked, 0x42, shift, 0x86) })
	b.raw(0x0b, 0x20, result)
}
