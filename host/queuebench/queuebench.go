// Package queuebench measures a queue on its user's own database: what a claim
// costs beside a backlog, how fair it is, whether caps hold, how much goes
// through and how soon work starts. It works in databases that it was given for
// the purpose and removes them, and opens no database itself.
package queuebench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/host/store"
)

// Database is a scratch database. Open may be called more than once: each
// driver is then another host. Listen says whether the driver is to receive
// hints from other hosts.
type Database struct {
	Open func(ctx context.Context, listen bool) (store.Driver, error)
	Drop func(ctx context.Context) error
}

// Options of a Run.
type Options struct {
	// Scratch makes an empty database.
	Scratch func(ctx context.Context) (Database, error)
	// Shared: several hosts may open one database at once.
	Shared  bool
	Backlog int  // the largest that is measured, 1,000,000; at least MinBacklog
	Quick   bool // fewer samples and two sizes only
	// Progress is told what is measured next; nil: nobody.
	Progress func(what string)
}

func (o Options) withDefaults() Options {
	if o.Backlog <= 0 {
		o.Backlog = 1_000_000
		if o.Quick {
			o.Backlog = 20_000
		}
	}
	o.Backlog = max(o.Backlog, MinBacklog)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// Results are the figures of one run on one database. They compare with each
// other, and with nothing else.
type Results struct {
	Database string
	Costs    []Cost
	Fairness Fairness
	Cap      CapCheck
	Rates    []Rate
	Whole    []Rate // with claimer and store
	Starts   []Start
}

// ErrLeft says that something of a run is still in the database.
var ErrLeft = errors.New("a scratch database was not removed")

// dropTime bounds the removal of a scratch database.
const dropTime = 2 * time.Minute

// Run measures everything, one after the other. When ctx ends it stops, removes
// what it made and returns what it has.
func Run(ctx context.Context, o Options) (Results, error) {
	o = o.withDefaults()
	var r Results
	for _, part := range []func(context.Context, Options, Database, *Results) error{
		fewLanes, manyLanes, caps, rates,
	} {
		if err := with(ctx, o, func(db Database) error { return part(ctx, o, db, &r) }); err != nil {
			return r, fmt.Errorf("queuebench: %w", err)
		}
	}
	return r, nil
}

// with lends f a scratch database.
func with(ctx context.Context, o Options, f func(Database) error) (err error) {
	db, err := o.Scratch(ctx)
	if err != nil {
		return err
	}
	defer func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTime)
		defer cancel()
		if dropping := db.Drop(limited); dropping != nil {
			err = errors.Join(err, fmt.Errorf("%w: %w", ErrLeft, dropping))
		}
	}()
	return f(db)
}

// using lends f a driver of db.
func using(ctx context.Context, db Database, f func(store.Driver) error) error {
	d, err := db.Open(ctx, false)
	if err != nil {
		return err
	}
	return errors.Join(f(d), d.Close())
}

// MinBacklog is twice what is claimed before the backlog is filled up again.
const MinBacklog = 2 * refillEvery * claimSize

// sizes are the backlogs to measure: tenfold steps up to the largest.
func (o Options) sizes() []int {
	all := []int{o.Backlog}
	least := 10_000
	if o.Quick {
		least = max(o.Backlog/10, MinBacklog)
	}
	for n := o.Backlog / 10; n >= least; n /= 10 {
		all = append(all, n)
	}
	slices.Reverse(all)
	return all
}

// claims is how many claims are measured at one size.
func (o Options) claims() int {
	if o.Quick {
		return 20
	}
	return 200
}

// claimSize is what a claim asks for.
const claimSize = 50

