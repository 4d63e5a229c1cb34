package claimer

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// compare holds the rows that name this worker against what runs here. A
// canceled one is stopped. One that has run nowhere for about a heartbeat's
// period is a stray: the answer to its claim or the write of its outcome was
// lost. As long as this host lives, nobody else would end it. Sent is when the
// heartbeat was sent that named them; its answer may have taken long, and what
// it names may be no older than that.
func (c *Claimer) compare(held []store.Held, sent time.Time) {
	var strays []store.Held
	unknown, now := map[queue.Fence]time.Time{}, time.Now()
	c.mu.Lock()
	for _, h := range held {
		run := c.runs[h.ID]
		switch {
		case run == nil || run.claim.Attempt != h.Attempt:
			since, known := c.unknown[h.Fence]
			switch {
			case !known:
				since = now
			case sent.Sub(since) >= c.opt.Lease/5:
				strays = append(strays, h)
				since = now // it is tried again after as long
			}
			unknown[h.Fence] = since
		case h.State == queue.Canceled:
			run.cancel(queue.ErrCanceled)
		}
	}
	c.unknown = unknown
	c.mu.Unlock()
	for _, h := range strays {
		c.tidying.Go(func() { c.endStray(h) })
	}
}

// endStray gives a stray back to the queue, or ends it.
func (c *Claimer) endStray(h store.Held) {
	w := store.Write{Fence: h.Fence}
	switch {
	case h.State == queue.Canceled:
		w.LetGo = true
	case h.Alone:
		w.Move = &store.Move{To: queue.Failed, By: queue.ByOutcome, Class: queue.WorkerLost, Code: string(queue.WorkerLost)}
	default:
		w.Move = &store.Move{To: queue.Pending, By: queue.ByHandBack}
	}
	ctx, cancel := context.WithTimeout(c.writes, c.opt.Lease)
	defer cancel()
	err := c.store.Write(ctx, w)
	if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
		c.opt.Logger.Warn("end a request that nothing here runs", "request", h.ID, "state", h.State, "error", err)
		return
	}
	c.opt.Logger.Warn("a request named this host but ran nowhere", "request", h.ID, "state", h.State, "attempt", h.Attempt)
}
