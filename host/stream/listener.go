package stream

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Listener receives the events of one response, in order, each once. It is for
// one goroutine.
type Listener struct {
	h    *Hub
	t    *topic
	wake chan struct{}

	// The rest is guarded by t.mu.
	next    int64
	buf     []response.Event // read from the log, not yet returned
	done    bool             // the log said that nothing follows buf
	err     error            // ends the listener
	synced  int              // the epoch whose producer publishes everything that follows
	urgent  bool             // its next read of the log does not wait for the poll
	barren  bool             // the last read of the log brought nothing
	unknown time.Time        // since when the log does not know the request
}

// poke makes Next look again.
func (l *Listener) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Next returns the events that follow those it returned last, at least one, as
// soon as there are any. The error is io.EOF when the request is in a final
// state and everything was returned; io.ErrUnexpectedEOF when the run of an
// unlogged request ended here and will not be heard of again; ErrOverrun,
// ErrGap, ErrStopped; queue.ErrNotFound when nobody knows the request;
// or the context's.
func (l *Listener) Next(ctx context.Context) ([]response.Event, error) {
	defer l.h.tails.remove(l)
	for {
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("stream: %s: %w", l.t.id, err)
		}
		events, need, err := l.take()
		if err != nil || len(events) > 0 {
			return events, err
		}
		if need {
			if err := l.h.tails.add(l); err != nil {
				return nil, fmt.Errorf("stream: %s: %w", l.t.id, err)
			}
		} else {
			l.h.tails.remove(l)
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
		}
	}
}

// Close lets go of the listener.
func (l *Listener) Close() {
	l.h.tails.remove(l)
	l.t.detach(l)
	l.h.drop(l.t)
}

// take returns what can be returned now, or an error; need: only the log can
// bring more.
func (l *Listener) take() (events []response.Event, need bool, err error) {
	t := l.t
	t.mu.Lock()
	defer t.mu.Unlock()
	events = l.buf
	if l.buf = nil; len(events) == 0 {
		events = t.from(l.next)
	}
	if len(events) > 0 {
		l.next, l.barren = events[len(events)-1].Seq+1, false
		return events, false, nil
	}
	behind := t.known && l.next < t.base
	live := t.producer != nil
	switch {
	case l.err != nil:
		return nil, false, fmt.Errorf("stream: %s: %w", t.id, l.err)
	case l.done:
		return nil, false, io.EOF
	case t.epoch > 0 && !t.logged:
		return nil, false, l.unlogged(behind)
	case t.final && t.known && !behind:
		return nil, false, io.EOF
	case live && t.known && !behind, live && !t.known && l.synced == t.epoch:
		return nil, false, nil // memory will bring it
	}
	// What memory has let go of is in the log already; should the log not show
	// it, asking again at once would not help.
	l.urgent = l.urgent || live && !l.barren
	return nil, true, nil
}

// unlogged is how a listener of a response without a log stands once memory
// has nothing for it; nil: more will come.
func (l *Listener) unlogged(behind bool) error {
	switch {
	case behind:
		return fmt.Errorf("stream: %s: %w", l.t.id, ErrOverrun)
	case l.t.producer != nil:
		return nil
	case l.t.final:
		return io.EOF
	}
	return fmt.Errorf("stream: %s: %w", l.t.id, io.ErrUnexpectedEOF)
}

// deliver hands l what a read of the log found. full: there may be more at
// once; epoch is that of the producer that was open when the read began, 0
// none.
func (l *Listener) deliver(tail store.Tail, found, full bool, epoch int, unknown time.Duration) {
	t := l.t
	t.mu.Lock()
	defer t.mu.Unlock()
	defer l.poke()
	if !found {
		l.urgent, l.barren = false, true
		switch now := time.Now(); {
		case l.unknown.IsZero():
			l.unknown = now
		case now.Sub(l.unknown) >= unknown:
			l.err = queue.ErrNotFound
		}
		return
	}
	l.unknown = time.Time{}
	events := tail.Events
	for len(events) > 0 && events[0].Seq < l.next {
		events = events[1:]
	}
	if len(events) > 0 && events[0].Seq > l.next {
		l.err = ErrGap
		return
	}
	l.buf, l.urgent, l.barren = events, full, len(events) == 0
	if !full {
		l.done = tail.State.Final()
		l.synced = epoch
	}
}
