package wasmbin_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

func TestParse(t *testing.T) {
	var m w.Module
	m.Import("a", "f", w.Sig("il", "d"))
	m.ImportRaw("b", "m", []byte{2, 1, 1, 2})
	m.ImportRaw("b", "t", []byte{1, 0x70, 0, 3})
	m.ImportRaw("b", "g", []byte{3, 0x7f, 0})
	f := m.Func(w.Sig("", "i"), w.I32(0))
	m.MemoryRaw([]byte{1, 2, 3}).Table(7).Export("run", f).Export("back", 0).ExportRaw("mem", 2, 0)
	m.Start(f).Custom("x", []byte("y"))
	got, err := wasmbin.Parse(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	want := "&{[{a f func (i32, i64) → f64} {b m memory () → ()} {b t table () → ()} {b g global () → ()}] " +
		"[{run func () → i32} {back func (i32, i64) → f64} {mem memory () → ()}] [{2 3 true false}] [{7 0 false false}] 1 true}"
	if s := fmt.Sprintf("%v", got); s != want {
		t.Errorf("got\n%s, want\n%s", s, want)
	}
}

func TestParseRefuses(t *testing.T) {
	with := func(sections ...[]byte) []byte { return append(w.Header(), w.Seq(sections...)...) }
	for _, tt := range []struct {
		name string
		wasm []byte
		want error
	}{
		{"empty", nil, wasmbin.ErrNotWasm},
		{"magic only", []byte("\x00asm"), wasmbin.ErrNotWasm},
		{"gzip", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00"), wasmbin.ErrNotWasm},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), wasmbin.ErrComponent},
		{"version 2", []byte("\x00asm\x02\x00\x00\x00"), wasmbin.ErrMalformed},
		{"section cut off", with([]byte{1, 9, 0}), wasmbin.ErrMalformed},
		{"no size", with([]byte{1}), wasmbin.ErrMalformed},
		{"unknown section", with(w.Section(14, nil)), wasmbin.ErrMalformed},
		{"section twice", with(w.Section(1, []byte{0}), w.Section(1, []byte{0})), wasmbin.ErrMalformed},
		{"more types than bytes", with(w.Section(1, []byte{0x80, 0x80, 2, 0x60})), wasmbin.ErrMalformed},
		{"four billion types", with(w.Section(1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f})), wasmbin.ErrMalformed},
		{"type left over", with(w.Section(1, []byte{0, 0})), wasmbin.ErrMalformed},
		{"import without type", with(w.Section(2, []byte{1, 0, 0, 0, 5})), wasmbin.ErrMalformed},
		{"export without function", with(w.Section(7, []byte{1, 0, 0, 5})), wasmbin.ErrMalformed},
		{"name not utf-8", with(w.Section(7, []byte{1, 1, 0xff, 2, 0})), wasmbin.ErrMalformed},
	} {
		if _, err := wasmbin.Parse(tt.wasm); !errors.Is(err, tt.want) {
			t.Errorf("%s = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	var m w.Module
	m.Import("a", "f", w.Sig("il", "d"))
	m.Memory(1).Table(2).Export("run", m.Func(w.Sig("", "i"), w.I32(0))).Custom("x", nil)
	f.Add(m.Bytes())
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Fuzz(func(t *testing.T, wasm []byte) {
		got, err := wasmbin.Parse(wasm)
		if (got == nil) == (err == nil) {
			t.Errorf("got %v and error %v", got, err)
		}
	})
}
