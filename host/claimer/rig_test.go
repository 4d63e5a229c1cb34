package claimer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const lease = 20 * time.Second

// fakeStore is a store of one worker: what a claimer asked of it, and answers.
type fakeStore struct {
	mu          sync.Mutex
	pending     []queue.Claim
	writes      []store.Write
	refuse      error // of writes that end a claim
	refuseOnce  bool
	refuseLetGo error // of the first let-go
	down        bool  // heartbeats fail
	lost        bool  // the next heartbeat finds the worker reaped
	held        []store.Held
	hang        bool // writes wait for the database until their context ends
	queued      []func(error)
	full        chan struct{} // the queue of writes, until it is closed; nil: it is not
	workers     int64
	beats       []store.Beat
	beatsAt     []time.Time
	claims      []store.ClaimRequest
	claimsAt    []time.Time
	sweeps      []store.SweepRequest
	backlog     int
	sick        bool
	hangClaim   bool                // claims wait until their context ends
	slow        time.Duration       // heartbeats take so long, whatever their context says
	shares      []store.TargetShare // what heartbeats are answered
}

func (f *fakeStore) Write(ctx context.Context, w store.Write) error {
	f.mu.Lock()
	if f.hang {
		f.mu.Unlock()
		<-ctx.Done()
		return ctx.Err()
	}
	defer f.mu.Unlock()
	f.writes = append(f.writes, w)
	if w.Move != nil && f.refuse != nil {
		err := f.refuse
		if f.refuseOnce {
			f.refuse = nil
		}
		return err
	}
	if w.LetGo && f.refuseLetGo != nil {
		err := f.refuseLetGo
		f.refuseLetGo = nil
		return err
	}
	return nil
}

// WriteAsync queues w; while the database hangs it stays queued.
func (f *fakeStore) WriteAsync(ctx context.Context, w store.Write, done func(error)) {
	f.mu.Lock()
	full := f.full
	f.mu.Unlock()
	if full != nil {
		select {
		case <-full:
		case <-ctx.Done():
			done(ctx.Err())
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.writes = append(f.writes, w)
	if f.hang {
		f.queued = append(f.queued, done)
		return
	}
	done(f.refuse)
}

func (f *fakeStore) Claim(ctx context.Context, c store.ClaimRequest) ([]queue.Claim, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims, f.claimsAt = append(f.claims, c), append(f.claimsAt, time.Now())
	if f.hangClaim {
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return nil, ctx.Err()
	}
	n := min(c.N, len(f.pending))
	claims := f.pending[:n]
	for i := range claims {
		if c.Start {
			claims[i].State = queue.Processing
		}
	}
	f.pending = f.pending[n:]
	return claims, nil
}

func (f *fakeStore) Heartbeat(_ context.Context, b store.Beat) (store.Pulse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beats, f.beatsAt = append(f.beats, b), append(f.beatsAt, time.Now())
	if d := f.slow; d > 0 {
		f.mu.Unlock()
		<-time.After(d)
		f.mu.Lock()
	}
	if f.down {
		return store.Pulse{}, errors.New("database is away")
	}
	if b.Worker == 0 {
		f.workers++
		return store.Pulse{Worker: f.workers}, nil
	}
	if f.lost {
		f.lost = false
		return store.Pulse{Worker: b.Worker, Lost: true}, nil
	}
	return store.Pulse{Worker: b.Worker, Held: f.held, Targets: f.shares}, nil
}

func (f *fakeStore) Sweep(_ context.Context, s store.SweepRequest) (store.Swept, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sweeps = append(f.sweeps, s)
	return store.Swept{}, nil
}

func (f *fakeStore) Backlog() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.backlog
}

func (f *fakeStore) Healthy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.sick
}

func (f *fakeStore) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// written returns the moves written so far and how often a claim was let go.
func (f *fakeStore) written() (moves []queue.State, letGo int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.writes {
		if w.Move != nil {
			moves = append(moves, w.Move.To)
		}
		if w.LetGo {
			letGo++
		}
	}
	return moves, letGo
}

type processor func(ctx context.Context, c queue.Claim) (store.Ending, error)

func (p processor) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	return p(ctx, c)
}

func completed() store.Ending {
	return store.Ending{Outcome: queue.Outcome{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200}}
}

// causes are why runs were stopped, in order.
type causes struct {
	mu  sync.Mutex
	all []error
}

func (c *causes) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, err)
}

func (c *causes) only(t *testing.T, want error) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) != 1 || !errors.Is(c.all[0], want) {
		t.Errorf("causes %v; want %v alone", c.all, want)
	}
}

func (c *causes) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.all)
}

// untilStopped runs until its context ends and ends as the cause asks.
func untilStopped(log *causes) processor {
	return func(ctx context.Context, _ queue.Claim) (store.Ending, error) {
		<-ctx.Done()
		cause := context.Cause(ctx)
		log.add(cause)
		switch {
		case errors.Is(cause, queue.ErrCanceled):
			return store.Ending{Outcome: queue.Outcome{To: queue.Canceled, By: queue.ByCancel}}, nil
		case errors.Is(cause, queue.ErrDeadline):
			return store.Ending{Outcome: queue.Outcome{To: queue.Failed, By: queue.ByOutcome, Class: queue.ClassDeadline}}, nil
		}
		return store.Ending{Outcome: queue.Outcome{To: queue.Pending, By: queue.ByHandBack}}, nil
	}
}

func claim() queue.Claim {
	return queue.Claim{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/responses", Attempt: 3, State: queue.Claimed}
}

// start runs a claimer in the test's bubble; stop ends it and waits.
func start(t *testing.T, f *fakeStore, p processor, change ...func(*claimer.Options)) (c *claimer.Claimer, stop func()) {
	t.Helper()
	o := claimer.Options{Lease: lease, Drain: 5 * time.Second, Models: claimer.Fixed("m")}
	for _, f := range change {
		f(&o)
	}
	c = claimer.New(f, p, o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, t.Context()) }()
	<-c.Ready()
	return c, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}
