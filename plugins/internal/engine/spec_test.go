package engine_test

import (
	"maps"
	"slices"
	"testing"
)

// TestSpec runs the WebAssembly spec test suite on modules as they are and as
// the rewriter makes them: results, traps, refusals and memories are the same.
// No module of either version is refused that wazero accepts.
func TestSpec(t *testing.T) {
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := &specTally{version: version, deviations: map[deviation]int{}}
			files := loadSpec(t, version)
			for _, name := range slices.Sorted(maps.Keys(files)) {
				t.Run(name, func(t *testing.T) { s.compare(t, files[name]) })
			}
			s.check(t)
		})
	}
}

// specTally counts what is not as the suite says.
type specTally struct {
	version    string
	deviations map[deviation]int
	yields     int // of rewritten modules
	texts      int // commands about modules in the text format
}

// compare runs a script both ways.
func (s *specTally) compare(t *testing.T, f *specFile) {
	originals, _ := runSpec(t, f, false)
	rewrittens, yields := runSpec(t, f, true)
	s.yields += yields
	for i, original := range originals {
		c := &f.Commands[i]
		if c.Form == "text" {
			s.texts++
			continue
		}
		if !original.meets(c) {
			s.deviate(t, c, original)
		}
		s.judge(t, c, original, rewrittens[i])
	}
}

func (s *specTally) deviate(t *testing.T, c *specCommand, o outcome) {
	t.Helper()
	d := deviation{s.version, c.Type, c.Text, o.kind}
	if deviations[d] == 0 {
		t.Errorf("line %d: %s %s %s: got %v, want %v %s", c.Line, c.Type, c.Filename, c.Text, o, wanted(c), c.Expected)
	}
	s.deviations[d]++
}

// judge compares what became of one command both ways.
func (s *specTally) judge(t *testing.T, c *specCommand, original, rewritten outcome) {
	t.Helper()
	switch {
	case original.same(rewritten):
	case rewritten.kind == "refused" && slices.Contains(wanted(c), "refused") && original.kind != "ok":
		// The suite wants the module refused, and wazero does so later.
	default:
		t.Errorf("line %d: %s %s %s: rewritten %v, original %v", c.Line, c.Type, c.Filename, c.Text, rewritten, original)
	}
}

// check compares the counts with the lists.
func (s *specTally) check(t *testing.T) {
	for d, n := range deviations {
		if d.version == s.version && s.deviations[d] != n {
			t.Errorf("%v: got %d times, want %d", d, s.deviations[d], n)
		}
	}
	if want := textCommands[s.version]; s.texts != want {
		t.Errorf("%d commands about text, want %d", s.texts, want)
	}
	if s.yields < 1000 {
		t.Errorf("rewritten modules yielded %d times: their fuel is not used", s.yields)
	}
}