// fewLanes has 1,000 tenants, or as many as have 20 requests each, and one model.
// Starts are measured while nothing is there, and again, with fairness, once the
// largest backlog is.
func fewLanes(ctx context.Context, o Options, db Database, r *Results) error {
	load := Load{Tenants: min(1000, o.Backlog/40), Models: 1, Whale: true, Deadlines: true}
	return using(ctx, db, func(d store.Driver) error {
		report, err := d.Inspect(ctx)
		if err != nil {
			return err
		}
		r.Database = report.Database
		samples, pause := o.starts()
		o.Progress("enqueue to start, idle")
		if r.Starts, err = Idle(ctx, db, d, o.Shared, samples, pause); err != nil {
			return err
		}
		if err := costs(ctx, o, d, &load, r); err != nil {
			return err
		}
		o.Progress("fairness")
		// Each tenant could have ten requests served.
		if r.Fairness, err = Fair(ctx, d, load, min(200, o.Backlog/claimSize/4)); err != nil {
			return err
		}
		o.Progress("enqueue to start, beside the backlog")
		beside, err := Beside(ctx, db, d, o.Shared, load, 3*samples)
		r.Starts = append(r.Starts, beside...)
		return err
	})
}

// manyLanes has 50,000 lanes, or as many as requests.
func manyLanes(ctx context.Context, o Options, db Database, r *Results) error {
	load := Load{Tenants: 12_500, Models: 4, Whale: true, Deadlines: true}
	return using(ctx, db, func(d store.Driver) error { return costs(ctx, o, d, &load, r) })
}

func costs(ctx context.Context, o Options, d store.Driver, load *Load, r *Results) error {
	for _, size := range o.sizes() {
		o.Progress(fmt.Sprintf("claims beside %s pending requests, up to %s lanes", thousands(size), thousands(load.Tenants*load.Models)))
		if err := load.FillTo(ctx, d, size); err != nil {
			return err
		}
		c, err := ClaimCost(ctx, d, load, o.claims())
		if err != nil {
			return err
		}
		r.Costs = append(r.Costs, c)
	}
	return nil
}

func caps(ctx context.Context, o Options, db Database, r *Results) error {
	o.Progress("a cap that eight workers share")
	requests := 4000
	if o.Quick {
		requests = 400
	}
	return using(ctx, db, func(d store.Driver) (err error) {
		r.Cap, err = CheckCap(ctx, d, requests)
		return err
	})
}

// rates counts what goes through: bare calls first, then with everything that a
// host has around them.
func rates(ctx context.Context, o Options, db Database, r *Results) error {
	return using(ctx, db, func(d store.Driver) error {
		for _, batch := range []int{1, 100} {
			n := o.requests(batch)
			for _, conns := range []int{1, 4} {
				o.Progress(fmt.Sprintf("throughput, batch %d, %d at once", batch, conns))
				rate, err := Throughput(ctx, d, conns, batch, n)
				if err != nil {
					return err
				}
				r.Rates = append(r.Rates, rate)
			}
			o.Progress(fmt.Sprintf("throughput of a host with %d slots", batch))
			rate, err := EndToEnd(ctx, d, batch, n)
			if err != nil {
				return err
			}
			r.Whole = append(r.Whole, rate)
		}
		return nil
	})
}

// requests is how many requests a throughput is measured with.
func (o Options) requests(batch int) int {
	n := 2000
	if batch > 1 {
		n = 20_000
	}
	if o.Quick {
		n /= 20
	}
	return n
}

// starts says how many starts are measured, and how long a host is idle before
// each.
func (o Options) starts() (samples int, pause time.Duration) {
	if o.Quick {
		return 5, 200 * time.Millisecond
	}
	return 20, 1500 * time.Millisecond
}

// join starts a worker that nobody takes for dead while it is measured.
func join(ctx context.Context, d store.Driver) (int64, error) {
	p, err := d.Heartbeat(ctx, store.Beat{Host: "bench", Version: "bench", Lease: time.Hour})
	return p.Worker, err
}

// written checks that every write was taken.
func written(results []error, err error) error {
	return errors.Join(append(slices.Clone(results), err)...)
}
