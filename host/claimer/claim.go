package claimer

import (
	"context"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// maxClaim bounds one claim: past 100 rows batching gains little.
const maxClaim = 100

// maxBacklog is how many writes may wait for the database before claiming stops.
const maxBacklog = 2000

// settling is how long requests that were claimed may take to show in the room
// of their model.
const settling = 100 * time.Millisecond

// Between claims that find nothing: at first. The wait doubles up to a part of
// Options.Poll.
const leastPause = 20 * time.Millisecond

// gathering is how long a host most of whose slots are taken waits for more of
// them to become free, so that one claim fills them.
const gathering = 5 * time.Millisecond

func (c *Claimer) claims(ctx context.Context) {
	pause := leastPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		c.gather(ctx, timer)
		n, more := c.cycle(ctx)
		if n > 0 {
			pause = leastPause
		}
		if more {
			continue
		}
		wait := jitter(pause)
		if c.settled > 0 {
			wait = min(wait, c.settled)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-c.wake:
			pause = leastPause
		case <-timer.C:
			pause = min(2*pause, max(leastPause, c.opt.Poll*2/5))
		}
	}
}

// gather waits until half of the slots are free, for a moment at most.
func (c *Claimer) gather(ctx context.Context, timer *time.Timer) {
	timer.Reset(gathering)
	for free := c.free(); free > 0 && free < c.opt.Slots/2; free = c.free() {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
			return
		}
	}
}

// cycle claims what fits and starts it. It returns how many it got, and whether
// there may be more.
func (c *Claimer) cycle(ctx context.Context) (n int, more bool) {
	c.settled = 0
	if ctx.Err() != nil || !c.lease.live() || !c.store.Healthy() || c.store.Backlog() > maxBacklog || c.free() <= 0 {
		return 0, false
	}
	wants := c.wants()
	for i := range wants {
		w := wants[(c.turn+i)%len(wants)]
		if w.N = min(w.N, c.free(), maxClaim); w.N <= 0 {
			continue
		}
		got := c.claim(ctx, w)
		n += got
		more = more || got == w.N
	}
	c.turn++
	return n, more
}

// free is how many more queued requests may run here.
func (c *Claimer) free() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opt.Slots - c.queued
}

// wants lists the claims of one cycle: one for all models with any room, and one
// for each whose room is bounded, since a claim does not bound each model.
func (c *Claimer) wants() []store.ClaimRequest {
	models, only := c.opt.Models()
	escalate := c.opt.Escalate()
	all := store.ClaimRequest{N: maxClaim, Escalate: escalate}
	var wants []store.ClaimRequest
	for _, m := range models {
		if slices.Contains(only, m) {
			continue
		}
		switch room := c.room(m); {
		case room < 0:
			all.Models = append(all.Models, m)
		case room > 0:
			wants = append(wants, store.ClaimRequest{Models: []string{m}, N: room, Escalate: escalate})
		}
	}
	for _, m := range only {
		if _, ok := escalate[m]; ok {
			all.Models, all.OnlyEscalate = append(all.Models, m), append(all.OnlyEscalate, m)
		}
	}
	if len(all.Models) > 0 {
		wants = append(wants, all)
	}
	return wants
}

// room is how many requests of a model may be claimed now, -1: any number.
// Those that were claimed a moment ago and still run may not show in it yet.
func (c *Claimer) room(model string) int {
	room := c.opt.Room(model)
	if room <= 0 {
		return room
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.runs {
		if age := time.Since(r.began); r.queued && !r.vacated && r.claim.Served() == model && age < settling {
			if left := settling - age; c.settled == 0 || left < c.settled {
				c.settled = left
			}
			room--
		}
	}
	return max(room, 0)
}

// claim claims and starts up to w.N requests; it returns how many.
func (c *Claimer) claim(ctx context.Context, w store.ClaimRequest) int {
	w.Worker, w.Start = c.lease.id(), true
	// The answer of a claim that is under way is waited for: without it, nobody
	// would know what was claimed before the lease ends.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opt.Lease/4)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		late := time.AfterFunc(time.Second, cancel)
		context.AfterFunc(asking, func() { late.Stop() })
	})()
	claims, err := c.store.Claim(asking, w)
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
		run := c.start(claim, w.Worker, true)
		if ctx.Err() != nil { // claimed when the shutdown began
			run.cancel(queue.ErrShutdown)
		}
	}
	return len(claims)
}
