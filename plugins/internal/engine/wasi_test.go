package engine_test

import (
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate/casemate/plugins/internal/abi/wasip1"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// TestWASISignatures compares ours with those of wazero, name by name.
func TestWASISignatures(t *testing.T) {
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	theirs, err := wasi_snapshot_preview1.NewBuilder(r).Compile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ours := map[string]string{}
	for _, f := range wasip1.Module().Funcs {
		ours[f.Name] = f.Sig.String()
	}
	if len(ours) != 46 {
		t.Errorf("%d functions, want 46", len(ours))
	}
	types := func(list []api.ValueType) (out []wasmbin.ValType) {
		for _, v := range list {
			out = append(out, wasmbin.ValType(v))
		}
		return out
	}
	for name, f := range theirs.ExportedFunctions() {
		want := wasmbin.Signature{Params: types(f.ParamTypes()), Results: types(f.ResultTypes())}.String()
		if got := ours[name]; got != want {
			t.Errorf("%s = %s, want %s", name, got, want)
		}
	}
	if len(theirs.ExportedFunctions()) != len(ours) {
		t.Errorf("%d functions, wazero has %d", len(ours), len(theirs.ExportedFunctions()))
	}
}
