package api

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// drained is how long an unlogged stream outlives its run at most: what the
// run published last has long arrived by then.
const drained = 2 * time.Second

// errRunOver: the run of an unlogged request ended, so no event will follow.
var errRunOver = errors.New("api: the run is over")

// watcher follows the run of an unlogged request beside its stream, since no
// log tells how it ended.
type watcher struct {
	ctx    context.Context // ends with its parent, or some time after the run with errRunOver
	cancel context.CancelCauseFunc
	over   chan struct{} // closed when end is set
	end    queue.Outcome
	gone   chan struct{} // closed when the goroutine is gone
}

// watch starts a watcher; stop must be called.
func watch(parent context.Context, run Run) *watcher {
	w := &watcher{over: make(chan struct{}), gone: make(chan struct{})}
	w.ctx, w.cancel = context.WithCancelCause(parent)
	go func() {
		defer close(w.gone)
		w.follow(run)
	}()
	return w
}

func (w *watcher) follow(run Run) {
	o, err := run.Wait(w.ctx)
	switch {
	case w.ctx.Err() != nil:
		return
	case errors.Is(err, queue.ErrLeaseLost), err == nil && !o.To.Final():
		o = queue.Outcome{To: queue.Failed, Class: queue.WorkerLost}
	case err != nil:
		o = queue.Outcome{To: queue.Failed, Class: queue.HostError}
	}
	w.end = o
	close(w.over)
	timer := time.NewTimer(drained)
	defer timer.Stop()
	select {
	case <-timer.C:
		w.cancel(errRunOver)
	case <-w.ctx.Done():
	}
}

// outcome returns how the run ended. It is called when its stream has ended,
// so the outcome is there or about to be; a run that keeps it back is lost.
func (w *watcher) outcome() queue.Outcome {
	timer := time.NewTimer(drained)
	defer timer.Stop()
	select {
	case <-w.over:
	case <-w.gone:
	case <-timer.C:
	}
	select {
	case <-w.over:
		return w.end
	default:
		return queue.Outcome{To: queue.Failed, Class: queue.WorkerLost}
	}
}

// stop ends the watching and waits for its goroutine.
func (w *watcher) stop() {
	w.cancel(nil)
	<-w.gone
}
