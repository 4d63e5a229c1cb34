package main

import (
	"strings"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	tests := []struct {
		name string
		do   func(r *report)
		want string
	}{
		{"below the most", func(r *report) { r.atMost("call-c", "%.1fus", 2.9, 3) }, "bench call_c value=2.9us goal=<=3.0us met\n"},
		{"above the most", func(r *report) { r.atMost("call-c", "%.1fus", 3.1, 3) }, "bench call_c value=3.1us goal=<=3.0us missed\n"},
		{"above the least", func(r *report) { r.atLeast("faster", "%.0fx", 15, 15) }, "bench faster value=15x goal=>=15x met\n"},
		{"below the least", func(r *report) { r.atLeast("faster", "%.1fx", 14.9, 15) }, "bench faster value=14.9x goal=>=15.0x missed\n"},
		{"a table", func(r *report) {
			r.table("Title.", []string{"what", "a"}, [][]string{{"row", "1"}})
			r.details()
		}, "\nTitle.\n\n| what | a |\n| --- | --: |\n| row | 1 |\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			tt.do(&report{out: &b})
			if got := b.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for ns, want := range map[float64]string{
		234: "0.23 µs", 2_340: "2.3 µs", 23_400: "23 µs", 2_340_000: "2.3 ms", 23_400_000: "23 ms",
	} {
		if got := duration(ns); got != want {
			t.Errorf("duration(%v): got %s, want %s", ns, got, want)
		}
	}
}

func TestMedianAndRatio(t *testing.T) {
	slow := &scenario{times: []float64{40, 20, 900}} // the machine was busy in the last round
	fast := &scenario{times: []float64{10, 10, 300}}
	if got := slow.median(); got != 40 {
		t.Errorf("median of three: got %v, want 40", got)
	}
	if got := (&scenario{times: []float64{4, 1, 3, 2}}).median(); got != 2.5 {
		t.Errorf("median of four: got %v, want 2.5", got)
	}
	if got := ratio(slow, fast); got != 3 { // round by round 4, 2 and 3
		t.Errorf("ratio: got %v, want 3", got)
	}
}

func TestPercentile(t *testing.T) {
	var sorted []time.Duration
	for i := range 200 {
		sorted = append(sorted, time.Duration(i+1))
	}
	for p, want := range map[float64]time.Duration{0.5: 100, 0.99: 198, 1: 200} {
		if got := percentile(sorted, p); got != want {
			t.Errorf("percentile %v: got %d, want %d", p, got, want)
		}
	}
}

// TestRounds has every scenario called in every round, by each of its workers.
func TestRounds(t *testing.T) {
	var calls [2]int
	both := &scenario{name: "both", calls: 3}
	for i := range calls {
		both.workers = append(both.workers, func() error { calls[i]++; return nil })
	}
	if _, err := both.run(both.calls); err != nil {
		t.Fatal(err)
	}
	if calls != [2]int{3, 3} {
		t.Errorf("got calls %v, want 3 of each", calls)
	}
}
