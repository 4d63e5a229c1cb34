package claimer

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Run is one request that runs on this host.
type Run struct {
	claim   queue.Claim
	ctx     context.Context
	cancel  context.CancelCauseFunc
	queued  bool
	bare    *bare // it has no row; nil: it has one
	vacated bool  // of a queued one: its place is given back
	began   time.Time
	due     time.Time // its deadline; zero: none
	done    chan struct{}
	outcome queue.Outcome // once done is closed
	err     error
}

// Wait returns the outcome once it is committed. The error wraps
// queue.ErrLeaseLost when this host ended its run and the request did not end
// with it, or ctx's error.
func (r *Run) Wait(ctx context.Context) (queue.Outcome, error) {
	select {
	case <-r.done:
		return r.outcome, r.err
	case <-ctx.Done():
		return queue.Outcome{}, ctx.Err()
	}
}

func newRun(claim queue.Claim, queued bool) *Run {
	ctx, cancel := context.WithCancelCause(context.Background())
	run := &Run{claim: claim, ctx: ctx, cancel: cancel, queued: queued, began: time.Now(), done: make(chan struct{})}
	if claim.Remaining > 0 {
		run.due = run.began.Add(claim.Remaining)
	}
	return run
}

// start runs a claim of worker, whose place is taken, on a goroutine of its own.
func (c *Claimer) start(claim queue.Claim, worker int64, queued bool) *Run {
	run := newRun(claim, queued)
	c.mu.Lock()
	c.runs[claim.ID] = run
	if c.shutting {
		run.cancel(queue.ErrShutdown)
	}
	c.mu.Unlock()
	if !c.lease.live() || c.lease.id() != worker {
		run.cancel(queue.ErrFenced)
	}
	go c.run(run)
	return run
}

func (c *Claimer) run(r *Run) {
	if r.bare == nil || c.opt.Room(r.claim.Served()) >= 0 {
		defer c.Wake() // its lane may have a slot again, or its target
	}
	defer c.end(r)
	began := time.Now()
	r.outcome, r.err = c.execute(r)
	r.cancel(nil)
	c.mu.Lock()
	if c.runs[r.claim.ID] == r { // a later attempt may run here already
		delete(c.runs, r.claim.ID)
	}
	c.mu.Unlock()
	close(r.done)
	defer c.record(r)
	level := hclog.Info
	if !r.queued {
		level = hclog.Debug // the front that waits for it logs it
	}
	what, err := "request ended", r.err
	if errors.Is(err, errGoesOn) {
		what, err = "request goes on later", nil
	}
	c.opt.Logger.Log(level, what, "request", r.claim.ID, "tenant", r.claim.Tenant, "model", r.claim.Model,
		"path", r.claim.Path, "attempt", r.claim.Attempt, "state", r.outcome.To, "class", r.outcome.Class,
		"failures", r.claim.Failures+r.outcome.Failures, "reaps", r.claim.Reaps,
		"ms", time.Since(began).Milliseconds(), "error", err)
}

// errGoesOn is told to who waits for a run whose request it did not end: it was
// put off, or handed back.
var errGoesOn = errors.New("it goes on later")

// execute takes one claim, which its row says has begun, to a committed outcome.
func (c *Claimer) execute(r *Run) (queue.Outcome, error) {
	ctx := r.ctx
	if r.queued && ctx.Err() != nil {
		return c.finish(r, unbegun(context.Cause(ctx)))
	}
	if !r.due.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, r.due, queue.ErrDeadline)
		defer cancel()
	}
	ending, err := c.process(ctx, r.claim)
	c.vacate(r)
	if err != nil {
		ending = c.broken(r.claim, ending, err)
	}
	return c.finish(r, ending)
}

// vacate gives the place of a queued run to another claim: its processing has
// ended. What it leaves to be written is bounded by maxBacklog.
func (c *Claimer) vacate(r *Run) {
	if !r.queued || r.vacated {
		return
	}
	c.mu.Lock()
	r.vacated = true // room reads it, too
	c.queued--
	c.mu.Unlock()
	c.Wake()
}

// end gives back what a run still has.
func (c *Claimer) end(r *Run) {
	if !r.queued {
		c.dismiss()
		return
	}
	c.vacate(r)
	c.wg.Done()
}

// unbegun is the ending of a claim that was stopped before its processing began.
func unbegun(cause error) store.Ending {
	o := queue.Outcome{To: queue.Pending, By: queue.ByHandBack}
	if errors.Is(cause, queue.ErrCanceled) || errors.Is(cause, queue.ErrClientGone) {
		o = queue.CanceledBy(cause)
	}
	return store.Ending{Outcome: o}
}

