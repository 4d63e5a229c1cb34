package plugins_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// held calls a tool that emits and then goes on; its Emit blocks until the
// returned function is called.
func held(t *testing.T, p *plugins.Plugin) (release func(), result <-chan plugins.Result) {
	t.Helper()
	in, out := make(chan struct{}), make(chan struct{})
	res := make(chan plugins.Result, 1)
	var once sync.Once
	env := capability.Env{Emit: func(int32, []byte) error { close(in); <-out; return nil }}
	go func() { res <- p.Call(context.Background(), plugins.Call{Entry: abi.ExportToolCall, Env: env}) }()
	<-in
	return func() { once.Do(func() { close(out) }) }, res
}

// emitting emits once and then does what follows.
func emitting(then func(g *guest) []byte) []byte {
	return toolGuest(func(g *guest) []byte {
		return w.Seq(g.call(abi.ImportEmit, w.I32(0), g.text("x")), w.Drop, then(g))
	})
}

func TestCloseWhileCallsRun(t *testing.T) {
	p := load(t, emitting((*guest).ok))
	release, result := held(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close during a call = %v, want canceled", err)
	}
	wantClass(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall}), plugins.Unavailable)
	release()
	wantClass(t, <-result, plugins.OK)
	if err := p.Close(t.Context()); err != nil {
		t.Errorf("close after the last call = %v", err)
	}
	wantClass(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall}), plugins.Unavailable)
}

func TestManagerCloseCutsCallsShort(t *testing.T) {
	m, err := plugins.New(t.Context(), plugins.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Load(t.Context(), "loop.wasm", emitting(func(*guest) []byte { return w.Seq(forever, w.I32(0)) }))
	if err != nil {
		t.Fatal(err)
	}
	release, result := held(t, p)
	release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Errorf("close = %v", err)
	}
	wantClass(t, <-result, plugins.Unavailable)
	if _, err := m.Load(t.Context(), "late.wasm", nil); !errors.Is(err, plugins.ErrClosed) {
		t.Errorf("load after close = %v, want ErrClosed", err)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Errorf("second close = %v", err)
	}
}

// TestCallContext: a call costs no goroutine that waits for its end, and its
// context does not take back that it ended.
func TestCallContext(t *testing.T) {
	p := load(t, emitting((*guest).ok))
	before, during := runtime.NumGoroutine(), 0
	env := capability.Env{Emit: func(int32, []byte) error { during = runtime.NumGoroutine(); return nil }}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wantClass(t, p.Call(ctx, plugins.Call{Entry: abi.ExportToolCall, Env: env}), plugins.OK)
	if during > before {
		t.Errorf("%d goroutines during the call, %d before", during, before)
	}

	m := newManager(t)
	call := plugins.CallContext(t.Context(), m)
	if err := call.Err(); err != nil {
		t.Fatal(err)
	}
	plugins.CutOnly(m)
	for range 2 {
		if err := call.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("after the cut: Err = %v, want canceled", err)
		}
		select {
		case <-call.Done():
		default:
			t.Error("after the cut: not done")
		}
	}
}

func TestManagerCloseWaitsForCalls(t *testing.T) {
	m, err := plugins.New(t.Context(), plugins.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Load(t.Context(), "ok.wasm", emitting((*guest).ok))
	if err != nil {
		t.Fatal(err)
	}
	release, result := held(t, p)
	closed := make(chan error, 1)
	go func() { closed <- m.Close(context.Background()) }()
	for p.Call(t.Context(), plugins.Call{Entry: abi.ExportDescribe}).Class != plugins.Unavailable {
		runtime.Gosched()
	}
	select {
	case err := <-closed:
		t.Fatalf("closed during a call: %v", err)
	default:
	}
	release()
	wantClass(t, <-result, plugins.OK)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// TestNothingStays loads and closes plugins and whole managers, failures of
// every kind between, and then counts goroutines and memory.
func TestNothingStays(t *testing.T) {
	tool := emitting((*guest).ok)
	trap := toolGuest(func(*guest) []byte { return w.Unreachable })
	loop := toolGuest(func(*guest) []byte { return w.Seq(forever, w.I32(0)) })
	policy := counter(policyGuest)
	round := func() {
		m, err := plugins.New(t.Context(), plugins.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for i, wasm := range [][]byte{tool, trap, loop, policy, []byte("rubbish")} {
			p, err := m.Load(t.Context(), "x.wasm", wasm)
			if err != nil {
				continue
			}
			for _, entry := range []string{abi.ExportToolCall, abi.ExportRoute} {
				p.Call(t.Context(), plugins.Call{Entry: entry, Limits: plugins.Limits{Wall: 2 * time.Millisecond}})
			}
			if i%2 == 0 {
				if err := p.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	measure := func() (goroutines int, heap uint64) {
		runtime.GC()
		runtime.GC() // what finalizers released
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return runtime.NumGoroutine(), s.HeapAlloc
	}
	round()
	g0, h0 := measure()
	for range 5 {
		round()
	}
	g1, h1 := measure()
	if g1 > g0 {
		t.Errorf("goroutines = %d, were %d", g1, g0)
	}
	if h1 > h0+2<<20 {
		t.Errorf("heap = %d, was %d", h1, h0)
	}
}

func TestCacheDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache", "wasm")
	for range 2 { // the second time from the directory
		m, err := plugins.New(t.Context(), plugins.Options{CacheDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Load(t.Context(), "x.wasm", counter(toolGuest))
		if err != nil {
			t.Fatal(err)
		}
		wantClass(t, p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall}), plugins.OK)
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("cache has mode %#o, want 0700", info.Mode().Perm())
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := plugins.New(t.Context(), plugins.Options{CacheDir: dir}); err == nil {
		t.Error("a cache that anyone can write to was accepted")
	}
}

func BenchmarkToolCall(b *testing.B) {
	p := load(b, counter(toolGuest))
	c := plugins.Call{Entry: abi.ExportToolCall, Input: []byte(`{"v":1,"x":1}`)}
	b.ReportAllocs()
	for b.Loop() {
		if res := p.Call(context.Background(), c); res.Class != plugins.OK {
			b.Fatal(res.Detail)
		}
	}
}

func BenchmarkPolicyCall(b *testing.B) {
	p := load(b, counter(policyGuest))
	c := plugins.Call{Entry: abi.ExportRoute, Input: []byte(`{"v":1,"x":1}`)}
	b.ReportAllocs()
	for b.Loop() {
		if res := p.Call(context.Background(), c); res.Class != plugins.OK {
			b.Fatal(res.Detail)
		}
	}
}

func BenchmarkToolCallGo(b *testing.B) {
	p := load(b, buildGo(b))
	c := plugins.Call{Entry: abi.ExportToolCall, Input: []byte(`{"do":"","n":1}`)}
	b.ReportAllocs()
	for b.Loop() {
		if res := p.Call(context.Background(), c); res.Class != plugins.OK {
			b.Fatal(res.Detail)
		}
	}
}
