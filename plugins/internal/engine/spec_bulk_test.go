package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/casemate/casemate/plugins/internal/wasmtest"
)

// bulkGuest exports memory.copy and memory.fill over eight pages.
func bulkGuest(t *testing.T, rewritten bool, memory []byte) *guest {
	t.Helper()
	var m wasmtest.Module
	m.Memory(8)
	arguments := wasmtest.Seq(wasmtest.LocalGet(0), wasmtest.LocalGet(1), wasmtest.LocalGet(2))
	m.Export("copy", m.Func(wasmtest.Sig("iii", ""), arguments, []byte{0xfc, 10, 0, 0}))
	m.Export("fill", m.Func(wasmtest.Sig("iii", ""), arguments, []byte{0xfc, 11, 0}))
	g, err := newTestbed(t, rewritten).instantiate("", m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !g.memory().Write(0, memory) {
		t.Fatal("the memory is too small")
	}
	return g
}

// TestLongCopies compares copies that the rewriter does in pieces with those in
// one: overlapping either way, up to the end of the memory and beyond.
func TestLongCopies(t *testing.T) {
	const size = 8 << 16
	r := rand.New(rand.NewPCG(1, 2))
	memory := make([]byte, size)
	for i := range memory {
		memory[i] = byte(r.Uint32())
	}
	original, rewritten := bulkGuest(t, false, memory), bulkGuest(t, true, memory)
	near := []uint32{0, 1, 1 << 10, 1 << 16, 1 << 18, size, 1<<32 - 1}
	pick := func() uint64 {
		v := near[r.IntN(len(near))] + uint32(r.IntN(5)) - 2
		if r.IntN(3) == 0 {
			v = r.Uint32N(size)
		}
		return uint64(v)
	}
	kinds := map[string]int{}
	for i := range 400 {
		name, args := "copy", []uint64{pick(), pick(), pick()}
		switch i % 4 {
		case 0:
			name = "fill"
		case 1: // overlapping
			args[1] = uint64(uint32(args[0] + r.Uint64N(2000) - 1000))
			args[2] = 1<<18 + r.Uint64N(1<<17)
		}
		_, want := original.call(name, args...)
		_, got := rewritten.call(name, args...)
		what := fmt.Sprintf("%s %#x", name, args)
		if kindOf(got) != kindOf(want) {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
		kinds[name+": "+kindOf(want)]++
		a, _ := original.memory().Read(0, size)
		b, _ := rewritten.memory().Read(0, size)
		if !bytes.Equal(a, b) {
			t.Fatalf("%s: memories differ", what)
		}
	}
	if len(kinds) != 4 {
		t.Errorf("calls ended %v, want each of two kinds", kinds)
	}
}
