package plugintest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/sdk/abi"
)

// guest builds modules that break one rule each.
type guest struct {
	w.Module
	write, read, rand uint32
	next              int32
}

func newGuest() *guest {
	g := &guest{next: 4096}
	g.write = g.Import(abi.Module, abi.ImportOutputWrite, w.Sig("ii", "i"))
	g.read = g.Import(abi.Module, abi.ImportInputRead, w.Sig("iii", "i"))
	g.rand = g.Import("wasi_snapshot_preview1", "random_get", w.Sig("ii", "i"))
	g.Memory(2)
	return g
}

// says writes s to the output.
func (g *guest) says(s string) []byte {
	at := g.next
	g.Data(at, []byte(s))
	g.next += int32(len(s))
	return w.Seq(w.I32(at), w.I32(int32(len(s))), w.Call(g.write), w.Drop)
}

const noiseAt = 64

// noise writes two random letters to noiseAt.
func (g *guest) noise() []byte {
	all := w.Seq(w.I32(noiseAt), w.I32(2), w.Call(g.rand), w.Drop)
	for at := int32(noiseAt); at < noiseAt+2; at++ {
		and := []byte{0x71}
		all = w.Seq(all, w.I32(at), w.I32(at), w.I32Load8, w.I32(0x0f), and, w.I32('a'), w.I32Add, w.I32Store8)
	}
	return all
}

func (g *guest) entry(name string, body ...[]byte) *guest {
	g.Export(name, g.Func(w.Sig("", "i"), body...))
	return g
}

func (g *guest) bytes(descriptor string) []byte {
	g.entry(abi.ExportMarker, w.I32(1))
	return g.entry(abi.ExportDescribe, g.says(descriptor), w.I32(0)).Bytes()
}

const (
	tool   = `{"v":1,"name":"probe","version":"0.1.0","kinds":["tool"],"tools":[{"name":"probe","description":"","effects":"pure","parameters":{"type":"object"}}]}`
	policy = `{"v":1,"name":"probe","version":"0.1.0","kinds":["retry"]}`
)

// failing fails every call with not_found, which no rule forbids.
var failing = w.I32(1)

