package plugins_test

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// op is an instruction with index operands.
func op(code byte, operands ...uint32) []byte {
	out := []byte{code}
	for _, v := range operands {
		out = binary.AppendUvarint(out, uint64(v))
	}
	return out
}

// TestEscapeByIndex: an index one past the guest's own would be one of the
// host's in the module that runs: its fuel, its yield, a helper. Such a module
// is refused before anything is added to it.
func TestEscapeByIndex(t *testing.T) {
	m := newManager(t)
	for _, tt := range []struct {
		name string
		body func(g *guest, f, typ uint32) []byte // f and typ are one past the last
		edit func(g *guest)
	}{
		{"control: nothing forged", func(g *guest, f, typ uint32) []byte {
			return w.Seq(w.GlobalGet(0), w.Drop, w.Call(f-1), w.Drop, op(0x02, typ-1), w.End)
		}, nil},
		{"global.get", func(*guest, uint32, uint32) []byte { return w.Seq(w.GlobalGet(1), w.Drop) }, nil},
		{"global.set of fuel", func(*guest, uint32, uint32) []byte { return w.Seq(w.I64(1<<62), w.GlobalSet(1)) }, nil},
		{"global.set of stack", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), w.GlobalSet(2)) }, nil},
		{"global.set of stack limit", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(1<<30), w.GlobalSet(3)) }, nil},
		{"call", func(_ *guest, f, _ uint32) []byte { return w.Call(f) }, nil},
		{"ref.func", func(_ *guest, f, _ uint32) []byte { return w.Seq(op(0xd2, f), w.Drop) }, nil},
		{"call_indirect of a table", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), op(0x11, 0, 1)) }, nil},
		{"call_indirect of a type", func(_ *guest, _, typ uint32) []byte { return w.Seq(w.I32(0), op(0x11, typ, 0)) }, nil},
		{"block of a type", func(_ *guest, _, typ uint32) []byte { return w.Seq(op(0x02, typ), w.End) }, nil},
		{"table.get", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), op(0x25, 1), w.Drop) }, nil},
		{"memory.copy", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), w.I32(0), w.I32(0), op(0xfc, 10, 1, 0)) }, nil},
		{"memory.init of a segment", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), w.I32(0), w.I32(0), op(0xfc, 8, 99, 0)) }, nil},
		{"elem.drop of a segment", func(*guest, uint32, uint32) []byte { return op(0xfc, 13, 0) }, nil},
		{"local.get", func(*guest, uint32, uint32) []byte { return w.Seq(w.LocalGet(2), w.Drop) }, nil},
		{"local.set", func(*guest, uint32, uint32) []byte { return w.Seq(w.I32(0), w.LocalSet(3)) }, nil},
		{"branch", func(*guest, uint32, uint32) []byte { return w.Br(1) }, nil},
		{"export of a global", nil, func(g *guest) { g.ExportRaw("x", 3, 1) }},
		{"export of a function", nil, func(g *guest) { g.ExportRaw("x", 0, g.NextFunc()+3) }},
		{"export of a table", nil, func(g *guest) { g.ExportRaw("x", 1, 1) }},
		{"export of a memory", nil, func(g *guest) { g.ExportRaw("x", 2, 1) }},
		{"start", nil, func(g *guest) { g.Start(g.NextFunc() + 3) }},
		{"export under the host's prefix", nil, func(g *guest) { g.ExportRaw("casemate:fuel", 3, 0) }},
		{"import from the host's own module", nil, func(g *guest) { g.ImportRaw("casemate:host", "yield", []byte{0, 0}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuest()
			g.Global(0)
			g.Table(1)
			if tt.edit != nil {
				tt.edit(g)
			}
			typ := g.Type(w.Sig("", "")) // for the control
			for _, letters := range []string{"d", "dd"} {
				typ = max(typ, g.Type(w.Sig(letters, letters)))
			}
			var body []byte
			if tt.body != nil {
				g.entry(abi.ExportMarker, w.I32(1)) // so that only describe and tool_call follow
				body = tt.body(g, g.NextFunc()+2, typ+1)
				if tt.name == "control: nothing forged" {
					body = w.Seq(w.GlobalGet(0), w.Drop, w.Call(g.NextFunc()+1), w.Drop)
				}
			} else {
				g.entry(abi.ExportMarker, w.I32(1))
			}
			g.entry(abi.ExportToolCall, body, w.I32(0))
			g.entry(abi.ExportDescribe, g.write(toolDesc), w.I32(0))
			_, err := m.Load(t.Context(), "forged.wasm", g.Bytes())
			if tt.name == "control: nothing forged" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, plugins.ErrRefused) || strings.Contains(err.Error(), "guest_") {
				t.Errorf("load = %v; want the module refused before it ran", err)
			}
		})
	}
}

