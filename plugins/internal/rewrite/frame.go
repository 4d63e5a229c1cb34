package rewrite

// The estimate of a function's stack frame. Compiled code gives each value that
// is live across a call a slot of its own, and each that does not find a
// register: a slot belongs to one assignment of a local, to one operand or to
// what a local is where several ways meet, not to the local.
//
// The numbers are calibrated against the frames that wazero 1.12 makes of
// rewritten modules on amd64. Summed over the functions of a guest, the
// estimate is 1.0 to 1.9 times the frames (Go 1.5, Haskell 1.6). Functions made
// to have large frames, of 500 assignments, operands, conditions, loops or
// blocks of a br_table, or with 400 locals that differ behind each of ten nested
// blocks or loops, come out at 0.5 to 2; the lowest seen anywhere is 0.3.
const (
	frameBase = 96 // return address, frame pointer, saved registers, alignment
	slot      = 8
	registers = 12  // values that live in registers where nothing is called
	bigFrame  = 512 // a leaf function with more is checked like others
	maxFrame  = 1 << 30
	inRegs    = 6 // parameters and results of a kind that are passed in registers
)

// pressure counts the slots of one function while it is validated.
type pressure struct {
	now      uint32 // instructions so far
	called   uint32 // now at the last call
	calls    uint32
	locals   []assignment
	assigned uint64   // locals that are assigned at all
	sets     uint32   // assignments
	blocks   uint64   // basic blocks, see validator.around
	ways     uint64   // places where several ways meet
	opened   uint32   // blocks that have begun
	ended    uint32   // joins
	joinedAt uint32   // now at the last of them
	sums     []uint32 // joins by the number of their block, as a Fenwick tree
	water    int      // operands below are counted for a call
	deep     int      // operands below are counted for having many above them
	highest  int      // most operands
	perCall  uint64
	spilled  uint64
	carried  uint64 // bytes of what the rounds of loops hand on
	widest   uint64 // bytes of the largest local
	chained  uint64 // spilled, too, where locals alone are more than the registers
	outgoing uint64 // bytes of stack that the arguments and results of a call take
}

// assignment is the value that a local has.
type assignment struct {
	at      uint32 // when it was assigned
	opened  uint32 // how many blocks had begun then
	merged  uint32 // joins of these blocks that are counted or came before
	seen    uint32 // joins there had been when it was looked at last
	calls   uint32 // calls there had been then
	counted bool   // it has a slot because of a call
	cold    bool   // it has one because it did not find a register
}

func size(t byte) uint64 {
	switch t {
	case i32, f32:
		return slot / 2
	case v128:
		return slot * 2
	default:
		return slot
	}
}

// passed is how much of a signature goes over the stack.
func passed(t funcType) uint64 {
	return onStack(t.params) + onStack(t.results)
}

func onStack(types []byte) uint64 {
	n, total := len(types), uint64(0)
	for _, t := range types[min(n, inRegs):] {
		total += max(size(t), slot)
	}
	return total
}

// reset begins a function with these locals and so many bytes of code.
func (p *pressure) reset(locals []byte, code int) {
	blocks := code/3 + 2
	if cap(p.sums) < blocks {
		p.sums = make([]uint32, 2*blocks)
	}
	if cap(p.locals) < len(locals) {
		p.locals = make([]assignment, 2*len(locals))
	}
	*p = pressure{locals: p.locals[:len(locals)], sums: p.sums[:blocks], now: 1}
	for _, t := range locals {
		p.widest = max(p.widest, size(t))
	}
	clear(p.locals)
	clear(p.sums)
}

// call notes a call with the given operands below its arguments.
func (p *pressure) call(below []byte) {
	p.called = p.now
	p.calls++
	for ; p.water < len(below); p.water++ {
		p.perCall += size(below[p.water])
	}
}

// pushed notes that the operands grew.
func (p *pressure) pushed(operands []byte) {
	p.highest = max(p.highest, len(operands))
	for ; p.deep < len(operands)-registers; p.deep++ {
		if p.deep >= p.water {
			p.spilled += size(operands[p.deep])
		}
	}
}

func (p *pressure) popped(height int) {
	p.water = min(p.water, height)
	p.deep = min(p.deep, height)
}

func (p *pressure) get(local uint32, t byte) {
	a := &p.locals[local]
	if p.ended != a.seen {
		p.joined(a, t)
	}
	switch {
	case a.counted:
	case a.at < p.called:
		a.counted = true
		p.perCall += size(t)
	case !a.cold && p.now-a.at > registers:
		a.cold = true
		p.spilled += size(t)
	}
}

// joined counts the values that the local has had since it was looked at last
// because ways met on which it differs.
func (p *pressure) joined(a *assignment, t byte) {
	a.seen = p.ended
	if n := p.merges(a.opened) - a.merged; n > 0 {
		a.merged += n
		across := min(n, p.calls-a.calls)
		p.perCall += uint64(across) * size(t)
		p.chained += uint64(n-across) * size(t)
		a.calls = p.calls
		a.at, a.counted = max(a.at, p.joinedAt), false
	}
}

// set gives a local a value. Where that depends on a condition the old one
// lives on.
func (p *pressure) set(local uint32, t byte) {
	a := &p.locals[local]
	p.sets++
	if a.at == 0 {
		p.assigned++
	}
	if p.opened > a.opened && !a.counted && a.at < p.called {
		p.perCall += size(t)
	}
	*a = assignment{at: p.now, opened: p.opened, merged: p.ended, seen: p.ended, calls: p.calls}
}

// assignedSince bounds how many locals were assigned since there had been so
// many assignments.
func (p *pressure) assignedSince(sets uint32) int {
	return int(min(uint64(p.sets-sets), p.assigned))
}

// begin notes that a block begins and returns its number.
func (p *pressure) begin() uint32 {
	p.opened++
	return p.opened
}

// join notes that a block has ended behind which several ways meet: a local
// that was assigned after its beginning has one more value.
func (p *pressure) join(number uint32) {
	p.ended++
	p.joinedAt = p.now
	for i := number; int(i) < len(p.sums); i += i & -i {
		p.sums[i]++
	}
}

// merges returns how many of the blocks up to a number have ended in a join.
func (p *pressure) merges(number uint32) (n uint32) {
	for i := number; i > 0; i -= i & -i {
		n += p.sums[i]
	}
	return n
}

// frame is the estimate in bytes.
func (p *pressure) frame(t funcType) uint32 {
	total := frameBase + passed(t) + p.outgoing + p.perCall + p.carried
	if p.highest+len(p.locals) > registers {
		total += p.spilled
	}
	if len(p.locals) > registers {
		total += p.chained
	}
	return uint32(min(total, maxFrame))
}
