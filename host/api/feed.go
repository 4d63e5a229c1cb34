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

// sink is where the events of one response go: an answer, or frames of a
// connection. Its errors wrap queue.ErrClientGone where the client left.
type sink interface {
	// open says that events will follow: an answer with a status of its own is
	// too late from now on.
	open() error
	// event sends one event of this type.
	event(kind string, data []byte) error
	// done ends the stream. A terminal event may have been sent or not.
	done() error
	// outcome answers a request that ended before its first event.
	outcome(o queue.Outcome) error
}

// feed is the event stream of one response on one connection.
type feed struct {
	a      *API
	x      *exchange
	out    sink
	tenant string
	id     queue.ID
	logged bool
	l      *stream.Listener
	last   int64 // sequence number sent last, or where the stream began; -1: none
	// told is what the client was told so far; nil: not known, as of a stream
	// that began later, until the log is read for it.
	told   *response.Stream
	closed bool     // a terminal event was sent
	w      *watcher // of the run of an unlogged response; else nil
}

func (a *API) feed(x *exchange, out sink, id queue.ID, logged bool, after int64) *feed {
	f := &feed{
		a: a, x: x, out: out, tenant: x.tenant.Name, id: id, logged: logged,
		l: a.Hub.Listen(id, after), last: after,
	}
	if after < 0 {
		f.told = &response.Stream{}
	}
	return f
}

// createStream submits a turn and streams its events to out.
func (a *API) createStream(x *exchange, t *turn, out sink) error {
	n := t.n
	f := a.feed(x, out, n.ID, n.Store, -1)
	defer f.l.Close()
	ctx := x.r.Context()
	run, err := a.submit(ctx, t)
	if err != nil {
		return err
	}
	if run != nil {
		x.attempt = 1
		if !n.Store {
			f.w = watch(ctx, run)
			defer f.w.stop()
			ctx = f.w.ctx
		}
	}
	err = f.run(ctx)
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
			return fmt.Errorf("api: %s: %w", f.id, f.x.left())
		case errors.Is(err, context.DeadlineExceeded):
			if err := f.idle(ctx, wait); err != nil {
				return err
			}
		default:
			return err
		}
		if f.x.status != 0 {
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
	if f.x.status == 0 {
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
		f.last = e.Seq
		f.note(e)
		if terminal(kind) {
			f.closed = true
			f.x.state = stateOf(kind).String()
			return f.out.done()
		}
	}
	return nil
}

// beat repeats response.in_progress with what the client has been told so far.
// It is not logged, and repeats the last sequence number: clients that count
// comments for nothing count it as a sign of life.
func (f *feed) beat(ctx context.Context) error {
	if err := f.recall(ctx); err != nil {
		f.a.Logger.Warn("heartbeat", "request", f.id.String(), "error", err)
		return nil // the stream itself is sound
	}
	data := f.told.Heartbeat()
	if data == nil {
		return nil
	}
	return f.out.event(eventType(data), data)
}

// note remembers what the client was told by e.
func (f *feed) note(e response.Event) {
	if f.told == nil {
		return
	}
	if err := f.told.Observe([]response.Event{e}); err != nil {
		f.a.Logger.Warn("event out of place", "request", f.id.String(), "error", err)
		f.told = nil
	}
}

// recall reads from the log what the client was told, where that is not known.
func (f *feed) recall(ctx context.Context) error {
	if f.told != nil {
		return nil
	}
	if !f.logged {
		return fmt.Errorf("api: %s: what its client was told is not known", f.id)
	}
	rec, err := f.a.Store.Get(ctx, f.tenant, f.id, store.Parts{Events: true})
	if err != nil {
		return fmt.Errorf("api: events of %s: %w", f.id, err)
	}
	told := &response.Stream{}
	for _, e := range rec.Events {
		if e.Seq > f.last {
			break
		}
		if err := told.Observe([]response.Event{e}); err != nil {
			return fmt.Errorf("api: events of %s: %w", f.id, err)
		}
	}
	f.told = told
	return nil
}

// end completes a stream whose request is in a final state and sent no
// terminal event: it was canceled, it expired, or its last host was lost.
func (f *feed) end(ctx context.Context) error {
	rec := store.Record{Finished: time.Now(), State: queue.Failed, Class: queue.WorkerLost}
	s := f.told
	if f.logged {
		var err error
		if rec, err = f.a.Store.Get(ctx, f.tenant, f.id, store.Parts{Events: true}); err != nil {
			return fmt.Errorf("api: end of %s: %w", f.id, err)
		}
		s = nil
		if len(rec.Events) == 0 { // every stored response has some
			return fmt.Errorf("api: end of %s: %w", f.id, stream.ErrGap)
		}
		if n := len(rec.Events); !terminal(eventType(rec.Events[n-1].Data)) {
			if s, err = response.Restore(rec.Events); err != nil {
				return fmt.Errorf("api: end of %s: %w", f.id, err)
			}
		}
	} else {
		if f.w != nil {
			o := f.w.outcome()
			if f.last < 0 && f.x.status == 0 {
				return f.out.outcome(o)
			}
			rec.State, rec.Class = o.To, o.Class
		}
		if s == nil {
			return fmt.Errorf("api: end of %s: what its client was told is not known", f.id)
		}
	}
	f.x.attempt = rec.Attempt
	defer func() { f.x.state = rec.State.String() }() // the event's type says less
	if s != nil && s.NextSeq() > 0 && rec.State != queue.Canceled {
		f.told = nil // s may be it, and is about to run ahead
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
	end := response.End{Status: "failed", Completed: rec.Finished, NoUsage: true, Failure: &response.Failure{
		Code: "server_error", Message: "The host that ran the response was lost.", Status: 503, Class: rec.Class,
	}}
	switch {
	case rec.State == queue.Canceled:
		end.Status, end.Failure = "cancelled", nil
	case rec.State == queue.Expired:
		end.Failure.Code, end.Failure.Message, end.Failure.Status = expiredCode, expiredText, 504
	case rec.Class == queue.ClassDeadline:
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
