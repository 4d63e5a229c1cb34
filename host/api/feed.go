package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
)

// settle is how long a stream's head waits for the first event, so that a
// request that ends before it can still be answered with its own status.
const settle = 200 * time.Millisecond

// feed is the event stream of one response on one connection.
type feed struct {
	a      *API
	out    sse
	tenant string
	id     queue.ID
	logged bool
	l      *stream.Listener
	after  int64 // where the stream began; -1: at the first event
	last   int64 // sequence number sent last, or after
	begun  bool  // the events up to after were read
	sent   []response.Event
	closed bool     // a terminal event was sent
	w      *watcher // of the run of an unlogged response; else nil
}

func (a *API) feed(x *exchange, id queue.ID, logged bool, after int64) *feed {
	return &feed{
		a: a, out: sse{x: x}, tenant: x.tenant.Name, id: id, logged: logged,
		l: a.Hub.Listen(id, after), after: after, last: after,
	}
}

// createStream submits a request and streams its events.
func (a *API) createStream(x *exchange, n queue.New, events []response.Event, queued bool) error {
	f := a.feed(x, n.ID, n.Store, -1)
	defer f.l.Close()
	ctx := x.r.Context()
	if queued {
		if err := a.Runner.Enqueue(ctx, n, events); err != nil {
			return err
		}
	} else {
		run, err := a.Runner.Submit(ctx, n, events)
		if err != nil {
			return err
		}
		x.attempt = 1
		if !n.Store {
			f.w = watch(ctx, run)
			defer f.w.stop()
			ctx = f.w.ctx
		}
	}
	err := f.run(ctx)
	gone := x.r.Context().Err() != nil || errors.Is(err, queue.ErrClientGone) || errors.Is(err, stream.ErrOverrun)
	if gone && !n.Background && !f.closed {
		return a.abandon(x, n)
	}
	return err
}

// run streams until the response ended or the connection did.
func (f *feed) run(ctx context.Context) error {
	wait := settle
	for {
		events, err := f.next(ctx, wait)
		switch {
		case err == nil:
			if err := f.send(events); err != nil || f.closed {
				return err
			}
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errRunOver):
			return f.end(ctx)
		case ctx.Err() != nil:
			return fmt.Errorf("api: %s: %w", f.id, queue.ErrClientGone)
		case errors.Is(err, context.DeadlineExceeded):
			if err := f.idle(ctx, wait); err != nil {
				return err
			}
		default:
			return err
		}
		if f.out.x.status != 0 {
			wait = f.a.Heartbeat
		}
	}
}

// next returns the next events, or an error that is context.DeadlineExceeded
// when there are none for a while.
func (f *feed) next(ctx context.Context, wait time.Duration) ([]response.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return f.l.Next(ctx)
}

// idle is called when nothing happened for a while: first the head goes out,
// then heartbeats do.
func (f *feed) idle(ctx context.Context, waited time.Duration) error {
	if f.out.x.status == 0 {
		return f.out.open()
	}
	if waited < f.a.Heartbeat {
		return nil
	}
	return f.beat(ctx)
}

// send writes events; after a terminal one the stream is complete.
func (f *feed) send(events []response.Event) error {
	for _, e := range events {
		kind := eventType(e.Data)
		if err := f.out.event(kind, e.Data); err != nil {
			return err
		}
		f.last, f.sent = e.Seq, append(f.sent, e)
		if terminal(kind) {
			f.closed = true
			f.out.x.state = stateOf(kind).String()
			return f.out.done()
		}
	}
	return nil
}

// beat repeats response.in_progress with what the client has been told so far.
// It is not logged, and repeats the last sequence number: clients that count
// comments for nothing count it as a sign of life.
func (f *feed) beat(ctx context.Context) error {
	if err := f.prefix(ctx); err != nil {
		f.a.Logger.Warn("heartbeat", "response_id", f.id.String(), "error", err)
		return nil // the stream itself is sound
	}
	if len(f.sent) == 0 {
		return nil
	}
	s, err := response.Restore(f.sent)
	if err != nil {
		return fmt.Errorf("api: heartbeat: %w", err)
	}
	data := s.Heartbeat()
	return f.out.event(eventType(data), data)
}

// prefix reads the events that the client had before this connection.
func (f *feed) prefix(ctx context.Context) error {
	if f.begun || f.after < 0 {
		return nil
	}
	rec, err := f.a.Store.Get(ctx, f.tenant, f.id, store.Parts{Events: true})
	if err != nil {
		return fmt.Errorf("api: events of %s: %w", f.id, err)
	}
	var before []response.Event
	for _, e := range rec.Events {
		if e.Seq <= f.after {
			before = append(before, e)
		}
	}
	f.sent, f.begun = append(before, f.sent...), true
	return nil
}

// end completes a stream whose request is in a final state and sent no
// terminal event: it was canceled, it expired, or its last host was lost.
func (f *feed) end(ctx context.Context) error {
	rec := store.Record{Finished: time.Now(), State: queue.Failed, Class: queue.WorkerLost, Events: f.sent}
	if f.logged {
		var err error
		if rec, err = f.a.Store.Get(ctx, f.tenant, f.id, store.Parts{Events: true}); err != nil {
			return fmt.Errorf("api: end of %s: %w", f.id, err)
		}
	} else if f.w != nil {
		o := f.w.outcome()
		if len(f.sent) == 0 && f.out.x.status == 0 {
			return f.out.x.outcome(o)
		}
		rec.State, rec.Class = o.To, o.Class
	}
	f.out.x.state, f.out.x.attempt = rec.State.String(), rec.Attempt
	if n := len(rec.Events); rec.State != queue.Canceled && n > 0 && !terminal(eventType(rec.Events[n-1].Data)) {
		s, err := response.Restore(rec.Events)
		if err != nil {
			return fmt.Errorf("api: end of %s: %w", f.id, err)
		}
		for _, e := range s.Finish(endOf(rec)) {
			if e.Seq <= f.last {
				continue
			}
			if err := f.send([]response.Event{e}); err != nil || f.closed {
				return err
			}
		}
	}
	f.closed = true
	return f.out.done()
}

// endOf is the end of a response whose request ended without saying so itself.
func endOf(rec store.Record) response.End {
	end := response.End{Status: "failed", Completed: rec.Finished, Failure: &response.Failure{
		Code: "server_error", Message: "The host that ran the response was lost.", Status: 503, Class: rec.Class,
	}}
	switch {
	case rec.State == queue.Canceled:
		end.Status, end.Failure = "cancelled", nil
	case rec.State == queue.Expired, rec.Class == queue.ClassDeadline:
		end.Failure.Message, end.Failure.Status = "The deadline of the response passed.", 504
	case rec.Class != queue.WorkerLost:
		end.Failure.Message, end.Failure.Status = "The response could not be produced.", 500
	}
	return end
}

// eventType returns the type of an event, which stands first in its data.
func eventType(data []byte) string {
	if rest, ok := bytes.CutPrefix(data, []byte(`{"type":"`)); ok {
		if i := bytes.IndexByte(rest, '"'); i >= 0 {
			return string(rest[:i])
		}
	}
	var e struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(data, &e) != nil {
		return ""
	}
	return e.Type
}

// terminal reports whether no event follows one of this type.
func terminal(kind string) bool {
	switch kind {
	case "response.completed", "response.failed", "response.incomplete":
		return true
	}
	return false
}

// stateOf is the state of a request whose stream ended with an event of this
// type.
func stateOf(kind string) queue.State {
	if kind == "response.failed" {
		return queue.Failed
	}
	return queue.Completed
}
