package rewrite_test

import (
	"bytes"
	"testing"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// The modules of these tests import and declare nothing of these kinds, so
// that ours are the first.
const (
	fuel, stack, limit = 0, 1, 2 // globals
	yield              = 0       // function
	kept               = 2       // local with the fuel, of a function without calls and parameters
)

var (
	less     = []byte{0x42, 0, 0x53}          // i64.const 0, i64.lt_s
	sub, add = []byte{0x7d}, []byte{0x7c}     // of i64
	out      = w.Seq(w.I32(0), w.Call(yield)) // of fuel
	checked  = w.Seq(w.GlobalGet(fuel), less, w.If, out, w.End)
	above    = []byte{0x4b} // i32.gt_u
	small    = []byte{2, 1, 0x7f, 1, 0x7e}
)

func charge(n int64) []byte {
	return w.Seq(w.GlobalGet(fuel), w.I64(n), sub, w.GlobalSet(fuel))
}

// load is a charge that leaves the fuel in a local, hold one that begins
// there.
func load(n int64) []byte {
	return w.Seq(w.GlobalGet(fuel), w.I64(n), sub, w.LocalTee(kept), w.GlobalSet(fuel))
}

func hold(n int64) []byte {
	return w.Seq(w.LocalGet(kept), w.I64(n), sub, w.LocalTee(kept), w.GlobalSet(fuel))
}

// held is a check of the fuel in a local.
func held() []byte {
	return w.Seq(w.LocalGet(kept), less, w.If, out, w.GlobalGet(fuel), w.LocalSet(kept), w.End)
}

// body returns the n-th body of a rewritten module.
func body(t *testing.T, wasm []byte, n int) []byte {
	t.Helper()
	code := sections(t, mustRewrite(t, wasm).Wasm)[10]
	r := wasmbin.NewReader(code, 0)
	r.U32()
	for ; n > 0; n-- {
		r.Bytes(r.U32())
	}
	return r.Bytes(r.U32())
}

// TestFuel shows what is charged where. The functions have an i32 and an i64
// local behind their parameters; small ones check nothing.
func TestFuel(t *testing.T) {
	nop, ret, local := []byte{0x01}, w.Return, w.LocalGet(0)
	drop := w.Seq(local, w.Drop) // two instructions
	holds := []byte{3, 1, 0x7f, 1, 0x7e, 1, 0x7e}
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"nothing", nil, w.Seq(small, w.End)},
		{"nop, block and end are free", w.Seq(nop, w.Block, w.End), w.Seq(small, nop, w.Block, w.End, w.End)},
		{"one block", drop, w.Seq(small, charge(2), drop, w.End)},
		{"a block that nothing leaves", w.Seq(drop, w.Block, drop, w.End, drop), w.Seq(small, charge(6), drop, w.Block, drop, w.End, drop, w.End)},
		{"behind a return is nothing charged", w.Seq(drop, ret, drop), w.Seq(small, charge(3), drop, ret, drop, w.End)},
		{
			"the arms of an if", w.Seq(local, w.If, drop, w.Else, drop, nop, drop, w.End, drop),
			w.Seq(holds, load(4), local, w.If, hold(2), drop, w.Else, hold(4), drop, nop, drop, w.End, drop, w.End),
		},
		{
			"an if that returns", w.Seq(local, w.If, ret, w.End, drop),
			w.Seq(holds, load(2), local, w.If, hold(1), ret, w.End, hold(2), drop, w.End),
		},
		{
			"an arm that returns", w.Seq(local, w.If, ret, w.Else, drop, w.End, drop),
			w.Seq(holds, load(2), local, w.If, hold(1), ret, w.Else, hold(4), drop, w.End, drop, w.End),
		},
		{
			"a branch to the function's label", w.Seq(w.Block, local, w.BrIf(1), drop, w.End, drop),
			w.Seq(holds, load(2), w.Block, local, w.BrIf(1), hold(4), drop, w.End, drop, w.End),
		},
		{
			"a branch to a block's end", w.Seq(w.Block, local, w.BrIf(0), drop, w.End, drop),
			w.Seq(holds, load(4), w.Block, local, w.BrIf(0), hold(2), drop, w.End, drop, w.End),
		},
		{
			"br_table", w.Seq(w.Block, w.Block, local, w.BrTable(0, 1, 2), drop, w.End, drop, w.End, drop),
			w.Seq(holds, load(2), w.Block, w.Block, local, w.BrTable(0, 1, 2), drop, w.End, hold(2), drop, w.End, hold(2), drop, w.End),
		},
	} {
		var m w.Module
		m.Func(w.Sig("", ""), tt.in)
		if got := body(t, m.Bytes(), 0); !bytes.Equal(got, tt.want) {
			t.Errorf("%s:\ngot  %x\nwant %x", tt.name, got, tt.want)
		}
	}
}

