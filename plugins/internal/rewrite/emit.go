package rewrite

import "encoding/binary"

// What an operation costs by its length.
const (
	copyShift = 4  // 16 bytes are one unit, as in host functions
	growShift = 10 // a page of 64 KiB is 1,024 units: it costs more once it is touched
	smallCopy = 1 << 10
	pieceSize = 1 << 18
	smallLeaf = 16 // units a function without calls and loops may take unchecked
)

// emitter writes the bodies of the rewritten module.
type emitter struct {
	m       *module
	fuel    uint32 // indexes of our globals
	stack   uint32
	limit   uint32
	three   uint32 // type (i32, i32, i32) → ()
	helpers uint32 // index of the copying one; the filling one follows
	out     []byte
	b       *body
	around  bool // the next loop has no calls inside
}

// function returns the rewritten body with its locals, without its size. The
// bytes are valid until the next call.
func (e *emitter) function(b *body) []byte {
	e.b = b
	e.out = e.out[:0]
	e.locals()
	marks := e.m.marks[b.marks[0]:b.marks[1]]
	e.charge(marks[0])
	e.enter(marks)
	at := uint32(0)
	for _, k := range marks[1:] {
		e.out = append(e.out, b.code[at:k.pos]...)
		at = k.pos + e.mark(k)
	}
	e.out = append(e.out, b.code[at:]...)
	return e.out
}

// tracked says whether the function keeps its own stack use in a local.
func (b *body) tracked() bool { return b.calls > 0 || b.frame > bigFrame }

// depth is the local with the stack use of this function and its callers.
func (e *emitter) depth() uint32 { return e.b.localsCount + uint32(e.b.scratch) }

func (e *emitter) locals() {
	added := uint32(e.b.scratch)
	if e.b.tracked() {
		added++
	}
	groups := uint32(0)
	if added > 0 {
		groups++
	}
	if e.b.holds {
		groups++
	}
	e.out = append(u32(e.out, e.b.groups+groups), e.b.locals...)
	if added > 0 {
		e.out = append(u32(e.out, added), i32)
	}
	if e.b.holds {
		e.out = append(e.out, 1, i64)
	}
}

// enter checks fuel and stack at the entry of the function. A small function
// without calls and loops is left out, and one whose first block runs into a
// loop, which checks.
func (e *emitter) enter(marks []mark) {
	loops := len(marks) > 1 && marks[1].kind == markBefore
	small := e.b.calls == 0 && !e.b.yields && e.b.cost <= smallLeaf
	held := e.b.holds && marks[0].val > 0
	if !e.b.tracked() {
		if !loops && !small {
			e.check(held)
		}
		return
	}
	e.index(0x23, e.stack)
	e.i32(int64(e.b.frame))
	e.code(0x6a) // i32.add
	e.index(0x22, e.depth())
	e.index(0x23, e.limit)
	e.code(0x4b) // i32.gt_u
	if loops {
		e.code(0x04, 0x40) // if
		e.yieldStack()
		e.code(0x0b)
		return
	}
	e.loadFuel(held)
	e.code(0x42, 0, 0x53, 0x72, 0x04, 0x40) // i64.const 0, i64.lt_s, i32.or, if
	e.check(held)
	e.index(0x20, e.depth())
	e.index(0x23, e.limit)
	e.code(0x4b, 0x04, 0x40) // i32.gt_u, if
	e.yieldStack()
	e.code(0x0b, 0x0b)
}

func (e *emitter) yieldStack() {
	e.i32(ReasonStack)
	e.index(0x10, e.m.yieldFunc())
}

func (e *emitter) code(c ...byte) { e.out = append(e.out, c...) }

func (e *emitter) index(op byte, i uint32) { e.out = u32(append(e.out, op), i) }

func (e *emitter) i32(v int64) { e.out = s64(append(e.out, 0x41), v) }

func (e *emitter) i64(v int64) { e.out = s64(append(e.out, 0x42), v) }

// held is the local that holds the fuel between calls.
func (e *emitter) held() uint32 {
	n := e.depth()
	if e.b.tracked() {
		n++
	}
	return n
}

// charge takes what a mark says. Loads and stores of a global are slow one
// behind the other, so the fuel is kept in a local, too; the global is right
// at all times, because any instruction may trap.
func (e *emitter) charge(k mark) {
	if k.val == 0 {
		return
	}
	e.loadFuel(k.held)
	e.i64(int64(k.val))
	e.code(0x7d) // i64.sub
	if e.b.holds {
		e.index(0x22, e.held())
	}
	e.index(0x24, e.fuel)
}

func (e *emitter) loadFuel(held bool) {
	if held {
		e.index(0x20, e.held())
	} else {
		e.index(0x23, e.fuel)
	}
}

// reload sets the fuel local behind what changes the global.
func (e *emitter) reload() {
	e.index(0x23, e.fuel)
	e.index(0x21, e.held())
}

// chargeLocal takes the unsigned value of a local, shifted right, or left by
// a negative number.
func (e *emitter) chargeLocal(local uint32, shift int64) {
	e.index(0x23, e.fuel)
	e.index(0x20, local)
	e.code(0xad) // i64.extend_i32_u
	switch {
	case shift > 0:
		e.i64(shift)
		e.code(0x88) // i64.shr_u
	case shift < 0:
		e.i64(-shift)
		e.code(0x86) // i64.shl
	}
	e.code(0x7d)
	e.index(0x24, e.fuel)
}

