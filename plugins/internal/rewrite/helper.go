package rewrite

// The parameters and the local of a helper.
const (
	helperTo = iota
	helperFrom
	helperLength
	helperPiece
)

// copyHelper returns the body of a function that does what memory.copy does,
// in pieces with a check each. The bounds are checked before any byte is
// written, as the instruction does.
func (e *emitter) copyHelper() []byte {
	copying := []byte{0xfc, 10, 0, 0}
	e.beginHelper()
	e.beyondMemory(helperTo)
	e.beyondMemory(helperFrom)
	e.code(0x72, 0x04, 0x40) // i32.or, if
	e.get(helperTo, helperFrom, helperLength)
	e.code(copying...) // traps
	e.code(0x0b)
	e.get(helperTo, helperFrom)
	e.code(0x4d, 0x04, 0x40) // i32.le_u, if
	e.code(0x03, 0x40)       // loop
	e.piece()
	e.get(helperTo, helperFrom, helperPiece)
	e.code(copying...)
	e.advance(helperTo)
	e.advance(helperFrom)
	e.nextPiece()
	e.code(0x05, 0x03, 0x40) // else, loop: from the end, because they may overlap
	e.piece()
	for _, p := range []uint32{helperTo, helperFrom} {
		e.get(p, helperLength)
		e.code(0x6a) // i32.add
		e.get(helperPiece)
		e.code(0x6b) // i32.sub
	}
	e.get(helperPiece)
	e.code(copying...)
	e.nextPiece()
	e.code(0x0b, 0x0b)
	return e.out
}

// fillHelper is copyHelper for memory.fill; the value is where copyHelper has
// the source.
func (e *emitter) fillHelper() []byte {
	filling := []byte{0xfc, 11, 0}
	e.beginHelper()
	e.beyondMemory(helperTo)
	e.code(0x04, 0x40) // if
	e.get(helperTo, helperFrom, helperLength)
	e.code(filling...) // traps
	e.code(0x0b)
	e.code(0x03, 0x40) // loop
	e.piece()
	e.get(helperTo, helperFrom, helperPiece)
	e.code(filling...)
	e.advance(helperTo)
	e.nextPiece()
	e.code(0x0b)
	return e.out
}

func (e *emitter) beginHelper() { e.out = append(e.out[:0], 1, 1, i32) }

func (e *emitter) get(locals ...uint32) {
	for _, l := range locals {
		e.index(0x20, l)
	}
}

// beyondMemory pushes whether the bytes from p on end outside of the memory.
func (e *emitter) beyondMemory(p uint32) {
	e.get(p)
	e.code(0xad) // i64.extend_i32_u
	e.get(helperLength)
	e.code(0xad, 0x7c)     // i64.extend_i32_u, i64.add
	e.code(0x3f, 0, 0xad)  // memory.size, i64.extend_i32_u
	e.code(0x42, 16, 0x86) // i64.const 16, i64.shl
	e.code(0x56)           // i64.gt_u
}

// piece sets how much the next step does.
func (e *emitter) piece() {
	e.get(helperLength)
	e.i32(pieceSize)
	e.get(helperLength)
	e.i32(pieceSize)
	e.code(0x49, 0x1b) // i32.lt_u, select
	e.index(0x21, helperPiece)
}

func (e *emitter) advance(p uint32) {
	e.get(p, helperPiece)
	e.code(0x6a) // i32.add
	e.index(0x21, p)
}

// nextPiece charges the step and ends the loop after the last one.
func (e *emitter) nextPiece() {
	e.chargeLocal(helperPiece, copyShift)
	e.check(false)
	e.get(helperLength, helperPiece)
	e.code(0x6b) // i32.sub
	e.index(0x22, helperLength)
	e.code(0x0d, 0, 0x0b) // br_if, end
}
