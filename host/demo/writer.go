package demo

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// A writer sends one Turn and breaks off where the Turn says so.
type writer struct {
	ctx    context.Context
	w      http.ResponseWriter
	turn   Turn
	chunks int
}

func newWriter(ctx context.Context, w http.ResponseWriter, t Turn) *writer {
	return &writer{ctx: ctx, w: w, turn: t}
}

// abort drops the connection; the server recovers the panic.
func abort() { panic(http.ErrAbortHandler) }

// begin waits, and cuts, before the head.
func (o *writer) begin() {
	o.sleep(o.turn.Delay)
	if o.turn.GateAfter <= 0 {
		o.gate()
	}
	if o.turn.CutAfter < 0 {
		abort()
	}
}

func (o *writer) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-o.ctx.Done():
		abort()
	}
}

func (o *writer) gate() {
	if o.turn.Gate == nil {
		return
	}
	select {
	case <-o.turn.Gate:
	case <-o.ctx.Done():
		abort()
	}
}

// head sends status and headers.
func (o *writer) head(contentType string) {
	if o.turn.ContentType != "" {
		contentType = o.turn.ContentType
	}
	h := o.w.Header()
	h.Set("Content-Type", contentType)
	if o.turn.RetryAfter != "" {
		h.Set("Retry-After", o.turn.RetryAfter)
	}
	status := o.turn.Status
	if status == 0 {
		status = http.StatusOK
	}
	o.w.WriteHeader(status)
}

// plain sends a whole body.
func (o *writer) plain(body []byte) {
	if o.turn.CutAfter > 0 {
		o.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		o.head("application/json")
		o.piece(body[:len(body)/2])
		abort()
	}
	o.head("application/json")
	o.piece(body)
}

func (o *writer) json(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		abort()
	}
	o.plain(body)
}

// raw sends a body as it is, in pieces of ChunkRunes bytes.
func (o *writer) raw(body []byte) {
	o.head("text/event-stream")
	size := o.turn.ChunkRunes
	if size <= 0 {
		size = max(1, len(body))
	}
	for len(body) > 0 {
		n := min(size, len(body))
		o.chunk(body[:n])
		body = body[n:]
	}
}

// chunk sends one piece of a stream, after the waits and before the cut that
// the Turn asks for.
func (o *writer) chunk(b []byte) {
	o.sleep(o.turn.ChunkDelay)
	if o.turn.GateAfter > 0 && o.chunks == o.turn.GateAfter {
		o.gate()
	}
	o.piece(b)
	o.chunks++
	if o.turn.CutAfter > 0 && o.chunks == o.turn.CutAfter {
		abort()
	}
}

// piece writes and flushes; a client that went away ends the handler.
func (o *writer) piece(b []byte) {
	if _, err := o.w.Write(b); err != nil {
		abort()
	}
	if err := http.NewResponseController(o.w).Flush(); err != nil {
		abort()
	}
}

// event sends one server-sent event.
func (o *writer) event(data string) {
	o.chunk([]byte("data: " + data + o.lineEnd() + o.lineEnd()))
}

func (o *writer) lineEnd() string {
	if o.turn.CRLF {
		return "\r\n"
	}
	return "\n"
}

// namedEvent sends one server-sent event with its name.
func (o *writer) namedEvent(name, data string) {
	o.chunk([]byte("event: " + name + o.lineEnd() + "data: " + data + o.lineEnd() + o.lineEnd()))
}

func (o *writer) jsonEvent(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		abort()
	}
	o.event(string(data))
}

// writeError answers a request that no Turn was asked for.
func writeError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{ // the client may be gone
		"message": message, "type": "invalid_request_error", "param": nil, "code": nil,
	}})
}
