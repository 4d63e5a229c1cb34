package engine_test

import (
	"context"
	"math"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate/casemate/plugins/internal/wasmgen"
)

// provideImports makes the functions that generated modules import. They write
// down what they are given.
func (b *testbed) provideImports(t testing.TB) {
	t.Helper()
	host := b.rt.NewHostModuleBuilder(wasmgen.ImportModule)
	for _, i := range wasmgen.Imports {
		fn := api.GoFunc(func(_ context.Context, stack []uint64) { b.imported(i, stack) })
		host.NewFunctionBuilder().WithGoFunction(fn, i.Params, i.Results).Export(i.Name)
	}
	if _, err := host.Instantiate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// imported is a call of import i.
func (b *testbed) imported(i wasmgen.Import, stack []uint64) {
	b.log = append(b.log, uint64(len(i.Name)))
	at := 0
	for _, typ := range i.Params {
		for range words(typ) {
			b.log = append(b.log, stack[at])
			at++
		}
		if typ == wasmgen.I32 || typ == wasmgen.F32 { // wazero leaves the upper half as it is
			b.log[len(b.log)-1] &= math.MaxUint32
		}
	}
	switch i.Name {
	case "mix":
		stack[0] = stack[0]<<32 ^ stack[1]
	case "floats":
		stack[0] = stack[1]
	case "two":
		stack[0], stack[1] = 7, 1<<40
	case "vector":
		stack[0], stack[1] = stack[1], stack[0]
	case "trap":
		if stack[0]%4 == 0 {
			panic(errHost)
		}
	}
}

// words returns how many words wazero passes for a value of a type.
func words(typ byte) int {
	if typ == wasmgen.V128 {
		return 2
	}
	return 1
}
