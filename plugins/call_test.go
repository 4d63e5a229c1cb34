package plugins_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

var forever = w.Seq(w.Loop, w.Br(0), w.End)

func TestCallClasses(t *testing.T) {
	short := plugins.Limits{Wall: 30 * time.Millisecond}
	for _, tt := range []struct {
		name   string
		limits plugins.Limits
		body   func(g *guest) []byte
		want   plugins.Class
		detail string // substring
	}{
		{"ok", plugins.Limits{}, func(g *guest) []byte { return g.ok() }, plugins.OK, ""},
		{"unreachable", plugins.Limits{}, func(*guest) []byte { return w.Unreachable }, plugins.Trap, "unreachable"},
		{"load out of bounds", plugins.Limits{}, func(*guest) []byte { return w.Seq(w.I32(-4), w.I32Load) }, plugins.Trap, "out of bounds"},
		{"endless loop", short, func(*guest) []byte { return w.Seq(forever, w.I32(0)) }, plugins.Deadline, ""},
		{"endless loop of host calls", short, func(g *guest) []byte {
			return w.Seq(w.Loop, g.call(abi.ImportInputLen), w.Drop, w.Br(0), w.End, w.I32(0))
		}, plugins.Deadline, ""},
		{"no output", plugins.Limits{}, func(*guest) []byte { return w.I32(0) }, plugins.InvalidOutput, "without output"},
		{"output not json", plugins.Limits{}, func(g *guest) []byte { return w.Seq(g.write("{"), w.I32(0)) }, plugins.InvalidOutput, "JSON"},
		{"output not utf-8", plugins.Limits{}, func(g *guest) []byte { return w.Seq(g.write("\"\xff\""), w.I32(0)) }, plugins.InvalidOutput, "JSON"},
		{"non-zero", plugins.Limits{}, func(g *guest) []byte { return w.Seq(g.write("{}"), w.I32(7)) }, plugins.Failed, "returned 7"},
		{"proc_exit 0", plugins.Limits{}, func(g *guest) []byte {
			return w.Seq(g.write("{}"), g.call("proc_exit", w.I32(0)), w.I32(0))
		}, plugins.Trap, "exited with code 0"},
		{"proc_exit 3", plugins.Limits{}, func(g *guest) []byte { return w.Seq(g.call("proc_exit", w.I32(3)), w.I32(0)) }, plugins.Trap, "code 3"},
		{"output flood", plugins.Limits{OutputBytes: 100}, func(g *guest) []byte {
			return w.Seq(w.Block, w.Loop, g.call(abi.ImportOutputWrite, g.text("1111")), w.BrIf(1), w.Br(0), w.End, w.End, w.I32(0))
		}, plugins.Output, "over 100 bytes"},
		{"output too big at once", plugins.Limits{OutputBytes: 1}, func(g *guest) []byte { return g.ok() }, plugins.Output, ""},
		{"output too big, then shorter", plugins.Limits{OutputBytes: 1}, func(g *guest) []byte {
			return w.Seq(g.write("123"), g.write("1"), w.I32(0))
		}, plugins.OK, ""},
		{"memory bomb", plugins.Limits{MemoryBytes: 1 << 20}, func(*guest) []byte {
			return w.Seq(w.Loop, w.I32(1), w.MemoryGrow, w.I32(-1), []byte{0x46}, w.If, w.Unreachable, w.End, w.Br(0), w.End, w.I32(0))
		}, plugins.Memory, "refused"},
		{"memory refused, then exit", plugins.Limits{MemoryBytes: 1 << 20}, func(g *guest) []byte {
			return w.Seq(w.I32(1000), w.MemoryGrow, w.Drop, g.call("proc_exit", w.I32(2)), w.I32(0))
		}, plugins.Memory, "code 2"},
		{"memory refused, survived", plugins.Limits{MemoryBytes: 1 << 20}, func(g *guest) []byte {
			return w.Seq(w.I32(1000), w.MemoryGrow, w.Drop, g.ok())
		}, plugins.OK, ""},
		{"memory under its start", plugins.Limits{MemoryBytes: 1 << 16}, func(g *guest) []byte { return g.ok() }, plugins.Memory, ""},
		{"endless recursion", plugins.Limits{}, func(g *guest) []byte { return w.Call(g.NextFunc()) }, plugins.Depth, ""},
		{"out of fuel", plugins.Limits{Fuel: 1_000_000}, func(*guest) []byte { return w.Seq(forever, w.I32(0)) }, plugins.Fuel, "used up its 1000000 fuel"},
		{"out of fuel by host calls", plugins.Limits{Fuel: 1_000_000}, func(g *guest) []byte {
			return w.Seq(w.Loop, g.call(abi.ImportInputLen), w.Drop, w.Br(0), w.End, w.I32(0))
		}, plugins.Fuel, ""},
		{"sleep past the deadline", short, func(g *guest) []byte { return g.sleep(time.Hour) }, plugins.Deadline, ""},
		{"random of a gigabyte", plugins.Limits{}, func(g *guest) []byte {
			return w.Seq(g.call("random_get", w.I32(0), w.I32(1<<30)), w.Drop, g.ok())
		}, plugins.Trap, "out of bounds"},
		{"abort of AssemblyScript", plugins.Limits{}, func(g *guest) []byte {
			g.Data(512, []byte("\x04\x00\x00\x00h\x00i\x00"))
			return w.Seq(g.call("abort", w.I32(516), w.I32(0), w.I32(1), w.I32(2)), w.I32(0))
		}, plugins.Trap, "abort: hi"},
		{"abort with a wild pointer", plugins.Limits{}, func(g *guest) []byte {
			return w.Seq(g.call("abort", w.I32(-1), w.I32(2), w.I32(1), w.I32(2)), w.I32(0))
		}, plugins.Trap, "out of bounds"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := callTool(t, plugins.Call{Limits: tt.limits}, tt.body)
			wantClass(t, res, tt.want)
			if !strings.Contains(res.Detail, tt.detail) {
				t.Errorf("detail = %q, want %q in it", res.Detail, tt.detail)
			}
			if res.Usage.Wall <= 0 && tt.name != "memory under its start" {
				t.Errorf("usage = %+v, want a wall time", res.Usage)
			}
		})
	}
}

