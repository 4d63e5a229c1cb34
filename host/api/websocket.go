package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

const (
	// socketQueue is how many frames wait while a turn is under way. A client
	// that sends more is read no further until there is room.
	socketQueue = 8
	// pongTimeout is how long a client may leave pings unanswered while it is
	// sent events. One that waits for nothing may not be reading.
	pongTimeout = 2 * time.Minute
	// closeTimeout is how long a client has to answer the end of a connection.
	closeTimeout = time.Second
)

// errSocketOver: a connection lived as long as it may.
var errSocketOver = &Error{
	Status: http.StatusBadRequest, Code: "websocket_connection_limit_reached",
	Message: "This connection has lived as long as it may: open another one.",
}

// socket is one WebSocket connection: turns, one after the other, each a
// response whose events are sent as frames.
type socket struct {
	a    *API
	x    *exchange // of the upgrade
	conn *websocket.Conn
	// ctx ends with its cause when the client leaves or the host ends its
	// connections.
	ctx    context.Context
	cancel context.CancelCauseFunc

	inbox chan frame
	room  *semaphore.Weighted // for what is in inbox, in bytes
	full  atomic.Bool         // reading waits for room
	busy  atomic.Bool         // a turn is under way
	// kept are the contexts of the responses of this connection that the store
	// does not hold.
	kept *memory
}

// frame is what a client sent.
type frame struct {
	data   []byte
	binary bool
}

// socket serves GET /v1/responses, which is only good for a WebSocket.
func (a *API) socket(x *exchange) error {
	if !strings.EqualFold(x.r.Header.Get("Upgrade"), "websocket") {
		return notAllowed(http.MethodPost)
	}
	if err := a.admit(); err != nil {
		return err
	}
	if err := a.open.enter(x.tenant.Name); err != nil {
		return err
	}
	defer a.open.leave(x.tenant.Name)
	a.sockets.Add(1)
	defer a.sockets.Done()
	answer := &handshake{ResponseWriter: x.w}
	conn, err := websocket.Accept(answer, x.r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return &Error{Status: answer.refused(), Code: "invalid_handshake", Message: "This is no WebSocket handshake of version 13 over HTTP/1.1.", cause: err}
	}
	x.status, x.first = http.StatusSwitchingProtocols, time.Now()
	conn.SetReadLimit(a.MaxBodyBytes)
	s := &socket{
		a: a, x: x, conn: conn, inbox: make(chan frame, socketQueue), room: semaphore.NewWeighted(a.MaxBodyBytes),
		kept: &memory{of: &a.memories},
	}
	defer s.kept.close()
	s.ctx, s.cancel = context.WithCancelCause(x.r.Context())
	return s.serve()
}

// handshake keeps the answer of a failed handshake back, so that it can be told
// as every other error is.
type handshake struct {
	http.ResponseWriter
	status int
}

