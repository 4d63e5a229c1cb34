package plugins_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

func ask(t *testing.T, p *plugins.Plugin, c plugins.Call) plugins.Result {
	t.Helper()
	c.Entry = abi.ExportRoute
	return p.Call(t.Context(), c)
}

func TestPolicyWorld(t *testing.T) {
	p := load(t, policyGuest(func(g *guest) []byte {
		print := g.printer()
		const at = 1024
		now := func(clock int32) []byte {
			return w.Seq(g.call("clock_time_get", w.I32(clock), w.I64(0), w.I32(at)), w.Drop, w.I32(at), w.I64Load)
		}
		random := w.Seq(g.call("random_get", w.I32(at+8), w.I32(8)), w.Drop, w.I32(at+8), w.I64Load)
		nap := w.Seq(g.nap(time.Second), w.Drop)
		return g.report(print, now(0), w.Seq(nap, now(0)), random,
			g.call(abi.ImportBudget, w.I32(0)), g.call(abi.ImportBudget, w.I32(2)),
			wide(g.call(abi.ImportEmit, w.I32(0), g.text("x"))),
			g.call(abi.ImportCall, g.text(abi.OpKVGet), g.text("")))
	}))
	env := capability.Env{
		KV: mapKV{}, Granted: map[string]bool{abi.OpKVGet: true},
		Emit: func(int32, []byte) error { t.Error("emit reached the host"); return nil },
	}
	first := numbers(t, ask(t, p, plugins.Call{NowMS: 1234, Seed: 7, Env: env}))
	second := numbers(t, ask(t, p, plugins.Call{NowMS: 1234, Seed: 7, Env: env}))
	other := numbers(t, ask(t, p, plugins.Call{NowMS: 1234, Seed: 8, Env: env}))
	want := []int64{1234e6, 2234e6, first[2], 100, 16 << 10, -52, -52}
	if fmt.Sprint(first) != fmt.Sprint(want) {
		t.Errorf("world = %v, want %v", first, want)
	}
	if fmt.Sprint(second) != fmt.Sprint(first) {
		t.Errorf("asked again = %v, want %v", second, first)
	}
	if other[2] == first[2] {
		t.Errorf("entropy of another seed is the same: %d", other[2])
	}
}

func TestPolicyInitIsConstant(t *testing.T) {
	g := newGuest()
	const at = 512
	g.initialize(g.call("random_get", w.I32(at), w.I32(8)), w.Drop,
		g.call("clock_time_get", w.I32(0), w.I64(0), w.I32(at+8)), w.Drop,
		w.I32(at+16), g.call(abi.ImportBudget, w.I32(0)), w.I64Store,
		w.I32(at+24), g.call(abi.ImportBudget, w.I32(1)), w.I64Store)
	print := g.printer()
	g.entry(abi.ExportRoute, g.report(print, w.Seq(w.I32(at), w.I64Load), w.Seq(w.I32(at+8), w.I64Load),
		w.Seq(w.I32(at+16), w.I64Load), w.Seq(w.I32(at+24), w.I64Load)))
	wasm := g.describes(policyDesc).Bytes()
	a := numbers(t, ask(t, load(t, wasm), plugins.Call{Seed: 1, NowMS: 99}))
	b := numbers(t, ask(t, load(t, wasm), plugins.Call{Seed: 2, NowMS: 77}))
	if fmt.Sprint(a) != fmt.Sprint(b) || a[0] == 0 || a[2] != 20_000 || a[3] != 20_000_000_000 {
		t.Errorf("two images began with %v and %v, want the same entropy, time and budget", a, b)
	}
}

// TestMonotonicNeverGoesBack asks with a wall clock that does: the monotonic
// clock of a call goes on from that of the start, which slept.
func TestMonotonicNeverGoesBack(t *testing.T) {
	g := newGuest()
	const at = 512
	now := func() []byte { return w.Seq(g.call("clock_time_get", w.I32(1), w.I64(0), w.I32(at)), w.Drop) }
	g.initialize(g.nap(time.Second), w.Drop, now(), w.I32(at+8), w.I32(at), w.I64Load, w.I64Store)
	print := g.printer()
	g.entry(abi.ExportRoute, w.Seq(now(), g.report(print,
		w.Seq(w.I32(at+8), w.I64Load), w.Seq(w.I32(at), w.I64Load), w.Seq(g.nap(time.Second), w.Drop, now(), w.I32(at), w.I64Load))))
	p := load(t, g.describes(policyDesc).Bytes())
	for _, ms := range []int64{5000, 1000, 1 << 60, -5} {
		got := numbers(t, ask(t, p, plugins.Call{NowMS: ms}))
		if start, before, after := got[0], got[1], got[2]; before < start || after-before != int64(time.Second) {
			t.Errorf("monotonic clock at the start, before and after a nap = %v", got)
		}
	}
}

