package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// Turns run one after the other, in the order of their frames.
func TestWebSocketOneTurnAtATime(t *testing.T) {
	h := newHost(t)
	began, goOn := make(chan *fakeRun, 10), make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		began <- r
		<-goOn
		hello(r)
	}
	s := h.connect()
	const turns = 12 // more than wait in the connection
	for i := range turns {
		s.send(fmt.Sprintf(`{"type":"response.create","model":"m1","store":false,"input":"%d"}`, i))
	}
	for i := range turns {
		run := wait(t, began, "run")
		select {
		case r := <-began:
			t.Fatalf("turn %d: %s runs beside it", i, r.ID)
		default:
		}
		if want := fmt.Sprintf(`"content":"%d"`, i); !strings.Contains(string(run.Body), want) {
			t.Errorf("turn %d: got %s", i, run.Body)
		}
		goOn <- struct{}{}
		if e := s.answer(); e.Response.ID != "resp_"+run.ID.String() {
			t.Errorf("turn %d: got %+v, want %s", i, e, run.ID)
		}
	}
}

// A client that leaves ends its turn, stored or not.
func TestWebSocketDisconnect(t *testing.T) {
	for _, body := range []string{`{"type":"response.create","model":"m1","input":"hi"}`, `{"type":"response.create","model":"m1","input":"hi","store":false}`} {
		h := newHost(t)
		h.runner.script = untilStopped
		s := h.connect()
		s.send(body)
		s.next()
		_ = s.conn.CloseNow()
		wait(t, h.store.canceled, "cancel")
		if got := wait(t, h.runner.stopped, "stop"); !errors.Is(got, queue.ErrClientGone) {
			t.Errorf("got cause %v, want that the client left", got)
		}
		h.awaitLog(`"status":499`)
	}
}

// A turn that is canceled by somebody else has no event to say so.
func TestWebSocketCanceledTurn(t *testing.T) {
	h := newHost(t)
	began := make(chan *fakeRun, 1)
	h.runner.script = func(r *fakeRun) {
		began <- r
		untilStopped(r)
	}
	s := h.connect()
	s.send(`{"type":"response.create","model":"m1","input":"hi"}`)
	run := wait(t, began, "run")
	if _, did, err := h.store.Cancel(t.Context(), "acme", run.ID, ""); err != nil || !did {
		t.Fatal(did, err)
	}
	run.cancel(queue.ErrCanceled)
	if e := s.answer(); e.Type != "error" || e.Error.Code != "canceled" || e.Status != 409 {
		t.Errorf("got %+v, want that it was canceled", e)
	}
	h.runner.script = hello
	s.completes(unstored)
}

// A response that fails evicts what it went on from, as a refused one does.
func TestWebSocketFailedTurnEvicts(t *testing.T) {
	for name, script := range map[string]func(*fakeRun){
		"before its first event": func(r *fakeRun) {
			r.end(queue.Outcome{To: queue.Failed, Class: queue.RateLimited, Status: 429})
		},
		"after it": func(r *fakeRun) {
			r.begin()
			r.emit(r.stream.Finish(response.End{Status: "failed", NoUsage: true, Failure: &response.Failure{Code: "server_error", Message: "no", Status: 500}}))
			r.end(queue.Outcome{To: queue.Failed, Class: queue.HostError, Status: 500})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			s := h.connect()
			first, other := s.completes(unstored), s.completes(unstored)
			h.runner.script = script
			if e := s.turn(after(first)); e.Type == "response.completed" {
				t.Fatalf("got %+v, want a failure", e)
			}
			h.runner.script = hello
			s.fails(after(first), "previous_response_not_found")
			s.completes(after(other))
		})
	}
}

// The connection keeps so many responses, and lets go of those used least
// recently.
func TestWebSocketMemoryIsBounded(t *testing.T) {
	h := newHost(t)
	s := h.connect()
	first, second := s.completes(unstored), s.completes(unstored)
	for range 61 {
		s.completes(unstored)
	}
	s.completes(after(first)) // 64 are kept, and first was used last
	s.completes(unstored)
	s.fails(after(second), "previous_response_not_found")
	s.completes(after(first))
}

func TestWebSocketLifeEnds(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.MaxSocket = 50 * time.Millisecond })
	began, goOn := make(chan struct{}), make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		close(began)
		<-goOn
		r.complete()
	}
	s := h.connect()
	s.send(`{"type":"response.create","model":"m1","input":"hi"}`)
	wait(t, began, "run")
	<-time.After(100 * time.Millisecond)
	close(goOn)
	if e := s.answer(); e.Type != "response.completed" {
		t.Errorf("got %+v, want that the turn goes on to its end", e)
	}
	if e := s.answer(); e.Error.Code != "websocket_connection_limit_reached" {
		t.Errorf("got %+v, want the limit", e)
	}
	if code := s.closed(); code != websocket.StatusNormalClosure {
		t.Errorf("got close %d, want 1000", code)
	}
}

