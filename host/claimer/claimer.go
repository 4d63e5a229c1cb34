// Package claimer owns this host's share of the queue: it claims requests,
// keeps its lease alive, hands each claim to a processor and writes how it
// ended. It does not know what a request is about, nor any database.
package claimer

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Store is what a Claimer needs of the store.
type Store interface {
	Write(ctx context.Context, w store.Write) error
	Claim(ctx context.Context, c store.ClaimRequest) ([]queue.Claim, error)
	Heartbeat(ctx context.Context, b store.Beat) (store.Pulse, error)
	Sweep(ctx context.Context, s store.SweepRequest) (store.Swept, error)
	Backlog() int
	Healthy() bool
}

// Processor runs one claim. It returns when ctx ends, with an Ending that
// fits the context's cause; an error means that this host could not do its
// part, whatever the request was about.
type Processor interface {
	Process(ctx context.Context, c queue.Claim) (store.Ending, error)
}

// Options of a Claimer. Zero fields take the defaults given.
type Options struct {
	Host    string // for operators, in the worker's row
	Version string
	Models  []string
	// Slots is how many queued requests run at once, 64; Realtime how many
	// realtime ones, 1024.
	Slots    int
	Realtime int
	// Lease is how long a worker may be silent, 20 s. A heartbeat goes out every
	// quarter of it; without one that succeeded, the host stops its work a
	// quarter before the lease ends; others wait a quarter longer to reap.
	Lease       time.Duration
	Poll        time.Duration // longest wait between empty claims, and the sweeper's period, 1 s
	Drain       time.Duration // how long a shutdown lets work go on, 10 s
	MaxReaps    int           // 3
	MaxFailures int           // of this host, not of the request's steps: 5
	Logger      hclog.Logger
}

func (o Options) withDefaults() Options {
	if o.Slots <= 0 {
		o.Slots = 64
	}
	if o.Realtime <= 0 {
		o.Realtime = 1024
	}
	if o.Lease <= 0 {
		o.Lease = 20 * time.Second
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.Drain <= 0 {
		o.Drain = 10 * time.Second
	}
	if o.MaxReaps <= 0 {
		o.MaxReaps = 3
	}
	if o.MaxFailures <= 0 {
		o.MaxFailures = 5
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Claimer claims, runs and ends requests. Make one with New.
type Claimer struct {
	store Store
	proc  Processor
	opt   Options
	lease *lease
	wake  chan struct{}
	ready chan struct{} // closed once joined

	mu       sync.Mutex
	runs     map[queue.ID]*Run
	queued   int                  // runs that came from a claim
	realtime int                  // runs that were submitted, and those being inserted
	stopping bool                 // takes no more
	shutting bool                 // hands back what still runs
	unknown  map[queue.Fence]bool // rows that the last heartbeat named and that ran nowhere here
	wg       sync.WaitGroup       // one per place taken
	tidying  sync.WaitGroup       // one per stray

	writes    context.Context // ends when a shutdown no longer waits for the database
	endWrites context.CancelFunc

	late atomic.Uint64
}

// New returns a Claimer; call Run to make it work.
func New(s Store, p Processor, o Options) *Claimer {
	o = o.withDefaults()
	c := &Claimer{
		store: s, proc: p, opt: o, lease: newLease(o.Lease),
		wake: make(chan struct{}, 1), ready: make(chan struct{}), runs: map[queue.ID]*Run{},
	}
	c.writes, c.endWrites = context.WithCancel(context.Background())
	return c
}

// Run works until ctx ends; then it claims no more, lets work go on for the
// drain time, hands the rest back, leaves, and returns nil. Hard ends the
// drain at once.
func (c *Claimer) Run(ctx, hard context.Context) error {
	if err := c.join(ctx); err != nil {
		return err
	}
	close(c.ready)
	// Heartbeats and sweeps go on while runs drain.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { c.beats(life) })
	wg.Go(func() { c.fence(life) })
	wg.Go(func() { c.sweeps(life) })
	c.claims(ctx)
	c.drain(hard)
	end()
	wg.Wait()
	c.endWrites()
	c.tidying.Wait()
	c.leave()
	return nil
}

// Ready is closed once this host has joined and takes requests.
func (c *Claimer) Ready() <-chan struct{} { return c.ready }

// Wake hints that there is something to claim.
func (c *Claimer) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Worker returns the id of this host's worker, 0 before it joined.
func (c *Claimer) Worker() int64 { return c.lease.id() }

// Leased reports whether this host holds its lease, by its own clock: while it
// does, nobody takes over what it runs.
func (c *Claimer) Leased() bool { return c.lease.live() }

// Live reports whether this host holds its lease and takes work.
func (c *Claimer) Live() bool {
	c.mu.Lock()
	stopping := c.stopping
	c.mu.Unlock()
	return !stopping && c.lease.live()
}

// Running returns how many requests run here.
func (c *Claimer) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.runs)
}

// Late returns how many results came after the lease was lost.
func (c *Claimer) Late() uint64 { return c.late.Load() }

// maxClaim bounds one claim: past 100 rows batching gains little.
const maxClaim = 100

// maxBacklog is how many writes may wait for the database before claiming stops.
const maxBacklog = 2000

func (c *Claimer) claims(ctx context.Context) {
	const least = 20 * time.Millisecond
	pause := least
	for ctx.Err() == nil {
		n := c.claimOnce(ctx)
		if n > 0 {
			pause = least
			continue
		}
		timer := time.NewTimer(jitter(pause))
		select {
		case <-ctx.Done():
		case <-c.wake:
			pause = least
		case <-timer.C:
			pause = min(2*pause, c.opt.Poll)
		}
		timer.Stop()
	}
}

// claimOnce claims what fits and starts it; it returns how many it got.
func (c *Claimer) claimOnce(ctx context.Context) int {
	c.mu.Lock()
	free := c.opt.Slots - c.queued
	c.mu.Unlock()
	if free <= 0 || !c.lease.live() || !c.store.Healthy() || c.store.Backlog() > maxBacklog {
		return 0
	}
	claims, err := c.store.Claim(ctx, store.ClaimRequest{
		Worker: c.lease.id(), Models: c.opt.Models, N: min(free, maxClaim),
	})
	if err != nil {
		if ctx.Err() == nil {
			c.opt.Logger.Warn("claim", "error", err)
		}
		return 0
	}
	for _, claim := range claims {
		c.mu.Lock()
		c.queued++
		c.wg.Add(1)
		c.mu.Unlock()
		c.start(claim, true)
	}
	return len(claims)
}

// Enqueue inserts a request for any host to claim.
func (c *Claimer) Enqueue(ctx context.Context, n queue.New, events []response.Event) error {
	n.Worker = 0
	if err := c.insert(ctx, store.Write{Insert: &n, Events: events}); err != nil {
		return err
	}
	c.Wake()
	return nil
}

// Submit inserts a realtime request and runs it here. The errors: one that
// wraps queue.ErrAtCap, or an *Unavailable.
func (c *Claimer) Submit(ctx context.Context, n queue.New, events []response.Event) (*Run, error) {
	began := time.Now()
	if err := c.admit(); err != nil {
		return nil, err
	}
	n.Worker = c.lease.id()
	// The row must not outlive its run: a client that leaves now cancels the
	// run, not the insert.
	if err := c.insert(context.WithoutCancel(ctx), store.Write{Insert: &n, Events: events}); err != nil {
		c.dismiss(false)
		return nil, err
	}
	claim := queue.Claim{
		ID: n.ID, Tenant: n.Tenant, Model: n.Model, Path: n.Path, Tier: n.Tier, Stream: n.Stream,
		Background: n.Background, Store: n.Store, Realtime: true, Attempt: 1, State: queue.Processing,
		Created: n.ID.Time(), Body: n.Body,
	}
	if n.DeadlineIn > 0 {
		claim.Remaining = max(n.DeadlineIn-time.Since(began), time.Millisecond)
	}
	return c.start(claim, false), nil
}

// insert writes a new request, as long as a client may be left waiting for that.
// A row that was written all the same is found as a stray, or runs.
func (c *Claimer) insert(ctx context.Context, w store.Write) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Lease/2)
	defer cancel()
	err := c.store.Write(ctx, w)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Unavailable{Reason: "the store is away", Wait: 5 * time.Second}
	}
	return err
}

