package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// report prints the lines at once and keeps the tables for the end.
type report struct {
	out    io.Writer
	tables []string
}

// atMost prints a figure that should be at most goal. format shows both.
func (r *report) atMost(name, format string, value, goal float64) {
	r.line(name, fmt.Sprintf(format, value), "<="+fmt.Sprintf(format, goal), value <= goal)
}

// atLeast prints a figure that should be at least goal.
func (r *report) atLeast(name, format string, value, goal float64) {
	r.line(name, fmt.Sprintf(format, value), ">="+fmt.Sprintf(format, goal), value >= goal)
}

func (r *report) line(name, value, goal string, met bool) {
	verdict := "missed"
	if met {
		verdict = "met"
	}
	fmt.Fprintf(r.out, "bench %s value=%s goal=%s %s\n", strings.ReplaceAll(name, "-", "_"), value, goal, verdict)
}

// table keeps a table in Markdown, with what stands above it.
func (r *report) table(title string, head []string, rows [][]string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", title)
	row := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	row(head)
	row(append([]string{"---"}, slices.Repeat([]string{"--:"}, len(head)-1)...))
	for _, cells := range rows {
		row(cells)
	}
	r.tables = append(r.tables, b.String())
}

func (r *report) details() {
	for _, t := range r.tables {
		fmt.Fprintf(r.out, "\n%s", t)
	}
}

// duration shows nanoseconds with about two digits that mean something.
func duration(ns float64) string {
	switch {
	case ns < 1e3:
		return fmt.Sprintf("%.2f µs", ns/1e3)
	case ns < 1e4:
		return fmt.Sprintf("%.1f µs", ns/1e3)
	case ns < 1e6:
		return fmt.Sprintf("%.0f µs", ns/1e3)
	case ns < 1e7:
		return fmt.Sprintf("%.1f ms", ns/1e6)
	default:
		return fmt.Sprintf("%.0f ms", ns/1e6)
	}
}
