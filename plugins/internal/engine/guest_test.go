package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// The opcodes that package wasmtest has no name for.
var (
	opI32Ne      = []byte{0x47}
	opI32Mul     = []byte{0x6c}
	opI32Shl     = []byte{0x74}
	opI64Eqz     = []byte{0x50}
	opI32DivS    = []byte{0x6d}
	opI32GeU     = []byte{0x4f}
	opMemorySize = []byte{0x3f, 0}
	opMemoryFill = []byte{0xfc, 0x0b, 0}
	opI64Or      = []byte{0x84}
)

var errExit = errors.New("exit")

// state is what the host functions of a test see of their call.
type state struct {
	cancel context.CancelFunc
	run    func(c *engine.Caller)
}

// testHost is the host functions of the guest below.
var testHost = engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
	{Name: "exit", Fn: func(*engine.Caller, []uint64) { engine.Abort(errExit) }},
	{Name: "panic", Fn: func(*engine.Caller, []uint64) { panic("bug") }},
	{Name: "cancel", Fn: func(c *engine.Caller, _ []uint64) { c.Data().(*state).cancel() }},
	{Name: "run", Fn: func(c *engine.Caller, _ []uint64) { c.Data().(*state).run(c) }},
}}

const (
	hostExit = iota
	hostPanic
	hostCancel
	hostRun
)

// counter is where the guest below keeps its counter in memory.
const counter = 100

// someGlobals are the bits of globals that the guest changes.
var someGlobals = []struct {
	typ  wasmbin.ValType
	bits uint64
}{
	{wasmbin.I64, 0x8000_0000_0000_0001},
	{wasmbin.F32, 0x7fa0_0001},           // a signalling NaN
	{wasmbin.F64, 0xfff0_0000_0000_0001}, // another
	{wasmbin.F64, 1 << 63},               // minus zero
}

// testGuest returns a module with what happens to instances. Its memory begins
// with pages of 64 KiB.
func testGuest(pages uint32) *w.Module {
	var m w.Module
	for _, f := range testHost.Funcs {
		m.Import("h", f.Name, w.Sig("", ""))
	}
	m.Memory(pages).Data(1000, []byte("data"))
	count := m.Global(0)
	var spoil []byte
	for _, g := range someGlobals {
		i := m.GlobalRaw(w.Seq([]byte{byte(g.typ), 1}, constant(g.typ, g.bits), w.End))
		spoil = w.Seq(spoil, constant(g.typ, ^g.bits), w.GlobalSet(i))
	}
	end := int32(pages << 16)
	// mess writes to the first, a middle and the last page, counts, and changes
	// the globals.
	mess := m.Func(w.Sig("", ""),
		w.I32(0), w.I32(-1), w.I32Store,
		w.I32(end/2), w.I32(-1), w.I32Store,
		w.I32(end-4), w.I32(-1), w.I32Store,
		w.I32(1000), w.I32(0), w.I32Store,
		w.I32(counter), w.I32(counter), w.I32Load, w.I32(1), w.I32Add, w.I32Store,
		w.GlobalGet(count), w.I32(1), w.I32Add, w.GlobalSet(count), spoil)
	grow := w.Seq(w.I32(3), w.MemoryGrow, w.Drop,
		w.I32(end), w.I32(-1), w.I32(3<<16), opMemoryFill)
	deep := m.NextFunc()
	m.Func(w.Sig("i", "i"),
		w.LocalGet(0), w.I32Eqz, w.If, w.I32(0), w.Return, w.End,
		w.LocalGet(0), w.I32(-1), w.I32Add, w.Call(deep), w.I32(1), w.I32Add)
	tree := m.NextFunc()
	m.Func(w.Sig("i", ""),
		w.LocalGet(0), w.I32Eqz, w.If, w.Return, w.End,
		w.LocalGet(0), w.I32(-1), w.I32Add, w.Call(tree),
		w.LocalGet(0), w.I32(-1), w.I32Add, w.Call(tree))
	loop := w.Seq(w.Loop, w.Br(0), w.End)
	export := func(name string, body ...[]byte) {
		m.Export(name, m.Func(w.Sig("", "i"), w.Call(mess), w.Seq(body...),
			w.I32(1000), w.I32(counter), w.I32Load, opI32Mul, w.GlobalGet(count), w.I32Add))
	}
	export("count")
	export("grow", grow)
	export("grow more", grow, w.I32(40), w.MemoryGrow, w.Drop, w.I32(end), w.I32(-1), w.I32(40<<16), opMemoryFill)
	export("unreachable", grow, w.Unreachable)
	export("out of bounds", w.I32(-4), w.I32Load, w.Drop)
	export("divide", w.I32(1), w.I32(0), opI32DivS, w.Drop)
	export("memory bomb", w.Loop, w.I32(16), w.MemoryGrow, w.I32(-1), opI32Ne, w.BrIf(0), w.End, w.Unreachable)
	export("endless", loop)
	export("bulk", w.Loop, w.I32(0), w.I32(0), opMemorySize, w.I32(16), opI32Shl, opMemoryFill, w.Br(0), w.End)
	export("recursion", w.I32(60), w.Call(tree))
	export("deep", w.I32(12_000), w.Call(deep), w.Drop)
	export("too deep", w.I32(-1), w.Call(deep), w.Drop)
	export("exit", w.Call(hostExit))
	export("panic", grow, w.Call(hostPanic))
	export("cancel", w.Call(hostCancel), loop)
	export("cancel, then call", w.Call(hostCancel), w.Call(hostRun))
	export("run", w.Call(hostRun))
	// regrown answers what is in memory that the guest did not have before: the
	// bits of all its bytes.
	m.Export("regrown", m.Func(w.Sig("", "i"),
		w.I32(3), w.MemoryGrow, w.Drop, w.I32(end), w.LocalSet(0),
		w.Block, w.Loop,
		w.LocalGet(0), opMemorySize, w.I32(16), opI32Shl, opI32GeU, w.BrIf(1),
		[]byte{0x20, 1}, w.LocalGet(0), w.I64Load, opI64Or, []byte{0x21, 1},
		w.LocalGet(0), w.I32(8), w.I32Add, w.LocalSet(0),
		w.Br(0), w.End, w.End,
		[]byte{0x20, 1}, opI64Eqz, w.I32Eqz))
	return &m
}

// constant pushes a constant by its bits.
func constant(t wasmbin.ValType, bits uint64) []byte {
	switch t {
	case wasmbin.F32:
		return binary.LittleEndian.AppendUint32([]byte{0x43}, uint32(bits))
	case wasmbin.F64:
		return binary.LittleEndian.AppendUint64([]byte{0x44}, bits)
	case wasmbin.I32:
		return w.I32(int32(uint32(bits)))
	case wasmbin.I64:
	}
	return w.I64(int64(bits))
}

// bitsOf checks that the bits of a global are those it was declared with.
func bitsOf(t *testing.T, in *engine.Instance) {
	t.Helper()
	got := engine.Globals(in)
	for i, g := range someGlobals {
		bits := got[1+i]
		if g.typ == wasmbin.F32 {
			bits &= math.MaxUint32
		}
		if bits != g.bits {
			t.Errorf("global %d of %s = %#x, want %#x", i, g.typ, bits, g.bits)
		}
	}
}
