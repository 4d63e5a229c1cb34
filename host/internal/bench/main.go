// Command bench measures a host on this machine and prints one line a target:
//
//	bench NAME value=… goal=… met|missed
//
// then how each figure came about. Peers are measured in the same run. It
// asserts nothing: a missed goal is a line, not a failure.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
)

func main() {
	wasm := flag.String("wasm", "build/wasm", "directory of the built guests")
	n := flag.Int("n", 300, "samples of each latency")
	flag.Parse()
	if err := run(context.Background(), *wasm, *n); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, wasm string, n int) (err error) {
	dir, err := os.MkdirTemp("", "casemate-bench-")
	if err != nil {
		return err
	}
	defer func() {
		if removing := os.RemoveAll(dir); err == nil {
			err = removing
		}
	}()
	pgURL, done, err := testdb.Fresh()
	if err != nil {
		return err
	}
	defer func() {
		if dropping := done(); err == nil {
			err = dropping
		}
	}()
	r := &report{}
	for _, db := range []struct {
		name, url string
		goal      time.Duration
	}{{"sqlite", "sqlite:" + dir + "/bench.db", goalStepSQLite}, {"postgres", pgURL, goalStepPostgres}} {
		if err := benchLoop(ctx, r, db.name, db.url, db.goal, n); err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
		if err := benchHost(ctx, r, db.name, db.url, wasm, n); err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
		if err := benchOverhead(ctx, r, db.name, db.url, n); err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
		if err := benchIdle(ctx, r, db.name, db.url); err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
	}
	r.notes = append(r.notes, "PostgreSQL: unless "+testdb.Variable+" is set, a server started for this run, without fsync; SQLite: synchronous=FULL")
	r.details()
	return nil
}

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
