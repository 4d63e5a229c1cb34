package claimer_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// database is a small database that several hosts share: rows with fences, and
// workers with leases.
type database struct {
	t *testing.T

	mu      sync.Mutex
	rows    map[queue.ID]*row
	order   []*row              // as they came
	workers []*worker           // by id less one
	at      map[queue.ID]string // who processes it now
}

type row struct {
	queue.New
	state   queue.State
	attempt int
	worker  int64
	reaps   int
	ended   int // how often it was moved to a final state
	usage   int // rows of it
}

type worker struct {
	until  time.Time
	reaped bool
}

func newDatabase(t *testing.T) *database {
	return &database{t: t, rows: map[queue.ID]*row{}, at: map[queue.ID]string{}}
}

// move moves a row as the table allows.
func (d *database) move(r *row, to queue.State, by queue.Cause) error {
	if err := queue.Move(r.state, to, by); err != nil {
		return err
	}
	r.state = to
	if to.Final() {
		r.ended++
	}
	if !to.Owned() && to != queue.Canceled {
		r.worker = 0
	}
	return nil
}

func (d *database) write(w store.Write) error {
	if n := w.Insert; n != nil {
		r := &row{New: *n, worker: n.Worker}
		if n.Worker != 0 {
			r.state, r.attempt = queue.Processing, 1
		}
		d.rows[n.ID], d.order = r, append(d.order, r)
		return nil
	}
	r := d.rows[w.Fence.ID]
	if r == nil {
		return &store.LeaseLost{ID: w.Fence.ID, Gone: true}
	}
	r.usage += len(w.Usage)
	if r.state != w.Fence.State || r.attempt != w.Fence.Attempt || w.LetGo && r.worker == 0 {
		return &store.LeaseLost{ID: w.Fence.ID, State: r.state, Attempt: r.attempt}
	}
	if w.LetGo {
		r.worker = 0
		return nil
	}
	if w.Move == nil {
		return nil
	}
	return d.move(r, w.Move.To, w.Move.By)
}

func (d *database) claim(c store.ClaimRequest) ([]queue.Claim, error) {
	if d.workers[c.Worker-1].reaped {
		return nil, fmt.Errorf("worker %d: %w", c.Worker, queue.ErrLeaseLost)
	}
	var claims []queue.Claim
	for _, r := range d.order {
		if r.state != queue.Pending || len(claims) == c.N {
			continue
		}
		if err := d.move(r, queue.Claimed, queue.ByClaim); err != nil {
			return nil, err
		}
		if c.Start {
			if err := d.move(r, queue.Processing, queue.ByStart); err != nil {
				return nil, err
			}
		}
		r.attempt++
		r.worker = c.Worker
		claims = append(claims, queue.Claim{
			ID: r.ID, Tenant: r.Tenant, Model: r.Model, Attempt: r.attempt, State: r.state, Reaps: r.reaps, Store: true,
		})
	}
	return claims, nil
}

func (d *database) beat(b store.Beat) store.Pulse {
	if b.Worker == 0 {
		d.workers = append(d.workers, &worker{})
		b.Worker = int64(len(d.workers))
	}
	w := d.workers[b.Worker-1]
	if w.reaped {
		return store.Pulse{Worker: b.Worker, Lost: true}
	}
	w.until = time.Now().Add(b.Lease)
	if b.Leave {
		w.until = time.Now()
	}
	p := store.Pulse{Worker: b.Worker}
	for _, r := range d.order {
		if r.worker == b.Worker {
			p.Held = append(p.Held, store.Held{Fence: queue.Fence{ID: r.ID, Attempt: r.attempt, State: r.state}})
		}
	}
	return p
}

func (d *database) sweep(s store.SweepRequest) (swept store.Swept, err error) {
	for i, w := range d.workers {
		if !s.Reap || w.reaped || time.Since(w.until) <= s.Grace {
			continue
		}
		w.reaped = true
		for _, r := range d.order {
			switch {
			case r.worker != int64(i+1):
			case r.state == queue.Canceled:
				r.worker = 0
			default:
				r.reaps++
				err = errors.Join(err, d.move(r, queue.Waiting, queue.ByReap))
				swept.Reaped++
			}
		}
	}
	for _, r := range d.order {
		if r.state == queue.Waiting {
			err = errors.Join(err, d.move(r, queue.Pending, queue.ByPromote))
			swept.Promoted++
		}
	}
	return swept, err
}

// cancel is the compare-and-set of a user's cancel.
func (d *database) cancel(id queue.ID) (worker int64, did bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.rows[id]
	if r.state.Final() {
		return 0, false
	}
	if err := d.move(r, queue.Canceled, queue.ByCancel); err != nil {
		d.t.Error(err)
	}
	return r.worker, true
}

// add inserts n requests that wait to be claimed.
func (d *database) add(n int) (ids []queue.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for range n {
		id := queue.NewID()
		r := &row{New: queue.New{ID: id, Tenant: "t", Model: "m"}}
		d.rows[id], d.order = r, append(d.order, r)
		ids = append(ids, id)
	}
	return ids
}