// TestLoop: a loop without calls keeps the fuel in a local, and its check
// serves the entry of the function.
func TestLoop(t *testing.T) {
	drop := w.Seq(w.LocalGet(0), w.Drop)
	var m w.Module
	m.Func(w.Sig("", ""), drop, w.Loop, w.LocalGet(0), w.BrIf(0), w.End, drop)
	want := w.Seq(
		[]byte{3, 1, 0x7f, 1, 0x7e, 1, 0x7e}, load(4), drop,
		w.Loop, hold(2), held(), w.LocalGet(0), w.BrIf(0), w.End, drop, w.End)
	if got := body(t, m.Bytes(), 0); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
	m = w.Module{}
	m.Func(w.Sig("", ""), w.Loop, w.Br(0), w.End, drop)
	want = w.Seq(
		[]byte{3, 1, 0x7f, 1, 0x7e, 1, 0x7e}, w.GlobalGet(fuel), w.LocalSet(kept),
		w.Loop, hold(1), held(), w.Br(0), w.End, drop, w.End)
	if got := body(t, m.Bytes(), 0); !bytes.Equal(got, want) {
		t.Errorf("endless: got  %x\nwant %x", got, want)
	}
}

// TestLoopWithCalls: behind a call the fuel is another, and a way out of the
// loop pays back what it skips.
func TestLoopWithCalls(t *testing.T) {
	const depth = 2
	drop := w.Seq(w.LocalGet(0), w.Drop)
	var m w.Module
	f := m.Func(w.Sig("", ""), w.Block, w.Loop, w.Call(0), w.LocalGet(0), w.BrIf(1), drop, w.Br(0), w.End, w.End)
	got := body(t, m.Bytes(), int(f))
	charged := w.Seq(w.Block, w.Loop, charge(6), checked, w.LocalGet(depth), w.GlobalSet(stack), w.Call(1), w.LocalGet(0))
	paid := w.Seq(w.If, w.GlobalGet(fuel), w.I64(3), add, w.GlobalSet(fuel), w.Br(2), w.End, drop, w.Br(0), w.End, w.End, w.End)
	if want := w.Seq(charged, paid); !bytes.HasSuffix(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// TestStack: a function that calls keeps its depth in a local and leaves it in
// the global before each call.
func TestStack(t *testing.T) {
	const depth = 2
	leave := w.Seq(w.LocalGet(depth), w.GlobalSet(stack))
	var m w.Module
	m.Table(1)
	typ := m.Type(w.Sig("", ""))
	m.Func(w.Sig("", ""), w.Call(0), w.I32(0), w.CallIndirect(typ))
	got := body(t, m.Bytes(), 0)
	over := w.Seq(w.LocalGet(depth), w.GlobalGet(limit), above)
	want := w.Seq(
		[]byte{3, 1, 0x7f, 1, 0x7e, 1, 0x7f}, charge(3),
		w.GlobalGet(stack), w.I32(96), w.I32Add, w.LocalTee(depth), w.GlobalGet(limit), above,
		w.GlobalGet(fuel), less, []byte{0x72}, w.If, checked, over, w.If, w.I32(1), w.Call(yield), w.End, w.End,
		leave, w.Call(1), w.I32(0), leave, w.CallIndirect(typ), w.End)
	if !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}

// TestDeadCodeIsRenumbered: what cannot run is not charged, but its indexes
// are moved.
func TestDeadCodeIsRenumbered(t *testing.T) {
	var m w.Module
	m.Export("f", m.Func(w.Sig("", ""), w.Unreachable, w.Call(0), w.RefFunc(0), w.Drop, w.MemoryGrow, w.Drop))
	m.Memory(1)
	got := body(t, m.Bytes(), 0)
	want := w.Seq(w.Unreachable, w.LocalGet(2), w.GlobalSet(stack), w.Call(1), w.RefFunc(1), w.Drop, w.MemoryGrow, w.Drop, w.End)
	if !bytes.HasSuffix(got, want) {
		t.Errorf("got  %x\nwant suffix %x", got, want)
	}
	if !bytes.Contains(got, charge(1)) {
		t.Errorf("got %x, want one charge of 1", got)
	}
}

// TestBulk: operations are charged by their length, long ones in a helper.
func TestBulk(t *testing.T) {
	const n, before = 2, 3
	three := w.Seq(w.I32(0), w.I32(0), w.I32(0))
	long := w.Seq(w.LocalTee(n), w.LocalGet(n), w.I32(1024), above, []byte{0x04, 2})
	by := func(shift ...byte) []byte {
		return w.Seq(w.GlobalGet(fuel), w.LocalGet(n), []byte{0xad}, shift, sub, w.GlobalSet(fuel))
	}
	per16, pages := []byte{0x42, 4, 0x88}, []byte{0x42, 10, 0x86}
	grown := func(op, shift []byte) []byte {
		return w.Seq(w.LocalTee(n), op, w.LocalTee(before), w.I32(-1), []byte{0x47}, w.If, by(shift...), checked, w.End, w.LocalGet(before))
	}
	null := []byte{0xd0, 0x70}
	for _, tt := range []struct {
		name           string
		args, op, want []byte
	}{
		{"memory.copy", three, w.MemoryCopy, w.Seq(long, w.Call(2), w.Else, w.MemoryCopy, by(per16...), w.End)},
		{"memory.fill", three, w.MemoryFill, w.Seq(long, w.Call(3), w.Else, w.MemoryFill, by(per16...), w.End)},
		{"memory.init", three, []byte{0xfc, 8, 0, 0}, w.Seq(w.LocalTee(n), []byte{0xfc, 8, 0, 0}, by(per16...), checked)},
		{"table.init", three, []byte{0xfc, 12, 0, 0}, w.Seq(w.LocalTee(n), []byte{0xfc, 12, 0, 0}, by(), checked)},
		{"table.copy", three, []byte{0xfc, 14, 0, 0}, w.Seq(w.LocalTee(n), []byte{0xfc, 14, 0, 0}, by(), checked)},
		{"table.fill", w.Seq(w.I32(0), null, w.I32(0)), []byte{0xfc, 17, 0}, w.Seq(w.LocalTee(n), []byte{0xfc, 17, 0}, by(), checked)},
		{"memory.grow", w.I32(1), w.Seq(w.MemoryGrow, w.Drop), w.Seq(grown(w.MemoryGrow, pages), w.Drop)},
		{"table.grow", w.Seq(null, w.I32(1)), w.Seq([]byte{0xfc, 15, 0}, w.Drop), w.Seq(grown([]byte{0xfc, 15, 0}, nil), w.Drop)},
	} {
		var m w.Module
		m.Func(w.Sig("", ""), tt.args, tt.op)
		m.Memory(1).Table(1).Elem([]byte{1, 0, 0}).DataRaw([]byte{1, 0}).DataCount()
		got := body(t, m.Bytes(), 0)
		if want := w.Seq(tt.args, tt.want, w.End); !bytes.HasSuffix(got, want) {
			t.Errorf("%s:\ngot  %x\nwant %x", tt.name, got, want)
		}
	}
}

// TestFrame: what is live across calls takes stack, however few locals hold it.
func TestFrame(t *testing.T) {
	frame := func(code ...[]byte) int32 {
		var m w.Module
		m.Import("env", "f", w.Sig("", "i"))
		m.FuncRaw(m.Type(w.Sig("", "")), w.Seq([]byte{3, 1, 0x7f, 1, 0x7e, 40, 0x7b}, w.Seq(code...), w.End))
		r := wasmbin.NewReader(body(t, m.Bytes(), 0), 0)
		for r.Len() > 0 { // global.get stack, i32.const frame
			if r.Byte() == 0x23 && r.Peek() == stack {
				r.Byte()
				r.Byte()
				return r.S32()
			}
		}
		return 0
	}
	const n = 1000
	vector := w.Seq([]byte{0xfd, 12}, make([]byte, 16))
	versions := bytes.Repeat(w.Seq(vector, w.LocalSet(2), w.Call(0), w.Drop, w.LocalGet(2), w.Drop), n)
	operands := w.Seq(bytes.Repeat(w.Call(0), n), bytes.Repeat(w.Drop, n))
	short := bytes.Repeat(w.Seq(w.Call(0), w.LocalSet(0), w.LocalGet(0), w.Drop), 4)
	long := bytes.Repeat(w.Seq(w.LocalGet(0), w.Drop), n)
	var assign, read []byte
	for i := range uint32(40) {
		assign = w.Seq(assign, vector, w.LocalSet(2+i))
		read = w.Seq(read, w.LocalGet(2+i), w.Drop)
	}
	leaving := w.Seq(w.LocalGet(0), w.BrIf(0), w.LocalGet(0), w.BrIf(1), w.LocalGet(0), w.BrIf(2))
	blocks := w.Seq(w.Block, w.Block, w.Block, leaving, assign, w.End, w.End, w.End, w.Call(0), w.Drop, read)
	again := w.Seq(w.LocalGet(0), w.BrIf(0), w.End)
	loops := w.Seq(w.Loop, w.Loop, w.Loop, w.Call(0), w.Drop, read, assign, again, again, again)
	leaf := w.Seq(bytes.Repeat(w.LocalGet(1), n), bytes.Repeat(w.Drop, n))
	for _, tt := range []struct {
		name        string
		code        []byte
		least, most int32
	}{
		{"one call", w.Seq(w.Call(0), w.Drop), 90, 110},
		{"values that live across a call", versions, 16 * n, 17 * n},
		{"choices behind nested blocks", blocks, 3 * 40 * 16, 5 * 40 * 16},
		{"rounds of nested loops", loops, 3 * 40 * 16, 5 * 40 * 16},
		{"a caller with much code", w.Seq(w.Call(0), w.Drop, long), n / 2, n/2 + 10},
		{"values that do not", short, 90, 110},
		{"operands", operands, 4 * (n - 1), 5 * n},
		{"a leaf with many operands", leaf, 7 * n, 9 * n},
		{"a leaf with few", w.Seq(w.LocalGet(1), w.Drop), 0, 0},
	} {
		if got := frame(tt.code); got < tt.least || got > tt.most {
			t.Errorf("%s = %d bytes, want %d to %d", tt.name, got, tt.least, tt.most)
		}
	}
}

// TestFuelBehindCalls: the local with the fuel is right only where no way
// leads from a call.
func TestFuelBehindCalls(t *testing.T) {
	drop := w.Seq(w.LocalGet(0), w.Drop)
	arm := w.Seq(w.LocalGet(0), w.If, drop, w.End)
	for name, code := range map[string][]byte{
		"an if that is left out": w.Seq(w.Call(0), arm, arm),
		"a branch":               w.Seq(w.Block, w.Call(0), w.LocalGet(0), w.BrIf(0), drop, w.End, arm),
		"a first arm":            w.Seq(w.LocalGet(0), w.If, w.Call(0), w.Else, drop, w.End, arm),
	} {
		var m w.Module
		m.Func(w.Sig("", ""), drop, code)
		got := body(t, m.Bytes(), 0)
		last := got[bytes.LastIndex(got, w.Seq(w.LocalGet(0), w.If)):]
		if want := w.Seq(w.LocalGet(0), w.If, w.GlobalGet(fuel)); !bytes.HasPrefix(last, want) {
			t.Errorf("%s: the last arm is %x, want it to begin with %x", name, last, want)
		}
	}
}

// TestLargeLeafChecks: what runs between two checks is bounded.
func TestLargeLeafChecks(t *testing.T) {
	var m w.Module
	code := bytes.Repeat(w.Seq(w.LocalGet(0), w.Drop), 20)
	m.Func(w.Sig("", ""), code)
	if got, want := body(t, m.Bytes(), 0), w.Seq(small, charge(40), checked, code, w.End); !bytes.Equal(got, want) {
		t.Errorf("got  %x\nwant %x", got, want)
	}
}
