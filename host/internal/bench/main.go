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
	"runtime/pprof"
	"strings"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
)

func main() {
	var o options
	flag.StringVar(&o.wasm, "wasm", "build/wasm", "directory of the built guests")
	flag.IntVar(&o.n, "n", 300, "samples of each latency")
	flag.StringVar(&o.only, "only", "loop,host,overhead,idle", "the parts to run")
	flag.StringVar(&o.store, "store", "sqlite,postgres", "the databases to run on")
	flag.StringVar(&o.profile, "profile", "", "path of profiles to write, to which .cpu and .allocs are added")
	flag.Parse()
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options say what to measure.
type options struct {
	wasm, only, store, profile string
	n                          int
}

// run measures, with profiles if they are asked for.
func (o options) run(ctx context.Context) (err error) {
	if o.profile == "" {
		return o.measure(ctx)
	}
	f, err := os.Create(o.profile + ".cpu")
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	err = o.measure(ctx)
	pprof.StopCPUProfile()
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	if f, err = os.Create(o.profile + ".allocs"); err != nil {
		return err
	}
	err = pprof.Lookup("allocs").WriteTo(f, 0)
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

func (o options) measure(ctx context.Context) (err error) {
	r := &report{}
	for name := range strings.SplitSeq(o.store, ",") {
		url, done, err := fresh(name)
		if err != nil {
			return err
		}
		err = o.on(ctx, r, name, url)
		if dropping := done(); err == nil {
			err = dropping
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r.notes = append(r.notes, "PostgreSQL: unless "+testdb.Variable+" is set, a server started for this run, without fsync; SQLite: synchronous=FULL")
	r.details()
	return nil
}

// fresh makes a database of a kind.
func fresh(kind string) (url string, done func() error, err error) {
	switch kind {
	case "sqlite":
		dir, err := os.MkdirTemp("", "casemate-bench-")
		return "sqlite:" + dir + "/bench.db", func() error { return os.RemoveAll(dir) }, err
	case "postgres":
		return testdb.Fresh()
	}
	return "", nil, fmt.Errorf("no database is called %q: want sqlite or postgres", kind)
}

// on runs the parts on one database.
func (o options) on(ctx context.Context, r *report, name, url string) error {
	goal := goalStepSQLite
	if name == "postgres" {
		goal = goalStepPostgres
	}
	parts := map[string]func() error{
		"loop":     func() error { return benchLoop(ctx, r, name, url, goal, o.n) },
		"host":     func() error { return benchHost(ctx, r, name, url, o.wasm, o.n) },
		"overhead": func() error { return benchOverhead(ctx, r, name, url, o.wasm, o.n) },
		"idle":     func() error { return benchIdle(ctx, r, name, url) },
	}
	for part := range strings.SplitSeq(o.only, ",") {
		run, ok := parts[part]
		if !ok {
			return fmt.Errorf("no part is called %q: want loop, host, overhead or idle", part)
		}
		if err := run(); err != nil {
			return err
		}
	}
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
