package claimer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// lease is this host's right to run what it claimed, measured on its own
// monotonic clock from before each heartbeat was sent.
type lease struct {
	length time.Duration

	mu      sync.Mutex
	worker  int64
	until   time.Time // the host stops its work at this time
	healthy time.Time // heartbeats have succeeded without a break since
	unwell  bool
	over    bool // expired has told
}

func newLease(length time.Duration) *lease { return &lease{length: length} }

func (l *lease) id() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker
}

// live reports whether there is a lease with time left.
func (l *lease) live() bool { return l.left() > 0 }

// left is how long the host may go on; 0 or less when it may not.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker == 0 {
		return 0
	}
	return time.Until(l.until)
}

// expired reports, once for each lease, that it ran out.
func (l *lease) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker == 0 || l.over || time.Now().Before(l.until) {
		return false
	}
	l.over = true
	return true
}

// renewed notes a heartbeat that was sent at sent and succeeded.
func (l *lease) renewed(worker int64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker != worker || l.unwell || sent.After(l.until) {
		l.healthy, l.unwell = sent, false
	}
	l.worker, l.over = worker, false
	l.until = sent.Add(l.length - l.length/4)
}

// failed notes a heartbeat that did not succeed.
func (l *lease) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unwell = true
}

// lose forgets the worker.
func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worker, l.until, l.unwell = 0, time.Time{}, true
}

// mayReap reports whether heartbeats have succeeded for a whole lease and the
// grace time, up to now: a host that was away itself cannot tell who is dead.
func (l *lease) mayReap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker != 0 && !l.unwell && time.Now().Before(l.until) && time.Since(l.healthy) > l.length+l.length/4
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

// beats prolongs the lease until ctx ends, and tries faster while it cannot.
func (c *Claimer) beats(ctx context.Context) {
	pause := c.opt.Lease / 4
	for sleep(ctx, pause) {
		pause = c.opt.Lease / 4
		if err := c.beat(ctx, c.lease.id()); err != nil && ctx.Err() == nil {
			c.lease.failed()
			c.opt.Logger.Warn("heartbeat", "error", err, "left_ms", c.lease.left().Milliseconds())
			pause = c.opt.Lease / 20
		}
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
				c.stopAll(queue.ErrFenced)
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
	sent := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.opt.Lease/4)
	defer cancel()
	c.mu.Lock()
	draining := c.stopping
	c.mu.Unlock()
	pulse, err := c.store.Heartbeat(ctx, store.Beat{
		Worker: worker, Host: c.opt.Host, Version: c.opt.Version, Lease: c.opt.Lease, Draining: draining,
	})
	if err != nil {
		return err
	}
	if pulse.Lost {
		c.opt.Logger.Error("this worker was given up for dead: its work stops and it joins again", "worker", worker)
		c.lease.lose()
		c.stopAll(queue.ErrLeaseLost)
		if worker == 0 {
			return errors.New("claimer: a new worker was refused")
		}
		return c.beat(context.WithoutCancel(ctx), 0)
	}
	c.lease.renewed(pulse.Worker, sent)
	c.compare(pulse.Held)
	return nil
}

// sweeps moves on what time alone moves.
func (c *Claimer) sweeps(ctx context.Context) {
	for sleep(ctx, jitter(c.opt.Poll)) {
		swept, err := c.store.Sweep(ctx, store.SweepRequest{
			Reap: c.lease.mayReap(), Grace: c.opt.Lease / 4, MaxReaps: c.opt.MaxReaps,
		})
		if err != nil {
			if ctx.Err() == nil {
				c.opt.Logger.Warn("sweep", "error", err)
			}
			continue
		}
		if swept.Reaped+swept.Lost > 0 {
			c.opt.Logger.Warn("reaped requests of dead workers", "continued", swept.Reaped, "failed", swept.Lost)
		}
		if swept.Promoted > 0 {
			c.Wake()
		}
	}
}

// sleep waits for d and reports whether ctx still lasts.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// jitter spreads d over [3/4 d, 5/4 d], so that hosts do not beat in step.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