// Unwrap lets the connection be taken over.
func (h *handshake) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// WriteHeader passes success on.
func (h *handshake) WriteHeader(status int) {
	if h.status = status; status < http.StatusBadRequest {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Write drops the text of an error.
func (h *handshake) Write(b []byte) (int, error) { return len(b), nil }

func (h *handshake) refused() int {
	if h.status < http.StatusBadRequest {
		return http.StatusInternalServerError
	}
	return h.status
}

// serve answers frames until the connection ends, and closes it.
func (s *socket) serve() error {
	// Reading outlives the host's end of connections: a canceled read breaks the
	// connection before its end could be told.
	reading, stop := context.WithCancel(context.WithoutCancel(s.ctx))
	done := make(chan struct{}, 2)
	go func() { defer func() { done <- struct{}{} }(); s.read(reading) }()
	go func() { defer func() { done <- struct{}{} }(); s.ping() }()
	defer func() {
		s.cancel(queue.ErrClientGone)
		stop()
		_ = s.conn.CloseNow() // where it is not closed yet
		<-done
		<-done
	}()
	code, reason := s.turns()
	late := time.AfterFunc(closeTimeout, stop)
	defer late.Stop()
	_ = s.conn.Close(code, reason) // a client that is gone already is not told
	return nil
}

// turns answers frames in their order and returns why there are no more.
func (s *socket) turns() (websocket.StatusCode, string) {
	life := time.NewTimer(s.a.MaxSocket)
	defer life.Stop()
	for {
		select { // what ends a connection goes before the frames that wait
		case <-s.a.drain:
			return websocket.StatusGoingAway, "the host is shutting down"
		case <-life.C:
			s.fail(errSocketOver)
			return websocket.StatusNormalClosure, errSocketOver.Code
		case <-s.ctx.Done():
			if !errors.Is(context.Cause(s.ctx), queue.ErrShutdown) {
				return websocket.StatusProtocolError, "a frame broke the protocol, or came too slowly"
			}
			return websocket.StatusGoingAway, "the host is shutting down"
		default:
		}
		select {
		case f := <-s.inbox:
			s.frame(f)
			s.room.Release(int64(len(f.data)))
		case <-s.a.drain:
		case <-s.ctx.Done():
		case <-life.C:
			life.Reset(0) // for the select above
		}
	}
}

// frame answers one frame.
func (s *socket) frame(f frame) {
	var head struct {
		Type *string `json:"type"`
	}
	err := checkJSON(f.data)
	switch {
	case f.binary:
		err = &response.BadRequest{Code: "invalid_frame", Message: "Frames must be text: binary ones are not taken."}
	case err != nil:
	case json.Unmarshal(f.data, &head) != nil || head.Type == nil:
		err = &response.BadRequest{Param: "type", Code: "missing_required_parameter", Message: "A frame must be an object with a type, a string."}
	case *head.Type != "response.create":
		err = &response.BadRequest{Param: "type", Code: "invalid_value", Message: "type must be response.create."}
	default:
		s.busy.Store(true)
		defer s.busy.Store(false)
		s.turn(f.data)
		return
	}
	s.fail(err)
}

// read takes what the client sends until the connection ends.
func (s *socket) read(ctx context.Context) {
	for {
		f, err := s.next(ctx)
		if err != nil {
			s.cancel(queue.ErrClientGone)
			return
		}
		s.full.Store(true)
		if s.room.Acquire(s.ctx, int64(len(f.data))) != nil {
			return
		}
		select {
		case s.inbox <- f:
		case <-s.ctx.Done():
			return
		}
		s.full.Store(false)
	}
}

// next reads one frame. It may be long in coming, but once it has begun the
// rest must arrive in Options.ReadTimeout.
func (s *socket) next(ctx context.Context) (frame, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kind, r, err := s.conn.Reader(ctx)
	if err != nil {
		return frame{}, fmt.Errorf("api: frame: %w", err)
	}
	late := time.AfterFunc(s.a.ReadTimeout, cancel)
	defer late.Stop()
	b, err := io.ReadAll(r)
	if err != nil {
		return frame{}, fmt.Errorf("api: frame: %w", err)
	}
	return frame{data: b, binary: kind != websocket.MessageText}, nil
}

// ping keeps the connection open on its way, and finds out that a client is
// gone whose end was not heard.
func (s *socket) ping() {
	tick := time.NewTicker(s.a.Heartbeat)
	defer tick.Stop()
	var silent time.Duration
	for {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(s.ctx, s.a.Heartbeat)
		err := s.conn.Ping(ctx)
		cancel()
		switch {
		case err == nil, !s.busy.Load(), s.full.Load(): // an answer is not read while reading waits
			silent = 0
			continue
		}
		if silent += s.a.Heartbeat; silent >= pongTimeout {
			s.cancel(queue.ErrClientGone)
			return
		}
	}
}

// send writes one frame. It may be called when ctx has ended: the end of a turn
// is still told.
func (s *socket) send(data []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.a.WriteTimeout)
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, data); err != nil {
		s.cancel(queue.ErrClientGone)
		return fmt.Errorf("api: frame: %w: %w", queue.ErrClientGone, err)
	}
	return nil
}

// fail sends err as an error frame and returns its status; 0: there is nobody to
// tell.
func (s *socket) fail(err error) int {
	e := explain(err)
	if e == nil || errors.Is(context.Cause(s.ctx), queue.ErrClientGone) {
		return 0
	}
	data, merr := e.frame()
	if merr != nil {
		s.a.Logger.Warn("error frame", "request_id", s.x.id, "error", merr)
		return e.Status
	}
	if s.send(data) != nil {
		return 0
	}
	return e.Status
}

// frame returns e as an error event of a WebSocket. Its code is always there.
func (e *Error) frame() ([]byte, error) {
	told := *e
	if told.Code == "" {
		told.Code = told.kind()
	}
	inner, err := told.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("api: error frame: %w", err)
	}
	var body struct {
		Type   string          `json:"type"`
		Status int             `json:"status"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(inner, &body); err != nil {
		return nil, fmt.Errorf("api: error frame: %w", err)
	}
	body.Type, body.Status = "error", e.Status
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("api: error frame: %w", err)
	}
	return data, nil
}
