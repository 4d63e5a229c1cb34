package main

import (
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

// report prints lines at once and keeps what explains them.
type report struct{ notes []string }

// most prints a figure that should be at most goal.
func (r *report) most(name string, value, goal time.Duration, note string) {
	r.line(name, micros(value), "<="+micros(goal), value <= goal, note)
}

func (r *report) line(name, value, goal string, met bool, note string) {
	verdict := "missed"
	if met {
		verdict = "met"
	}
	fmt.Printf("bench %s value=%s goal=%s %s\n", name, value, goal, verdict)
	r.notes = append(r.notes, name+": "+note)
}

func (r *report) details() {
	fmt.Println()
	for _, n := range r.notes {
		fmt.Println(n)
	}
}

func micros(d time.Duration) string {
	return fmt.Sprintf("%.1fus", float64(d.Nanoseconds())/1000)
}

// profile starts a CPU profile if a file is named.
func profile(file string) (end func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
