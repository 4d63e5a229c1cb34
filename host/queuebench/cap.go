package queuebench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// CapCheck is a lane with a cap, and how many of its requests ran in samples
// that were taken meanwhile.
type CapCheck struct {
	Cap, Workers int
	Requests     int
	Samples      int
	Over         int // samples in which more ran than may
	Highest      int
	Drift        int // of the counter from the rows, after the end
}

const (
	capSlots   = 20
	capWorkers = 8
	capClaim   = 5
)

// CheckCap has eight workers share a lane with a cap of 20.
func CheckCap(ctx context.Context, d store.Driver, requests int) (CapCheck, error) {
	load := Load{Tenants: 1, Models: 1, Prefix: "capped-"}
	c := CapCheck{Cap: capSlots, Workers: capWorkers, Requests: requests}
	limits := store.Limits{Lanes: []queue.Lane{{Tenant: load.whale(), Model: load.model(0), Cap: capSlots}}}
	if err := store.New(d, store.Options{}).SetLimits(ctx, limits); err != nil {
		return c, err
	}
	if err := load.FillTo(ctx, d, requests); err != nil {
		return c, err
	}
	// It ends when all is done, or when one of them meets an error.
	run, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	left := atomic.Int64{}
	left.Store(int64(requests))
	var wg sync.WaitGroup
	for range capWorkers {
		wg.Go(func() {
			worker, err := join(run, d)
			if err == nil {
				err = drain(run, d, worker, load.Names(), capClaim, nil, &left, nil)
			}
			if err != nil {
				stop(err)
			}
		})
	}
	wg.Go(func() {
		for run.Err() == nil && left.Load() > 0 {
			if err := c.sample(run, d); err != nil {
				stop(err)
			}
		}
	})
	wg.Wait()
	if err := context.Cause(run); err != nil {
		return c, err
	}
	s, err := d.Stats(ctx)
	for _, l := range s.Lanes {
		c.Drift += abs(l.Running - l.Owned)
	}
	return c, err
}

func (c *CapCheck) sample(ctx context.Context, d store.Driver) error {
	s, err := d.Stats(ctx)
	if err != nil {
		return err
	}
	if len(s.Lanes) == 0 {
		return errors.New("the lane with the cap is not there")
	}
	c.Samples++
	c.Highest = max(c.Highest, s.Lanes[0].Owned)
	if s.Lanes[0].Owned > c.Cap {
		c.Over++
	}
	return nil
}

func abs(n int) int { return max(n, -n) }