// TestEscapeAtLoad: what would cost the host much before any call is refused,
// and quickly.
func TestEscapeAtLoad(t *testing.T) {
	m := newManager(t)
	module := func(sections ...[]byte) []byte { return w.Seq(append([][]byte{w.Header()}, sections...)...) }
	oneFunc := w.Seq(w.Section(1, []byte{1, 0x60, 0, 0}), w.Section(3, []byte{1, 0}))
	code := func(body []byte) []byte {
		return w.Section(10, w.Seq([]byte{1}, binary.AppendUvarint(nil, uint64(len(body))), body))
	}
	for name, wasm := range map[string][]byte{
		"table bomb of 47 bytes": module(w.Section(4, []byte{1, 0x70, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})),
		"memory of 4 GiB":        toolWithMemory([]byte{0, 0x80, 0x80, 0x04}),
		"locals bomb":            module(oneFunc, code(w.Seq(op(1, 0xffffffff), []byte{0x7f, 0x0b}))),
		"nesting bomb": module(oneFunc, code(w.Seq([]byte{0}, []byte(strings.Repeat("\x02\x40", 100_000)),
			[]byte(strings.Repeat("\x0b", 100_001))))),
		"br_table bomb": module(oneFunc, code(w.Seq([]byte{0}, w.I32(0), op(0x0e, 500_000), make([]byte, 500_001), w.End))),
		"types bomb":    module(w.Section(1, w.Seq(binary.AppendUvarint(nil, 100_000), []byte(strings.Repeat("\x60\x00\x00", 100_000))))),
		"functions bomb": module(w.Section(1, []byte{1, 0x60, 0, 0}),
			w.Section(3, w.Seq(binary.AppendUvarint(nil, 1<<20), make([]byte, 1<<20)))),
		"counts that lie":     module(w.Section(1, []byte{0xff, 0xff, 0xff, 0xff, 0x0f})),
		"a section that lies": append(w.Header(), 1, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"17 MiB":              append(w.Header(), make([]byte, 17<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			_, err := m.Load(t.Context(), "bomb.wasm", wasm)
			if !errors.Is(err, plugins.ErrRefused) {
				t.Errorf("load = %v, want it refused", err)
			}
			if after := heap(); after > before+32<<20 {
				t.Errorf("heap = %d MiB, was %d MiB", after>>20, before>>20)
			}
		})
	}
}

func toolWithMemory(limits []byte) []byte {
	var m w.Module
	m.MemoryRaw(limits).ExportRaw("memory", 2, 0)
	for _, name := range []string{abi.ExportMarker, abi.ExportDescribe, abi.ExportToolCall} {
		m.Export(name, m.Func(w.Sig("", "i"), w.I32(0)))
	}
	return m.Bytes()
}

func heap() uint64 {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// hostile is a call that must end in one of want.
type hostile struct {
	name string
	body func(g *guest) []byte
	want []plugins.Class
}

// wall is short for a call that only its wall clock may end, and long for one
// that must end by itself, however busy the machine is.
func (h hostile) wall() time.Duration {
	if slices.Contains(h.want, plugins.Deadline) {
		return 50 * time.Millisecond
	}
	return time.Minute
}

// TestEscapeInCall: each hostile call ends in its class, the instance goes on
// working for the next one, and the host is left as it was.
func TestEscapeInCall(t *testing.T) {
	again := func(body ...[]byte) []byte { return w.Seq(w.Loop, w.Seq(body...), w.Br(0), w.End, w.I32(0)) }
	const big = 256 << 10 // the guest's whole memory
	endless := []plugins.Class{plugins.Deadline, plugins.Fuel}
	for _, tt := range []hostile{
		{"infinite loop", func(*guest) []byte { return again() }, endless},
		{"infinite recursion", func(g *guest) []byte { return w.Call(g.NextFunc()) }, []plugins.Class{plugins.Depth}},
		{"infinite recursion through a table", func(g *guest) []byte {
			g.Elements(g.NextFunc())
			return w.Seq(w.I32(0), op(0x11, g.Type(w.Sig("", "i")), 0))
		}, []plugins.Class{plugins.Depth}},
		{"huge frames", func(g *guest) []byte {
			// 1,900 locals, set before the call and read after it.
			self := g.NextFunc()
			body := w.Seq(op(1, 1900), []byte{0x7e})
			for i := range uint32(1900) {
				body = w.Seq(body, w.I64(int64(i)), w.LocalSet(i))
			}
			body = w.Seq(body, w.Call(self))
			for i := range uint32(1900) {
				body = w.Seq(body, w.LocalGet(i), w.Drop)
			}
			return w.Call(g.FuncRaw(g.Type(w.Sig("", "i")), w.Seq(body, w.End)))
		}, []plugins.Class{plugins.Depth}},
		{"memory bomb", func(*guest) []byte {
			return again(w.I32(1), w.MemoryGrow, w.I32(-1), []byte{0x46}, w.If, w.Unreachable, w.End)
		}, []plugins.Class{plugins.Memory}},
		{"table bomb", func(g *guest) []byte { return again(w.TableGrow(0, 1000), w.Drop) }, endless},
		{"memory.fill", func(*guest) []byte { return again(w.I32(0), w.I32(1), w.I32(big), op(0xfc, 11, 0)) }, endless},
		{"memory.copy", func(*guest) []byte { return again(w.I32(0), w.I32(1), w.I32(big-1), op(0xfc, 10, 0, 0)) }, endless},
		{"memory.fill of 60 MiB", func(*guest) []byte {
			return w.Seq(w.I32(900), w.MemoryGrow, w.Drop, again(w.I32(0), w.I32(1), w.I32(900<<16), op(0xfc, 11, 0)))
		}, endless},
		{"input_read", func(g *guest) []byte {
			return again(g.call(abi.ImportInputRead, w.I32(0), w.I32(0), w.I32(big)), w.Drop)
		}, endless},
		{"random_get", func(g *guest) []byte { return again(g.call("random_get", w.I32(0), w.I32(big)), w.Drop) }, endless},
		{"iovecs", func(g *guest) []byte {
			// 1,024 vectors at 128 KiB, each the first half of the memory.
			return w.Seq(
				w.I32(128<<10), w.LocalSet(0), w.Loop,
				w.LocalGet(0), w.I32(4), w.I32Add, w.I32(128<<10), w.I32Store,
				w.LocalGet(0), w.I32(8), w.I32Add, w.LocalSet(0),
				w.LocalGet(0), w.I32(136<<10), []byte{0x48}, w.BrIf(0), w.End,
				again(g.call("fd_write", w.I32(1), w.I32(128<<10), w.I32(1024), w.I32(0)), w.Drop))
		}, endless},
		{"host calls", func(g *guest) []byte { return again(g.call("sched_yield"), w.Drop) }, endless},
		{"sleep past the deadline", func(g *guest) []byte { return g.sleep(time.Hour) }, []plugins.Class{plugins.Deadline}},
		{"many short sleeps", func(g *guest) []byte { return again(g.nap(time.Millisecond), w.Drop) }, []plugins.Class{plugins.Deadline}},
		{"output flood", func(g *guest) []byte {
			return again(g.call(abi.ImportOutputWrite, w.I32(0), w.I32(big)), w.Drop)
		}, append(endless, plugins.Output)},
		{"log flood", func(g *guest) []byte { return again(g.call(abi.ImportLog, w.I32(2), w.I32(0), w.I32(big))) }, endless},
		{"emit flood", func(g *guest) []byte { return again(g.call(abi.ImportEmit, w.I32(2), w.I32(0), w.I32(1000)), w.Drop) }, endless},
		{"capability flood", func(g *guest) []byte {
			return again(g.call(abi.ImportCall, g.text("kv.get/1"), g.text(frameOf("k", ""))), w.Drop)
		}, endless},
		{"own exit", func(g *guest) []byte { return w.Seq(g.call("proc_exit", w.I32(0)), w.I32(0)) }, []plugins.Class{plugins.Trap}},
		{"output after fail", func(g *guest) []byte {
			return w.Seq(g.call(abi.ImportFail, w.I32(1), w.I32(-1), g.text("no")), g.write(`{"leak":1}`), w.I32(0))
		}, []plugins.Class{plugins.Failed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newManager(t)
			g := newGuest()
			g.Table(1)
			hostile := tt.body(g)
			// Only the first byte of the input makes it hostile.
			g.entry(abi.ExportToolCall, g.call(abi.ImportInputLen), w.If, hostile, w.Return, w.End, g.ok())
			p := loadInto(t, m, g.describes(toolDesc).Bytes())
			wantClass(t, forTenant(t, p, "", ""), plugins.OK)
			made, before := m.Stats().Made, snapshotOf(t)
			for range 3 {
				res := p.Call(t.Context(), plugins.Call{
					Entry: abi.ExportToolCall, Input: []byte("x"), Limits: plugins.Limits{Wall: tt.wall()},
					Env: kvEnv(nil),
				})
				if !slices.Contains(tt.want, res.Class) {
					t.Errorf("class = %s (%s), want one of %v", res.Class, res.Detail, tt.want)
				}
				wantClass(t, forTenant(t, p, "", ""), plugins.OK)
			}
			if more := m.Stats().Made - made; more != 0 && p.Unrestorable() == nil {
				t.Errorf("%d instances were made, want the one restored each time", more)
			}
			before.compare(t)
		})
	}
}

// TestEscapeFromStart: a start section may call the module's own exports, and
// finds as little behind them as any code before a call does.
func TestEscapeFromStart(t *testing.T) {
	g := newGuest()
	const at = 512
	body := w.Seq(w.I32(at), g.call(abi.ImportCall, g.text(abi.OpKVPut), g.text(frameOf("k", "1"))), w.I64Store,
		w.I32(at+8), g.call(abi.ImportOutputWrite, g.text("leak")), w.I32Store)
	print := g.printer()
	inner := g.Func(w.Sig("", "i"), body, w.I32(0))
	g.Export("warm", inner)
	g.Start(g.Func(w.Sig("", ""), w.Call(inner), w.Drop))
	g.entry(abi.ExportToolCall, g.report(print, w.Seq(w.I32(at), w.I64Load)))
	res := load(t, g.describes(toolDesc).Bytes()).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: kvEnv(nil)})
	wantClass(t, res, plugins.OK)
	if string(res.Output) != "[-63]" || res.Puts != nil {
		t.Errorf("output = %s, puts = %v; want -63 from the start and nothing written", res.Output, res.Puts)
	}
}

