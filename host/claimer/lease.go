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
}

func newLease(length time.Duration) *lease { return &lease{length: length} }

func (l *lease) id() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker
}

// live reports whether there is a lease with time left.
func (l *lease) live() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker != 0 && time.Now().Before(l.until)
}

// fenced reports whether the host had a lease and let it run out.
func (l *lease) fenced() bool { return !l.live() }

// renewed notes a heartbeat that was sent at sent and succeeded.
func (l *lease) renewed(worker int64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker != worker || l.unwell {
		l.healthy, l.unwell = sent, false
	}
	l.worker = worker
	l.until = sent.Add(l.length - l.length/4)
}

// failed notes a heartbeat that did not succeed, and returns how long the host
// may go on.
func (l *lease) failed() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unwell = true
	return time.Until(l.until)
}

// lose forgets the worker.
func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worker, l.until, l.unwell = 0, time.Time{}, true
}

// mayReap reports whether heartbeats have succeeded for a whole lease and the
// grace time: a host that was away itself cannot tell who is dead.
func (l *lease) mayReap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker != 0 && !l.unwell && time.Since(l.healthy) > l.length+l.length/4
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

// beats prolongs the lease until ctx ends. A host that cannot stops its work
// before others may reap it.
func (c *Claimer) beats(ctx context.Context) {
	for sleep(ctx, c.opt.Lease/4) {
		err := c.beat(ctx, c.lease.id())
		if err == nil || ctx.Err() != nil {
			continue
		}
		left := c.lease.failed()
		c.opt.Logger.Warn("heartbeat", "error", err, "left_ms", left.Milliseconds())
		c.rescue(ctx, left)
	}
}

// rescue beats quickly while the lease lasts, then fences the host.
func (c *Claimer) rescue(ctx context.Context, left time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	for sleep(ctx, c.opt.Lease/20) {
		if c.beat(ctx, c.lease.id()) == nil {
			return
		}
	}
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	c.opt.Logger.Error("no heartbeat within the lease: all work of this host stops")
	c.stopAll(queue.ErrFenced)
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
	for _, id := range pulse.Canceled {
		c.canceled(ctx, id)
	}
	return nil
}

// canceled stops a run that the store says was canceled. One that no longer
// runs here failed to let go when it ended: that is made up for.
func (c *Claimer) canceled(ctx context.Context, id queue.ID) {
	c.mu.Lock()
	run := c.runs[id]
	c.mu.Unlock()
	if run != nil {
		run.cancel(queue.ErrCanceled)
		return
	}
	r, err := c.store.Get(ctx, "", id, store.Parts{})
	if err == nil && r.State == queue.Canceled && r.Worker == c.lease.id() {
		c.letGo(id, r.Attempt)
	}
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
