package loop

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
)

// emitter carries a response's events to the log and then to its listeners. A
// stored response's events are committed, under the claim's fence, before
// anyone sees them. Deltas are committed as soon as the last commit ended, and
// all that gather meanwhile share the next. All other events are part of the
// write that they belong to. The deltas of an unstored response go to the
// listeners at once, its other events after their write.
type emitter struct {
	store    Store
	producer *stream.Producer
	fence    queue.Fence
	logged   bool
	ctx      context.Context
	fail     context.CancelCauseFunc // told when the log refuses an event

	order sync.Mutex // held from taking the deltas until they are queued: seq order = commit order
	mu    sync.Mutex
	buf   []response.Event
	ready chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
}

func newEmitter(ctx context.Context, s Store, p *stream.Producer, c queue.Claim, fail context.CancelCauseFunc) *emitter {
	e := &emitter{
		store: s, producer: p, fence: c.Fence(), logged: c.Store, ctx: ctx,
		fail: fail, ready: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	if e.logged {
		e.wg.Go(e.flush)
	}
	return e
}

// deltas emits deltas. It never waits for the database.
func (e *emitter) deltas(events []response.Event) {
	if len(events) == 0 {
		return
	}
	if !e.logged {
		e.producer.Publish(events)
		return
	}
	e.mu.Lock()
	e.buf = append(e.buf, events...)
	e.mu.Unlock()
	select {
	case e.ready <- struct{}{}:
	default:
	}
}

// publish shows events that are committed already.
func (e *emitter) publish(events []response.Event) { e.producer.Publish(events) }

func (e *emitter) take() []response.Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	events := e.buf
	e.buf = nil
	return events
}

// flush appends the deltas that have gathered, one commit after the other.
func (e *emitter) flush() {
	for {
		select {
		case <-e.quit:
			return
		case <-e.ready:
		}
		e.order.Lock()
		events := e.take()
		if len(events) == 0 {
			e.order.Unlock()
			continue
		}
		done := e.send(e.ctx, store.Write{Fence: e.fence, Events: events})
		e.order.Unlock()
		if err := e.wait(done); err != nil {
			e.fail(err)
			return
		}
	}
}

// commit writes w, its events after the deltas that have gathered, and waits.
func (e *emitter) commit(w store.Write) error {
	w.Fence = e.fence
	e.order.Lock()
	w.Events = append(e.take(), w.Events...)
	done := e.send(e.ctx, w)
	e.order.Unlock()
	return e.wait(done)
}

// record writes w, which has no events, and waits until it is committed or ctx
// ends; then it may or may not have been.
func (e *emitter) record(ctx context.Context, w store.Write) error {
	w.Fence = e.fence
	done := e.send(ctx, w)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send queues a write, for which it waits until ctx ends at most; its events are
// shown once it is committed.
func (e *emitter) send(ctx context.Context, w store.Write) <-chan error {
	done := make(chan error, 1)
	events := w.Events
	if !e.logged {
		w.Events = nil
	}
	e.store.WriteAsync(ctx, w, func(err error) {
		if err == nil {
			e.producer.Publish(events)
		}
		done <- err
	})
	return done
}

// stopWait is how long a run that was told to stop waits for a commit that is
// under way: its outcome is worth knowing, but the database may be away.
const stopWait = time.Second

// errUnknown is a commit whose outcome a stopping run did not wait for.
var errUnknown = errors.New("loop: stopped before the database answered")

func (e *emitter) wait(done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-e.ctx.Done():
	}
	timer := time.NewTimer(stopWait)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errUnknown
	}
}

// rest ends the flushing and returns the deltas that are not queued yet. No
// step may run any more.
func (e *emitter) rest() []response.Event {
	e.close()
	return e.take()
}

// close ends the flushing.
func (e *emitter) close() {
	select {
	case <-e.quit:
	default:
		close(e.quit)
	}
	e.wg.Wait()
}