// admit takes a place for a realtime request, or says why there is none. A
// drain waits for every place taken.
func (c *Claimer) admit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopping:
		return &Unavailable{Reason: "the host shuts down", Wait: time.Second}
	case !c.lease.live() || !c.store.Healthy():
		return &Unavailable{Reason: "the store is away", Wait: 5 * time.Second}
	case c.realtime >= c.opt.Realtime:
		return &Unavailable{Reason: "too many requests run on this host", Wait: time.Second}
	}
	c.realtime++
	c.wg.Add(1)
	return nil
}

// dismiss gives a place back.
func (c *Claimer) dismiss(queued bool) {
	c.mu.Lock()
	if queued {
		c.queued--
	} else {
		c.realtime--
	}
	c.mu.Unlock()
	c.wg.Done()
}

// Unavailable refuses a request that another host, or this one later, may take.
type Unavailable struct {
	Reason string
	Wait   time.Duration
}

func (e *Unavailable) Error() string { return "claimer: " + e.Reason }

// RetryAfter returns how long the client should wait.
func (e *Unavailable) RetryAfter() time.Duration { return e.Wait }

// Stop cancels this host's run of id, if there is one, with cause.
func (c *Claimer) Stop(id queue.ID, cause error) {
	c.mu.Lock()
	run := c.runs[id]
	c.mu.Unlock()
	if run != nil {
		run.cancel(cause)
	}
}

// stopAll cancels every run with cause.
func (c *Claimer) stopAll(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, run := range c.runs {
		run.cancel(cause)
	}
}

// How long a shutdown waits: for runs to stop and be handed back, for that
// after a second signal, and for runs that do not stop.
const (
	handBackGrace = 5 * time.Second
	hardGrace     = 2 * time.Second
)

// drain waits for the runs, then hands the rest back. It ends even when the
// database is away or a guest does not stop.
func (c *Claimer) drain(hard context.Context) {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	if within(c.opt.Drain, done, hard.Done()) {
		return
	}
	c.mu.Lock()
	c.shutting = true
	c.mu.Unlock()
	c.stopAll(queue.ErrShutdown)
	if within(handBackGrace, done, hard.Done()) || within(hardGrace, done, nil) {
		return
	}
	c.endWrites()
	if !within(hardGrace, done, nil) {
		c.opt.Logger.Error("work does not stop; others will take it over", "requests", c.Running())
	}
}

// within waits up to d for done, or for early, and reports whether done came.
func within(d time.Duration, done, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-early:
	case <-timer.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (c *Claimer) leave() {
	if c.lease.id() == 0 {
		return // it never joined
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.store.Heartbeat(ctx, store.Beat{Worker: c.lease.id(), Leave: true})
	if err != nil && !errors.Is(err, context.Canceled) {
		c.opt.Logger.Warn("leave", "error", err)
	}
}
