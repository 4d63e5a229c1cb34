package rewrite

import "math"

// flow is what is known of a block's control flow. An instruction is charged
// with the basic block that runs as often as its own: what follows a block that
// nothing branches out of runs as often as what came before it.
type flow struct {
	number  uint32 // of the function's blocks
	calls   uint32 // calls before it
	sets    uint32 // assignments before it
	before  int    // mark charged before the block
	head    int    // mark in front of a loop
	loop    int    // the loop around the block, by index; 0: none
	exit    int    // the outermost block that a branch from inside goes to, by index
	dead    bool   // nothing reaches the block
	target  bool   // a branch goes to its end
	then    int    // mark at the end of the first arm of an if
	thenEnd bool   // the first arm reaches its end
	skips   bool   // the fuel local is right where an if without an else goes on
	held    bool   // the fuel local is right at all branches to its end and at the end of the first arm
}

func (v *validator) pos() uint32 { return uint32(v.r.Pos()) }

func (v *validator) mark(kind markKind, pos, val uint32) int {
	v.m.marks = append(v.m.marks, mark{pos: pos, val: val, kind: kind, held: v.held})
	return len(v.m.marks) - 1
}

// block begins a basic block.
func (v *validator) block() {
	v.cur = v.mark(markBlock, v.pos(), 0)
	v.pressure.blocks += v.around(1)
	v.fresh = v.cur
	v.b.holds = v.b.holds || v.held
}

// charge counts one instruction.
func (v *validator) charge() { v.spend(1) }

// spend charges units. A mark that charges loads the fuel.
func (v *validator) spend(units uint32) {
	if v.dead {
		return
	}
	v.m.marks[v.cur].val += units
	v.b.cost += uint64(units)
	if v.cur == v.fresh {
		v.held = true
	}
}

// around counts blocks once more for each loop that they are in, as compilers
// do with what is live there.
func (v *validator) around(blocks uint32) uint64 { return uint64(blocks) * uint64(1+v.loops) }

// spends notes that the fuel global changes behind the fuel local.
func (v *validator) spends() { v.held, v.fresh = false, -1 }

// beginFlow is called behind the instruction that opens a block and begins at
// byte at.
func (v *validator) beginFlow(op byte, at uint32) flow {
	f := flow{
		number: v.pressure.begin(), calls: v.b.calls, sets: v.pressure.sets,
		before: v.cur, head: -1, loop: v.loop, exit: math.MaxInt, dead: v.dead, skips: v.held, held: true,
	}
	switch {
	case v.dead:
	case op == 0x03:
		f.head = v.mark(markBefore, at, 0)
		v.cur = v.mark(markLoop, v.pos(), 0)
		v.held = true
		v.loop = len(v.ctrls)
		v.pressure.ways++
		v.pressure.blocks += v.around(1)
	case op == 0x04:
		v.block()
	}
	return f
}

// branch notes a branch from here to block i.
func (v *validator) branch(c *control, i int) {
	if v.dead {
		return
	}
	c.target = true
	c.held = c.held && v.held
	top := &v.ctrls[len(v.ctrls)-1]
	top.exit = min(top.exit, i)
}

// fork goes on behind a br_if to block i that begins at byte at. One that
// leaves a loop is not taken most times: what follows is charged with what
// came before, and paid back where it is taken.
func (v *validator) fork(c *control, i int, at uint32) {
	switch {
	case v.dead:
	case i < v.loop && !v.held && len(c.labelTypes()) == 0:
		k := v.mark(markExit, at, v.m.marks[v.cur].val)
		v.m.marks[k].of = int32(v.cur)
		v.pressure.blocks += v.around(1)
		v.b.holds = v.b.holds || v.held
	default:
		v.block()
	}
}

// elseFlow is called behind an else.
func (v *validator) elseFlow(c *control) {
	c.then, c.thenEnd = v.cur, !v.dead
	if c.thenEnd {
		c.held = c.held && v.held
	}
	v.dead = c.dead
	if !v.dead {
		v.held = c.skips
		v.block()
	}
}

// endFlow is called behind the end of c, the block with index i.
func (v *validator) endFlow(c *control, i int) {
	if i > 0 {
		outer := &v.ctrls[i-1]
		outer.exit = min(outer.exit, c.exit)
	}
	if c.head >= 0 {
		v.loopMoves(c)
		if v.b.calls == c.calls {
			v.m.marks[c.head].val = 1
			v.b.holds = true
		}
	}
	v.loop = c.loop
	v.meet(c, i)
}

// meet joins the ways that lead out of the end of c.
func (v *validator) meet(c *control, i int) {
	ways := 0 // of falling out of the end
	first := v.cur
	held := true
	if !v.dead {
		ways++
		held = v.held
	}
	switch {
	case c.op == 0x04 && !c.dead: // without an else
		ways++
		held = held && c.skips
	case c.op == 0x05 && c.thenEnd:
		if ways == 0 {
			first = c.then
		}
		ways++
		held = held && c.held
	}
	target := c.target && c.op != 0x03
	if target {
		held = held && c.held
	}
	meets := target || ways > 1
	if meets {
		v.pressure.ways++
		v.pressure.join(c.number)
	}
	v.dead = c.dead || ways == 0 && !target
	v.held, v.fresh = held, -1
	switch {
	case v.dead:
	case c.exit >= i:
		v.cur = c.before
	case ways == 1 && !target && c.op != 0x04:
		v.cur = first
	default:
		v.block()
	}
	if meets && i > 0 {
		v.moves(v.pressure.assignedSince(c.sets) + len(c.typ.results))
	}
}
