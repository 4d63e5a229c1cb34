package main

import "fmt"

const goalScaling = 0.9 // of what a native function gains by a second goroutine

// benchScaling measures one and two goroutines. A goroutine has an instance of
// its own where there are instances.
func (b *bench) benchScaling() error {
	ways := []way{wayNative, wayOurs, wayWarm, wayFresh, wayExtism, wayWasmtime, wayWasmtimeFresh}
	guests := b.named("c", "rust", "go-json")
	one, all, err := b.build(guests, ways, smallInput, 1)
	if err != nil {
		return err
	}
	two, more, err := b.build(guests, ways, smallInput, 2)
	if err != nil {
		return err
	}
	var pairs []*scenario // one goroutine and two next to each other
	for i := range all {
		pairs = append(pairs, all[i], more[i])
	}
	if err := measure(2*b.rounds, pairs); err != nil {
		return err
	}
	gain := func(g *guest, w way) float64 { return ratio(one[cell(g, w)], two[cell(g, w)]) }
	native := gain(nil, wayNative)
	head := []string{"calls a second, 1 → 2 goroutines"}
	for _, g := range guests {
		head = append(head, g.title)
		b.report.atLeast("scaling_"+g.name+"_vs_native", "%.2fx", gain(g, wayOurs)/native, goalScaling)
	}
	var rows [][]string
	for _, w := range ways {
		row := []string{w.name}
		for _, g := range guests {
			if w == wayNative {
				g = nil
			}
			a, c := one[cell(g, w)], two[cell(g, w)]
			if a == nil || c == nil {
				row = append(row, "–")
				continue
			}
			row = append(row, fmt.Sprintf("%s → %s (x%.2f)", rate(a), rate(c), gain(g, w)))
		}
		rows = append(rows, row)
	}
	b.report.table("Scaling on this machine's cores.", head, rows)
	return nil
}

// rate shows the calls of a second.
func rate(s *scenario) string {
	perSecond := 1e9 / s.median()
	if perSecond >= 1e6 {
		return fmt.Sprintf("%.1f M", perSecond/1e6)
	}
	if perSecond >= 1e4 {
		return fmt.Sprintf("%.0f k", perSecond/1e3)
	}
	return fmt.Sprintf("%.1f k", perSecond/1e3)
}
