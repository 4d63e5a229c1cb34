package queuebench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Rate is how many requests that do nothing go through, each claimed, started
// and completed, with 1 KB in and out.
type Rate struct {
	Conns     int // that claim at once; 0: a host
	Batch     int // or slots, of a host
	Requests  int
	PerSecond float64
	Claim     time.Duration // p50 of a call; it starts what it claims
	Complete  time.Duration
}

const kilobyte = 1024

// busyTenants share the requests of a throughput.
const busyTenants = 100

// idlePause is how long a bare loop waits after a claim of nothing: others have
// the last requests, or the lanes, in their hands.
const idlePause = 2 * time.Millisecond

// Throughput has so many loops claim and complete n requests, in batches.
func Throughput(ctx context.Context, d store.Driver, conns, batch, n int) (Rate, error) {
	load := Load{Tenants: busyTenants, Models: 1, Body: kilobyte, Prefix: fmt.Sprintf("rate-%d-%d-", conns, batch)}
	r := Rate{Conns: conns, Batch: batch, Requests: n}
	if err := load.FillTo(ctx, d, n); err != nil {
		return r, err
	}
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var left atomic.Int64
	left.Store(int64(n))
	times := make([]timing, conns)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range conns {
		wg.Go(func() {
			worker, err := join(run, d)
			if err == nil {
				err = drain(run, d, worker, load.Names(), batch, make([]byte, kilobyte), &left, &times[i])
			}
			if err != nil {
				stop(err)
			}
		})
	}
	wg.Wait()
	r.PerSecond = float64(n) / time.Since(began).Seconds()
	var all timing
	for _, t := range times {
		all.claim = append(all.claim, t.claim...)
		all.complete = append(all.complete, t.complete...)
	}
	r.Claim, _ = percentiles(all.claim)
	r.Complete, _ = percentiles(all.complete)
	return r, context.Cause(run)
}

// timing is how long calls took.
type timing struct{ claim, complete []time.Duration }

// drain claims and completes batches until left is 0.
func drain(ctx context.Context, d store.Driver, worker int64, models []string, batch int, body []byte, left *atomic.Int64, t *timing) error {
	s := store.New(d, store.Options{})
	for left.Load() > 0 {
		began := time.Now()
		claims, err := s.Claim(ctx, store.ClaimRequest{Worker: worker, Models: models, N: batch, Start: true})
		if err != nil {
			return err
		}
		if len(claims) == 0 {
			select {
			case <-time.After(idlePause):
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		claimed := time.Now()
		ends := make([]store.Write, len(claims))
		for i, c := range claims {
			ends[i] = store.Write{Fence: c.Fence(), Move: &store.Move{
				To: queue.Completed, By: queue.ByOutcome, Class: queue.OK,
				Result: &store.Result{Status: 200, ContentType: "application/json", Body: body},
			}}
		}
		if err := written(d.Write(ctx, ends)); err != nil {
			return err
		}
		left.Add(-int64(len(claims)))
		if t != nil {
			t.claim = append(t.claim, claimed.Sub(began))
			t.complete = append(t.complete, time.Since(claimed))
		}
	}
	return nil
}

// EndToEnd has a host with so many slots run n requests: claimer, leases, group
// commit and all.
func EndToEnd(ctx context.Context, d store.Driver, slots, n int) (Rate, error) {
	load := Load{Tenants: busyTenants, Models: 1, Body: kilobyte, Prefix: fmt.Sprintf("slots-%d-", slots)}
	r := Rate{Batch: slots, Requests: n}
	if err := load.FillTo(ctx, d, n); err != nil {
		return r, err
	}
	done := make(chan struct{})
	var left atomic.Int64
	left.Store(int64(n))
	work := func(context.Context, queue.Claim) {}
	committed := func() {
		if left.Add(-1) == 0 {
			close(done)
		}
	}
	began := time.Now()
	h := newHost(d, claimer.Options{Slots: slots}, load.Names(), processor{work: work, committed: committed})
	h.run(ctx, false)
	defer h.stop()
	select {
	case <-done:
	case <-ctx.Done():
		return r, context.Cause(ctx)
	}
	r.PerSecond = float64(n) / time.Since(began).Seconds()
	return r, nil
}