func (d *database) get(id queue.ID) row {
	d.mu.Lock()
	defer d.mu.Unlock()
	return *d.rows[id]
}

// has reports whether the request was ever inserted.
func (d *database) has(id queue.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rows[id] != nil
}

// working notes that a host processes a request until end is called: no two do
// at once.
func (d *database) working(host string, id queue.ID) (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if other := d.at[id]; other != "" {
		d.t.Errorf("%s processes what %s still does", host, other)
	}
	d.at[id] = host
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.at, id)
	}
}

// conn is one host's way to the database; it implements store.Driver, as far as
// a claimer needs one.
type conn struct {
	store.Driver
	d *database

	mu     sync.Mutex
	delay  func() time.Duration // each way
	broken bool                 // nothing gets there
	stuck  chan struct{}        // what is under way, or begins, hangs until it is closed; nil: nothing does
}

// do does f in the database, unless it is away.
func (c *conn) do(f func()) error {
	for _, there := range []bool{true, false} {
		c.mu.Lock()
		broken, stuck, delay := c.broken, c.stuck, c.delay
		c.mu.Unlock()
		if stuck != nil {
			<-stuck // whatever the caller's context says: so does a process that is stopped
		}
		if broken && there {
			return fmt.Errorf("no route: %w", store.ErrUnavailable)
		}
		if delay != nil {
			<-time.After(delay())
		}
		if there {
			c.d.mu.Lock()
			f()
			c.d.mu.Unlock()
		}
	}
	return nil
}

func (c *conn) Write(_ context.Context, writes []store.Write) (results []error, err error) {
	err = c.do(func() {
		for _, w := range writes {
			results = append(results, c.d.write(w))
		}
	})
	return results, err
}

func (c *conn) Claim(ctx context.Context, r store.ClaimRequest) (claims []queue.Claim, err error) {
	if away := c.do(func() { claims, err = c.d.claim(r) }); away != nil {
		return nil, away
	}
	return claims, cmp.Or(err, ctx.Err()) // whose context ended meanwhile does not hear the answer
}

func (c *conn) Heartbeat(_ context.Context, b store.Beat) (p store.Pulse, err error) {
	err = c.do(func() { p = c.d.beat(b) })
	return p, err
}

func (c *conn) Sweep(_ context.Context, r store.SweepRequest) (s store.Swept, err error) {
	if away := c.do(func() { s, err = c.d.sweep(r) }); away != nil {
		return store.Swept{}, away
	}
	return s, err
}

// set breaks or mends the connection.
func (c *conn) set(broken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = broken
}

// slow makes each way take a time.
func (c *conn) slow(delay func() time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = delay
}

// stop makes the host's calls hang until goOn is called.
func (c *conn) stop() (goOn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stuck := make(chan struct{})
	c.stuck = stuck
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stuck = nil
		close(stuck)
	}
}

// machine is one host: a claimer on a real store.
type machine struct {
	*claimer.Claimer
	conn  *conn
	store *store.Store
	stop  func()
}

// join starts a host that processes requests as p says.
func (d *database) join(name string, p processor) *machine {
	c := &conn{d: d}
	m := &machine{conn: c, store: store.New(c, store.Options{})}
	work := processor(func(ctx context.Context, cl queue.Claim) (store.Ending, error) {
		end := d.working(name, cl.ID)
		defer end()
		return p(ctx, cl)
	})
	m.Claimer = claimer.New(m.store, work, claimer.Options{
		Host: name, Lease: lease, Drain: time.Second, Models: claimer.Fixed("m"), Slots: 8,
	})
	base, endBase := context.WithCancel(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	var parts, run sync.WaitGroup
	parts.Go(func() {
		if err := m.store.Run(base); err != nil {
			d.t.Error(err)
		}
	})
	run.Go(func() {
		if err := m.Run(ctx, base); err != nil {
			d.t.Error(err)
		}
	})
	m.stop = func() {
		cancel()
		run.Wait()
		endBase()
		parts.Wait()
	}
	<-m.Ready()
	return m
}

// settled reports what is wrong with the rows once all work is done.
func (d *database) settled() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.order {
		if !r.state.Final() || r.ended != 1 || r.worker != 0 {
			d.t.Errorf("request is %s, ended %d times, of worker %d; want it ended once and let go of", r.state, r.ended, r.worker)
		}
	}
}

// after takes d, or until it is stopped; it uses one row of usage.
func after(d func() time.Duration) processor {
	return func(ctx context.Context, c queue.Claim) (store.Ending, error) {
		used := store.Write{Usage: []store.Usage{{Try: c.Attempt, Target: "up/m"}}}
		select {
		case <-time.After(d()):
			e := completed()
			e.Rest = used
			return e, nil
		case <-ctx.Done():
		}
		o := queue.Outcome{To: queue.Pending, By: queue.ByHandBack}
		if cause := context.Cause(ctx); errors.Is(cause, queue.ErrCanceled) || errors.Is(cause, queue.ErrClientGone) {
			o = queue.Outcome{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled}
		}
		return store.Ending{Outcome: o, Rest: used}, nil
	}
}
