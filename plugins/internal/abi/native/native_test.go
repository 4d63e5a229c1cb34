package native_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/abi/native"
	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

const mib = 1 << 20

// imports holds how a guest calls each import about n bytes of its memory, and
// for how many of them it pays.
var imports = []struct {
	name string
	args func(n int32) []byte
	pays func(n int) int
}{
	{abi.ImportInputLen, nothing, none},
	{abi.ImportInputRead, func(n int32) []byte { return w.Seq(w.I32(0), w.I32(0), w.I32(n)) }, all},
	{abi.ImportOutputWrite, bytes, all},
	{abi.ImportFail, func(n int32) []byte { return w.Seq(w.I32(1), w.I32(-1), bytes(n)) }, upTo(2 * abi.MaxFailText)},
	{abi.ImportLog, func(n int32) []byte { return w.Seq(w.I32(2), bytes(n)) }, upTo(2 * frame.MaxLine)},
	{abi.ImportEmit, func(n int32) []byte { return w.Seq(w.I32(0), bytes(n)) }, upTo(frame.MaxEmit)},
	{abi.ImportCall, func(n int32) []byte { return w.Seq(w.I32(0), w.I32(9), bytes(n)) }, none}, // the session's part
	{abi.ImportReplyRead, func(n int32) []byte { return w.Seq(w.I32(1), w.I32(0), bytes(n)) }, none},
	{abi.ImportStreamRead, func(n int32) []byte { return w.Seq(w.I32(1), bytes(n)) }, none},
	{abi.ImportStreamClose, func(int32) []byte { return w.I32(1) }, none},
	{abi.ImportBudget, func(int32) []byte { return w.I32(1) }, none},
}

func nothing(int32) []byte       { return nil }
func bytes(n int32) []byte       { return w.Seq(w.I32(0), w.I32(n)) }
func none(int) int               { return 0 }
func all(n int) int              { return n }
func upTo(m int) func(n int) int { return func(n int) int { return min(n, m) } }

// guest returns an instance whose export "few" and "many" call an import about
// 16 bytes and a mebibyte, and whose "stall" does nothing else.
func guest(t *testing.T, name string, args func(n int32) []byte) *engine.Instance {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Options{Host: []engine.HostModule{native.Module()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(context.Background()) })
	var m w.Module
	drop := w.Drop
	for _, f := range native.Module().Funcs {
		if f.Name == name {
			m.Import(abi.Module, name, f.Sig)
			if len(f.Sig.Results) == 0 {
				drop = nil
			}
		}
	}
	m.Memory(17)
	m.Export("few", m.Func(w.Sig("", "i"), args(16), w.Call(0), drop, w.I32(0)))
	m.Export("many", m.Func(w.Sig("", "i"), args(mib), w.Call(0), drop, w.I32(0)))
	m.Export("stall", m.Func(w.Sig("", "i"), w.Loop, args(mib), w.Call(0), drop, w.Br(0), w.End, w.Unreachable))
	return instance(t, e, &m)
}

func instance(t *testing.T, e *engine.Engine, m *w.Module) *engine.Instance {
	t.Helper()
	re, err := rewrite.Rewrite(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	code, err := e.Compile(t.Context(), re)
	if err != nil {
		t.Fatal(err)
	}
	in, err := code.Instantiate(t.Context(), 64*mib)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(context.Background()) })
	return in
}

func newFrame() *frame.Frame {
	return &frame.Frame{
		Input: make([]byte, mib), MaxOutput: 16 * mib, MaxEmits: 100, Log: frame.NewLog(1000, 16*mib),
		Caps: hostfn.New(capability.Env{}, math.MaxInt),
	}
}

// TestPays: who lets the host copy pays for it, and everybody for the way.
func TestPays(t *testing.T) {
	for _, im := range imports {
		t.Run(im.name, func(t *testing.T) {
			in := guest(t, im.name, im.args)
			used := map[string]uint64{}
			for _, export := range []string{"few", "many"} {
				if _, err := in.Call(t.Context(), export, engine.Run{Fuel: 1 << 40, Data: newFrame()}); err != nil {
					t.Fatal(err)
				}
				used[export] = in.FuelUsed()
			}
			want := uint64(im.pays(mib)/16 - im.pays(16)/16)
			if got := used["many"] - used["few"]; got != want || used["few"] < engine.HostCallFuel {
				t.Errorf("a mebibyte costs %d more fuel than 16 bytes, which cost %d; want %d", got, used["few"], want)
			}
		})
	}
}

// TestStall: a guest that does nothing but let the host work is stopped.
func TestStall(t *testing.T) {
	for _, im := range imports {
		t.Run(im.name, func(t *testing.T) {
			in := guest(t, im.name, im.args)
			r := engine.Run{Fuel: 1 << 50, Deadline: time.Now().Add(5 * time.Millisecond), Data: newFrame()}
			if _, err := in.Call(t.Context(), "stall", r); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("call = %v, want the deadline", err)
			}
			r = engine.Run{Fuel: 1_000_000, Data: newFrame()}
			if _, err := in.Call(t.Context(), "stall", r); !errors.Is(err, engine.ErrFuel) {
				t.Errorf("call = %v, want out of fuel", err)
			}
		})
	}
}

// TestBudgetFuel: a guest sees what is left of its fuel, a policy its limit.
func TestBudgetFuel(t *testing.T) {
	e, err := engine.New(t.Context(), engine.Options{Host: []engine.HostModule{native.Module()}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.Background())
	var m w.Module
	m.Import(abi.Module, abi.ImportBudget, wasmbin.Signature{Params: []wasmbin.ValType{wasmbin.I32}, Results: []wasmbin.ValType{wasmbin.I64}})
	m.Memory(1).Export("run", m.Func(w.Sig("", "i"), w.I32(int32(abi.BudgetFuel)), w.Call(0), []byte{0xa7}))
	in := instance(t, e, &m)
	for _, pure := range []bool{false, true} {
		v, err := in.Call(t.Context(), "run", engine.Run{Fuel: 100_000, Data: &frame.Frame{Pure: pure, Fuel: 90_000}})
		if want := v == 90_000; want != pure || err != nil || !pure && (v < 90_000 || v > 100_000-engine.HostCallFuel) {
			t.Errorf("pure %v: budget = %d, %v", pure, v, err)
		}
	}
}