func TestCheckFinds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wasm  func() []byte
		cases string
		want  []string // a problem each: part of its line
	}{
		{"nothing", func() []byte { g := newGuest(); return g.entry(abi.ExportToolCall, failing).bytes(tool) }, "", nil},
		{"no module", func() []byte { return []byte("rubbish") }, "", []string{"load: refused: not a WebAssembly binary"}},
		{"a trap", func() []byte {
			return newGuest().entry(abi.ExportToolCall, w.Unreachable).bytes(tool)
		}, "", []string{"tool probe: called with {} it ended in guest_trap"}},
		{"tools that do not exist", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall, g.says(`{"v":1,"output":1}`), w.I32(0)).bytes(tool)
		}, "", []string{"unknown tool: it answers"}},
		{"an answer that is no result", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall, g.says(`{"v":2,"output":1}`), w.I32(0)).bytes(tool)
		}, "", []string{`tool probe: called with {}, plugintest: a call of a tool is not answered with {"v":1,…}`}},
		{"a result without anything in it", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall, g.says(`{"v":1}`), w.I32(0)).bytes(tool)
		}, "", []string{"tool probe: called with {}, plugintest: a tool's answer has neither output nor content"}},
		{"pure that is not", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall,
				g.noise(), g.says(`{"v":1,"output":"`), w.I32(noiseAt), w.I32(2), w.Call(g.write), w.Drop, g.says(`"}`), w.I32(0)).bytes(tool)
		}, "", []string{"tool probe: it declares that it is pure"}},
		{"a case that does not hold", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall, failing).bytes(tool)
		}, `[{"name":"sum","tool":"probe","arguments":{},"output":3},{"name":"gone","tool":"probe","error":"internal"}]`, []string{"case sum: got guest_error"}},
		{
			"calls of a policy",
			func() []byte {
				g := newGuest()
				return g.entry(abi.ExportRetry, g.says(`{"v":1,"action":"fail"}`), w.I32(0)).bytes(policy)
			},
			`[{"name":"sum","tool":"probe","output":3}]`,
			[]string{"cases: they call tools, but the plugin is for [retry]"},
		},
		{
			"decisions of another policy",
			func() []byte {
				g := newGuest()
				return g.entry(abi.ExportRetry, g.says(`{"v":1,"action":"fail"}`), w.I32(0)).bytes(policy)
			},
			`[{"name":"one","question":{"v":1,"candidates":[]},"answer":{"v":1}}]`,
			[]string{"case one: it is a route question, but the plugin is for [retry]"},
		},
		{"a pure tool that fails in another way each time", func() []byte {
			g := newGuest()
			fail := g.Import(abi.Module, abi.ImportFail, w.Sig("iiii", ""))
			return g.entry(abi.ExportToolCall, g.noise(), w.I32(1), w.I32(-1), w.I32(noiseAt), w.I32(2), w.Call(fail), w.I32(1)).bytes(tool)
		}, "", []string{"tool probe: it declares that it is pure", "failed with invalid_args: "}},
		{"pure with a fuel of its own each time", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportToolCall, g.noise(), w.I32(noiseAt), w.I32Load8, w.LocalSet(0), w.Loop,
				w.LocalGet(0), w.I32(-1), w.I32Add, w.LocalSet(0), w.LocalGet(0), w.BrIf(0), w.End, failing).bytes(tool)
		}, "", nil},
		{"pure but for its warm-up input", func() []byte {
			g := newGuest()
			length := g.Import(abi.Module, abi.ImportInputLen, w.Sig("", "i"))
			warm := strings.Replace(tool, `"tools"`, `"warm_up":[{"tool":"probe","arguments":{"text":"`+strings.Repeat("x", 2000)+`"}}],"tools"`, 1)
			return g.entry(abi.ExportToolCall,
				w.Call(length), w.I32(1500), []byte{0x48}, w.If, w.I32(1), w.Return, w.End, // {} fails
				g.noise(), g.says(`{"v":1,"output":"`), w.I32(noiseAt), w.I32(2), w.Call(g.write), w.Drop, g.says(`"}`), w.I32(0)).bytes(warm)
		}, "", []string{"tool probe: it declares that it is pure"}},
		{"an answer of no form", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportRetry, g.says(`{"v":1,"action":"maybe"}`), w.I32(0)).bytes(policy)
		}, "", []string{"purity of retry: plugintest: a retry answer has another action"}},
		{"a policy that burns fuel", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportRetry, w.I32(0), w.LocalSet(0), w.Loop,
				w.LocalGet(0), w.I32(1), w.I32Add, w.LocalSet(0), w.LocalGet(0), w.I32(6_000_000), []byte{0x48}, w.BrIf(0), w.End,
				g.says(`{"v":1,"action":"fail"}`), w.I32(0)).bytes(policy)
		}, "", []string{"budget of retry: the largest question ends in guest_fuel with half"}},
		{"a wrong decision", func() []byte {
			g := newGuest()
			return g.entry(abi.ExportRetry, g.says(`{"v":1,"action":"fail"}`), w.I32(0)).bytes(policy)
		}, `[{"name":"again","question":{"v":1,"step":{"kind":"model_call"}},"answer":{"v":1,"action":"retry"}}]`, []string{"case again: got"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var o plugintest.Options
			if tt.cases != "" {
				var err error
				if o.Cases, err = plugintest.ParseCases([]byte(tt.cases)); err != nil {
					t.Fatal(err)
				}
			}
			r, err := plugintest.Check(t.Context(), tt.wasm(), o)
			if err != nil {
				t.Fatal(err)
			}
			var problems []string
			for _, f := range r.Findings {
				if f.Level == plugintest.Problem {
					problems = append(problems, f.String())
				}
			}
			if r.OK() != (len(tt.want) == 0) {
				t.Errorf("ok = %v with problems %q", r.OK(), problems)
			}
			for _, want := range tt.want {
				if !strings.Contains(strings.Join(problems, "\n"), want) {
					t.Errorf("problems = %q, want one with %q", problems, want)
				}
			}
			if len(tt.want) == 0 && len(problems) > 0 {
				t.Errorf("problems = %q, want none", problems)
			}
		})
	}
}

