package plugins_test

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/internal/abi/native"
	"github.com/casemate/casemate/plugins/internal/abi/wasip1"
	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// guest builds a native/1 module that imports everything there is. Memory
// below dataStart is free for its functions.
type guest struct {
	w.Module
	fn   map[string]uint32 // import by name; those of WASI and env have names of their own
	sigs map[string]wasmbin.Signature
	next int32 // where the next text goes
}

const dataStart = 4096

func newGuest() *guest {
	g := &guest{fn: map[string]uint32{}, sigs: map[string]wasmbin.Signature{}, next: dataStart}
	for _, m := range []engine.HostModule{native.Module(), wasip1.Module(), wasip1.Env()} {
		for _, f := range m.Funcs {
			g.fn[f.Name] = g.Import(m.Name, f.Name, f.Sig)
			g.sigs[f.Name] = f.Sig
		}
	}
	g.Memory(4)
	return g
}

// text puts s into memory and returns the instructions that push its address
// and length.
func (g *guest) text(s string) []byte {
	at := g.next
	g.Data(at, []byte(s))
	g.next += (int32(len(s)) + 7) &^ 7
	return w.Seq(w.I32(at), w.I32(int32(len(s))))
}

// call pushes args and calls an import.
func (g *guest) call(name string, args ...[]byte) []byte {
	return w.Seq(w.Seq(args...), w.Call(g.fn[name]))
}

// write appends s to the output.
func (g *guest) write(s string) []byte {
	return w.Seq(g.call(abi.ImportOutputWrite, g.text(s)), w.Drop)
}

// entry exports a function () → i32.
func (g *guest) entry(name string, body ...[]byte) *guest {
	g.Export(name, g.Func(w.Sig("", "i"), body...))
	return g
}

// initialize exports _initialize.
func (g *guest) initialize(body ...[]byte) {
	g.Export(abi.ExportInitialize, g.Func(w.Sig("", ""), body...))
}

// describes adds the marker and a describe that returns d.
func (g *guest) describes(d string) *guest {
	g.entry(abi.ExportMarker, w.I32(1))
	return g.entry(abi.ExportDescribe, g.write(d), w.I32(0))
}

// ok ends an entry with an empty object as its output.
func (g *guest) ok() []byte { return w.Seq(g.write("{}"), w.I32(0)) }

const (
	toolDesc   = `{"v":1,"name":"probe","version":"0.1.0","kinds":["tool"],"tools":[{"name":"probe","description":"","parameters":{"type":"object"}}]}`
	policyDesc = `{"v":1,"name":"probe","version":"0.1.0","kinds":["route"]}`
)

// toolGuest returns a tool whose tool_call has the given body, which leaves an
// i32.
func toolGuest(body func(g *guest) []byte) []byte {
	g := newGuest()
	g.entry(abi.ExportToolCall, body(g))
	return g.describes(toolDesc).Bytes()
}

// policyGuest is toolGuest for a route policy.
func policyGuest(body func(g *guest) []byte) []byte {
	g := newGuest()
	g.entry(abi.ExportRoute, body(g))
	return g.describes(policyDesc).Bytes()
}

// cacheDir keeps compiled modules for all tests of the process: to compile a
// Go guest takes seconds under the race detector.
var cacheDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "casemate-plugins-")
	if err != nil {
		panic(err)
	}
	cacheDir = dir
	code := m.Run()
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

func newManager(t testing.TB) *plugins.Manager {
	t.Helper()
	m, err := plugins.New(t.Context(), plugins.Options{CacheDir: cacheDir, Breaker: plugins.Breaker{Deaths: -1}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// shared is the manager of all tests that do not close theirs: a manager
// compiles its host functions, which is slow under the race detector.
var shared = sync.OnceValues(func() (*plugins.Manager, error) {
	return plugins.New(context.Background(), plugins.Options{CacheDir: cacheDir, Breaker: plugins.Breaker{Deaths: -1}})
})

// load loads a plugin until the test ends.
func load(t testing.TB, wasm []byte) *plugins.Plugin {
	t.Helper()
	m, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Load(t.Context(), "probe.wasm", wasm)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// callTool loads a tool and calls it.
func callTool(t *testing.T, c plugins.Call, body func(g *guest) []byte) plugins.Result {
	t.Helper()
	c.Entry = abi.ExportToolCall
	return load(t, toolGuest(body)).Call(t.Context(), c)
}

func wantClass(t *testing.T, res plugins.Result, want plugins.Class) {
	t.Helper()
	if res.Class != want {
		t.Fatalf("class = %s (%s), want %s", res.Class, res.Detail, want)
	}
	if want != plugins.OK && (res.Output != nil || res.Puts != nil) {
		t.Errorf("%s with output %q and puts %v, want none", want, res.Output, res.Puts)
	}
	if (want == plugins.Failed) != (res.Fail != nil) {
		t.Errorf("%s with failure %+v", want, res.Fail)
	}
}

// numbers returns the output of reportI64 as numbers.
func numbers(t *testing.T, res plugins.Result) []int64 {
	t.Helper()
	wantClass(t, res, plugins.OK)
	var out []int64
	if err := json.Unmarshal(res.Output, &out); err != nil {
		t.Fatalf("output %q: %v", res.Output, err)
	}
	return out
}

// printer adds a function that appends an i64 as decimal digits to the output
// and returns how to call it with a value that is on the stack.
func (g *guest) printer() func(value []byte) []byte {
	const digit = 64 // scratch
	putByte := func(v []byte) []byte {
		return w.Seq(w.I32(digit), v, w.I32Store8, g.call(abi.ImportOutputWrite, w.I32(digit), w.I32(1)), w.Drop)
	}
	i64 := func(op byte) []byte { return []byte{op} }
	const eqz, ltS, sub, divU, remU, wrap = 0x50, 0x53, 0x7d, 0x80, 0x82, 0xa7
	// Parameter 0 is the value; the function calls itself for what is left of
	// the last digit.
	self := g.NextFunc()
	f := g.Func(w.Sig("l", ""),
		w.LocalGet(0), w.I64(0), i64(ltS), w.If,
		putByte(w.I32('-')), w.I64(0), w.LocalGet(0), i64(sub), w.LocalSet(0), w.End,
		w.LocalGet(0), w.I64(10), i64(divU), i64(eqz), w.I32Eqz, w.If,
		w.LocalGet(0), w.I64(10), i64(divU), w.Call(self), w.End,
		putByte(w.Seq(w.LocalGet(0), w.I64(10), i64(remU), i64(wrap), w.I32('0'), w.I32Add)),
	)
	if f != self {
		panic("wrong index")
	}
	return func(value []byte) []byte { return w.Seq(value, w.Call(f)) }
}

// report ends an entry with a JSON array of i64 values as its output.
func (g *guest) report(print func([]byte) []byte, values ...[]byte) []byte {
	out := g.write("[")
	for i, v := range values {
		if i > 0 {
			out = w.Seq(out, g.write(","))
		}
		out = w.Seq(out, print(v))
	}
	return w.Seq(out, g.write("]"), w.I32(0))
}

// wide extends an i32, as a signed number.
func wide(v []byte) []byte { return w.Seq(v, []byte{0xac}) }
