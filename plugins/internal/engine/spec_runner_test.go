package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero/api"
)

// outcome is what a command of a script came to.
type outcome struct {
	kind   string   // as kindOf says; "no module": there is none to ask
	err    error    // behind kind
	values []uint64 // results; of a function reference only whether it is null
	memory string   // digest of the memory of the module at the end of the script
}

func (o outcome) String() string {
	if o.err != nil {
		return fmt.Sprintf("%s (%v)", o.kind, o.err)
	}
	return fmt.Sprintf("%s %#x", o.kind, o.values)
}

// specRun runs one script in a testbed.
type specRun struct {
	t     *testing.T
	bed   *testbed
	file  *specFile
	last  *guest // nil when it was refused
	named map[string]*guest
	made  map[int]*guest // by command
}

// runSpec runs every command of f, and counts the yields of its modules.
func runSpec(t *testing.T, f *specFile, rewritten bool) (all []outcome, yields int) {
	t.Helper()
	r := &specRun{t: t, bed: newTestbed(t, rewritten), file: f, named: map[string]*guest{}, made: map[int]*guest{}}
	r.provideSpectest()
	for i := range f.Commands {
		all = append(all, r.command(i))
	}
	for i, g := range r.made {
		all[i].memory = g.memoryDigest()
	}
	return all, r.bed.yields
}

// provideSpectest instantiates the module that scripts import as "spectest". It
// stands for a host, so it is never rewritten.
func (r *specRun) provideSpectest() {
	wasm, err := os.ReadFile(filepath.Join(specDir(r.t), "testdata", "spectest.wasm"))
	if err == nil {
		_, err = r.bed.plain(context.Background(), "spectest", wasm)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *specRun) command(i int) outcome {
	c := &r.file.Commands[i]
	switch c.Type {
	case "register": // instantiate has done it
		return outcome{kind: "ok"}
	case "module":
		return r.module(i)
	case "assert_return", "action", "assert_trap", "assert_exhaustion":
		return r.action(&c.Action)
	case "assert_invalid", "assert_malformed", "assert_unlinkable", "assert_uninstantiable":
		if c.Form == "text" {
			return outcome{kind: "text"}
		}
		_, o := r.instantiate("", c)
		return o
	}
	r.t.Fatalf("line %d: command %q is new", c.Line, c.Type)
	return outcome{}
}

// module makes the module that the next commands are about.
func (r *specRun) module(i int) outcome {
	c := &r.file.Commands[i]
	name := r.file.registeredAs(i)
	g, o := r.instantiate(name, c)
	r.last = g
	if c.Name != "" {
		r.named[c.Name] = g
	}
	if g != nil {
		r.made[i] = g
	}
	return o
}

// instantiate returns a nil guest when there is none.
func (r *specRun) instantiate(name string, c *specCommand) (*guest, outcome) {
	g, err := r.bed.instantiate(name, r.file.wasm(r.t, c))
	if err == nil {
		return g, outcome{kind: "ok"}
	}
	return nil, outcome{kind: kindOf(err), err: err}
}

func (r *specRun) action(a *specAction) outcome {
	g := r.last
	if a.Module != "" {
		g = r.named[a.Module]
	}
	if g == nil {
		return outcome{kind: "no module"}
	}
	if a.Type == "get" {
		return outcome{kind: "ok", values: []uint64{g.mod.ExportedGlobal(a.Field).Get()}}
	}
	values, err := g.call(a.Field, allBits(a.Args)...)
	if err != nil {
		return outcome{kind: kindOf(err), err: err}
	}
	types := g.mod.ExportedFunction(a.Field).Definition().ResultTypes()
	return outcome{kind: "ok", values: comparable(types, values)}
}

// memoryDigest returns a digest of the memory, of nothing when there is none.
func (g *guest) memoryDigest() string {
	h := sha256.New()
	if mem := g.memory(); mem != nil && mem.Size() > 0 {
		b, _ := mem.Read(0, mem.Size())
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// comparable replaces function references, which are addresses, by whether they
// are null.
func comparable(types []api.ValueType, values []uint64) []uint64 {
	out := slices.Clone(values)
	at := 0
	for _, typ := range types {
		if typ == funcref && out[at] != 0 {
			out[at] = 1
		}
		at++
		if typ == v128 {
			at++
		}
	}
	return out
}

// Types that package api does not name.
const (
	v128    = 0x7b
	funcref = 0x70
)
