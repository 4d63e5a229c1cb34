package engine_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmgen"
)

// mutated is how many damaged modules TestMutations tries.
const mutated = 6000

// TestMutations damages generated modules: the rewriter refuses what wazero
// refuses, and what it makes of the others wazero accepts.
func TestMutations(t *testing.T) {
	b := newTestbed(t, false)
	accepted := 0
	var wasm []byte
	for i := range uint64(mutated) {
		r := rand.New(rand.NewPCG(i, 0))
		if i%20 == 0 {
			wasm = wasmgen.Generate(binary.LittleEndian.AppendUint64(nil, i))
		}
		edits := make([]byte, 4*(1+r.IntN(3)))
		for j := range edits {
			edits[j] = byte(r.Uint32())
		}
		if b.judge(t, mutate(wasm, edits)) {
			accepted++
		}
		if t.Failed() {
			t.Fatalf("module %d, edits %x", i-i%20, edits)
		}
	}
	if accepted < mutated/10 || accepted > mutated*9/10 {
		t.Errorf("%d of %d damaged modules were accepted: the damage is too great or too small", accepted, mutated)
	}
}

func FuzzMutations(f *testing.F) {
	for i := range 10 {
		f.Add(bytes.Repeat([]byte{byte(i), 7, 31}, 3*i), []byte{byte(i), 0, byte(20 * i), byte(i)})
	}
	b := newTestbed(f, false)
	f.Fuzz(func(t *testing.T, seed, edits []byte) { b.judge(t, mutate(wasmgen.Generate(seed), edits)) })
}

// FuzzRefusals gives the rewriter any bytes.
func FuzzRefusals(f *testing.F) {
	for i := range 5 {
		f.Add(wasmgen.Generate([]byte{byte(i)}))
	}
	b := newTestbed(f, false)
	f.Fuzz(func(t *testing.T, wasm []byte) { b.judge(t, wasm) })
}

// mutate applies edits of four bytes: what, where (two bytes), and a byte.
func mutate(wasm, edits []byte) []byte {
	out := slices.Clone(wasm)
	for ; len(edits) >= 4 && len(out) > 16; edits = edits[4:] {
		at := 8 + int(binary.BigEndian.Uint16(edits[1:]))%(len(out)-8)
		v := edits[3]
		switch edits[0] % 6 {
		case 0:
			out[at] = v
		case 1:
			out[at] ^= 1 << (v % 8)
		case 2:
			out[at] += v%5 - 2
		case 3:
			out = slices.Insert(out, at, v)
		case 4:
			out = slices.Delete(out, at, at+1)
		default: // change two bytes' order
			if at+1 < len(out) {
				out[at], out[at+1] = out[at+1], out[at]
			}
		}
	}
	return out
}

// wazeroMistake is its error for a valid module whose last section is an empty
// custom one. What the rewriter makes of it has no such section.
const wazeroMistake = "failed to read custom section name["

// judge asks the rewriter about a module, and wazero if it was accepted. It
// reports whether it was.
func (b *testbed) judge(t *testing.T, wasm []byte) bool {
	t.Helper()
	m, err := rewrite.Rewrite(wasm)
	if err != nil {
		return false // wazero may need seconds and gigabytes to find out
	}
	if err := b.compile(wasm); err != nil && !strings.Contains(err.Error(), wazeroMistake) {
		t.Errorf("accepted; wazero: %v", err)
		return true
	}
	if err := b.compile(m.Wasm); err != nil {
		t.Errorf("rewritten: %v", err)
	}
	return true
}

// compile returns why wazero does not compile wasm. Of some invalid modules it
// panics.
func (b *testbed) compile(wasm []byte) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	code, err := b.rt.CompileModule(context.Background(), wasm)
	if err != nil {
		return err
	}
	return code.Close(context.Background())
}
