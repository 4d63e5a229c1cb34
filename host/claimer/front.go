package claimer

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Enqueue inserts the request of w.Insert, and what else w holds, for any host to
// claim. The error may be an *Unavailable; then the request never runs. Others
// are those of the store: a *store.Repeated, a *store.ConversationBusy.
func (c *Claimer) Enqueue(ctx context.Context, w store.Write) error {
	if err := c.hold(); err != nil {
		return err
	}
	n := *w.Insert
	n.Worker, w.Insert = 0, &n
	if err := c.insert(ctx, w, c.wg.Done); err != nil {
		return err
	}
	c.wg.Done()
	c.Wake()
	return nil
}

// Submit inserts the realtime request of w.Insert, and what else w holds, and runs
// it here. Many that come at once are inserted together. The errors: a
// *store.AtCap, or an *Unavailable; both say how long to wait. Others are those
// of Enqueue.
func (c *Claimer) Submit(ctx context.Context, w store.Write) (*Run, error) {
	began := time.Now()
	if err := c.admit(); err != nil {
		return nil, err
	}
	worker, n := c.lease.id(), *w.Insert
	n.Worker, w.Insert = worker, &n
	// The row must not outlive its run: a client that leaves now cancels the
	// run, not the insert.
	if err := c.insert(context.WithoutCancel(ctx), w, c.dismiss); err != nil {
		return nil, err
	}
	claim := submitted(n)
	if n.DeadlineIn > 0 {
		claim.Remaining = max(n.DeadlineIn-time.Since(began), time.Millisecond)
	}
	return c.start(claim, worker, false), nil
}

// submitted is the claim of a realtime request.
func submitted(n queue.New) queue.Claim {
	return queue.Claim{
		ID: n.ID, Tenant: n.Tenant, Model: n.Model, Path: n.Path, Tier: n.Tier, Stream: n.Stream,
		Background: n.Background, Store: n.Store, Realtime: true, Attempt: 1, State: queue.Processing,
		Created: n.ID.Time(), Body: n.Body, Secret: n.Secret,
	}
}

// insert writes a new request, as long as a client may be left waiting for that.
// One that is refused must not run: if it is not known whether it was written,
// it is taken back as soon as that is known. After an error, over is called when
// there is no more to do.
func (c *Claimer) insert(ctx context.Context, w store.Write, over func()) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Lease/2)
	defer cancel()
	err := c.store.Write(ctx, w)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrInFlight):
		go func() {
			defer over()
			c.takeBack(w.Fenced())
		}()
	default:
		over()
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Unavailable{Reason: "the store is away", Wait: 5 * time.Second}
	}
	return err
}

// takeBack cancels what was inserted, if it was. The store keeps the order of
// writes, so the insert has been committed or given up before.
func (c *Claimer) takeBack(f queue.Fence) {
	err := c.write(store.Write{
		Fence: f, Move: &store.Move{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled, Code: store.Withdrawn},
	})
	if err == nil && f.State.Owned() {
		err = c.write(store.Write{Fence: queue.Fence{ID: f.ID, Attempt: f.Attempt, State: queue.Canceled}, LetGo: true})
	}
	if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
		c.opt.Logger.Warn("take back a request that was refused", "request", f.ID, "error", err)
	}
}

// hold makes a drain wait for what is being inserted, or says why nothing is.
func (c *Claimer) hold() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopping:
		return &Unavailable{Reason: "the host shuts down", Wait: time.Second}
	case !c.store.Healthy():
		return &Unavailable{Reason: "the store is away", Wait: 5 * time.Second}
	}
	c.wg.Add(1)
	return nil
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

// dismiss gives a place for a realtime request back.
func (c *Claimer) dismiss() {
	c.mu.Lock()
	c.realtime--
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