// process calls the processor; a panic is an error of this host.
func (c *Claimer) process(ctx context.Context, claim queue.Claim) (e store.Ending, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.opt.Logger.Error("processor panicked", "request", claim.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("claimer: processor panicked")
		}
	}()
	return c.proc.Process(ctx, claim)
}

// broken is the ending of a claim that this host could not process: another
// try, on any host, until the request's failures are spent. What was used is kept.
func (c *Claimer) broken(claim queue.Claim, left store.Ending, err error) store.Ending {
	c.opt.Logger.Error("process", "request", claim.ID, "error", err)
	o := queue.Outcome{
		To: queue.Waiting, By: queue.ByRetry, Class: queue.HostError,
		Delay: jitter(time.Second << min(claim.Failures, 5)), Failures: 1,
	}
	if claim.Failures+1 >= c.opt.MaxFailures || claim.Realtime {
		o = queue.Outcome{
			To: queue.Failed, By: queue.ByOutcome, Class: queue.HostError, Status: 500,
			Code: "server_error", Message: "The host could not process the request.",
		}
	}
	return store.Ending{Outcome: o, Rest: store.Write{Usage: left.Rest.Usage}}
}

// finish is the one place that ends a claim.
func (c *Claimer) finish(r *Run, e store.Ending) (queue.Outcome, error) {
	if r.bare != nil {
		return c.handOut(r, e), nil
	}
	var err error
	if e.Outcome.To == queue.Canceled {
		err = c.letGo(r, e.Rest.Usage)
	} else {
		w := e.Rest
		w.Fence, w.Move = r.claim.Fence(), e.Move()
		w.Failures += e.Outcome.Failures
		err = c.write(w)
	}
	if e.Done != nil {
		e.Done(err == nil)
	}
	switch {
	case err != nil && !errors.Is(err, queue.ErrLeaseLost) && c.writes.Err() == nil:
		return c.giveUp(r, e, err)
	case err != nil:
		return e.Outcome, c.lost(r, err)
	case !e.Outcome.To.Final():
		return e.Outcome, fmt.Errorf("claimer: request %s is %s: %w: %w", r.claim.ID, e.Outcome.To, errGoesOn, queue.ErrLeaseLost)
	}
	return e.Outcome, nil
}

// giveUp ends a claim whose outcome the database does not take: a bare failure
// in place of it, so that the request does not hang for ever.
func (c *Claimer) giveUp(r *Run, e store.Ending, cause error) (queue.Outcome, error) {
	c.opt.Logger.Error("the outcome cannot be written", "request", r.claim.ID, "state", e.Outcome.To, "error", cause)
	o := queue.Outcome{
		To: queue.Failed, By: queue.ByOutcome, Class: queue.HostError, Status: 500,
		Code: "server_error", Message: "The outcome of the request could not be stored.",
	}
	err := c.write(store.Write{
		Fence: r.claim.Fence(), Usage: e.Rest.Usage,
		Move: &store.Move{To: o.To, By: o.By, Class: o.Class, Code: o.Code},
	})
	if err != nil {
		return o, c.lost(r, err)
	}
	return o, nil
}

// write commits w even when the run was told to stop: how it stopped must be
// known. The store keeps it while the database is away; a shutdown ends that.
func (c *Claimer) write(w store.Write) error { return c.store.Write(c.writes, w) }

// lost handles a write that was refused. A canceled request is let go of, so
// that its slot is free.
func (c *Claimer) lost(r *Run, err error) error {
	var lost *store.LeaseLost
	if !errors.As(err, &lost) {
		c.opt.Logger.Error("write", "request", r.claim.ID, "error", err)
		return err
	}
	c.late.Add(1)
	if lost.State == queue.Canceled && lost.Attempt == r.claim.Attempt {
		if err := c.letGo(r, nil); err != nil && !errors.Is(err, queue.ErrLeaseLost) {
			c.opt.Logger.Warn("let go of a canceled request", "request", r.claim.ID, "error", err)
		}
	}
	return err
}

// letGo frees the slot of a canceled request whose run has ended. If the row
// is not canceled yet, since the front could not reach the database, it is now.
func (c *Claimer) letGo(r *Run, usage []store.Usage) error {
	gone := store.Write{
		Fence: queue.Fence{ID: r.claim.ID, Attempt: r.claim.Attempt, State: queue.Canceled}, LetGo: true, Usage: usage,
	}
	err := c.write(gone)
	var found *store.LeaseLost
	if !errors.As(err, &found) || found.State != r.claim.State || found.Attempt != r.claim.Attempt {
		return err
	}
	err = c.write(store.Write{
		Fence: r.claim.Fence(), Move: &store.Move{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled},
	})
	if err != nil {
		return err
	}
	return c.write(gone)
}
