package claimer

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// beatSpacing is the least time between heartbeats that were asked for.
const beatSpacing = 20 * time.Millisecond

// errOver: no heartbeat goes out any more.
var errOver = errors.New("claimer: this host has left")

// round is everybody who waits for the next heartbeat.
type round struct {
	done chan struct{}
	err  error // once done is closed
}

// Beat sends a heartbeat at once, beside the periodic ones, and returns how it
// went. It begins after the call; all who call meanwhile share it.
func (c *Claimer) Beat(ctx context.Context) error {
	c.mu.Lock()
	if c.asked == nil {
		c.asked = &round{done: make(chan struct{})}
	}
	r := c.asked
	c.mu.Unlock()
	c.hurry()
	select {
	case <-r.done:
		return r.err
	case <-c.over:
		return errOver
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Hint takes a hint of another host; it does not block.
func (c *Claimer) Hint(h store.Hint) {
	if h.Ready {
		c.Wake()
	}
	if h.Canceled != 0 && h.Canceled == c.lease.id() {
		c.hurry()
	}
}

// hurry makes a heartbeat go out at once.
func (c *Claimer) hurry() {
	select {
	case c.urge <- struct{}{}:
	default:
	}
}

// join starts a worker, and tries again until ctx ends.
func (c *Claimer) join(ctx context.Context) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		err := c.beat(ctx, 0)
		if err == nil || ctx.Err() != nil {
			return err
		}
		c.opt.Logger.Warn("join", "error", err)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// beats prolongs the lease until ctx ends, when it is time or when somebody
// asks, and tries faster while it cannot. No two heartbeats are under way at
// once.
func (c *Claimer) beats(ctx context.Context) {
	last := time.Now()
	due := last.Add(c.opt.Lease / 4)
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.urge:
			if soon := last.Add(beatSpacing); soon.Before(due) {
				due = soon
			}
			timer.Reset(time.Until(due))
			continue
		case <-timer.C:
		}
		c.mu.Lock()
		r := c.asked
		c.asked = nil
		c.mu.Unlock()
		last = time.Now()
		err := c.beat(ctx, c.lease.id())
		due = last.Add(c.opt.Lease / 4)
		if err != nil && ctx.Err() == nil {
			c.lease.failed()
			c.opt.Logger.Warn("heartbeat", "error", err, "left_ms", c.lease.left().Milliseconds())
			due = time.Now().Add(c.opt.Lease / 20)
		}
		if r != nil {
			r.err = err
			close(r.done)
		}
		timer.Reset(time.Until(due))
	}
}

// fence stops this host's work when its lease runs out, whatever the heartbeat
// is waiting for: from then on others may take the work over.
func (c *Claimer) fence(ctx context.Context) {
	for {
		left := c.lease.left()
		if left <= 0 {
			if c.lease.expired() {
				c.opt.Logger.Error("no heartbeat within the lease: all work of this host stops")
				c.settle(nil, queue.ErrFenced)
				c.stopHeld(queue.ErrFenced)
			}
			left = c.opt.Lease / 20
		}
		if !sleep(ctx, left) {
			return
		}
	}
}

// beat sends one heartbeat and acts on its answer.
func (c *Claimer) beat(ctx context.Context, worker int64) error {
	uses := c.uses(worker)
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.opt.Lease/4)
	defer cancel()
	c.mu.Lock()
	draining := c.stopping
	c.mu.Unlock()
	pulse, err := c.store.Heartbeat(ctx, store.Beat{
		Worker: worker, Host: c.opt.Host, Version: c.opt.Version, Lease: c.opt.Lease, Draining: draining, Targets: uses,
	})
	if err != nil {
		c.settle(nil, err)
		return err
	}
	if pulse.Lost {
		c.opt.Logger.Error("this worker was given up for dead: its work stops and it joins again", "worker", worker)
		c.lease.lose()
		c.settle(nil, queue.ErrLeaseLost)
		c.stopHeld(queue.ErrLeaseLost)
		if worker == 0 {
			return errors.New("claimer: a new worker was refused")
		}
		return c.beat(context.WithoutCancel(ctx), 0)
	}
	c.lease.renewed(pulse.Worker, sent)
	if c.lease.live() {
		c.settle(pulse.Targets, nil)
	} else { // the answer came so late that the lease is over
		c.settle(pulse.Targets, queue.ErrFenced)
	}
	c.compare(pulse.Held, sent)
	return nil
}

// uses is what a heartbeat says of the targets. One that starts a worker asks
// for no slots: nobody would use them if its answer were lost.
func (c *Claimer) uses(worker int64) []store.TargetUse {
	if c.opt.Targets == nil {
		return nil
	}
	if worker == 0 {
		c.settle(nil, queue.ErrLeaseLost)
	}
	uses := c.opt.Targets.Uses()
	if worker == 0 {
		for i := range uses {
			uses[i].Keep, uses[i].Want = 0, 0
		}
	}
	return uses
}

// settle tells the targets how a heartbeat ended.
func (c *Claimer) settle(shares []store.TargetShare, err error) {
	if c.opt.Targets != nil {
		c.opt.Targets.Settle(shares, err)
	}
}
