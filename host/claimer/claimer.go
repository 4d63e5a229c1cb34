// Package claimer owns this host's share of the queue: it claims requests,
// keeps its lease alive, hands each claim to a processor and writes how it
// ended. It does not know what a request is about, nor any database.
package claimer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Store is what a Claimer needs of the store.
type Store interface {
	Write(ctx context.Context, w store.Write) error
	WriteAsync(ctx context.Context, w store.Write, done func(error))
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

// Targets keeps this host's part of the upstream targets' limits.
type Targets interface {
	// Uses is called before each heartbeat, for what it says of the targets. Until
	// Settle the host uses no more than it says.
	Uses() []store.TargetUse
	// Settle is told how that heartbeat ended: the shares from now on, or why
	// there is no answer. Of its own accord it is told that the lease ran out, by
	// queue.ErrFenced, and that the worker is gone, by queue.ErrLeaseLost: there
	// are no shares then until the next answer.
	Settle(shares []store.TargetShare, err error)
}

// Options of a Claimer. Zero fields take the defaults given.
type Options struct {
	Host    string // for operators, in the worker's row
	Version string
	// Models returns the models whose requests are to be claimed now, and those
	// that can only be served by the model that they escalate to; it is asked
	// before each claim. nil: none. See Fixed.
	Models func() (models, onlyEscalate []string)
	// Room returns how many more requests of a model this host could serve now,
	// -1: any number; it is asked before each claim. A model without room is left
	// out; one with a bounded room is claimed on its own. nil: there is always
	// room.
	Room func(model string) int
	// Escalate says, by model, which requests run on another model; it is asked
	// before each claim. nil: none.
	Escalate func() map[string]queue.Escalation
	// Targets are told of by each heartbeat; nil: none.
	Targets Targets
	// Slots is how many queued requests run at once, 64; Realtime how many
	// realtime ones, 1024. Neither takes the other's.
	Slots    int
	Realtime int
	// Lease is how long a worker may be silent, 20 s. A heartbeat goes out every
	// quarter of it; without one that succeeded, the host stops its work a
	// quarter before the lease ends; others wait 5 s longer to reap, or a quarter
	// of a lease that is shorter than 20 s.
	Lease time.Duration
	// Poll is the sweeper's period, 1 s. Two fifths of it are the longest wait
	// between claims that find nothing.
	Poll        time.Duration
	Drain       time.Duration // how long a shutdown lets work go on, 10 s
	MaxReaps    int           // 3
	MaxFailures int           // of this host, not of the request's steps: 5
	// Keep is how long requests that ended are kept; 0: for ever.
	Keep   time.Duration
	Logger hclog.Logger
}

// Fixed returns an Options.Models that never changes.
func Fixed(models ...string) func() (models, onlyEscalate []string) {
	return func() ([]string, []string) { return models, nil }
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
	if o.Models == nil {
		o.Models = Fixed()
	}
	if o.Room == nil {
		o.Room = func(string) int { return -1 }
	}
	if o.Escalate == nil {
		o.Escalate = func() map[string]queue.Escalation { return nil }
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
	urge  chan struct{} // for a heartbeat at once
	ready chan struct{} // closed once joined
	over  chan struct{} // closed when Run is about to return

	// Of the goroutine that claims.
	turn    int           // which claim of a cycle goes first
	settled time.Duration // until what was claimed shows in the room of its model; 0: it does

	mu       sync.Mutex
	runs     map[queue.ID]*Run
	queued   int                       // runs that came from a claim
	realtime int                       // runs that were submitted, and those being inserted
	stopping bool                      // takes no more
	shutting bool                      // hands back what still runs
	asked    *round                    // who waits for the next heartbeat; nil: nobody
	unknown  map[queue.Fence]time.Time // rows that the last heartbeat named and that ran nowhere here, and since when
	wg       sync.WaitGroup            // one per place taken
	tidying  sync.WaitGroup            // one per stray

	writes    context.Context // ends when a shutdown no longer waits for the database
	endWrites context.CancelFunc

	late, unrecorded atomic.Uint64
}

// New returns a Claimer; call Run to make it work.
func New(s Store, p Processor, o Options) *Claimer {
	o = o.withDefaults()
	c := &Claimer{
		store: s, proc: p, opt: o, lease: newLease(o.Lease),
		wake: make(chan struct{}, 1), urge: make(chan struct{}, 1),
		ready: make(chan struct{}), over: make(chan struct{}),
		runs: map[queue.ID]*Run{},
	}
	c.writes, c.endWrites = context.WithCancel(context.Background())
	return c
}

// Run works until ctx ends; then it claims no more, lets work go on for the
// drain time, hands the rest back, leaves, and returns nil. Hard ends the
// drain at once.
func (c *Claimer) Run(ctx, hard context.Context) error {
	defer close(c.over)
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
