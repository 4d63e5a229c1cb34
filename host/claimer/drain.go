package claimer

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Stop cancels this host's run of id, if there is one, with cause.
func (c *Claimer) Stop(id queue.ID, cause error) {
	c.mu.Lock()
	run := c.runs[id]
	c.mu.Unlock()
	if run != nil {
		run.cancel(cause)
	}
}

// stopAll cancels every run with cause.
func (c *Claimer) stopAll(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, run := range c.runs {
		run.cancel(cause)
	}
}

// stopHeld cancels with cause every run that others may take over now.
func (c *Claimer) stopHeld(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, run := range c.runs {
		if run.bare == nil {
			run.cancel(cause)
		}
	}
}

// How long a shutdown waits: for runs to stop and be handed back, for that
// after a second signal, and for runs that do not stop.
const (
	handBackGrace = 5 * time.Second
	hardGrace     = 2 * time.Second
)

// drain waits for the runs, then hands the rest back. It ends even when the
// database is away or a guest does not stop.
func (c *Claimer) drain(hard context.Context) {
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	if within(c.opt.Drain, done, hard.Done()) {
		return
	}
	c.mu.Lock()
	c.shutting = true
	c.mu.Unlock()
	c.stopAll(queue.ErrShutdown)
	if within(handBackGrace, done, hard.Done()) || within(hardGrace, done, nil) {
		return
	}
	c.endWrites()
	if !within(hardGrace, done, nil) {
		c.opt.Logger.Error("work does not stop; others will take it over", "requests", c.Running())
	}
}

// within waits up to d for done, or for early, and reports whether done came.
func within(d time.Duration, done, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-early:
	case <-timer.C:
	}
	select {
	case <-done:
		return true
	default:
		return false
	}
}

func (c *Claimer) leave() {
	if c.lease.id() == 0 {
		return // it never joined
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := c.store.Heartbeat(ctx, store.Beat{Worker: c.lease.id(), Leave: true})
	if err != nil && !errors.Is(err, context.Canceled) {
		c.opt.Logger.Warn("leave", "error", err)
	}
	c.settle(nil, queue.ErrLeaseLost)
}
