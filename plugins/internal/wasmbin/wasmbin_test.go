package wasmbin_test

import (
	"bytes"
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

func TestLimitTables(t *testing.T) {
	sections := func(tables ...byte) []byte {
		return append(w.Header(), w.Seq(w.Section(1, []byte{0}), w.Section(4, tables), w.Section(0, []byte{1, 'x'}))...)
	}
	for _, tt := range []struct {
		name     string
		in, want []byte
	}{
		{"none", []byte{0}, []byte{0}},
		{"without a maximum", []byte{1, 0x70, 0, 3}, []byte{1, 0x70, 1, 3, 100}},
		{"with a larger one", []byte{1, 0x70, 1, 3, 120}, []byte{1, 0x70, 1, 3, 100}},
		{"with a smaller one", []byte{1, 0x6f, 1, 3, 4}, []byte{1, 0x6f, 1, 3, 4}},
		{"begins with more", []byte{1, 0x70, 0, 120}, []byte{1, 0x70, 1, 120, 120}},
		{"two, with long numbers", []byte{2, 0x70, 0, 0x83, 0x80, 0, 0x70, 1, 0, 0xff, 0xff, 3}, []byte{2, 0x70, 1, 3, 100, 0x70, 1, 0, 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := wasmbin.LimitTables(sections(tt.in...), 100)
			if err != nil {
				t.Fatal(err)
			}
			if want := sections(tt.want...); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
	for name, in := range map[string][]byte{
		"an expression":      {1, 0x40, 0, 0x70, 0, 0, 0xd0, 0x70, 0x0b},
		"a type of a module": {1, 0x63, 0, 0, 3},
		"cut off":            {1, 0x70, 1, 3},
		"left over":          {1, 0x70, 0, 3, 9},
	} {
		if _, err := wasmbin.LimitTables(sections(in...), 100); !errors.Is(err, wasmbin.ErrMalformed) {
			t.Errorf("%s = %v, want ErrMalformed", name, err)
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
		if err != nil {
			return
		}
		limited, err := wasmbin.LimitTables(wasm, 100)
		if err != nil {
			t.Fatalf("limit: %v", err)
		}
		again, err := wasmbin.Parse(limited)
		if err != nil || len(again.Tables) != len(got.Tables) {
			t.Fatalf("%d tables, were %d: %v", len(again.Tables), len(got.Tables), err)
		}
		for i, l := range again.Tables {
			if l.Min != got.Tables[i].Min || !l.HasMax || l.Max > max(l.Min, 100) {
				t.Errorf("table %+v was %+v", l, got.Tables[i])
			}
		}
	})
}
