package loop

import (
	"context"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
)

// emitter carries a response's events to the log and then to its listeners. A
// stored response's events are committed, under the claim's fence, before
// anyone sees them: deltas as soon as the last commit ended, and all that
// gather meanwhile share the next; the others with the step that they belong
// to. So do the deltas of a response that nobody asked to see grow. An
// unstored response's events go to the listeners at once.
type emitter struct {
	store    Store
	producer *stream.Producer
	fence    queue.Fence
	logged   bool
	live     bool                    // somebody may watch it grow: deltas do not wait for their step
	fail     context.CancelCauseFunc // told when the log refuses an event

	order sync.Mutex // held from taking the buffer until it is queued: seq order = commit order
	mu    sync.Mutex
	buf   []response.Event
	held  bool
	ready chan struct{}
	quit  chan struct{}
	wg    sync.WaitGroup
}

func newEmitter(s Store, p *stream.Producer, c queue.Claim, fail context.CancelCauseFunc) *emitter {
	e := &emitter{
		store: s, producer: p, fence: c.Fence(), logged: c.Store, live: c.Stream || c.Background, fail: fail,
		ready: make(chan struct{}, 1), quit: make(chan struct{}),
	}
	if e.logged && e.live {
		e.wg.Go(e.flush)
	}
	return e
}

// stream emits deltas. It never waits for the database.
func (e *emitter) stream(deltas []response.Event) {
	e.emit(deltas)
	if e.logged && e.live {
		select {
		case e.ready <- struct{}{}:
		default:
		}
	}
}

// emit emits events that commit with the next write, if they are logged.
func (e *emitter) emit(events []response.Event) {
	if len(events) == 0 {
		return
	}
	e.mu.Lock()
	if !e.logged && !e.held {
		e.mu.Unlock()
		e.producer.Publish(events)
		return
	}
	e.buf = append(e.buf, events...)
	e.mu.Unlock()
}

// hold keeps what is emitted from now on for the ending: nobody may see a
// terminal event of an outcome that is not committed.
func (e *emitter) hold() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held = true
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

// flush appends what has gathered, one commit after the other.
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
		done := e.send(store.Write{Fence: e.fence, Events: events})
		e.order.Unlock()
		if err := <-done; err != nil {
			e.fail(err)
			return
		}
	}
}

// commit writes w together with the events that have gathered, and waits.
func (e *emitter) commit(w store.Write) error {
	w.Fence = e.fence
	e.order.Lock()
	w.Events = e.take()
	done := e.send(w)
	e.order.Unlock()
	return <-done
}

// send queues a write; its events are shown once it is committed.
func (e *emitter) send(w store.Write) <-chan error {
	done := make(chan error, 1)
	e.store.WriteAsync(w, func(err error) {
		if err == nil {
			e.producer.Publish(w.Events)
		}
		done <- err
	})
	return done
}

// rest stops the flushing and returns what is not yet queued: it commits with
// the outcome. Nothing may be emitted afterwards.
func (e *emitter) rest() []response.Event {
	e.stop()
	return e.take()
}

func (e *emitter) stop() {
	select {
	case <-e.quit:
	default:
		close(e.quit)
	}
	e.wg.Wait()
}

// close ends the emitter. The producer was closed by the ending, if there is one.
func (e *emitter) close() { e.stop() }
