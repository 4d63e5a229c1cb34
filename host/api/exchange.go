package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/tenant"
)

// exchange is one HTTP request and its answer.
type exchange struct {
	a      *API
	r      *http.Request
	w      http.ResponseWriter
	rc     *http.ResponseController
	id     string   // x-request-id
	path   captured // what stands for the variables of the path
	tenant tenant.Tenant
	route  string
	began  time.Time

	status int       // 0: nothing was written yet
	first  time.Time // when the head of the answer was written
	cause  error     // why it was not a success, for the log
	cut    bool      // the client must not take what it has for a whole answer

	// For the log.
	model    string
	response queue.ID
	state    string
	attempt  int
}

// statusClientGone is logged when the client left before its answer.
const statusClientGone = 499

// serve answers one request, logs one line, and survives a panic.
func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{a: a, r: r, w: w, rc: http.NewResponseController(w), id: "req_" + queue.NewID().String(), began: time.Now()}
	w.Header().Set("X-Request-Id", x.id)
	defer x.end()
	rt, h, path, err := a.find(r)
	if err == nil && r.Header.Get(queue.HopHeader) != "" {
		err = &Error{
			Status: http.StatusLoopDetected, Code: "loop_detected", Final: true,
			Message: "This request comes from a Casemate host: its upstreams' base_url must not lead back to one.",
		}
	}
	x.route, x.path = rt.path, path
	if err == nil && !rt.public {
		err = a.authenticate(x)
	}
	if err == nil {
		err = h(x)
	}
	if err != nil {
		x.fail(err)
	}
}

// end recovers from a panic and logs the line of this exchange.
func (x *exchange) end() {
	p := recover()
	if p != nil {
		x.a.Logger.Error("handler panicked", "request_id", x.id, "route", x.route, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if x.status == 0 {
			x.fail(errors.New("api: handler panicked"))
			p = nil
		}
	}
	x.log()
	if p != nil || x.cut {
		// The server breaks the connection: returning would end the answer as if
		// it were whole, or make an empty one of status 200.
		panic(http.ErrAbortHandler)
	}
}

// log writes the one line of this exchange. It holds no body, key or argument.
func (x *exchange) log() {
	status := x.status
	if errors.Is(x.cause, queue.ErrClientGone) {
		status = statusClientGone
	}
	args := []any{
		"method", x.r.Method, "route", x.route, "status", status, "request_id", x.id,
		"ms", time.Since(x.began).Milliseconds(),
	}
	if !x.first.IsZero() {
		args = append(args, "first_ms", x.first.Sub(x.began).Milliseconds())
	}
	if x.tenant.Name != "" {
		args = append(args, "tenant", x.tenant.Name)
	}
	if x.model != "" {
		args = append(args, "model", x.model)
	}
	if x.response != (queue.ID{}) {
		args = append(args, "request", x.response.String()) // resp_… without its prefix
	}
	if x.state != "" {
		args = append(args, "state", x.state)
	}
	if x.attempt > 0 {
		args = append(args, "attempt", x.attempt)
	}
	if x.cause != nil && (status >= http.StatusInternalServerError || status == http.StatusOK) {
		args = append(args, "error", x.cause.Error())
	}
	switch {
	case status >= http.StatusInternalServerError:
		x.a.Logger.Warn("request", args...)
	case x.route == "/healthz" || x.route == "/readyz" || x.route == "/metrics":
		x.a.Logger.Debug("request", args...)
	default:
		x.a.Logger.Info("request", args...)
	}
}

// begin writes the head of the answer.
func (x *exchange) begin(status int, contentType string) {
	if x.status != 0 {
		return
	}
	x.status, x.first = status, time.Now()
	x.w.Header().Set("Content-Type", contentType)
	x.w.WriteHeader(status)
}

// write sends body as the whole answer.
func (x *exchange) write(status int, contentType string, body []byte) error {
	x.allowWrite()
	defer x.restWrite()
	x.w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	x.begin(status, contentType)
	if x.r.Method == http.MethodHead {
		return nil
	}
	if _, err := x.w.Write(body); err != nil {
		return fmt.Errorf("api: answer: %w: %w", queue.ErrClientGone, err)
	}
	return nil
}

// writeJSON sends v as the whole answer.
func (x *exchange) writeJSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("api: answer: %w", err)
	}
	return x.write(status, "application/json", body)
}

// allowWrite gives the client Options.WriteTimeout to take what is written
// next; restWrite takes that limit back. A writer without deadlines has none.
func (x *exchange) allowWrite() {
	_ = x.rc.SetWriteDeadline(time.Now().Add(x.a.WriteTimeout))
}

func (x *exchange) restWrite() { _ = x.rc.SetWriteDeadline(time.Time{}) }

// left says why the context of this exchange ended: the host shuts down, or
// else the client went away.
func (x *exchange) left() error {
	if errors.Is(context.Cause(x.r.Context()), queue.ErrShutdown) {
		return queue.ErrShutdown
	}
	return queue.ErrClientGone
}

// fail answers with err. An answer that has begun, and one that nobody waits
// for, is cut instead.
func (x *exchange) fail(err error) {
	if x.r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		err = fmt.Errorf("api: %w: %w", x.left(), err)
	}
	x.cause = err
	e := explain(err)
	if x.status != 0 || e == nil {
		x.cut = true
		return
	}
	e.head(x.w.Header())
	if werr := x.writeJSON(e.Status, e); werr != nil {
		x.cause, x.cut = werr, true
	}
}
