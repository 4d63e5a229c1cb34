package rewrite_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

// full is a module with something in each section.
func full() *w.Module {
	var m w.Module
	f := m.Import("env", "f", w.Sig("il", "d"))
	run := m.Func(w.Sig("", "i"), w.I32(1), w.I64(2), w.Call(f), w.Drop, w.I32(0))
	start := m.Func(w.Sig("", ""))
	m.Table(3).MemoryRaw([]byte{1, 2, 9}).ExportRaw("memory", 2, 0)
	m.Global(7)
	m.GlobalRaw([]byte{0x7e, 0, 0x42, 1, 0x0b})
	m.GlobalRaw([]byte{0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b})
	m.GlobalRaw([]byte{0x70, 0, 0xd2, byte(run), 0x0b})
	m.Export("run", run).Export("f", f).Start(start)
	m.Elem([]byte{0, 0x41, 0, 0x0b, 2, byte(f), byte(start)})
	m.Data(5, []byte("abc")).Data(-1, []byte("d"))
	return &m
}

func mustRewrite(t *testing.T, wasm []byte) *rewrite.Module {
	t.Helper()
	m, err := rewrite.Rewrite(wasm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wasmbin.Parse(m.Wasm); err != nil {
		t.Fatalf("the rewritten module: %v", err)
	}
	return m
}

// sections returns the bodies by number; of custom ones the last.
func sections(t *testing.T, wasm []byte) map[byte][]byte {
	t.Helper()
	out := map[byte][]byte{}
	r := wasmbin.NewReader(wasm[8:], 8)
	for r.Len() > 0 {
		id := r.Byte()
		out[id] = r.Bytes(r.U32())
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return out
}

func TestRewriteDescribes(t *testing.T) {
	m := mustRewrite(t, full().Bytes())
	if want := []string{"casemate:g0", "casemate:g2"}; !slices.Equal(m.Globals, want) {
		t.Errorf("globals = %q, want %q", m.Globals, want)
	}
	if !m.Start || m.Unrestorable != nil || m.MemoryMin != 2 || m.MemoryMax != 9 || m.Functions != 2 {
		t.Errorf("got %+v", m)
	}
	want := "[{5 [97 98 99]} {4294967295 [100]}]"
	if got := fmt.Sprint(m.Data); got != want {
		t.Errorf("data = %s, want %s", got, want)
	}
}

func TestRewriteDeclares(t *testing.T) {
	m := mustRewrite(t, full().Bytes())
	got, err := wasmbin.Parse(m.Wasm)
	if err != nil {
		t.Fatal(err)
	}
	want := "&{[{env f func (i32, i64) → f64} {casemate:host yield func (i32) → ()}] " +
		"[{memory memory () → ()} {run func () → i32} {f func (i32, i64) → f64} " +
		"{casemate:fuel global () → ()} {casemate:stack global () → ()} {casemate:stack_limit global () → ()} " +
		"{casemate:g0 global () → ()} {casemate:g2 global () → ()} {casemate:start func () → ()}] " +
		"[{2 10 true false}] [{3 65536 true false}] 2 false}"
	if s := fmt.Sprint(got); s != want {
		t.Errorf("got\n%s, want\n%s", s, want)
	}
	secs := sections(t, m.Wasm)
	if want := []byte{1, 0, 0x41, 0, 0x0b, 2, 0, 3}; !bytes.Equal(secs[9], want) {
		t.Errorf("elements = %x, want %x", secs[9], want)
	}
	if !bytes.Contains(secs[6], []byte{0x70, 0, 0xd2, 2, 0x0b}) {
		t.Errorf("no ref.func 2 in the globals: %x", secs[6])
	}
	if secs[8] != nil || secs[11] != nil {
		t.Errorf("start %x, data %x: want neither", secs[8], secs[11])
	}
}

func TestMemoryMaximum(t *testing.T) {
	for _, tt := range []struct {
		limits, want     []byte
		wantMin, wantMax uint32
	}{
		{[]byte{0, 3}, []byte{1, 0, 3}, 3, 65536},
		{[]byte{1, 0, 0}, []byte{1, 1, 0, 1}, 0, 0},
		{[]byte{1, 1, 0x80, 0x80, 4}, []byte{1, 1, 1, 0x80, 0x80, 4}, 1, 65536},
	} {
		var m w.Module
		m.MemoryRaw(tt.limits)
		got := mustRewrite(t, m.Bytes())
		if s := sections(t, got.Wasm)[5]; !bytes.Equal(s, tt.want) || got.MemoryMin != tt.wantMin || got.MemoryMax != tt.wantMax {
			t.Errorf("limits %x = %x, %d, %d; want %x, %d, %d", tt.limits, s, got.MemoryMin, got.MemoryMax, tt.want, tt.wantMin, tt.wantMax)
		}
	}
}

func TestTablesAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name      string
		table     []byte
		min, most uint64
	}{
		{"without a maximum", []byte{0x70, 0, 3}, 3, 1 << 16},
		{"with a larger one", []byte{0x70, 1, 3, 0xff, 0xff, 0xff, 7}, 3, 1 << 16},
		{"with a smaller one", []byte{0x6f, 1, 3, 4}, 3, 4},
		{"begins with more", []byte{0x70, 0, 0x80, 0x80, 8}, 1 << 17, 1 << 17},
	} {
		var m w.Module
		got, err := wasmbin.Parse(mustRewrite(t, m.TableRaw(tt.table).Bytes()).Wasm)
		if err != nil {
			t.Fatal(err)
		}
		if l := got.Tables[0]; l.Min != tt.min || l.Max != tt.most || !l.HasMax {
			t.Errorf("%s = %+v, want %d to %d", tt.name, l, tt.min, tt.most)
		}
	}
}

