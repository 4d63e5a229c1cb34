package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/plugins"
)

// workloads are long calls, so that what they cost is the code of the guest.
var workloads = []struct {
	guest, name, title, input string
	goal                      float64 // overhead, of 1
}{
	{"c", "loop", "C, xorshift loop", "x5000000", 0.08},
	{"c", "sha256", "C, SHA-256 of 1 MiB", "s1048576", 0.08},
	{"c", "recursion", "C, fib(30), calls only", "f30", 0.60},
	{"go", "go_fib", "Go, fib(27)", "f27", 0.25},
	{"go-json", "go_json", "Go, encoding/json, 500 objects", "j500", 0.25},
}

// benchFuel measures what metering costs: the whole guarded call against the
// same guest on plain wazero.
func (b *bench) benchFuel() error {
	type pair struct{ metered, plain *scenario }
	pairs := make([]pair, len(workloads))
	var all []*scenario
	for i, w := range workloads {
		g := b.guest(w.guest)
		if g == nil {
			continue
		}
		metered, err := b.scenario(wayOurs, g, w.input, 1)
		if err != nil {
			return err
		}
		plain, err := b.scenario(wayWarm, g, w.input, 1)
		if err != nil {
			return err
		}
		pairs[i] = pair{metered, plain}
		all = append(all, metered, plain)
	}
	if err := measure(2*b.rounds, all); err != nil {
		return err
	}
	var rows [][]string
	for i, w := range workloads {
		p := pairs[i]
		if p.metered == nil {
			continue
		}
		over := ratio(p.metered, p.plain) - 1
		b.report.atMost("fuel_overhead_"+w.name, "%.0f%%", 100*over, 100*w.goal)
		rows = append(rows, []string{w.title, duration(p.plain.median()), duration(p.metered.median()), fmt.Sprintf("%+.0f %%", 100*over)})
	}
	b.report.table("Fuel: a whole guarded call of milliseconds against plain wazero.", []string{"work", "wazero", "Casemate", "overhead"}, rows)
	return nil
}

// exactCalls is how many calls on each image must use the same fuel.
const exactCalls = 3000

// benchExact counts the distinct amounts of fuel that one input uses over many
// calls, between which others dirty the instance, on two images of each of two
// managers.
func (b *bench) benchExact() error {
	var rows [][]string
	for _, g := range b.guests {
		var seen []uint64
		for range 2 {
			if err := fuelValues(g, &seen); err != nil {
				return fmt.Errorf("%s: %w", g.name, err)
			}
		}
		b.report.line("fuel_values_"+g.name, fmt.Sprint(len(seen)), "1", len(seen) == 1 && seen[0] > 0)
		rows = append(rows, []string{g.title, fmt.Sprint(seen[0]), fmt.Sprint(len(seen))})
	}
	b.report.table(fmt.Sprintf("Fuel of one call: %d calls, with others in between, on each of two images of each of two managers.", exactCalls),
		[]string{"guest", "fuel", "distinct values"}, rows)
	return nil
}

// fuelValues adds the distinct fuel of calls on two images of a manager.
func fuelValues(g *guest, seen *[]uint64) (err error) {
	o, err := load(g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	again, err := o.manager.Load(o.ctx, g.name, g.native)
	if err != nil {
		return err
	}
	for _, image := range []*ours{o, {o.ctx, o.manager, again}} {
		for i := range exactCalls {
			if i%10 == 0 {
				if r := image.do("bench", []byte(`"something else"`), plugins.Limits{}); r.Class != plugins.OK {
					return failed(r)
				}
			}
			r := image.do("bench", []byte(smallInput), plugins.Limits{})
			if r.Class != plugins.OK {
				return failed(r)
			}
			if !slices.Contains(*seen, r.Usage.Fuel) {
				*seen = append(*seen, r.Usage.Fuel)
			}
		}
	}
	return nil
}