// check calls the host when the fuel is below zero.
func (e *emitter) check(held bool) {
	e.loadFuel(held)
	e.code(0x42, 0, 0x53, 0x04, 0x40) // i64.const 0, i64.lt_s, if
	e.i32(ReasonFuel)
	e.index(0x10, e.m.yieldFunc())
	if held {
		e.reload()
	}
	e.code(0x0b)
}

// mark writes what a mark stands for and returns how many bytes of the
// original that replaces.
func (e *emitter) mark(k mark) uint32 {
	switch k.kind {
	case markBlock:
		e.charge(k)
		return 0
	case markBefore:
		e.around = k.val == 1
		if e.around && !k.held {
			e.reload()
		}
		return 0
	case markLoop:
		e.loopHead(k)
		return 0
	case markExit:
		return e.exit(k)
	case markCall:
		e.leaveStack()
		e.index(0x10, e.m.newFunc(k.val))
		return e.length(k.pos, 1)
	case markCallIndirect:
		e.leaveStack()
		return 0
	case markRefFunc:
		e.index(0xd2, e.m.newFunc(k.val))
		return e.length(k.pos, 1)
	case markMemoryCopy, markMemoryFill, markMemoryInit, markMemoryGrow,
		markTableGrow, markTableFill, markTableCopy, markTableInit:
		n := e.bulk(k)
		if k.held && e.b.holds {
			e.reload()
		}
		return n
	}
	panic("rewrite: a mark of no kind")
}

// exit writes a br_if that pays back what is not run when it is taken.
func (e *emitter) exit(k mark) uint32 {
	rest := e.m.marks[k.of].val - k.val
	if rest == 0 {
		return 0
	}
	n := e.length(k.pos, 1)
	label, _ := binary.Uvarint(e.b.code[k.pos+1 : k.pos+n])
	e.code(0x04, 0x40) // if
	e.loadFuel(k.held)
	e.i64(int64(rest))
	e.code(0x7c) // i64.add
	if k.held {
		e.index(0x22, e.held())
	}
	e.index(0x24, e.fuel)
	e.index(0x0c, uint32(label)+1) // br
	e.code(0x0b)
	return n
}

// loopHead charges the first block of a loop and checks. Around a loop without
// calls the fuel stays in its local.
func (e *emitter) loopHead(k mark) {
	k.held = e.around
	k.val += uint32(k.of)
	if k.val == 0 && e.b.holds && !k.held {
		e.reload()
	}
	e.charge(k)
	e.check(e.b.holds)
}

// leaveStack says to the next function how much stack is used.
func (e *emitter) leaveStack() {
	e.index(0x20, e.depth())
	e.index(0x24, e.stack)
}

// length is how long the instruction at pos is, an opcode and some numbers.
func (e *emitter) length(pos uint32, numbers int) uint32 {
	end := pos + 1
	for ; numbers > 0; numbers-- {
		for e.b.code[end] >= 0x80 {
			end++
		}
		end++
	}
	return end - pos
}

// bulk writes an operation that is charged by its length, which is on top of
// the stack.
func (e *emitter) bulk(k mark) uint32 {
	length := e.b.localsCount // a scratch local
	e.index(0x22, length)
	switch k.kind {
	case markMemoryCopy:
		return e.inPieces(k, e.helpers, 3)
	case markMemoryFill:
		return e.inPieces(k, e.helpers+1, 2)
	case markMemoryInit:
		return e.after(k, 3, copyShift)
	case markMemoryGrow:
		return e.grow(k, 1, -growShift)
	case markTableGrow:
		return e.grow(k, 2, 0)
	case markTableFill:
		return e.after(k, 2, 0)
	case markTableCopy, markTableInit:
		return e.after(k, 3, 0)
	case markBlock, markBefore, markLoop, markExit, markCall, markCallIndirect, markRefFunc:
	}
	panic("rewrite: a mark without a length")
}

// same copies the instruction of a mark.
func (e *emitter) same(k mark, numbers int) uint32 {
	n := e.length(k.pos, numbers)
	e.out = append(e.out, e.b.code[k.pos:k.pos+n]...)
	return n
}

// inPieces leaves long copies to a helper.
func (e *emitter) inPieces(k mark, helper uint32, numbers int) uint32 {
	length := e.b.localsCount
	e.index(0x20, length)
	e.i32(smallCopy)
	e.code(0x4b)                                     // i32.gt_u
	e.out = s64(append(e.out, 0x04), int64(e.three)) // if
	e.index(0x10, helper)
	e.code(0x05)
	n := e.same(k, numbers)
	e.chargeLocal(length, copyShift)
	e.code(0x0b)
	return n
}

// after charges an operation when it is known not to trap.
func (e *emitter) after(k mark, numbers int, shift int64) uint32 {
	n := e.same(k, numbers)
	e.chargeLocal(e.b.localsCount, shift)
	e.check(false)
	return n
}

// grow charges what was given, not what was asked for.
func (e *emitter) grow(k mark, numbers int, shift int64) uint32 {
	asked, before := e.b.localsCount, e.b.localsCount+1
	n := e.same(k, numbers)
	e.index(0x22, before)
	e.i32(-1)
	e.code(0x47, 0x04, 0x40) // i32.ne, if
	e.chargeLocal(asked, shift)
	e.check(false)
	e.code(0x0b)
	e.index(0x20, before)
	return n
}
