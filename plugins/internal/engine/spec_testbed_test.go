package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// How a guest of a testbed ends that is no trap of its own.
var (
	errStack = errors.New("stack limit")
	errFuel  = errors.New("fuel limit")
	errHost  = errors.New("host function")
)

// maxDebt is how much fuel a guest may use between two yields when it has none:
// the largest block, or one piece of a bulk operation. Pages that memory.grow
// has added come on top, pageFuel each.
const (
	maxDebt  = 20_000
	pageFuel = 1 << 10
)

// testbed runs guests with wazero itself: as they are, or as the rewriter
// makes them. It is for one goroutine.
type testbed struct {
	rt        wazero.Runtime
	rewritten bool
	counts    bool   // guests count their instructions
	stack     uint64 // limit in bytes
	yields    int
	slice     int64    // fuel that a yield adds
	limit     int64    // most fuel that may be given since meter; 0: no limit
	given     int64    // fuel given since meter
	log       []uint64 // what generated guests told the host
}

func newTestbed(t testing.TB, rewritten bool) *testbed {
	t.Helper()
	ctx := context.Background()
	config := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(api.CoreFeaturesV2)
	b := &testbed{rt: wazero.NewRuntimeWithConfig(ctx, config), rewritten: rewritten, stack: 8 << 20, slice: 10_000}
	t.Cleanup(func() { _ = b.rt.Close(ctx) })
	_, err := b.rt.NewHostModuleBuilder(rewrite.HostModule).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(b.yield), []api.ValueType{api.ValueTypeI32}, nil).
		Export(rewrite.HostYield).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// yield is what a rewritten guest calls when its fuel or its stack is used up.
func (b *testbed) yield(_ context.Context, mod api.Module, stack []uint64) {
	b.yields++
	if api.DecodeI32(stack[0]) == rewrite.ReasonStack {
		panic(errStack)
	}
	g := guest{b, mod}
	fuel := mod.ExportedGlobal(rewrite.FuelGlobal).(api.MutableGlobal)
	left := int64(fuel.Get())
	if left >= 0 || left < -maxDebt-int64(g.memorySize()>>16*pageFuel) {
		panic(fmt.Errorf("yield with %d units of fuel left", left))
	}
	for left < 0 {
		slice := b.slice
		if b.limit > 0 {
			slice = min(slice, b.limit-b.given)
		}
		if slice == 0 {
			panic(errFuel)
		}
		left += slice
		b.given += slice
	}
	fuel.Set(uint64(left))
}

// refusal is why there is no instance of a module: its kind is "refused" when
// it was not even compiled, "unlinkable" when its imports do not fit.
type refusal struct {
	kind string
	error
}

func (r refusal) Unwrap() error { return r.error }

// guest is an instance of a testbed.
type guest struct {
	bed *testbed
	mod api.Module
}

// instantiate makes a guest of wasm, under a name for imports or "". Its start
// function has run.
func (b *testbed) instantiate(name string, wasm []byte) (*guest, error) {
	if b.rewritten {
		return b.instantiateRewritten(name, wasm)
	}
	return b.plain(context.Background(), name, wasm)
}

func (b *testbed) plain(ctx context.Context, name string, wasm []byte) (*guest, error) {
	code, err := b.rt.CompileModule(ctx, wasm)
	if err != nil {
		return nil, refusal{"refused", err}
	}
	config := wazero.NewModuleConfig().WithName(name).WithStartFunctions()
	mod, err := b.rt.InstantiateModule(ctx, code, config)
	if err != nil && isError(kindOf(err)) {
		return nil, refusal{"unlinkable", err}
	}
	if err != nil {
		return nil, err
	}
	return &guest{b, mod}, nil
}

func (b *testbed) instantiateRewritten(name string, wasm []byte) (*guest, error) {
	m, err := rewrite.Rewrite(wasm)
	if err != nil {
		return nil, refusal{"refused", err}
	}
	ctx := experimental.WithMemoryAllocator(context.Background(), cappedMemory(m.MemoryMax))
	g, err := b.plain(ctx, name, m.Wasm)
	if kindOf(err) == "refused" {
		return nil, fmt.Errorf("compile what the rewriter made: %s", err.Error()) // no refusal of the guest
	}
	if err != nil {
		return nil, err
	}
	g.setGlobal(rewrite.StackLimit, b.stack)
	g.setGlobal(rewrite.FuelGlobal, 0)
	for i, s := range m.Data {
		if !g.write(s) {
			return nil, fmt.Errorf("data[%d]: out of bounds memory access", i)
		}
	}
	if m.Start {
		_, err = g.call(rewrite.StartExport)
	}
	return g, err
}