func TestWebSocketShutdown(t *testing.T) {
	h := newHost(t)
	began, goOn := make(chan struct{}), make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		close(began)
		<-goOn
		r.complete()
	}
	idle, busy := h.connect(), h.connect()
	busy.send(`{"type":"response.create","model":"m1","input":"hi"}`)
	wait(t, began, "run")
	h.api.Drain()
	h.api.Drain()
	if code := idle.closed(); code != websocket.StatusGoingAway {
		t.Errorf("idle: got close %d, want 1001", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := h.api.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that a connection is left", err)
	}
	close(goOn)
	if e := busy.answer(); e.Type != "response.completed" {
		t.Errorf("got %+v, want that the turn goes on to its end", e)
	}
	if code := busy.closed(); code != websocket.StatusGoingAway {
		t.Errorf("busy: got close %d, want 1001", code)
	}
	if err := h.api.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, status, err := h.tryDial(&websocket.DialOptions{}); err == nil || status != 503 {
		t.Errorf("a new connection: got %v, %v, want 503", status, err)
	}
}

// At the end of the drain the host hands its work back: the client is told, and
// nothing is canceled.
func TestWebSocketHandedBack(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.begin()
		<-r.ctx.Done()
		r.producer.Close(false)
	}
	t.Cleanup(h.runner.stopAll)
	s := h.connect()
	s.send(`{"type":"response.create","model":"m1","input":"hi"}`)
	s.next()
	h.api.Drain()
	h.endConns(queue.ErrShutdown)
	text := s.next()
	for !strings.HasPrefix(text, `{"type":"error"`) {
		text = s.next()
	}
	if !strings.Contains(text, `"status":503`) {
		t.Errorf("got %s, want 503", text)
	}
	if code := s.closed(); code != websocket.StatusGoingAway {
		t.Errorf("got close %d, want 1001", code)
	}
	if err := h.api.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if len(h.store.canceled) != 0 {
		t.Error("the turn was canceled")
	}
}

// stopAll ends the contexts of all runs.
func (r *fakeRunner) stopAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, run := range r.runs {
		run.cancel(queue.ErrShutdown)
	}
}

func TestWebSocketLimits(t *testing.T) {
	t.Run("a frame too large", func(t *testing.T) {
		h := newHost(t, func(o *api.Options) { o.MaxBodyBytes = 1000 })
		s := h.connect()
		s.send(`{"type":"response.create","model":"m1","input":"` + strings.Repeat("x", 1000) + `"}`)
		if code := s.closed(); code != websocket.StatusMessageTooBig {
			t.Errorf("got close %d, want 1009", code)
		}
	})
	t.Run("a frame too slow", func(t *testing.T) {
		h := newHost(t, func(o *api.Options) { o.ReadTimeout = 30 * time.Millisecond })
		s := h.connect()
		w, err := s.conn.Writer(t.Context(), websocket.MessageText)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(strings.Repeat("x", 100_000))); err != nil { // more than is held back
			t.Fatal(err)
		}
		if text, err := s.read(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %q, %v, want the end of the connection", text, err)
		}
		h.awaitLog(`"status":101`)
	})
	t.Run("a reader too slow", func(t *testing.T) {
		h := newHost(t, func(o *api.Options) { o.WriteTimeout = 100 * time.Millisecond })
		h.runner.script = func(r *fakeRun) {
			r.begin()
			for r.ctx.Err() == nil {
				r.delta(strings.Repeat("x", 100_000))
				<-time.After(time.Millisecond)
			}
			r.end(queue.Outcome{To: queue.Canceled, Class: queue.ClassCanceled})
		}
		t.Cleanup(h.runner.stopAll)
		s := h.connect()
		s.send(`{"type":"response.create","model":"m1","input":"hi"}`)
		wait(t, h.store.canceled, "cancel")
	})
}

// While nothing happens the client hears of it, and that keeps the connection:
// events repeat while a turn is under way, pings come at all times.
func TestWebSocketHeartbeat(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.Heartbeat = 20 * time.Millisecond })
	goOn := make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.delta("Hel")
		<-goOn
		r.complete()
	}
	pings := make(chan struct{}, 1000)
	s := h.connectWith(&websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool {
		pings <- struct{}{}
		return true
	}})
	s.send(`{"type":"response.create","model":"m1","input":"hi"}`)
	var v response.Validator
	for beats := 0; beats < 3; beats = v.Heartbeats {
		if err := v.Event([]byte(s.next())); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	for v.End() != nil {
		if err := v.Event([]byte(s.next())); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, pings, "ping")
	for len(pings) > 0 {
		<-pings
	}
	idle, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _, _, _ = s.conn.Read(idle) }() // answers pings
	wait(t, pings, "ping of an idle connection")
}

// A connection that breaks leaves nothing behind that the host waits for.
func TestWebSocketLeavesNothing(t *testing.T) {
	h := newHost(t)
	h.runner.script = untilStopped
	for range 5 {
		s := h.connect()
		s.send(`{"type":"response.create","model":"m1","input":"hi","store":false}`)
		s.next()
		_ = s.conn.CloseNow()
		wait(t, h.store.canceled, "cancel")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.api.Wait(ctx); err != nil {
		t.Error(err)
	}
}

// A client that breaks the protocol is told that, and not that the host ends.
func TestWebSocketProtocolError(t *testing.T) {
	h := newHost(t)
	c := h.raw("GET /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-acme\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n" +
		"\x81\x02{}") // a client's frames must be masked
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, frames, _ := strings.Cut(string(b), "\r\n\r\n")
	if !strings.HasPrefix(frames, "\x88") || len(frames) < 4 || frames[2:4] != "\x03\xea" {
		t.Errorf("got %q, want a close frame of code 1002", frames)
	}
}
