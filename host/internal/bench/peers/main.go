// Command peers measures the queue on this machine, on one PostgreSQL server
// that commits to disk, and River beside it, and prints one line a target:
//
//	bench NAME value=… goal=… met|missed
//
// then how each figure came about. It asserts nothing: a missed goal is a line,
// not a failure. It is a module of its own, so that only it knows River.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queuebench"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

func main() {
	var b bench
	flag.IntVar(&b.backlog, "backlog", 1_000_000, "the largest backlog")
	flag.IntVar(&b.rounds, "rounds", 3, "rounds of each throughput, of which the best counts")
	flag.StringVar(&b.only, "only", "", "one part: claims, many, fresh, cap, river, sqlite")
	flag.StringVar(&b.profile, "profile", "", "write a CPU profile of this process to the file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := b.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run.
type bench struct {
	backlog int
	rounds  int
	only    string
	profile string
	url     string // of a database on the server
	report
}

func (b *bench) run(ctx context.Context) (err error) {
	url, done, err := testdb.FreshDurable()
	if err != nil {
		return err
	}
	b.url = url
	defer func() { err = errors.Join(err, done()) }()
	end, err := profile(b.profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"river", b.river}, {"sqlite", b.sqlite}, {"fresh", b.fresh}, {"cap", b.cap}, {"claims", b.claims}, {"many", b.many},
	} {
		if b.only != "" && b.only != part.name {
			continue
		}
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	b.notes = append(b.notes, "PostgreSQL: a server started for this run, with fsync, synchronous_commit and full_page_writes on; SQLite: synchronous=FULL; all of it shares the machine's cores")
	b.details()
	return nil
}

// database makes an empty schema on the server.
func (b *bench) database(ctx context.Context) (queuebench.Database, error) {
	url, drop, err := postgres.Scratch(ctx, b.url)
	if err != nil {
		return queuebench.Database{}, err
	}
	return queuebench.Database{
		Open: func(ctx context.Context, listen bool) (store.Driver, error) {
			o := postgres.Options{Listen: "off"}
			if listen {
				o.Listen = ""
			}
			return postgres.Open(ctx, url, o)
		},
		Drop: drop,
	}, nil
}

// with lends f a driver on an empty schema.
func (b *bench) with(ctx context.Context, f func(queuebench.Database, store.Driver) error) error {
	db, err := b.database(ctx)
	if err != nil {
		return err
	}
	return lend(ctx, db, f)
}

func lend(ctx context.Context, db queuebench.Database, f func(queuebench.Database, store.Driver) error) (err error) {
	defer func() { err = errors.Join(err, db.Drop(context.WithoutCancel(ctx))) }()
	d, err := db.Open(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return f(db, d)
}

// withFile lends f a driver on an empty file.
func withFile(ctx context.Context, f func(queuebench.Database, store.Driver) error) error {
	dir, err := os.MkdirTemp("", "casemate-bench-")
	if err != nil {
		return err
	}
	return lend(ctx, queuebench.Database{
		Open: func(ctx context.Context, _ bool) (store.Driver, error) {
			return sqlite.Open(ctx, filepath.Join(dir, "bench.db"), sqlite.Options{})
		},
		Drop: func(context.Context) error { return os.RemoveAll(dir) },
	}, f)
}
