// Package plugintesting loads modules in Go tests and runs the conformance kit
// on them. It adds no check of its own.
package plugintesting

import (
	"context"
	"os"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/plugintest"
)

// Check fails t for each problem of a module and logs each remark. cases is a
// file of expected calls or decisions, which go in place of o.Cases; "" is none.
func Check(t *testing.T, wasm []byte, cases string, o plugintest.Options) {
	t.Helper()
	if cases != "" {
		data, err := os.ReadFile(cases)
		if err != nil {
			t.Fatal(err)
		}
		if o.Cases, err = plugintest.ParseCases(data); err != nil {
			t.Fatalf("%s: %v", cases, err)
		}
	}
	r, err := plugintest.Check(t.Context(), wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Level == plugintest.Problem {
			t.Error(f)
		} else {
			t.Log(f)
		}
	}
}

// Load loads a module for as long as t runs.
func Load(t *testing.T, wasm []byte) *plugins.Plugin {
	t.Helper()
	ctx := t.Context()
	m, err := plugins.New(ctx, plugins.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	p, err := m.Load(ctx, t.Name(), wasm)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