// sleep naps and then answers.
func (g *guest) sleep(d time.Duration) []byte { return w.Seq(g.nap(d), w.Drop, g.ok()) }

// nap polls one relative timeout of the monotonic clock; it leaves the errno.
func (g *guest) nap(d time.Duration) []byte {
	const sub, out, n = 512, 640, 768
	return w.Seq(
		w.I32(sub+16), w.I32(1), w.I32Store, // clock id
		w.I32(sub+24), w.I64(int64(d)), w.I64Store,
		g.call("poll_oneoff", w.I32(sub), w.I32(out), w.I32(1), w.I32(n)),
	)
}

func TestCallCanceled(t *testing.T) {
	for name, body := range map[string]func(g *guest) []byte{
		"loop":  func(*guest) []byte { return w.Seq(forever, w.I32(0)) },
		"sleep": func(g *guest) []byte { return g.sleep(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, toolGuest(func(g *guest) []byte {
				return w.Seq(g.call(abi.ImportEmit, w.I32(0), g.text("x")), w.Drop, body(g))
			}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			env := capability.Env{Emit: func(int32, []byte) error { cancel(); return nil }}
			wantClass(t, p.Call(ctx, plugins.Call{Entry: abi.ExportToolCall, Env: env}), plugins.Canceled)
			wantClass(t, p.Call(ctx, plugins.Call{Entry: abi.ExportToolCall, Env: env}), plugins.Canceled)
		})
	}
}

func TestCallDeadlineOfCaller(t *testing.T) {
	p := load(t, toolGuest(func(*guest) []byte { return w.Seq(forever, w.I32(0)) }))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	wantClass(t, p.Call(ctx, plugins.Call{Entry: abi.ExportToolCall}), plugins.Deadline)
}

func TestFail(t *testing.T) {
	long := strings.Repeat("a", abi.MaxFailText-1) + "é"
	for _, tt := range []struct {
		name   string
		code   int32
		after  int32
		text   string
		status int32
		want   plugins.Failure
	}{
		{"with retry", 4, 1500, "later", 1, plugins.Failure{Code: abi.FailTransient, RetryAfter: 1500 * time.Millisecond, Text: "later"}},
		{"no retry", 1, -1, "bad", 1, plugins.Failure{Code: abi.FailInvalidArgs, RetryAfter: -1, Text: "bad"}},
		{"then zero", 2, 0, "gone", 0, plugins.Failure{Code: abi.FailNotFound, Text: "gone"}},
		{"unknown code", 99, -1, "odd", 1, plugins.Failure{Code: abi.FailInternal, RetryAfter: -1, Text: "odd"}},
		{"negative code", -3, -9, "", 1, plugins.Failure{Code: abi.FailInternal, RetryAfter: -1}},
		{"cut at a rune", 6, -1, long, 1, plugins.Failure{Code: abi.FailInternal, RetryAfter: -1, Text: long[:abi.MaxFailText-1]}},
		{"not utf-8", 5, -1, "a\xffb", 1, plugins.Failure{Code: abi.FailPermanent, RetryAfter: -1, Text: "a\uFFFDb"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := callTool(t, plugins.Call{}, func(g *guest) []byte {
				return w.Seq(
					g.write(`{"secret":1}`),
					g.call(abi.ImportFail, w.I32(tt.code), w.I32(tt.after), g.text(tt.text)),
					g.write(`{}`), w.I32(tt.status),
				)
			})
			wantClass(t, res, plugins.Failed)
			if *res.Fail != tt.want {
				t.Errorf("fail = %+v, want %+v", *res.Fail, tt.want)
			}
		})
	}
}

func TestInputRead(t *testing.T) {
	p := load(t, toolGuest(func(g *guest) []byte {
		print := g.printer()
		read := func(off, n int32) []byte {
			return wide(g.call(abi.ImportInputRead, w.I32(off), w.I32(0), w.I32(n)))
		}
		return g.report(print, wide(g.call(abi.ImportInputLen)), read(0, 100), read(3, 1), read(5, 9), read(-1, 9),
			wide(w.Seq(w.I32(0), w.I32Load8)))
	}))
	res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Input: []byte("01234")})
	got := numbers(t, res)
	want := []int64{5, 5, 1, 0, 0, '3'}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got, want)
			break
		}
	}
}