// TestEscapeToAnotherTenant: neither the memory nor the state of one tenant is
// there for the next.
func TestEscapeToAnotherTenant(t *testing.T) {
	p := load(t, toolGuest(func(g *guest) []byte {
		const at = 1024
		print := g.printer()
		// Reports what lies where the last input lay, then takes the new one.
		return w.Seq(
			w.I32(at+100), w.I32(at), w.I64Load, w.I64Store,
			g.call(abi.ImportInputRead, w.I32(0), w.I32(at), w.I32(8)), w.Drop,
			g.report(print, w.Seq(w.I32(at+100), w.I64Load), g.call(abi.ImportCall, g.text(abi.OpKVGet), g.text(frameOf("k", "")))),
		)
	}))
	for _, tenant := range []string{"a", "b", "a"} {
		env := kvEnv(mapKV{})
		env.Tenant = tenant
		got := numbers(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: []byte("secret-" + tenant), Env: env}))
		if got[0] != 0 {
			t.Errorf("tenant %s found %x of the call before", tenant, got[0])
		}
	}
}

// state is what a hostile call must leave as it was.
type state struct {
	goroutines, descriptors, mappings int
	heap                              uint64
}

func snapshotOf(t *testing.T) state {
	t.Helper()
	runtime.GC()
	s := state{goroutines: runtime.NumGoroutine(), heap: heap()}
	if runtime.GOOS == "linux" {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		s.descriptors, s.mappings = len(fds), strings.Count(string(maps), "\n")
	}
	return s
}

func (s state) compare(t *testing.T) {
	t.Helper()
	now := snapshotOf(t)
	if now.goroutines > s.goroutines || now.descriptors > s.descriptors || now.mappings > s.mappings+4 || now.heap > s.heap+4<<20 {
		t.Errorf("after it: %+v, before: %+v", now, s)
	}
}
