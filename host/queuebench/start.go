package queuebench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Start is how long it took from the call that enqueues a request to the
// durable start of its work.
type Start struct {
	Backlog int    // of other tenants, that the host works on meanwhile; 0: it is idle
	Where   string // whose request it is: that of SameHost or OtherHost
	Notify  bool   // hosts tell each other
	Samples int
	P50     time.Duration
	P99     time.Duration
}

// Where a request is enqueued, seen from the host that runs it.
const (
	SameHost  = "same host"
	OtherHost = "another host"
)

// startTime bounds the wait for one start.
const startTime = time.Minute

// Idle measures idle hosts: one that enqueues its own requests and, where others
// can open the database, those of another host, with hints and without. They
// are measured at the same time, in lanes of their own.
func Idle(ctx context.Context, db Database, own store.Driver, shared bool, samples int, pause time.Duration) ([]Start, error) {
	cases := []*starter{{Start: Start{Where: SameHost}, prefix: "idle-own-"}}
	if shared {
		cases = append(cases,
			&starter{Start: Start{Where: OtherHost, Notify: true}, prefix: "idle-told-"},
			&starter{Start: Start{Where: OtherHost}, prefix: "idle-alone-"})
	}
	errs := make([]error, len(cases))
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			errs[i] = c.on(ctx, db, own, []string{c.prefix + "model"}, func() error { return c.sample(ctx, samples, pause) })
		})
	}
	wg.Wait()
	return results(cases), errors.Join(errs...)
}

// Beside measures a host with 64 slots that works through a backlog, 10 ms a
// request, and gets a request of a fresh tenant every 50 ms.
func Beside(ctx context.Context, db Database, own store.Driver, shared bool, load Load, samples int) ([]Start, error) {
	cases := []*starter{{Start: Start{Where: SameHost}}}
	if shared {
		cases = []*starter{{Start: Start{Where: OtherHost, Notify: true}}, {Start: Start{Where: OtherHost}}}
	}
	for i, c := range cases {
		c.Backlog, c.prefix = load.made, fmt.Sprintf("fresh-%d-", i)
		err := c.on(ctx, db, own, load.Names(), func() error { return c.sampleAtOnce(ctx, load.model(0), samples) })
		if err != nil {
			return nil, err
		}
	}
	return results(cases), nil
}

func results(cases []*starter) []Start {
	var all []Start
	for _, c := range cases {
		c.Samples = len(c.took)
		c.P50, c.P99 = percentiles(c.took)
		all = append(all, c.Start)
	}
	return all
}

// starter measures one kind of start.
type starter struct {
	Start
	prefix string
	took   []time.Duration

	enqueue func(ctx context.Context, n queue.New) error
	mu      sync.Mutex
	waiting map[queue.ID]chan time.Time // of requests that have not started
}

// call is how long the work of a request takes when there is a backlog.
const call = 10 * time.Millisecond

// work is told of every request that starts.
func (c *starter) work(ctx context.Context, claim queue.Claim) {
	c.mu.Lock()
	started := c.waiting[claim.ID]
	delete(c.waiting, claim.ID)
	c.mu.Unlock()
	if started != nil {
		started <- time.Now()
		return
	}
	select {
	case <-time.After(call):
	case <-ctx.Done():
	}
}

// on runs f beside the host, or the two hosts, of the case.
func (c *starter) on(ctx context.Context, db Database, own store.Driver, models []string, f func() error) (err error) {
	c.waiting = map[queue.ID]chan time.Time{}
	runs := own
	if c.Where == OtherHost {
		var front store.Driver
		if front, err = db.Open(ctx, c.Notify); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, front.Close()) }()
		if runs, err = db.Open(ctx, c.Notify); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, runs.Close()) }()
		c.enqueue = func(ctx context.Context, n queue.New) error {
			return written(front.Write(ctx, []store.Write{{Insert: &n}}))
		}
		if c.Notify {
			speaker := host{driver: front}
			speaker.part(ctx, func(ctx context.Context) { _ = front.Watch(ctx, func(store.Hint) {}) })
			defer speaker.stop()
		}
	}
	h := newHost(runs, claimer.Options{Slots: 64}, models, processor{work: c.work})
	if c.Where == SameHost {
		c.enqueue = func(ctx context.Context, n queue.New) error { return h.claimer.Enqueue(ctx, store.Write{Insert: &n}) }
	}
	h.run(ctx, c.Notify)
	defer h.stop()
	select {
	case <-h.claimer.Ready():
		return f()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sample enqueues one request after the other; before each the host is idle for
// about pause, so that it looks as rarely as it does then.
func (c *starter) sample(ctx context.Context, samples int, pause time.Duration) error {
	for range samples {
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		took, err := c.one(ctx, c.prefix+"tenant", c.prefix+"model")
		if err != nil {
			return err
		}
		c.took = append(c.took, took)
	}
	return nil
}

// freshEvery is the time between two fresh tenants.
const freshEvery = 50 * time.Millisecond

// sampleAtOnce enqueues a request of a fresh tenant each time, whether or not
// the one before has started.
func (c *starter) sampleAtOnce(ctx context.Context, model string, samples int) error {
	all := make([]time.Duration, samples)
	errs := make([]error, samples)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range samples {
		select {
		case <-time.After(freshEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() { all[i], errs[i] = c.one(ctx, fmt.Sprintf("%s%d", c.prefix, i), model) })
	}
	wg.Wait()
	c.took = slices.Clone(all)
	return errors.Join(errs...)
}

// one enqueues a request and waits for its start.
func (c *starter) one(ctx context.Context, tenant, model string) (time.Duration, error) {
	n := queue.New{ID: queue.NewID(), Tenant: tenant, Model: model, Path: "/v1/responses", Background: true, Store: true, Body: make([]byte, kilobyte)}
	started := make(chan time.Time, 1)
	c.mu.Lock()
	c.waiting[n.ID] = started
	c.mu.Unlock()
	began := time.Now()
	if err := c.enqueue(ctx, n); err != nil {
		return 0, err
	}
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	select {
	case at := <-started:
		return at.Sub(began), nil
	case <-limited.Done():
		return 0, fmt.Errorf("a request enqueued on %s did not start within %s", c.Where, startTime)
	}
}