// TestElements covers the eight kinds of segments: function 0 is 1 behind the
// import, in each of them.
func TestElements(t *testing.T) {
	ref := []byte{0xd2, 0, 0x0b, 0xd0, 0x70, 0x0b}
	for kind, in := range [][]byte{
		{0, 0x41, 0, 0x0b, 1, 0},
		{1, 0, 1, 0},
		{2, 0, 0x41, 0, 0x0b, 0, 1, 0},
		{3, 0, 1, 0},
		append([]byte{4, 0x41, 0, 0x0b, 2}, ref...),
		append([]byte{5, 0x70, 2}, ref...),
		append([]byte{6, 0, 0x41, 0, 0x0b, 0x70, 2}, ref...),
		append([]byte{7, 0x70, 2}, ref...),
	} {
		var m w.Module
		m.Func(w.Sig("", ""))
		want := bytes.Replace(in, []byte{0xd2, 0}, []byte{0xd2, 1}, 1)
		if kind < 4 {
			want = append(slices.Clone(in[:len(in)-1]), 1)
		}
		got := sections(t, mustRewrite(t, m.Table(4).Elem(in).Bytes()).Wasm)[9]
		if want = append([]byte{1}, want...); !bytes.Equal(got, want) {
			t.Errorf("kind %d = %x, want %x", kind, got, want)
		}
	}
}

func TestData(t *testing.T) {
	initData := w.Seq(w.I32(0), w.I32(0), w.I32(0), []byte{0xfc, 8, 1, 0})
	active := []byte{0, 0x41, 9, 0x0b, 1, 'a'}
	passive := []byte{1, 1, 'p'}
	explicit := []byte{2, 0, 0x41, 8, 0x0b, 1, 'e'}
	global := []byte{0, 0x23, 0, 0x0b, 1, 'g'}
	for _, tt := range []struct {
		name     string
		segments [][]byte
		init     []byte
		left     []byte // the section
		data     string
	}{
		{"nobody asks", [][]byte{active, passive, explicit}, nil, nil, "[{9 [97]} {8 [101]}]"},
		{"memory.init", [][]byte{active, passive, explicit}, initData, w.Seq([]byte{3, 1, 0}, passive, []byte{1, 0}), "[{9 [97]} {8 [101]}]"},
		{"an unknown offset", [][]byte{active, global}, nil, w.Seq([]byte{2}, active, global), "[]"},
	} {
		var m w.Module
		m.ImportRaw("env", "g", []byte{3, 0x7f, 0})
		m.Func(w.Sig("", ""), tt.init)
		m.Memory(1).DataCount()
		for _, s := range tt.segments {
			m.DataRaw(s)
		}
		got := mustRewrite(t, m.Bytes())
		secs := sections(t, got.Wasm)
		if !bytes.Equal(secs[11], tt.left) || fmt.Sprint(got.Data) != tt.data || (secs[12] == nil) != (tt.left == nil) {
			t.Errorf("%s = %x, %v, count %x; want %x, %s", tt.name, secs[11], got.Data, secs[12], tt.left, tt.data)
		}
	}
}

