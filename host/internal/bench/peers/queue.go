package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queuebench"
	"github.com/casemate/casemate/host/store"
)

// The goals of the design.
const (
	goalFlat       = 1.5 // claim at the largest backlog against that at the least
	goalSameHost   = 5 * time.Millisecond
	goalOtherAlone = 250 * time.Millisecond
)

// Goals of our own, where the design sets none.
const (
	goalJain       = 0.95
	goalWhale      = 0.002 // of the claims, for one tenant of a thousand
	goalOtherTold  = 50 * time.Millisecond
	goalBeside     = time.Second // 1,000 tenants are before it, 5 requests each at a time
	goalSQLite     = 1000        // requests a second, batch 100; some hundreds are a large fleet's traffic
	goalSQLiteOne  = 200         // batch 1: three commits to disk a request
	leastBacklog   = 10_000
	measuredClaims = 200
)

// claims measures beside a growing backlog of 1,000 tenants.
func (b *bench) claims(ctx context.Context) error {
	load := queuebench.Load{Tenants: 1000, Models: 1, Whale: true, Deadlines: true}
	return b.with(ctx, func(db queuebench.Database, d store.Driver) error {
		idle, err := queuebench.Idle(ctx, db, d, true, 24, 1500*time.Millisecond)
		if err != nil {
			return err
		}
		b.start("postgres", idle...)
		if err := b.costs(ctx, d, "claim_1000_lanes", &load); err != nil {
			return err
		}
		fair, err := queuebench.Fair(ctx, d, load, measuredClaims)
		if err != nil {
			return err
		}
		b.line("fairness_jain", fmt.Sprintf("%.3f", fair.Jain), fmt.Sprintf(">=%.2f", goalJain), fair.Jain >= goalJain, fmt.Sprintf(
			"%d requests served to 1,000 tenants of equal weight in claims of 50, one tenant owns half of what pends", fair.Served))
		b.line("whale_share", fmt.Sprintf("%.2f%%", 100*fair.Whale), fmt.Sprintf("<=%.2f%%", 100*goalWhale), fair.Whale <= goalWhale,
			"of the same claims, by the tenant that owns half; in order of arrival it would have 50 %")
		beside, err := queuebench.Beside(ctx, db, d, true, load, 60)
		b.start("postgres", beside...)
		return err
	})
}

// many measures with 50,000 lanes.
func (b *bench) many(ctx context.Context) error {
	load := queuebench.Load{Tenants: 12_500, Models: 4, Whale: true, Deadlines: true}
	return b.with(ctx, func(_ queuebench.Database, d store.Driver) error {
		return b.costs(ctx, d, "claim_50000_lanes", &load)
	})
}

func (b *bench) costs(ctx context.Context, d store.Driver, name string, load *queuebench.Load) error {
	var all []queuebench.Cost
	var notes []string
	for _, size := range []int{leastBacklog, b.backlog / 10, b.backlog} {
		if err := load.FillTo(ctx, d, size); err != nil {
			return err
		}
		c, err := queuebench.ClaimCost(ctx, d, load, measuredClaims)
		if err != nil {
			return err
		}
		all = append(all, c)
		notes = append(notes, fmt.Sprintf("%d pending, %d lanes: mean %s p50 %s p99 %s", c.Backlog, c.Lanes, micros(c.Mean), micros(c.P50), micros(c.P99)))
	}
	ratio := float64(all[len(all)-1].Mean) / float64(all[0].Mean)
	b.line(name, fmt.Sprintf("%.2fx", ratio), fmt.Sprintf("<=%.1fx", goalFlat), ratio <= goalFlat, fmt.Sprintf(
		"mean claim of 50 at %d pending / at %d, %d claims each, one connection, commit included; %s", b.backlog, leastBacklog, measuredClaims, strings.Join(notes, "; ")))
	return nil
}

func (b *bench) start(database string, all ...queuebench.Start) {
	for _, s := range all {
		name, goal := "idle_same_host", goalSameHost
		switch {
		case s.Where == queuebench.OtherHost && s.Notify:
			name, goal = "idle_other_host_notify_on", goalOtherTold
		case s.Where == queuebench.OtherHost:
			name, goal = "idle_other_host_notify_off", goalOtherAlone
		}
		what := "the host is idle"
		if s.Backlog > 0 {
			name, goal = strings.Replace(name, "idle", "backlog", 1), goalBeside
			what = fmt.Sprintf("a fresh tenant each, while the host works 64 at once on %d requests of 1,000 tenants, 10 ms a request", s.Backlog)
		}
		b.most("start_"+database+"_"+name+"_p50", s.P50, goal, fmt.Sprintf(
			"call that enqueues to durable start of the work, %d samples, p99 %s; %s", s.Samples, micros(s.P99), what))
	}
}

// fresh counts the claims until a new tenant beside a whale is served.
func (b *bench) fresh(ctx context.Context) error {
	return b.with(ctx, func(_ queuebench.Database, d store.Driver) error {
		backlog := b.backlog / 10
		n, err := queuebench.Fresh(ctx, d, backlog)
		if err != nil {
			return err
		}
		b.line("fresh_tenant", fmt.Sprintf("%dclaims", n), "<=1claims", n <= 1, fmt.Sprintf(
			"claims of 50 until the first request of a new tenant is served beside one with %d pending", backlog))
		return nil
	})
}

func (b *bench) cap(ctx context.Context) error {
	return b.with(ctx, func(_ queuebench.Database, d store.Driver) error {
		c, err := queuebench.CheckCap(ctx, d, 4000)
		if err != nil {
			return err
		}
		b.line("cap_exceeded", fmt.Sprintf("%dsamples", c.Over), "<=0samples", c.Over == 0, fmt.Sprintf(
			"of %d, while %d workers share a lane with a cap of %d; most seen %d, counter off by %d at the end", c.Samples, c.Workers, c.Cap, c.Highest, c.Drift))
		return nil
	})
}

// sqlite measures the same throughput on a file.
func (b *bench) sqlite(ctx context.Context) error {
	return withFile(ctx, func(db queuebench.Database, d store.Driver) error {
		for _, size := range sizes {
			r, err := best(b.rounds, func() (queuebench.Rate, error) { return queuebench.EndToEnd(ctx, d, size.slots, size.requests) })
			if err != nil {
				return err
			}
			goal := goalSQLite
			if size.slots == 1 {
				goal = goalSQLiteOne
			}
			b.line(fmt.Sprintf("queue_sqlite_batch_%d", size.slots), fmt.Sprintf("%.0f/s", r.PerSecond), fmt.Sprintf(">=%d/s", goal), r.PerSecond >= float64(goal), fmt.Sprintf(
				"a host with %d slots, %d requests that do nothing, 1 KB in and out, best of %d", size.slots, size.requests, b.rounds))
		}
		all, err := queuebench.Idle(ctx, db, d, false, 24, 400*time.Millisecond)
		if err != nil {
			return err
		}
		b.start("sqlite", all...)
		return nil
	})
}

// sizes are those of the throughputs.
var sizes = []struct{ slots, requests int }{{1, 1000}, {100, 20_000}}

// best returns the fastest of so many rounds.
func best(rounds int, f func() (queuebench.Rate, error)) (queuebench.Rate, error) {
	var most queuebench.Rate
	for range rounds {
		r, err := f()
		if err != nil {
			return r, err
		}
		if r.PerSecond > most.PerSecond {
			most = r
		}
	}
	return most, nil
}