// memory returns nil when there is none. Module.Memory is an interface with
// nothing in it then.
func (g *guest) memory() api.Memory {
	if mem := g.mod.Memory(); !reflect.ValueOf(mem).IsNil() {
		return mem
	}
	return nil
}

// memorySize returns the size in bytes; Memory.Size is 0 for 4 GiB.
func (g *guest) memorySize() uint64 {
	mem := g.memory()
	if mem == nil {
		return 0
	}
	pages, _ := mem.Grow(0)
	return uint64(pages) << 16
}

// write puts a data segment into the memory, if it fits.
func (g *guest) write(s rewrite.Segment) bool {
	if uint64(s.Offset)+uint64(len(s.Bytes)) > g.memorySize() {
		return false
	}
	// Memory.Write refuses an empty slice at the very end.
	return len(s.Bytes) == 0 || g.memory().Write(s.Offset, s.Bytes)
}

// call calls an export; what it used is in bed.given and the fuel global.
func (g *guest) call(name string, args ...uint64) ([]uint64, error) {
	f := g.mod.ExportedFunction(name)
	if f == nil {
		return nil, fmt.Errorf("no export %q", name)
	}
	if g.bed.rewritten {
		g.setGlobal(rewrite.StackGlobal, 0)
	}
	return f.Call(context.Background(), args...)
}

func (g *guest) setGlobal(name string, v uint64) {
	g.mod.ExportedGlobal(name).(api.MutableGlobal).Set(v)
}

// meter takes the fuel that the guest has left and lets it use up to limit from
// now, 0 for no limit.
func (g *guest) meter(slice, limit int64) {
	g.bed.slice, g.bed.limit, g.bed.given = slice, limit, 0
	g.setGlobal(rewrite.FuelGlobal, 0)
}

// used returns the fuel that the guest used since meter.
func (g *guest) used() int64 {
	return g.bed.given - int64(g.mod.ExportedGlobal(rewrite.FuelGlobal).Get())
}

// trapTexts are the traps of wazero; what the rewriter adds is no trap.
var trapTexts = []string{
	"out of bounds memory access", "invalid table access", "indirect call type mismatch", "unreachable",
	"integer divide by zero", "integer overflow", "invalid conversion to integer", "stack overflow",
}

// kindOf names how a call or an instantiation ended: "ok", a trap, or why
// there was none. Original and rewritten guests have the same kinds but for
// the limits of a testbed.
func kindOf(err error) string {
	if err == nil {
		return "ok"
	}
	if r := new(refusal); errors.As(err, r) {
		return r.kind
	}
	for _, end := range []error{errStack, errFuel, errHost} {
		if errors.Is(err, end) {
			return end.Error()
		}
	}
	for _, text := range trapTexts {
		if strings.Contains(err.Error(), text) {
			return text
		}
	}
	return "error: " + err.Error()
}

// isError reports whether kind is none that a guest may end with.
func isError(kind string) bool { return strings.HasPrefix(kind, "error: ") }

// cappedMemory allocates memories of at most max pages: the rewriter raises
// a declared maximum, and the host keeps to the guest's.
func cappedMemory(max uint32) experimental.MemoryAllocator {
	return experimental.MemoryAllocatorFunc(func(_, _ uint64) experimental.LinearMemory {
		return &heapMemory{max: uint64(max) << 16}
	})
}

// heapMemory is a linear memory in Go's heap.
type heapMemory struct {
	b   []byte
	max uint64 // bytes
}

func (m *heapMemory) Reallocate(size uint64) []byte {
	if size > m.max || size > math.MaxInt {
		return nil
	}
	m.b = append(m.b, make([]byte, size-uint64(len(m.b)))...)
	return m.b
}

func (m *heapMemory) Free() {}