func TestUnrestorable(t *testing.T) {
	three := w.Seq(w.I32(0), w.I32(0), w.I32(0))
	null := []byte{0xd0, 0x70}
	for _, tt := range []struct {
		code []byte
		want string
	}{
		{w.Seq(w.I32(0), []byte{0x25, 0}, w.Drop), ""},
		{w.Seq(three, []byte{0xfc, 8, 0, 0}), ""},
		{w.Seq(w.I32(0), null, []byte{0x26, 0}), "table.set"},
		{w.Seq([]byte{0xfc, 9, 0}), "data.drop"},
		{w.Seq(three, []byte{0xfc, 12, 0, 0}), "table.init"},
		{w.Seq([]byte{0xfc, 13, 0}), "elem.drop"},
		{w.Seq(three, []byte{0xfc, 14, 0, 0}), "table.copy"},
		{w.Seq(w.TableGrow(0, 1), w.Drop), "table.grow"},
		{w.Seq(w.RefFunc(0), w.Drop), "ref.func"},
		{w.Seq(w.I32(0), null, w.I32(0), []byte{0xfc, 17, 0}), "table.fill"},
	} {
		var m w.Module
		m.Func(w.Sig("", ""), tt.code, tt.code)
		m.Memory(1).Table(1).Elem([]byte{1, 0, 1, 0}).DataRaw([]byte{1, 0}).DataCount()
		if got := strings.Join(mustRewrite(t, m.Bytes()).Unrestorable, ", "); got != tt.want {
			t.Errorf("%x = %q, want %q", tt.code, got, tt.want)
		}
	}
	var m w.Module
	m.ImportRaw("env", "g", []byte{3, 0x7f, 1})
	m.GlobalRaw([]byte{0x70, 1, 0xd0, 0x70, 0x0b})
	m.GlobalRaw(w.Seq([]byte{0x7b, 1, 0xfd, 12}, make([]byte, 16), w.End))
	want := "imported mutable global 0, mutable global 1 of type funcref, mutable global 2 of type v128"
	if got := strings.Join(mustRewrite(t, m.Bytes()).Unrestorable, ", "); got != want {
		t.Errorf("globals = %q, want %q", got, want)
	}
}

func TestNames(t *testing.T) {
	named := []byte{0, 2, 1, 'm', 1, 7, 2, 0, 1, 'i', 2, 1, 'b', 2, 1, 0}
	for _, tt := range []struct {
		name    string
		section []byte
		want    string
	}{
		{"some", named, "\x04name\x00\x02\x01m\x01\x1b\x04\x00\x01i\x01\x0ecasemate:yield\x02\x02$1\x03\x01b"},
		{"none", nil, "\x04name\x01\x19\x03\x01\x0ecasemate:yield\x02\x02$1\x03\x02$2"},
		{"out of order", []byte{1, 7, 2, 2, 1, 'b', 1, 1, 'a'}, "\x04name\x01\x19\x03\x01\x0ecasemate:yield\x02\x02$1\x03\x02$2"},
	} {
		var m w.Module
		m.Import("env", "f", w.Sig("", ""))
		m.Func(w.Sig("", ""))
		m.Func(w.Sig("", ""))
		if tt.section != nil {
			m.Custom("name", tt.section)
		}
		m.Custom("other", []byte("dropped"))
		if got := string(sections(t, mustRewrite(t, m.Bytes()).Wasm)[0]); got != tt.want {
			t.Errorf("%s = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestBrokenNamesAreRefused(t *testing.T) {
	for name, section := range map[string][]byte{
		"cut off":       {1, 9, 1},
		"not utf-8":     {1, 4, 1, 0, 1, 0xff},
		"left over":     {0, 2, 0, 0},
		"local":         {2, 6, 1, 0, 1, 0, 1, 0xff},
		"module":        {0, 2, 1, 0xff},
		"without bytes": {7, 3},
	} {
		var m w.Module
		m.Func(w.Sig("", ""))
		if _, err := rewrite.Rewrite(m.Custom("name", section).Bytes()); !errors.Is(err, rewrite.ErrMalformed) {
			t.Errorf("%s = %v, want ErrMalformed", name, err)
		}
	}
}

func TestOwnNamesAreRefused(t *testing.T) {
	var imports, fields, exports w.Module
	imports.Import(rewrite.HostModule, "x", w.Sig("", ""))
	fields.Import("env", rewrite.Prefix, w.Sig("", ""))
	exports.Export(rewrite.FuelGlobal, exports.Func(w.Sig("", "")))
	for _, m := range []*w.Module{&imports, &fields, &exports} {
		if _, err := rewrite.Rewrite(m.Bytes()); !errors.Is(err, rewrite.ErrInvalid) || !strings.Contains(err.Error(), "reserved for the host") {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	}
}