// TestWildPointers gives every import pointers and lengths from all over the
// address space: each call must end in a class, never in a panic of the host.
func TestWildPointers(t *testing.T) {
	wild := []int32{0, 1, -1, -8, 1 << 16, 4<<16 - 1, 4 << 16, 1<<31 - 1, -1 << 31, 1 << 30}
	pointers := map[string]bool{}
	for _, name := range []string{
		abi.ImportInputRead, abi.ImportOutputWrite, abi.ImportFail, abi.ImportLog, abi.ImportEmit,
		abi.ImportCall, abi.ImportReplyRead, abi.ImportStreamRead, "args_sizes_get", "random_get",
	} {
		pointers[name] = true
	}
	m := newManager(t)
	for name, sig := range newGuest().sigs {
		t.Run(name, func(t *testing.T) {
			g := newGuest()
			// The input picks the value of all arguments.
			body := w.Seq(g.call(abi.ImportInputRead, w.I32(0), w.I32(0), w.I32(4)), w.Drop)
			for _, param := range sig.Params {
				body = w.Seq(body, w.I32(0), w.I32Load)
				if param == wasmbin.I64 {
					body = wide(body)
				}
			}
			body = w.Seq(body, w.Call(g.fn[name]))
			if len(sig.Results) > 0 {
				body = w.Seq(body, w.Drop)
			}
			g.entry(abi.ExportToolCall, body, g.ok())
			p, err := m.Load(t.Context(), name, g.describes(toolDesc).Bytes())
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range wild {
				in := []byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
				res := p.Call(t.Context(), plugins.Call{
					Entry: abi.ExportToolCall, Input: in, Limits: plugins.Limits{Wall: time.Second},
				})
				ends := []plugins.Class{plugins.OK, plugins.Trap, plugins.Failed, plugins.InvalidOutput, plugins.Output}
				if !slices.Contains(ends, res.Class) {
					t.Errorf("%s(%#x…) = %s (%s)", name, uint32(v), res.Class, res.Detail)
				}
				if v == -1 && pointers[name] && res.Class != plugins.Trap {
					t.Errorf("%s with a pointer to nowhere = %s, want a trap", name, res.Class)
				}
			}
		})
	}
}

