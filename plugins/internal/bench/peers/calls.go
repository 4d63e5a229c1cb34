package main

import (
	"fmt"
	"strings"
)

// Goals of the design for one call that answers 13 bytes of JSON.
const (
	goalSmallGuest = 3e3  // ns: C, Rust and AssemblyScript
	goalOverWarm   = 2    // times the unguarded call with state kept: Go, encoding/json
	goalOverHTTP   = 0.25 // of a POST over loopback
	goalFaster     = 15   // times faster than a peer's instance per call
)

// table holds scenarios by guest and way.
type table map[string]*scenario

func cell(g *guest, w way) string {
	if g == nil {
		return w.name
	}
	return g.name + "|" + w.name
}

// build makes a scenario of each guest and way that there is.
func (b *bench) build(guests []*guest, ways []way, input string, workers int) (table, []*scenario, error) {
	t := table{}
	var all []*scenario
	add := func(w way, g *guest) error {
		s, err := b.scenario(w, g, input, workers)
		if err != nil {
			return err
		}
		t[cell(g, w)] = s
		all = append(all, s)
		return nil
	}
	for _, w := range ways {
		if w == wayHTTP || w == wayNative {
			if err := add(w, nil); err != nil {
				return nil, nil, err
			}
			continue
		}
		for _, g := range guests {
			if !g.has(w) {
				continue
			}
			if err := add(w, g); err != nil {
				return nil, nil, err
			}
		}
	}
	return t, all, nil
}

// times shows the median of a cell.
func (t table) times(g *guest, w way) string {
	s := t[cell(g, w)]
	if s == nil {
		s = t[cell(nil, w)]
	}
	if s == nil {
		return "–"
	}
	return duration(s.median())
}

// benchCalls measures one small call in every language and every way.
func (b *bench) benchCalls() error {
	ways := append([]way{wayNative, wayHTTP}, guestWays...)
	t, all, err := b.build(b.guests, ways, smallInput, 1)
	if err != nil {
		return err
	}
	if err := measure(b.rounds, all); err != nil {
		return err
	}
	for _, g := range b.guests {
		b.callLines(t, g)
	}
	head := []string{"one call, 13 bytes of JSON"}
	var rows [][]string
	for _, g := range b.guests {
		head = append(head, g.title)
	}
	for _, w := range append(append([]way{}, guestWays...), wayHTTP, wayNative) {
		row := []string{w.name}
		for _, g := range b.guests {
			row = append(row, t.times(g, w))
		}
		rows = append(rows, row)
	}
	b.report.table(fmt.Sprintf("One call, median of %d rounds. Casemate's is metered, has a deadline, checks that the answer is JSON "+
		"and restores the instance; no other row has a limit, and the rows with an instance per call alone are isolated as well.", b.rounds), head, rows)
	return nil
}

func (b *bench) callLines(t table, g *guest) {
	ours, r := t[cell(g, wayOurs)], b.report
	name := "tool_call_" + g.name
	switch g.name {
	case "c", "rust", "assemblyscript":
		r.atMost(name, "%.1fus", ours.median()/1e3, goalSmallGuest/1e3)
	case "go-json":
		r.atMost(name+"_vs_warm", "%.2fx", ratio(ours, t[cell(g, wayWarm)]), goalOverWarm)
		r.atMost(name+"_vs_loopback_http", "%.2fx", ratio(ours, t[cell(nil, wayHTTP)]), goalOverHTTP)
	}
	if s := t[cell(g, wayExtismFresh)]; s != nil {
		r.atLeast(name+"_vs_extism_instance_per_call", "%.1fx", ratio(s, ours), goalFaster)
	}
	if s := t[cell(g, wayWasmtimeFresh)]; s != nil {
		r.atLeast(name+"_vs_wasmtime_instance_per_call", "%.1fx", ratio(s, ours), goalFaster)
	}
}

// benchPayloads measures how the ways carry larger inputs and outputs.
func (b *bench) benchPayloads() error {
	guests := b.named("c", "go")
	sizes := []struct {
		title string
		bytes int
	}{{"13 B", 13}, {"4 KiB", 4 << 10}, {"1 MiB", 1 << 20}}
	ways := append(append([]way{}, guestWays...), wayHTTP, wayNative)
	head := []string{"echo of a JSON string"}
	rows := make([][]string, len(ways))
	for i, w := range ways {
		rows[i] = []string{w.name}
	}
	for _, size := range sizes {
		t, all, err := b.build(guests, ways, `"`+strings.Repeat("x", size.bytes-2)+`"`, 1)
		if err != nil {
			return err
		}
		if err := measure(b.rounds, all); err != nil {
			return err
		}
		for _, g := range guests {
			head = append(head, g.title+", "+size.title)
			for i, w := range ways {
				rows[i] = append(rows[i], t.times(g, w))
			}
		}
	}
	b.report.table("Payloads, in and out; Casemate's rows include the check that the answer is JSON.", head, rows)
	return nil
}
