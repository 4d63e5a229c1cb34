package engine_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmgen"
)

// What a generated guest may use in a call, and how its fuel is handed out: at
// once, or in slices so small that every block yields.
const (
	callFuel  = 400_000
	callStack = 1 << 18 // bytes
	oneSlice  = callFuel
	someFuel  = 997
	fewFuel   = 13
	generated = 400 // modules that TestDifferential makes
)

// TestDifferential compares generated modules with what the rewriter makes of
// them.
func TestDifferential(t *testing.T) {
	ends := map[string]int{}
	for i := range generated {
		seed := binary.LittleEndian.AppendUint64(nil, uint64(i))
		for _, call := range differ(t, wasmgen.Generate(seed)) {
			ends[call.kind]++
		}
		if t.Failed() {
			t.Fatalf("seed %q", seed)
		}
	}
	// A generator of guests that all trap, or never do, compares nothing.
	kinds := append(slices.Clone(trapTexts), "ok", errHost.Error(), errFuel.Error(), errStack.Error())
	for _, kind := range kinds {
		if found := ends[kind] > 0; found == (kind == "stack overflow") {
			t.Errorf("%d calls ended with %q: %v", ends[kind], kind, ends)
		}
	}
	t.Log(ends)
}

func FuzzDifferential(f *testing.F) {
	for i := range 20 {
		f.Add([]byte(strings.Repeat(string(rune('a'+i)), 10*i)))
	}
	f.Fuzz(func(t *testing.T, seed []byte) { differ(t, wasmgen.Generate(seed)) })
}

// ended is how a call of an export ended.
type ended struct {
	name   string
	kind   string
	err    error
	values []uint64
	fuel   int64 // of a rewritten guest
}

// instantiate is the first call of a trace, which wazero words differently.
const instantiate = "instantiate"

// text returns the error with the names of the functions that it passed, but
// for the rewriter's own; where a limit ended the call, nothing.
func (e ended) text() string {
	if e.err == nil || e.name == instantiate || e.kind == errFuel.Error() || e.kind == errStack.Error() {
		return ""
	}
	lines := slices.DeleteFunc(strings.Split(e.err.Error(), "\n"), func(line string) bool {
		return strings.Contains(line, "."+rewrite.Prefix)
	})
	return strings.Join(lines[:min(len(lines), 20)], "\n") // wazero writes 30 frames
}

// trace is what a guest did: its calls up to one that was stopped by a limit,
// what it told the host, and what it left.
type trace struct {
	calls   []ended
	stopped bool
	log     []uint64
	memory  string
	globals []string
}

// differ runs every export of wasm as it is and rewritten, under fuel in slices
// of three sizes, and compares. It returns the calls.
func differ(t *testing.T, wasm []byte) []ended {
	t.Helper()
	rewritten := newTestbed(t, true)
	rewritten.provideImports(t)
	rewritten.stack = callStack
	whole := rewritten.trace(t, wasm, oneSlice, nil)
	for _, slice := range []int64{oneSlice, someFuel, fewFuel} {
		whole.mustEqual(t, fmt.Sprintf("fuel in slices of %d", slice), rewritten.trace(t, wasm, slice, nil))
	}
	plain := newTestbed(t, false)
	plain.provideImports(t)
	original := plain.trace(t, wasm, 0, &whole)
	for i := range original.calls {
		original.calls[i].fuel = whole.calls[i].fuel
	}
	whole.mustEqual(t, "the original", original)
	return whole.calls
}

// mustEqual compares two traces; if a limit stopped one, only what was before.
func (tr trace) mustEqual(t *testing.T, what string, other trace) {
	t.Helper()
	for i, c := range tr.calls {
		o := other.calls[i]
		if c.kind != o.kind || !slices.Equal(c.values, o.values) || c.fuel != o.fuel || c.text() != o.text() {
			t.Errorf("%s: call %d, %s: got %s %#x, fuel %d (%v); %s %#x, fuel %d (%v)", what, i, c.name,
				c.kind, c.values, c.fuel, c.err, o.kind, o.values, o.fuel, o.err)
			return
		}
	}
	if tr.stopped {
		return
	}
	if !slices.Equal(tr.log, other.log) {
		t.Errorf("%s: the host was told %#x; %#x", what, tr.log, other.log)
	}
	if tr.memory != other.memory {
		t.Errorf("%s: memories differ", what)
	}
	if !slices.Equal(tr.globals, other.globals) {
		t.Errorf("%s: globals %v; %v", what, tr.globals, other.globals)
	}
}

// trace runs wasm: as often as like did, if it is given.
func (b *testbed) trace(t *testing.T, wasm []byte, slice int64, like *trace) (tr trace) {
	t.Helper()
	if like.endsAt(0) {
		return *like
	}
	b.log = nil
	b.slice, b.limit, b.given = slice, callFuel, 0
	g, err := b.instantiate("", wasm)
	first := ended{name: instantiate, kind: kindOf(err), err: err}
	if g != nil {
		defer g.mod.Close(t.Context())
	}
	if !tr.add(t, first) || g == nil {
		return tr
	}
	for _, name := range g.functions() {
		for round := range uint64(2) {
			if like.endsAt(len(tr.calls)) {
				tr.calls = append(tr.calls, like.calls[len(tr.calls)])
				return tr
			}
			if !tr.add(t, g.try(name, round, slice)) {
				return tr
			}
		}
	}
	tr.log, tr.memory, tr.globals = b.log, g.memoryDigest(), g.globals()
	return tr
}

