package rewrite_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// shapes are modules whose functions have each kind of control flow and each
// operation that is rewritten.
func shapes() [][]byte {
	three := w.Seq(w.I32(0), w.I32(0), w.I32(0))
	var m w.Module
	m.Import("env", "f", w.Sig("i", "i"))
	pair := m.Type(w.Sig("il", "li"))
	m.FuncRaw(pair, w.Seq([]byte{0}, w.LocalGet(1), w.LocalGet(0), w.Return, w.End))
	m.Export("f", m.Func(w.Sig("i", "i"),
		w.LocalGet(0), w.I64(1), []byte{0x03, byte(pair)}, w.Drop, w.Drop, w.LocalGet(0), w.If, w.LocalGet(0), w.I64(3), w.Br(1), w.Else, w.I32(4), w.Br(2), w.End, w.I64(1), w.I32(2), w.End,
		w.Call(0), w.Drop, w.Drop, w.Block, w.Block, w.LocalGet(0), w.BrTable(0, 1, 1), w.End, w.Loop, w.LocalGet(0), w.Call(0), w.BrIf(1), w.LocalGet(0), w.BrIf(0), w.End, w.End,
		three, w.MemoryCopy, three, w.MemoryFill, three, []byte{0xfc, 8, 0, 0}, three, []byte{0xfc, 12, 0, 0}, w.I32(0), w.MemoryGrow, w.Drop, w.TableGrow(0, 1), w.Drop,
		[]byte{0xfd, 12}, make([]byte, 16), []byte{0xfd, 0x15, 3}, w.I32(0), w.CallIndirect(pair-1), w.Drop, w.RefFunc(1), w.Drop, w.Unreachable, w.I32Load))
	m.Table(2).Memory(1).Elem([]byte{1, 0, 1, 1}).DataRaw([]byte{1, 2, 'h', 'i'}).DataCount().Data(3, []byte("x")).Custom("name", []byte{1, 4, 1, 1, 1, 'a'})
	return [][]byte{full().Bytes(), m.Bytes(), w.Header()}
}

// TestShapes: what the fuzzer starts from is valid.
func TestShapes(t *testing.T) {
	for _, wasm := range shapes() {
		mustRewrite(t, wasm)
	}
}

// FuzzRewrite: whatever is accepted comes out as a valid module, and the same
// each time.
func FuzzRewrite(f *testing.F) {
	for _, wasm := range shapes() {
		f.Add(wasm)
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		before := bytes.Clone(wasm)
		m, err := rewrite.Rewrite(wasm)
		if (m == nil) == (err == nil) {
			t.Fatalf("got %v and error %v", m, err)
		}
		if !bytes.Equal(wasm, before) {
			t.Error("the input was written to")
		}
		if err != nil {
			for _, kind := range []error{rewrite.ErrMalformed, rewrite.ErrInvalid, rewrite.ErrUnsupported, rewrite.ErrTooLarge, wasmbin.ErrNotWasm, wasmbin.ErrComponent} {
				if errors.Is(err, kind) {
					return
				}
			}
			t.Fatalf("an error of no kind: %v", err)
		}
		again, err := rewrite.Rewrite(wasm)
		if err != nil || !bytes.Equal(m.Wasm, again.Wasm) {
			t.Errorf("the second time %v, or other bytes", err)
		}
		if _, err := wasmbin.Parse(m.Wasm); err != nil {
			t.Errorf("wasmbin: %v", err)
		}
		// Under names of no one, the output is a guest like another.
		open := bytes.ReplaceAll(m.Wasm, []byte(rewrite.Prefix), []byte("\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
		if _, err := rewrite.Rewrite(open); err != nil && !errors.Is(err, rewrite.ErrTooLarge) {
			t.Errorf("the rewritten module: %v", err)
		}
	})
}

// BenchmarkRewrite rewrites a module of 3 MB.
func BenchmarkRewrite(b *testing.B) {
	var m w.Module
	f := m.Import("env", "f", w.Sig("i", "i"))
	part := w.Seq(w.Block, w.LocalGet(0), w.If, w.LocalGet(0), w.Call(f), w.LocalSet(0), w.End, w.LocalGet(0), w.I32(8), w.I32Add, w.I32Load, w.LocalTee(0), w.BrIf(0), w.End)
	for range 3000 {
		m.Func(w.Sig("i", ""), bytes.Repeat(part, 40))
	}
	wasm := m.Memory(1).Bytes()
	b.SetBytes(int64(len(wasm)))
	for b.Loop() {
		if _, err := rewrite.Rewrite(wasm); err != nil {
			b.Fatal(err)
		}
	}
}
