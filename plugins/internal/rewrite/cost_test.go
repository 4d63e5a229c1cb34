package rewrite_test

import (
	"bytes"
	"strings"
	"testing"

	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// TestCosts: an instruction that stands for much work costs more than one.
func TestCosts(t *testing.T) {
	const n = 40 // values, of which 16 are moved for nothing
	many := strings.Repeat("i", n)
	var m w.Module
	give := m.Type(w.Sig("", many))
	take := m.Type(w.Sig(many, ""))
	pass := m.Type(w.Sig(many, many))
	push, drop := bytes.Repeat(w.I32(1), n), bytes.Repeat(w.Drop, n)
	var assign []byte
	for i := range uint32(n) {
		assign = w.Seq(assign, w.LocalGet(i), w.LocalSet(i))
	}
	cond := w.LocalGet(0)
	for _, tt := range []struct {
		name string
		code []byte
		want int64 // of the block that is charged for it
	}{
		{"ref.func", w.Seq(w.RefFunc(0), w.Drop), 2 + 1024},
		{"memory.grow", w.Seq(w.I32(0), w.MemoryGrow, w.Drop), 3 + 64},
		{"table.grow", w.Seq(w.TableGrow(0, 0), w.Drop), 4 + 64},
		{"a call with parameters", w.Seq(push, w.Call(1)), n + 1 + 24},
		{"a call with results", w.Seq(w.Call(2), drop), n + 1 + 24},
		{"an indirect call", w.Seq(push, cond, w.CallIndirect(take)), n + 2 + 24},
		{"results that differ", w.Seq([]byte{0x02, byte(give)}, push, cond, w.BrIf(0), w.End, drop), 2*n + 2 + 24},
		{"locals that differ", w.Seq(w.Block, cond, w.BrIf(1), cond, w.If, assign, w.End, w.End, cond, w.Drop), 4 + 24},
		{"parameters of a loop", w.Seq(push, []byte{0x03, byte(pass)}, cond, w.BrIf(0), w.End, drop), 2 + 24},
		{"locals of a loop, which differ in it", w.Seq(w.Loop, cond, w.If, assign, w.End, cond, w.BrIf(0), w.End), 4 + 2*24},
		{"a way out does not pay a loop's locals back", w.Seq(w.Loop, w.Call(0), cond, w.BrIf(1), assign, w.Br(0), w.End), 4 + 2*n + 24},
	} {
		c := m
		c.FuncRaw(c.Type(w.Sig("", "")), w.Seq([]byte{1, n, 0x7f}, tt.code, w.End))
		c.FuncRaw(take, w.Seq([]byte{0}, w.End))
		c.FuncRaw(give, w.Seq([]byte{0}, push, w.End))
		c.Memory(1).Table(1).Elements(0)
		got := body(t, c.Bytes(), 0)
		if !bytes.Contains(got, w.Seq(w.I64(tt.want), sub)) {
			t.Errorf("%s: %x, want a charge of %d", tt.name, got, tt.want)
		}
		if back := w.Seq(w.I64(2*n+1), add); strings.HasPrefix(tt.name, "a way out") && !bytes.Contains(got, back) {
			t.Errorf("%s: %x, want %d to be paid back", tt.name, got, 2*n+1)
		}
	}
}