func TestRun(t *testing.T) {
	g := newGuest()
	wasm := g.entry(abi.ExportToolCall, g.says(`{"v":1,"output":42}`), w.I32(0)).bytes(tool)
	res, err := plugintest.Run(t.Context(), wasm, "probe", nil)
	if err != nil || res.Class != plugins.OK || string(res.Output) != `{"v":1,"output":42}` {
		t.Errorf("run = %s %s, %v", res.Class, res.Output, err)
	}
	if _, err := plugintest.Run(t.Context(), wasm, "other", nil); !errors.Is(err, plugintest.ErrNoTool) || !strings.Contains(err.Error(), "it has probe") {
		t.Errorf("run of a tool that is not there = %v", err)
	}
	if _, err := plugintest.Run(t.Context(), []byte("no"), "probe", nil); !errors.Is(err, plugins.ErrRefused) {
		t.Errorf("run of no module = %v", err)
	}
}

// TestDeclaredTimeout: a tool has the time that it declares, not the default.
func TestDeclaredTimeout(t *testing.T) {
	g := newGuest()
	wasm := g.entry(abi.ExportToolCall, w.Loop, w.Br(0), w.End, w.I32(0)).bytes(strings.Replace(tool, `"effects"`, `"timeout_ms":5,"effects"`, 1))
	res, err := plugintest.Run(t.Context(), wasm, "probe", nil)
	if err != nil || res.Class != plugins.Deadline {
		t.Errorf("run = %s (%s), %v; want guest_deadline", res.Class, res.Detail, err)
	}
}

func TestBench(t *testing.T) {
	g := newGuest()
	wasm := g.entry(abi.ExportRetry, g.says(`{"v":1,"action":"fail"}`), w.I32(0)).bytes(policy)
	for what, wrong := range map[string]struct {
		arguments string
		n         int
	}{"10000000": {"", 1 << 60}, "want 1": {"", 0}, "takes no arguments": {"{}", 1}} {
		var arguments []byte
		if wrong.arguments != "" {
			arguments = []byte(wrong.arguments)
		}
		if _, err := plugintest.Bench(t.Context(), wasm, "", arguments, wrong.n); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("bench of %d calls with %q = %v, want %q", wrong.n, wrong.arguments, err, what)
		}
	}
	m, err := plugintest.Bench(t.Context(), wasm, "", nil, 50)
	if err != nil {
		t.Fatal(err)
	}
	if m.Class != plugins.OK || m.Calls != 50 || m.FuelLo == 0 || m.FuelLo != m.FuelHi || m.Idle == 0 || m.Median <= 0 {
		t.Errorf("measure = %+v", m)
	}
}

func TestParseCasesRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no JSON", "# cases", "want a JSON array of calls or decisions"},
		{"none", "[]", "the array is empty"},
		{"no form", `[{"name":"x"}]`, `cases[0]: want "tool" in all of them, or "question" in all of them`},
		{"both forms", `[{"tool":"a"},{"question":{}}]`, `cases[1]: want "tool"`},
		{"an unknown field", `[{"tool":"a","result":1}]`, `unknown field "result"`},
	} {
		if _, err := plugintest.ParseCases([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// FuzzParseCases: no file of cases makes the kit fall over.
func FuzzParseCases(f *testing.F) {
	for _, pattern := range []string{"../../policies/*/testdata/decisions.json", "../../examples/tools/*/testdata/calls.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no seeds at %s: %v", pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := plugintest.ParseCases(data)
		if err == nil && (len(c.Calls) == 0) == (len(c.Decisions) == 0) {
			t.Errorf("cases = %+v, want one kind of them", c)
		}
	})
}