// TestPolicyIsPristine: each question finds the policy as it was after its
// start, however the one before it ended.
func TestPolicyIsPristine(t *testing.T) {
	for name, end := range map[string]func(g *guest) []byte{
		"trap":     func(*guest) []byte { return w.Unreachable },
		"fail":     func(g *guest) []byte { return w.Seq(g.call(abi.ImportFail, w.I32(6), w.I32(-1), g.text("")), w.I32(1)) },
		"non-zero": func(*guest) []byte { return w.I32(1) },
		"silent":   func(*guest) []byte { return w.I32(0) },
		"nonsense": func(g *guest) []byte { return w.Seq(g.write("!"), w.I32(0)) },
		"output":   func(g *guest) []byte { return w.Seq(g.write(strings.Repeat(" ", 17<<10)), w.I32(0)) },
		"fuel":     func(*guest) []byte { return w.Seq(forever, w.I32(0)) },
		"depth":    func(g *guest) []byte { return w.Call(g.NextFunc()) },
		"exit":     func(g *guest) []byte { return w.Seq(g.call("proc_exit", w.I32(0)), w.I32(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, policyGuest(func(g *guest) []byte {
				print := g.printer()
				bad := end(g)
				return w.Seq(
					w.I32(256), w.I32(256), w.I32Load, w.I32(1), w.I32Add, w.I32Store,
					g.call(abi.ImportInputLen), w.If, bad, w.Return, w.End,
					g.report(print, wide(w.Seq(w.I32(256), w.I32Load))),
				)
			}))
			before, err := shared()
			if err != nil {
				t.Fatal(err)
			}
			made := before.Stats().Made
			for range 3 {
				if got := numbers(t, ask(t, p, plugins.Call{})); got[0] != 1 {
					t.Errorf("count = %d, want 1", got[0])
				}
				if res := ask(t, p, plugins.Call{Input: []byte("fail now"), Limits: plugins.Limits{Wall: time.Minute}}); res.Class == plugins.OK {
					t.Fatalf("class = %s", res.Class)
				}
			}
			if more := before.Stats().Made - made; more != 0 {
				t.Errorf("%d instances were made, want the first one restored each time", more)
			}
		})
	}
}

// TestPolicyHammer asks more at once than there are instances.
func TestPolicyHammer(t *testing.T) {
	p := load(t, policyGuest(func(g *guest) []byte {
		return w.Seq(
			g.call(abi.ImportInputRead, w.I32(0), w.I32(100), w.I32(64)), w.Drop,
			w.I32(100), w.I32Load8, w.I32('!'), []byte{0x46}, w.If, w.Unreachable, w.End,
			g.call(abi.ImportOutputWrite, w.I32(100), g.call(abi.ImportInputLen)), w.Drop, w.I32(0),
		)
	}))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 50 {
				in := fmt.Sprint(i*1000 + j)
				want := plugins.OK
				if j%10 == 9 {
					in, want = "!", plugins.Trap
				}
				res := p.Call(context.Background(), plugins.Call{
					Entry: abi.ExportRoute, Input: []byte(in), Limits: plugins.Limits{Wall: time.Minute},
				})
				if res.Class != want || want == plugins.OK && string(res.Output) != in {
					t.Errorf("%s = %s %s (%s)", in, res.Class, res.Output, res.Detail)
				}
			}
		})
	}
	wg.Wait()
}

// TestPolicyThrottled asks while every instance is busy: the call gives up
// after its own wall clock.
func TestPolicyThrottled(t *testing.T) {
	p := load(t, policyGuest(func(g *guest) []byte {
		return w.Seq(g.call(abi.ImportInputLen), w.If, forever, w.End, g.ok())
	}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 + 2*runtime.GOMAXPROCS(0) { // at least as many as there may be instances
		wg.Go(func() {
			p.Call(ctx, plugins.Call{Entry: abi.ExportRoute, Input: []byte("spin"), Limits: plugins.Limits{Wall: time.Hour, Fuel: 1 << 60}})
		})
	}
	var res plugins.Result
	for res.Class != plugins.Throttled {
		res = ask(t, p, plugins.Call{Limits: plugins.Limits{Wall: 50 * time.Millisecond}})
		if res.Class != plugins.OK && res.Class != plugins.Deadline && res.Class != plugins.Throttled {
			t.Fatalf("class = %s (%s), want guest_throttled", res.Class, res.Detail)
		}
	}
	wantClass(t, res, plugins.Throttled)
	over, stop := context.WithCancel(t.Context())
	stop()
	if res := p.Call(over, plugins.Call{Entry: abi.ExportRoute, Limits: plugins.Limits{Wall: time.Hour}}); res.Class != plugins.Canceled {
		t.Errorf("class of a call without a caller = %s, want canceled", res.Class)
	}
	cancel()
	wg.Wait()
	wantClass(t, ask(t, p, plugins.Call{Limits: plugins.Limits{Wall: time.Minute}}), plugins.OK)
}

func TestPolicyTooLargeToStart(t *testing.T) {
	g := newGuest()
	g.initialize(w.I32(300), w.MemoryGrow, w.I32(-1), []byte{0x46}, w.If, w.Unreachable, w.End) // 18.75 MiB
	g.entry(abi.ExportRoute, g.ok()).describes(policyDesc)
	_, err := newManager(t).Load(t.Context(), "big.wasm", g.Bytes())
	if err == nil || !strings.Contains(err.Error(), "start as a policy: guest_memory") {
		t.Errorf("load = %v, want guest_memory: a policy has 16 MiB", err)
	}
}
