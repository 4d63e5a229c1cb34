package rewrite

// What an instruction costs beyond the one unit that each does: where one
// stands for work that many would otherwise do.
const (
	// growTrip is for the way out of the machine code and back that memory.grow
	// and table.grow take, also when they do not grow anything.
	growTrip = 64
	// refTrip is for ref.func, which leaves the machine code, too, and makes the
	// engine allocate a reference that it keeps for as long as the instance
	// lives: at 16 units a byte, which bounds what a call can make of them.
	refTrip = 1 << 10
	// freeMoves values may be moved for nothing. A call moves its operands, and
	// where ways meet each block result is moved and each local that has other
	// values on them.
	freeMoves = 16
	// unwound is how many units of fuel one byte of stack pays for. Callers go on
	// without a check when what they called returns, one after another, so that
	// what they may do then is bounded by the stack that they need before:
	// 8 MiB allow 32 Mi units.
	unwound = 4
)

// moves charges for n values that are moved at once.
func (v *validator) moves(n int) {
	if n > freeMoves {
		v.spend(uint32(n - freeMoves))
	}
}

// loopMoves notes what each round of a loop hands to the next one, which is
// known at its end. A way out of the loop does not pay it back.
func (v *validator) loopMoves(c *control) {
	if !c.target {
		return
	}
	n := v.pressure.assignedSince(c.sets) + len(c.typ.params)
	v.pressure.carried += uint64(n) * v.pressure.widest
	if n > freeMoves {
		v.m.marks[c.head+1].of = int32(n - freeMoves)
		v.b.cost += uint64(n - freeMoves)
	}
}

// atLeast returns the stack to charge for a function with calls: its frame, or
// what its code costs.
func (b *body) atLeast(frame uint32) uint32 {
	if b.calls == 0 {
		return frame
	}
	return uint32(min(max(uint64(frame), (b.cost+smallLeaf*uint64(b.calls))/unwound), maxFrame))
}
