package claimer

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/casemate/casemate/host/store"
)

// sweeps moves on what time alone moves.
func (c *Claimer) sweeps(ctx context.Context) {
	for sleep(ctx, jitter(c.opt.Poll)) {
		swept, err := c.sweep(ctx)
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

func (c *Claimer) sweep(ctx context.Context) (store.Swept, error) {
	ctx, cancel := context.WithTimeout(ctx, max(c.opt.Lease, leastSweep))
	defer cancel()
	return c.store.Sweep(ctx, store.SweepRequest{
		Reap: c.lease.mayReap(), Grace: c.lease.grace(), MaxReaps: c.opt.MaxReaps, Keep: c.opt.Keep,
	})
}

// leastSweep is what a sweep may take at least: what it has moved when its time
// is up stays moved.
const leastSweep = 20 * time.Second

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