func TestLogs(t *testing.T) {
	res := callTool(t, plugins.Call{}, func(g *guest) []byte {
		print := func(fd int32, text string) []byte { // one vector
			at := g.next
			g.text(text)
			return w.Seq(
				w.I32(0), w.I32(at), w.I32Store,
				w.I32(4), w.I32(int32(len(text))), w.I32Store,
				g.call("fd_write", w.I32(fd), w.I32(0), w.I32(1), w.I32(8)), w.Drop,
			)
		}
		return w.Seq(
			g.call(abi.ImportLog, w.I32(1), g.text("debug\xff")),
			g.call(abi.ImportLog, w.I32(77), g.text("loud")),
			g.call(abi.ImportLog, w.I32(-5), g.text("quiet")),
			print(1, "one\ntw"), print(1, "o\n"), print(2, "err"), print(9, "nowhere"),
			g.ok(),
		)
	})
	wantClass(t, res, plugins.OK)
	want := []plugins.LogLine{
		{Level: abi.LevelDebug, Text: "debug\uFFFD"},
		{Level: abi.LevelError, Text: "loud"},
		{Level: abi.LevelTrace, Text: "quiet"},
		{Level: abi.LevelInfo, Text: "one"},
		{Level: abi.LevelInfo, Text: "two"},
		{Level: abi.LevelWarn, Text: "err"},
	}
	if len(res.Logs) != len(want) {
		t.Fatalf("logs = %q, want %q", res.Logs, want)
	}
	for i := range want {
		if res.Logs[i] != want[i] {
			t.Errorf("log %d = %q, want %q", i, res.Logs[i], want[i])
		}
	}
}

func TestLogFlood(t *testing.T) {
	for name, flood := range map[string]func(g *guest) []byte{
		"log": func(g *guest) []byte { return g.call(abi.ImportLog, w.I32(2), g.text(strings.Repeat("x", 1000))) },
		"vectors that overlap": func(g *guest) []byte {
			// 1,024 vectors, each the whole of the memory's first three pages.
			return w.Seq(
				w.I32(0), w.LocalSet(0), w.Loop,
				w.LocalGet(0), w.I32(1<<16), w.I32Store,
				w.LocalGet(0), w.I32(4), w.I32Add, w.I32(3<<16), w.I32Store,
				w.LocalGet(0), w.I32(8), w.I32Add, w.LocalSet(0),
				w.LocalGet(0), w.I32(8*1024), []byte{0x48}, w.BrIf(0), w.End,
				g.call("fd_write", w.I32(1), w.I32(0), w.I32(1024), w.I32(0)), w.Drop,
			)
		},
	} {
		t.Run(name, func(t *testing.T) {
			limits := plugins.Limits{Wall: 100 * time.Millisecond, LogLines: 10, LogBytes: 5000}
			res := callTool(t, plugins.Call{Limits: limits}, func(g *guest) []byte {
				return w.Seq(w.Loop, flood(g), w.Br(0), w.End, w.I32(0))
			})
			// To write much costs much, kept or not: the fuel may end first.
			if res.Class != plugins.Deadline && res.Class != plugins.Fuel {
				t.Fatalf("class = %s (%s), want guest_deadline or guest_fuel", res.Class, res.Detail)
			}
			size := 0
			for _, l := range res.Logs {
				size += len(l.Text)
			}
			if len(res.Logs) > 10 || size > 5000 {
				t.Errorf("kept %d lines, %d bytes; want at most 10 and 5000", len(res.Logs), size)
			}
			if name == "log" && res.Usage.LogsDropped == 0 {
				t.Error("nothing counts as dropped")
			}
		})
	}
}

func TestEmit(t *testing.T) {
	var got []string
	emit := func(kind int32, data []byte) error {
		got = append(got, string(data))
		if kind == 9 {
			return context.Canceled
		}
		return nil
	}
	body := func(kind int32) func(g *guest) []byte {
		return func(g *guest) []byte {
			print := g.printer()
			one := func() []byte { return wide(g.call(abi.ImportEmit, w.I32(kind), g.text("p"))) }
			return g.report(print, one(), one(), one())
		}
	}
	res := callTool(t, plugins.Call{Env: capability.Env{Emit: emit}, Limits: plugins.Limits{Emits: 2}}, body(0))
	if out := string(res.Output); out != "[0,0,-19]" || len(got) != 2 {
		t.Errorf("emit = %s, %d seen; want [0,0,-19] and 2", out, len(got))
	}
	res = callTool(t, plugins.Call{Env: capability.Env{Emit: emit}}, body(9))
	if out := string(res.Output); out != "[-11,-11,-11]" {
		t.Errorf("emit after an abort = %s, want [-11,-11,-11]", out)
	}
	res = callTool(t, plugins.Call{}, body(-1))
	if out := string(res.Output); out != "[-28,-28,-28]" {
		t.Errorf("emit of a negative kind = %s, want [-28,-28,-28]", out)
	}
	broken := func(int32, []byte) error { return errors.New("10.0.0.7: no route") }
	res = callTool(t, plugins.Call{Env: capability.Env{Emit: broken}}, body(0))
	wantClass(t, res, plugins.HostError)
	if strings.Contains(res.Detail, "10.0.0.7") {
		t.Errorf("detail tells the guest's owner of the host: %q", res.Detail)
	}
}

