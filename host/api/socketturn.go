package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// turn answers one response.create: with a response's events, or an error.
func (s *socket) turn(data []byte) {
	x := &exchange{
		a: s.a, r: s.x.r.WithContext(s.ctx), id: "req_" + queue.NewID().String(), tenant: s.x.tenant,
		route: s.x.route, began: time.Now(),
	}
	defer x.log()
	previous, err := s.create(x, data)
	if err == nil {
		return
	}
	s.kept.drop(previous) // a continuation that failed may not be tried again
	x.cause = err
	if status := s.fail(err); x.status == 0 {
		x.status = status
	}
}

// create runs the turn that a frame asks for. It returns the id of the response
// that the turn goes on from, "" for none.
func (s *socket) create(x *exchange, data []byte) (previous string, err error) {
	c, err := parseCreate(data)
	if err != nil {
		return "", err
	}
	if err := s.a.admit(); err != nil {
		return c.previous, err
	}
	t, err := s.a.turn(x, c.body, s.kept.get)
	if err != nil {
		return c.previous, err
	}
	out := &frames{s: s, x: x}
	if c.idle {
		err = s.warm(t, out)
	} else {
		err = s.a.createStream(x, t, out)
	}
	switch {
	case err != nil:
		return c.previous, err
	case out.end != "response.completed" && out.end != "response.incomplete":
		s.kept.drop(c.previous)
		return c.previous, nil
	case t.n.Store && !c.idle:
		return c.previous, nil
	}
	items, err := response.Ancestor(t.brief, out.object)
	if err != nil {
		s.a.Logger.Warn("keep a response for its connection", "request", t.n.ID.String(), "error", err)
		return c.previous, nil // the turn itself is sound
	}
	s.kept.add(responsePrefix+t.n.ID.String(), items)
	return c.previous, nil
}

// warm answers a turn that is to generate nothing: with a response that is
// complete and empty, which the next turn may go on from.
func (s *socket) warm(t *turn, out *frames) error {
	told := response.NewStream(t.n.ID, t.n.ID.Time(), t.req, t.tools)
	events := told.Created(false)
	events = append(events, told.Started()...)
	events = append(events, told.Finish(response.End{Status: "completed", Completed: time.Now()})...)
	for _, e := range events {
		if err := out.event(eventType(e.Data), e.Data); err != nil {
			return err
		}
	}
	out.x.state = queue.Completed.String()
	return out.done()
}

// creation is what a response.create frame asks for.
type creation struct {
	body     []byte // as POST /v1/responses has it
	previous string
	idle     bool // generate is false: nothing is to be generated
}

// parseCreate reads a frame that is one JSON object. What says how an answer is
// sent means nothing here, where it is always sent as it comes.
func parseCreate(data []byte) (creation, error) {
	var c creation
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return c, fmt.Errorf("api: frame: %w", err)
	}
	if raw := m["generate"]; !isNull(raw) {
		var generate bool
		if json.Unmarshal(raw, &generate) != nil {
			return c, &response.BadRequest{Param: "generate", Code: "invalid_type", Message: "generate must be a boolean."}
		}
		c.idle = !generate
	}
	_ = json.Unmarshal(m["previous_response_id"], &c.previous) // another type is refused with the rest
	for _, k := range []string{"type", "generate", "stream_options", "background"} {
		delete(m, k)
	}
	m["stream"] = json.RawMessage("true")
	body, err := json.Marshal(m)
	if err != nil {
		return c, fmt.Errorf("api: frame: %w", err)
	}
	c.body = body
	return c, nil
}

// frames is the sink that sends the events of one turn over a connection.
type frames struct {
	s      *socket
	x      *exchange
	end    string          // the type of the terminal event, once it was sent
	object json.RawMessage // the response that the terminal event holds
}

// open has nothing to send: an error may follow events here.
func (f *frames) open() error {
	if f.x.status == 0 {
		f.x.status, f.x.first = http.StatusOK, time.Now()
	}
	return nil
}

// event sends the event as it is.
func (f *frames) event(kind string, data []byte) error {
	if err := f.open(); err != nil {
		return err
	}
	if err := f.s.send(data); err != nil {
		return err
	}
	if !terminal(kind) {
		return nil
	}
	f.end = kind
	var e struct {
		Response json.RawMessage `json:"response"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("api: event: %w", err)
	}
	f.object = e.Response
	return nil
}

// done says that a response was canceled: no event does, and the connection
// goes on.
func (f *frames) done() error {
	if f.end == "" {
		return failed(queue.Outcome{To: queue.Canceled})
	}
	return nil
}

// outcome answers a request that ended before its first event.
func (f *frames) outcome(o queue.Outcome) error {
	f.x.state = o.To.String()
	if o.To == queue.Completed {
		o = queue.Outcome{To: queue.Failed, Class: queue.HostError} // it said nothing
	}
	return failed(o)
}
