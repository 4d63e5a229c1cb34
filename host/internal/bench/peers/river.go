package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/casemate/casemate/host/queuebench"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

const goalRiver = 1.0

// noop is a job that does nothing but leave its output, with 1 KB in and out.
type noop struct {
	Payload string `json:"payload"`
}

// Kind implements river.JobArgs.
func (noop) Kind() string { return "noop" }

var payload = strings.Repeat("x", 1000) // 1 KB with what is around it

type noopWorker struct{ river.WorkerDefaults[noop] }

// Work implements river.Worker.
func (noopWorker) Work(ctx context.Context, _ *river.Job[noop]) error {
	return river.RecordOutput(ctx, payload)
}

// river measures both queues in turn, so that what else the machine does hits
// both.
func (b *bench) river(ctx context.Context) error {
	return b.with(ctx, func(_ queuebench.Database, d store.Driver) error {
		url, drop, err := postgres.Scratch(ctx, b.url)
		if err != nil {
			return err
		}
		defer func() { _ = drop(context.WithoutCancel(ctx)) }() // the server goes anyway
		pool, err := riverPool(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		for _, size := range sizes {
			var ours, theirs float64
			var rates []string
			for range b.rounds {
				their, err := riverRate(ctx, pool, size.slots, size.requests)
				if err != nil {
					return err
				}
				our, err := queuebench.EndToEnd(ctx, d, size.slots, size.requests)
				if err != nil {
					return err
				}
				ours, theirs = max(ours, our.PerSecond), max(theirs, their)
				rates = append(rates, fmt.Sprintf("%.0f against %.0f", our.PerSecond, their))
			}
			if err := b.bare(ctx, d, size.slots, size.requests); err != nil {
				return err
			}
			b.line(fmt.Sprintf("queue_vs_river_batch_%d", size.slots), fmt.Sprintf("%.2fx", ours/theirs), fmt.Sprintf(">=%.1fx", goalRiver), ours/theirs >= goalRiver, fmt.Sprintf(
				"best of rounds; requests/s, ours against River's: %s; %d requests that do nothing, all there before it starts, 1 KB in and out, %d slots or workers; "+
					"River v0.51.1: InsertMany, FetchCooldown 1 ms (its least), FetchPollInterval 20 ms, no job timeout, output by RecordOutput, 10 connections; ours makes the start durable too",
				strings.Join(rates, ", "), size.requests, size.slots))
		}
		return nil
	})
}

// bare notes what the calls of the driver take without a host around them.
func (b *bench) bare(ctx context.Context, d store.Driver, batch, n int) error {
	for _, conns := range []int{1, 4} {
		r, err := queuebench.Throughput(ctx, d, conns, batch, n)
		if err != nil {
			return err
		}
		b.notes = append(b.notes, fmt.Sprintf("bare calls, batch %d, %d at once: %.0f/s; p50 of claim, which starts, %s, complete %s",
			batch, conns, r.PerSecond, micros(r.Claim), micros(r.Complete)))
	}
	return nil
}

func riverPool(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: quiet()})
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// riverRate inserts n jobs and measures how many a second are completed.
func riverRate(ctx context.Context, pool *pgxpool.Pool, workers, n int) (rate float64, err error) {
	all := river.NewWorkers()
	river.AddWorker(all, noopWorker{})
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		Queues:  map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}},
		Workers: all, Logger: quiet(), JobTimeout: -1,
		FetchCooldown: river.FetchCooldownMin, FetchPollInterval: 20 * time.Millisecond,
	})
	if err != nil {
		return 0, err
	}
	jobs := make([]river.InsertManyParams, 0, 1000)
	for made := 0; made < n; {
		jobs = jobs[:0]
		for range min(1000, n-made) {
			jobs = append(jobs, river.InsertManyParams{Args: noop{payload}})
		}
		if _, err := client.InsertMany(ctx, jobs); err != nil {
			return 0, err
		}
		made += len(jobs)
	}
	done, cancel := client.SubscribeConfig(&river.SubscribeConfig{ChanSize: n, Kinds: []river.EventKind{river.EventKindJobCompleted}})
	defer cancel()
	began := time.Now()
	if err := client.Start(ctx); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, client.Stop(context.WithoutCancel(ctx))) }()
	for range n {
		select {
		case <-done:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}
