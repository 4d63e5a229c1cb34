package claimer

import (
	"context"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// bare is what becomes of a run that has no row.
type bare struct {
	insert queue.New
	row    bool        // it gets one when it has ended
	write  store.Write // once it has ended
}

// Perform runs the realtime request of w.Insert here without a row: nothing is
// written before it begins, and its outcome is handed out before anything is
// written. With row it is then inserted as it ended; without, only what it used
// is kept. It holds no slot of its lane or of its tenant, so where one of them
// has a cap, use Submit. It goes on when the lease runs out: nobody could take it
// over. What it cannot write is lost, and counted: see Unrecorded. The error is
// an *Unavailable, or says that ctx has ended.
func (c *Claimer) Perform(ctx context.Context, w store.Write, row bool) (*Run, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := c.admit(); err != nil {
		return nil, err
	}
	n := *w.Insert
	n.Worker = c.lease.id()
	claim := submitted(n)
	claim.Remaining = n.DeadlineIn
	return c.launch(claim, &bare{insert: n, row: row}), nil
}

// launch starts a run without a row.
func (c *Claimer) launch(claim queue.Claim, b *bare) *Run {
	run := newRun(claim, false)
	run.bare = b
	c.mu.Lock()
	c.runs[claim.ID] = run
	if c.shutting {
		run.cancel(queue.ErrShutdown)
	}
	c.mu.Unlock()
	go c.run(run)
	return run
}

// handOut ends a run without a row, and notes what is to be written of it.
func (c *Claimer) handOut(r *Run, e store.Ending) queue.Outcome {
	if !e.Outcome.To.Final() { // there is no row that could go on
		e.Outcome = queue.Outcome{
			To: queue.Failed, By: queue.ByOutcome, Class: queue.HostError, Status: 500,
			Code: "server_error", Message: "The host could not process the request.",
		}
	}
	b := r.bare
	if b.row {
		b.write = e.Rest
		b.write.Insert, b.write.Move = &b.insert, e.Move()
		b.write.Failures += e.Outcome.Failures
		b.write.Took = time.Since(r.began)
		if !b.insert.Store { // neither is kept: they need not wait for the database
			b.insert.Body, b.write.Move.Result = nil, nil
		}
	} else {
		b.write = store.Write{Rowless: true, Fence: r.claim.Fence(), Usage: e.Rest.Usage}
	}
	if e.Done != nil {
		e.Done(true)
	}
	return e.Outcome
}

// record queues what a run without a row leaves. While the queue of writes is
// full, the run keeps its place, so that no more is begun than can be written.
func (c *Claimer) record(r *Run) {
	if r.bare == nil || (!r.bare.row && len(r.bare.write.Usage) == 0) {
		return
	}
	c.store.WriteAsync(c.writes, r.bare.write, func(err error) {
		if err != nil {
			c.unrecorded.Add(1)
			c.opt.Logger.Warn("a request that ended could not be recorded", "request", r.claim.ID,
				"tenant", r.claim.Tenant, "model", r.claim.Model, "error", err)
		}
	})
}

// Unrecorded returns how many requests ended of which nothing could be written.
func (c *Claimer) Unrecorded() uint64 { return c.unrecorded.Load() }