func TestHostPanicIsContained(t *testing.T) {
	env := capability.Env{Emit: func(int32, []byte) error { panic("bug") }}
	res := callTool(t, plugins.Call{Env: env}, func(g *guest) []byte {
		return w.Seq(g.call(abi.ImportEmit, w.I32(0), g.text("x")), w.Drop, g.ok())
	})
	wantClass(t, res, plugins.HostError)
	if strings.Contains(res.Detail, "bug") {
		t.Errorf("detail = %q", res.Detail)
	}
}

func TestBudgetOfTool(t *testing.T) {
	res := callTool(t, plugins.Call{Limits: plugins.Limits{Wall: time.Minute, OutputBytes: 1000}}, func(g *guest) []byte {
		print := g.printer()
		return g.report(print, g.call(abi.ImportBudget, w.I32(0)), g.call(abi.ImportBudget, w.I32(2)), g.call(abi.ImportBudget, w.I32(3)))
	})
	got := numbers(t, res)
	if got[0] < 50_000 || got[0] > 60_000 {
		t.Errorf("ms left = %d, want just under 60000", got[0])
	}
	if got[1] >= 1000 || got[1] < 980 || got[2] != -28 {
		t.Errorf("output left, unknown = %d, %d; want just under 1000, -28", got[1], got[2])
	}
}

// TestPristine proves that no call of a tool sees another one.
func TestPristine(t *testing.T) {
	p := load(t, counter(toolGuest))
	for range 5 {
		if got := numbers(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall})); got[0] != 1 || got[1] != 1 {
			t.Fatalf("counters = %v, want [1 1]", got)
		}
	}
}

// counter counts its calls in memory and in a global.
func counter(build func(func(g *guest) []byte) []byte) []byte {
	return build(func(g *guest) []byte {
		global := g.Global(0)
		print := g.printer()
		const at = 256
		return w.Seq(
			w.I32(at), w.I32(at), w.I32Load, w.I32(1), w.I32Add, w.I32Store,
			w.GlobalGet(global), w.I32(1), w.I32Add, w.GlobalSet(global),
			g.report(print, wide(w.Seq(w.I32(at), w.I32Load)), wide(w.GlobalGet(global))),
		)
	})
}

func TestConcurrentCallsAreIsolated(t *testing.T) {
	// Echoes its input after a nap, from the same address in each instance.
	p := load(t, toolGuest(func(g *guest) []byte {
		return w.Seq(
			g.call(abi.ImportInputRead, w.I32(0), w.I32(100), w.I32(100)), w.Drop,
			g.nap(5*time.Millisecond), w.Drop,
			g.call(abi.ImportOutputWrite, w.I32(100), g.call(abi.ImportInputLen)), w.Drop, w.I32(0),
		)
	}))
	type answer struct{ in, out string }
	answers := make(chan answer)
	const n = 16
	for i := range n {
		go func() {
			in, _ := json.Marshal(strings.Repeat(string(rune('a'+i)), i+1))
			res := p.Call(context.Background(), plugins.Call{Entry: abi.ExportToolCall, Input: in})
			answers <- answer{string(in), string(res.Output)}
		}()
	}
	for range n {
		if a := <-answers; a.in != a.out {
			t.Errorf("echo of %s = %s", a.in, a.out)
		}
	}
}

func TestUnknownEntry(t *testing.T) {
	p := load(t, counter(toolGuest))
	for _, entry := range []string{abi.ExportRoute, abi.ExportMarker, abi.ExportInitialize, "", "nonsense"} {
		wantClass(t, p.Call(t.Context(), plugins.Call{Entry: entry}), plugins.Denied)
	}
	res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportDescribe})
	wantClass(t, res, plugins.OK)
	if !bytes.Equal(res.Output, []byte(toolDesc)) {
		t.Errorf("describe = %s", res.Output)
	}
}
