package testguests_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/casemate/casemate/plugins/internal/testguests"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/sdk/abi"
)

// shape is what the toolchain of a language makes of a guest.
type shape struct {
	start, initialize bool
	imports           []string // modules, sorted
}

var shapes = map[string]shape{
	testguests.AssemblyScript: {start: true, imports: []string{abi.Module, "env"}},
	testguests.C:              {initialize: true, imports: []string{abi.Module}},
	testguests.Go:             {initialize: true, imports: []string{abi.Module, "wasi_snapshot_preview1"}},
	testguests.Rust:           {imports: []string{abi.Module}},
	testguests.WAT:            {imports: []string{abi.Module}},
}

func TestModules(t *testing.T) {
	for _, language := range testguests.Languages() {
		t.Run(language, func(t *testing.T) {
			m, err := wasmbin.Parse(testguests.Wasm(t, language))
			if err != nil {
				t.Fatal(err)
			}
			want := shapes[language]
			if m.Start != want.start {
				t.Errorf("start section: got %t, want %t", m.Start, want.start)
			}
			if got := importModules(m); !slices.Equal(got, want.imports) {
				t.Errorf("imports from %q, want %q", got, want.imports)
			}
			if got := exports(m); !slices.Equal(got, wantExports(want)) {
				t.Errorf("exports %q, want %q", got, wantExports(want))
			}
			if len(m.Memories) != 1 || m.Memories[0].Shared {
				t.Errorf("memories: got %+v, want one that is not shared", m.Memories)
			}
		})
	}
}

func importModules(m *wasmbin.Module) []string {
	var names []string
	for _, i := range m.Imports {
		names = append(names, i.Module)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// exports returns those exports that native/1 knows, with their types, sorted.
func exports(m *wasmbin.Module) []string {
	known := []string{
		abi.ExportMemory, abi.ExportMarker, abi.ExportDescribe, abi.ExportToolCall,
		abi.ExportRoute, abi.ExportRetry, abi.ExportInitialize, abi.ExportOnRestore,
	}
	var out []string
	for _, e := range m.Exports {
		switch {
		case !slices.Contains(known, e.Name):
		case e.Kind == wasmbin.Func:
			out = append(out, fmt.Sprint(e.Name, " ", e.Sig))
		default:
			out = append(out, fmt.Sprint(e.Name, " ", e.Kind))
		}
	}
	slices.Sort(out)
	return out
}

func wantExports(s shape) []string {
	want := []string{
		abi.ExportMemory + " memory", abi.ExportMarker + " () → i32",
		abi.ExportDescribe + " () → i32", abi.ExportToolCall + " () → i32",
	}
	if s.initialize {
		want = append(want, abi.ExportInitialize+" () → ()")
	}
	slices.Sort(want)
	return want
}