// endsAt reports whether a limit ended call i, which may not end by itself.
func (tr *trace) endsAt(i int) bool {
	return tr != nil && tr.stopped && i == len(tr.calls)-1
}

// add adds a call, and reports whether more can follow.
func (tr *trace) add(t *testing.T, e ended) bool {
	t.Helper()
	if isError(e.kind) || e.kind == "refused" || e.kind == "unlinkable" {
		t.Errorf("%s: %s: %v", e.name, e.kind, e.err)
	}
	tr.calls = append(tr.calls, e)
	tr.stopped = e.kind == errFuel.Error() || e.kind == errStack.Error()
	return !tr.stopped && (e.kind == "ok" || len(tr.calls) > 1)
}

// functions returns the exported functions of the generated module, in order.
func (g *guest) functions() []string {
	var names []string
	for name := range g.mod.ExportedFunctionDefinitions() {
		if !strings.HasPrefix(name, rewrite.Prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// try calls an export with arguments that depend on name and round only.
func (g *guest) try(name string, round uint64, slice int64) ended {
	def := g.mod.ExportedFunction(name).Definition()
	r := rand.New(rand.NewPCG(uint64(len(name))<<8|uint64(name[len(name)-1]), round))
	var args []uint64
	for _, typ := range def.ParamTypes() {
		v := r.Uint64() >> (r.Uint64() % 64)
		switch typ {
		case wasmgen.I32, wasmgen.F32:
			v = uint64(uint32(v))
		case wasmgen.FuncRef:
			v = 0
		case wasmgen.V128:
			args = append(args, r.Uint64())
		}
		args = append(args, v)
	}
	switch {
	case g.bed.counts:
		g.setGlobal("count", 0)
	case g.bed.rewritten:
		g.meter(slice, callFuel)
	}
	values, err := g.call(name, args...)
	e := ended{name: name, kind: kindOf(err), err: err}
	if err == nil {
		e.values = comparable(def.ResultTypes(), values)
	}
	switch {
	case g.bed.counts:
		e.fuel = int64(g.mod.ExportedGlobal("count").Get())
	case g.bed.rewritten && e.kind != errFuel.Error():
		e.fuel = g.used()
	}
	return e
}

// globals returns the values of the exported numeric globals.
func (g *guest) globals() []string {
	var all []string
	for i := 0; ; i++ {
		name := fmt.Sprintf("g%d", i)
		global := g.mod.ExportedGlobal(name)
		if global == nil {
			return all
		}
		if typ := global.Type(); typ != wasmgen.FuncRef && typ != wasmgen.V128 {
			all = append(all, fmt.Sprintf("%s %#x", name, global.Get()))
		}
	}
}

// TestFuelIsInstructions compares the fuel of calls with the instructions that
// the same module counts itself.
func TestFuelIsInstructions(t *testing.T) {
	compared := 0
	for i := range generated {
		compared += count(t, binary.LittleEndian.AppendUint64(nil, uint64(i)))
		if t.Failed() {
			t.Fatalf("seed %d", i)
		}
	}
	if compared < generated {
		t.Errorf("%d calls compared in %d modules", compared, generated)
	}
}

func FuzzFuel(f *testing.F) {
	for i := range 10 {
		f.Add([]byte(strings.Repeat(string(rune('A'+i)), 10*i)))
	}
	f.Fuzz(func(t *testing.T, seed []byte) { count(t, seed) })
}

// count compares the calls of one module, and returns how many came to their
// end. A call that traps is charged for the rest of its block, too, and one of a
// wide function for the values that are moved where its ways meet, which the
// module does not count.
func count(t *testing.T, seed []byte) (compared int) {
	t.Helper()
	rewritten := newTestbed(t, true)
	rewritten.provideImports(t)
	rewritten.stack = callStack
	metered := rewritten.trace(t, wasmgen.Generate(seed), oneSlice, nil)
	plain := newTestbed(t, false)
	plain.provideImports(t)
	plain.counts = true
	counted := plain.trace(t, wasmgen.Counted(seed), 0, &metered)
	wide := wasmgen.Wide(seed)
	for i, c := range metered.calls {
		o := counted.calls[i]
		switch {
		case c.name == instantiate || strings.HasPrefix(c.name, "import") || metered.endsAt(i):
		case c.fuel < o.fuel, c.kind == "ok" && c.fuel != o.fuel && !wide:
			t.Errorf("call %d, %s: %s: %d units of fuel for %d instructions", i, c.name, c.kind, c.fuel, o.fuel)
		default:
			compared++
		}
	}
	return compared
}
