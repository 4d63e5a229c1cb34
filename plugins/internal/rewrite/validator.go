package rewrite

import (
	"fmt"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// control is a structured instruction that has not ended yet.
type control struct {
	op          byte // 0x02 block, 0x03 loop, 0x04 if, 0x05 after its else; 0 the function
	typ         funcType
	height      int
	unreachable bool // the rest of the block is, for the types
	flow
}

// validator checks one function body after another with the algorithm of the
// specification's appendix, and notes where the rewritten ones differ.
type validator struct {
	m        *module
	r        *wasmbin.Reader
	opAt     int // offset of the instruction
	types    []byte
	ctrls    []control
	locals   []byte
	cur      int  // mark to which instructions are charged
	dead     bool // nothing reaches the next instruction
	loops    int  // loops around the next instruction
	loop     int  // the innermost loop that is not dead, by index; 0: none
	held     bool // the fuel local holds what the fuel global does
	fresh    int  // mark since which that is so if it charges anything; -1: none
	b        body
	pressure pressure
	err      error
}

func (v *validator) fail(format string, args ...any) {
	if v.err == nil {
		v.err = fmt.Errorf("%w: %s at byte %d", ErrInvalid, fmt.Sprintf(format, args...), v.opAt)
	}
}

func (v *validator) refuse(what string) {
	if v.err == nil {
		v.err = fmt.Errorf("%w: %s at byte %d", ErrUnsupported, what, v.opAt)
	}
}

func (v *validator) malformed(format string, args ...any) {
	if v.err == nil {
		v.err = fmt.Errorf("%w: %s at byte %d", ErrMalformed, fmt.Sprintf(format, args...), v.opAt)
	}
}

func (v *validator) tooMany(what string, n, most uint64) bool {
	if v.err == nil && n > most {
		v.err = atMost(what, n, most, v.opAt)
	}
	return n > most
}

func (v *validator) push(t byte) {
	v.types = append(v.types, t)
	if n := len(v.types); n > v.pressure.highest || n-registers > v.pressure.deep {
		v.pressure.pushed(v.types)
	}
}

// handled counts work that a few bytes of code can ask for.
func (v *validator) handled(n int) {
	v.m.moves += uint64(n)
	v.tooMany("operands of calls and blocks", v.m.moves, maxMoves)
}

func (v *validator) pushAll(types []byte) {
	v.handled(len(types))
	for _, t := range types {
		v.push(t)
	}
}

func (v *validator) pop(want byte) byte {
	n := len(v.types)
	c := &v.ctrls[len(v.ctrls)-1]
	if n == c.height {
		if !c.unreachable {
			v.fail("type mismatch: %s expected, the stack is empty", typeName(want))
		}
		return want
	}
	got := v.types[n-1]
	v.types = v.types[:n-1]
	v.pressure.popped(n - 1)
	if got != want && got != unknown && want != unknown {
		v.fail("type mismatch: %s expected, got %s", typeName(want), typeName(got))
	}
	return got
}

func (v *validator) popAll(types []byte) {
	v.handled(len(types))
	for i := len(types) - 1; i >= 0; i-- {
		v.pop(types[i])
	}
}

func (v *validator) enter(op byte, t funcType, at uint32) {
	if v.tooMany("nested blocks", uint64(len(v.ctrls)), maxNesting) {
		return
	}
	if op == 0x03 {
		v.loops++
		if v.tooMany("nested loops", uint64(v.loops), maxLoops) {
			return
		}
	}
	v.ctrls = append(v.ctrls, control{op: op, typ: t, height: len(v.types), flow: v.beginFlow(op, at)})
	v.pushAll(t.params)
}

// leave checks that the block has its results on the stack and nothing else.
func (v *validator) leave() *control {
	c := &v.ctrls[len(v.ctrls)-1]
	v.popAll(c.typ.results)
	if len(v.types) != c.height {
		v.fail("type mismatch: %d values remaining on the stack at the end of a block", len(v.types)-c.height)
		v.types = v.types[:c.height]
	}
	return c
}

// unreach makes the rest of the block unreachable.
func (v *validator) unreach() {
	c := &v.ctrls[len(v.ctrls)-1]
	v.types = v.types[:c.height]
	v.pressure.popped(c.height)
	c.unreachable = true
	v.dead = true
}

// label returns the block that a branch by n levels goes to.
func (v *validator) label(n uint32) (*control, int) {
	if uint64(n) >= uint64(len(v.ctrls)) {
		v.fail("unknown label %d", n)
		return &v.ctrls[0], 0
	}
	i := len(v.ctrls) - 1 - int(n)
	return &v.ctrls[i], i
}

// labelTypes are what a branch to the block takes along.
func (c *control) labelTypes() []byte {
	if c.op == 0x03 {
		return c.typ.params
	}
	return c.typ.results
}

// blockType reads the type of a block, loop or if.
func (v *validator) blockType() funcType {
	first := v.r.Peek()
	switch first {
	case 0x40:
		v.r.Byte()
		return funcType{}
	case i32, i64, f32, f64, v128, funcref, externref:
		return funcType{results: v.r.Bytes(1)}
	}
	if first&0xc0 == 0x40 { // a negative number of one byte: some other type
		valType(v.r)
		return funcType{}
	}
	i := v.r.S33()
	if v.r.Err() != nil {
		return funcType{}
	}
	if i < 0 {
		v.malformed("malformed block type")
		return funcType{}
	}
	return v.typeAt(uint64(i))
}

func (v *validator) typeAt(i uint64) funcType {
	if i >= uint64(len(v.m.types)) {
		v.fail("unknown type %d", i)
		return funcType{}
	}
	return v.m.types[i]
}

func (v *validator) local() (index uint32, typ byte) {
	index = v.r.U32()
	if uint64(index) >= uint64(len(v.locals)) {
		v.fail("unknown local %d", index)
		return 0, unknown
	}
	return index, v.locals[index]
}

func (v *validator) global() globalType {
	i := v.r.U32()
	if uint64(i) >= uint64(len(v.m.globals)) {
		v.fail("unknown global %d", i)
		return globalType{}
	}
	return v.m.globals[i]
}

func (v *validator) function() (index uint32, typ funcType) {
	index = v.r.U32()
	if uint64(index) >= uint64(len(v.m.funcs)) {
		v.fail("unknown function %d", index)
		return 0, funcType{}
	}
	return index, v.m.types[v.m.funcs[index]]
}

func (v *validator) table() (elem byte) {
	i := v.r.U32()
	if uint64(i) >= uint64(len(v.m.tables)) {
		v.fail("unknown table %d", i)
		return unknown
	}
	return v.m.tables[i].elem
}

func (v *validator) elemSegment() (elem byte) {
	i := v.r.U32()
	if uint64(i) >= uint64(len(v.m.elems)) {
		v.fail("unknown elem segment %d", i)
		return unknown
	}
	return v.m.elems[i]
}

func (v *validator) dataSegment() {
	i := v.r.U32()
	switch {
	case v.m.dataCount < 0:
		v.malformed("data count section required")
	case int64(i) >= v.m.dataCount:
		v.fail("unknown data segment %d", i)
	}
	v.m.usesData = true
}

func (v *validator) memory() {
	if len(v.m.mems) == 0 {
		v.fail("unknown memory 0")
	}
}

// memoryByte reads the index of a memory where the format has a zero.
func (v *validator) memoryByte() {
	if v.r.Byte() != 0 && v.r.Err() == nil {
		v.malformed("zero byte expected: there is one memory at most")
	}
	v.memory()
}

// memArg reads the alignment and offset of an access of 1<<most bytes.
func (v *validator) memArg(most byte) {
	align := v.r.U32()
	v.r.U32()
	if align > uint32(most) {
		switch {
		case align < 32:
			v.fail("alignment must not be larger than natural: 2**%d", align)
		case align < 128 && align >= 64:
			v.refuse("multiple memories (an access with a memory index)")
		default:
			v.malformed("malformed alignment %d", align)
		}
	}
	v.memory()
}
