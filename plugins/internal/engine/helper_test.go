package engine_test

import (
	"context"
	"testing"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
)

func newEngine(t testing.TB, o engine.Options) *engine.Engine {
	t.Helper()
	e, err := engine.New(t.Context(), o)
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

// compile returns the code of a module, rewritten.
func compile(t testing.TB, e *engine.Engine, m *w.Module) *engine.Code {
	t.Helper()
	re, err := rewrite.Rewrite(m.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	code, err := e.Compile(t.Context(), re)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := code.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return code
}

// image returns the image of a fresh instance after it was warmed up.
func image(t testing.TB, e *engine.Engine, m *w.Module, warm ...string) *engine.Image {
	t.Helper()
	in, err := compile(t, e, m).Instantiate(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close(t.Context())
	for _, name := range warm {
		if _, err := in.Call(t.Context(), name, plenty); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	im, err := in.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	})
	return im
}

// limit is the memory limit of tests that are not about it.
const limit = 128 << 20

var plenty = engine.Run{Fuel: 1 << 40}

// start returns an instance of an image.
func start(t testing.TB, im *engine.Image) *engine.Instance {
	t.Helper()
	in, err := im.Instantiate(t.Context(), limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(context.Background()) })
	return in
}
