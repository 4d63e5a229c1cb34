package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// BenchmarkCall is a call that writes one byte to each of some pages, and what
// puts its instance back, by the size of the image.
func BenchmarkCall(b *testing.B) {
	for _, tt := range []struct {
		name     string
		pages    uint32
		touched  int32
		portable bool
	}{
		{"none", 2, 0, false},
		{"64KiB", 1, 4, false},
		{"128KiB", 2, 4, false},
		{"256KiB", 4, 4, false},
		{"3.4MiB", 54, 40, false},
		{"3.4MiB/all", 54, 800, false},
		{"3.4MiB/portable", 54, 40, true},
		{"64MiB", 1024, 40, false},
	} {
		b.Run(fmt.Sprintf("%s/%d", tt.name, tt.touched), func(b *testing.B) {
			e := newEngine(b, engine.Options{Portable: tt.portable})
			var m w.Module
			m.Memory(tt.pages)
			m.Export("run", m.Func(w.Sig("", "i"),
				w.Block, w.Loop,
				w.LocalGet(0), w.I32(tt.touched<<12), opI32GeU, w.BrIf(1),
				w.LocalGet(0), w.I32(7), w.I32Store,
				w.LocalGet(0), w.I32(4096), w.I32Add, w.LocalSet(0),
				w.Br(0), w.End, w.End,
				w.I32(42)))
			in := start(b, image(b, e, &m))
			call := func() {
				r := engine.Run{Fuel: 1 << 20, Deadline: time.Now().Add(time.Second)}
				if v, err := in.Call(b.Context(), "run", r); v != 42 || err != nil {
					b.Fatal(v, err)
				}
			}
			b.Run("call", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					call()
				}
			})
			b.Run("call+restore", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					call()
					if err := in.Restore(); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("restore", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := in.Restore(); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
