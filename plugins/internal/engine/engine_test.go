package engine_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate/casemate/plugins/internal/abi/wasip1"
	"github.com/casemate/casemate/plugins/internal/engine"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

func newEngine(t *testing.T, host ...engine.HostModule) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), "", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return e
}

// large returns a module that takes long to compile.
func large(funcs int) []byte {
	var m w.Module
	var body []byte
	for range 2000 {
		body = w.Seq(body, w.LocalGet(0), w.I32(1), w.I32Add, w.LocalSet(0))
	}
	for range funcs {
		m.Func(w.Sig("", "i"), body, w.LocalGet(0))
	}
	return m.Memory(1).Bytes()
}

func TestCompileStops(t *testing.T) {
	e := newEngine(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Compile(ctx, large(400)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("compile = %v, want deadline exceeded", err)
	}
}

// TestCompileTogether: of many that want the same code, those whose context
// ends leave, and the others get it.
func TestCompileTogether(t *testing.T) {
	e := newEngine(t)
	wasm := large(3)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ctx := context.Background()
			if i%2 == 0 {
				ctx = canceled
			}
			code, err := e.Compile(ctx, wasm)
			switch {
			case err != nil && ctx == canceled && errors.Is(err, context.Canceled):
			case err != nil:
				t.Errorf("compile %d = %v", i, err)
			default:
				if err := code.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestSharedCode: closing one of two does not pull the code from under the
// other.
func TestSharedCode(t *testing.T) {
	e := newEngine(t)
	var m w.Module
	m.Memory(1).Export("run", m.Func(w.Sig("", "i"), w.I32(42)))
	a, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	in, err := b.Instantiate(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := in.Call(t.Context(), "run"); v != 42 || err != nil {
		t.Errorf("run = %d, %v", v, err)
	}
	if _, err := in.Call(t.Context(), "nothing"); !errors.Is(err, engine.ErrNoExport) {
		t.Errorf("nothing = %v, want ErrNoExport", err)
	}
}

func TestHostFunctions(t *testing.T) {
	cause := errors.New("the cause")
	host := engine.HostModule{Name: "h", Funcs: []engine.HostFunc{
		{Name: "abort", Fn: func(context.Context, engine.Memory, []uint64) { engine.Abort(cause) }},
		{Name: "panic", Fn: func(context.Context, engine.Memory, []uint64) { panic("bug") }},
		{Name: "index", Fn: func(_ context.Context, _ engine.Memory, s []uint64) { s[len(s)+1] = 0 }},
	}}
	e := newEngine(t, host)
	var m w.Module
	for _, f := range host.Funcs {
		m.Import("h", f.Name, w.Sig("", ""))
	}
	m.Memory(1)
	for i, f := range host.Funcs {
		m.Export(f.Name, m.Func(w.Sig("", "i"), w.Call(uint32(i)), w.I32(0)))
	}
	code, err := e.Compile(t.Context(), m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	call := func(name string) error {
		in, err := code.Instantiate(t.Context(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close(t.Context())
		_, err = in.Call(t.Context(), name)
		return err
	}
	var trap *engine.Trap
	if err := call("abort"); !errors.Is(err, cause) || !errors.As(err, &trap) || !strings.Contains(trap.Trace, "abort") {
		t.Errorf("abort = %v, want a trap with its cause and trace", err)
	}
	for _, name := range []string{"panic", "index"} {
		var p *engine.HostPanic
		if err := call(name); !errors.As(err, &p) || errors.As(err, &trap) {
			t.Errorf("%s = %v, want a HostPanic", name, err)
		}
	}
}

// TestWASISignatures compares ours with those of wazero, name by name.
func TestWASISignatures(t *testing.T) {
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	theirs, err := wasi_snapshot_preview1.NewBuilder(r).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names := func(types []api.ValueType) string {
		out := ""
		for _, v := range types {
			out += api.ValueTypeName(v) + " "
		}
		return out
	}
	ours := map[string]string{}
	for _, f := range wasip1.Module().Funcs {
		var params, results []api.ValueType
		for _, p := range f.Sig.Params {
			params = append(params, api.ValueType(p))
		}
		for _, p := range f.Sig.Results {
			results = append(results, api.ValueType(p))
		}
		ours[f.Name] = names(params) + "→ " + names(results)
	}
	if len(ours) != 46 {
		t.Errorf("%d functions, want 46", len(ours))
	}
	for name, f := range theirs.ExportedFunctions() {
		want := names(f.ParamTypes()) + "→ " + names(f.ResultTypes())
		if got := ours[name]; got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if len(theirs.ExportedFunctions()) != len(ours) {
		t.Errorf("%d functions, wazero has %d", len(ours), len(theirs.ExportedFunctions()))
	}
}
