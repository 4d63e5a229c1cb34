package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/tenant"
)

// socket is a client's WebSocket.
type socket struct {
	t    *testing.T
	conn *websocket.Conn
}

// connect opens a WebSocket; header is name, value, …
func (h *host) connect(header ...string) *socket {
	h.t.Helper()
	return h.connectWith(&websocket.DialOptions{}, header...)
}

func (h *host) connectWith(o *websocket.DialOptions, header ...string) *socket {
	h.t.Helper()
	conn, status, err := h.tryDial(o, header...)
	if err != nil {
		h.t.Fatalf("dial: %d, %v", status, err)
	}
	h.t.Cleanup(func() { _ = conn.CloseNow() }) // it may be closed
	return &socket{h.t, conn}
}

// tryDial returns the status of the answer too.
func (h *host) tryDial(o *websocket.DialOptions, header ...string) (*websocket.Conn, int, error) {
	o.HTTPHeader = http.Header{}
	if h.key != "" {
		o.HTTPHeader.Set("Authorization", "Bearer "+h.key)
	}
	for i := 0; i < len(header); i += 2 {
		o.HTTPHeader.Set(header[i], header[i+1])
	}
	conn, res, err := websocket.Dial(h.t.Context(), h.url+"/v1/responses", o)
	if err != nil && res == nil {
		return nil, 0, err
	}
	if err != nil {
		return nil, res.StatusCode, errors.Join(err, res.Body.Close())
	}
	conn.SetReadLimit(1 << 20)
	return conn, res.StatusCode, nil
}

func (s *socket) send(text string) {
	s.t.Helper()
	if err := s.conn.Write(s.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// read returns the next frame, or why there is none.
func (s *socket) read() (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, b, err := s.conn.Read(ctx)
	return string(b), err
}

func (s *socket) next() string {
	s.t.Helper()
	text, err := s.read()
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// event is what tests look at of a frame.
type event struct {
	Type     string
	Status   int
	Response struct {
		ID     string
		Status string
		Output []json.RawMessage
		Usage  *struct {
			Total int `json:"total_tokens"`
		}
	}
	Error struct {
		Code, Message, Type string
		Param               *string
	}
}

// turn sends a create and returns its last event. All of it is checked against
// the grammar.
func (s *socket) turn(body string) event {
	s.t.Helper()
	s.send(`{"type":"response.create",` + strings.TrimPrefix(body, "{"))
	return s.answer()
}

func (s *socket) answer() event {
	s.t.Helper()
	var v response.Validator
	for {
		text := s.next()
		var e event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			s.t.Fatalf("got frame %q: %v", text, err)
		}
		if e.Type == "error" {
			if e.Error.Code == "" || e.Error.Message == "" || e.Error.Type == "" || e.Status < 400 || members(s.t, []byte(text)) != "error status type" {
				s.t.Errorf("got %s, want a whole error", text)
			}
			return e
		}
		if err := v.Event([]byte(text)); err != nil {
			s.t.Fatalf("event %s: %v", text, err)
		}
		switch e.Type {
		case "response.completed", "response.failed", "response.incomplete":
			if err := v.End(); err != nil {
				s.t.Error(err)
			}
			return e
		}
	}
}

func (s *socket) completes(body string) string {
	s.t.Helper()
	e := s.turn(body)
	if e.Type != "response.completed" || e.Response.Status != "completed" || !strings.HasPrefix(e.Response.ID, "resp_") {
		s.t.Fatalf("got %+v, want it completed", e)
	}
	return e.Response.ID
}

func (s *socket) fails(body, code string) {
	s.t.Helper()
	if e := s.turn(body); e.Type != "error" || e.Error.Code != code {
		s.t.Fatalf("got %+v, want the error %s", e, code)
	}
}

const unstored = `{"model":"m1","store":false,"input":"hi"}`

// after is a create that goes on from a response.
func after(id string) string {
	return `{"model":"m1","store":false,"input":"and then?","previous_response_id":"` + id + `"}`
}

// The tests of the Open Responses suite for WebSockets, by their ids.
func TestWebSocketCompliance(t *testing.T) {
	output := `{"model":"m1","store":false,"input":[{"type":"function_call_output","call_id":"nobody","output":"x"}],"previous_response_id":"`
	for name, test := range map[string]func(t *testing.T, h *host){
		"websocket-response": func(_ *testing.T, h *host) { h.connect().completes(`{"model":"m1","input":"hi"}`) },
		"websocket-sequential-responses": func(_ *testing.T, h *host) {
			s := h.connect()
			s.completes(unstored)
			s.completes(unstored)
		},
		"websocket-continuation": func(t *testing.T, h *host) {
			s := h.connect()
			first := s.completes(unstored)
			bodies := h.bodies()
			s.completes(after(first))
			brief, err := response.DecodeBrief(wait(t, bodies, "run"))
			if err != nil || len(brief.Context) != 2 || !strings.Contains(string(brief.Context[1].Raw), "Hello") {
				t.Errorf("got context %v, %v, want the first turn's input and output", brief.Context, err)
			}
		},
		"websocket-reconnect-store-false-recovery": func(_ *testing.T, h *host) {
			first := h.connect().completes(unstored)
			b := h.connect()
			b.fails(after(first), "previous_response_not_found")
			b.completes(unstored)
		},
		"websocket-previous-response-not-found": func(_ *testing.T, h *host) {
			h.connect().fails(after("resp_"+queue.NewID().String()), "previous_response_not_found")
		},
		"websocket-failed-continuation-evicts-cache": func(_ *testing.T, h *host) {
			s := h.connect()
			first := s.completes(unstored)
			s.fails(output+first+`"}`, "invalid_value")
			s.fails(after(first), "previous_response_not_found")
		},
		"websocket-compact-new-chain": func(t *testing.T, h *host) {
			a := h.post("/v1/responses/compact", `{"model":"m1","input":[{"role":"user","content":"one"},{"role":"assistant","content":"two"}]}`)
			var c struct{ Output []json.RawMessage }
			if err := json.Unmarshal(a.body, &c); a.status != 200 || err != nil || len(c.Output) != 2 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			input, err := json.Marshal(append(c.Output, json.RawMessage(`{"type":"message","role":"user","content":"go on"}`)))
			if err != nil {
				t.Fatal(err)
			}
			h.connect().completes(`{"model":"m1","tools":[],"input":` + string(input) + `}`)
		},
	} {
		t.Run(name, func(t *testing.T) { test(t, newHost(t)) })
	}
}

// bodies returns the bodies of the requests that run from now on; they say
// hello.
func (h *host) bodies() <-chan []byte {
	bodies := make(chan []byte, 10)
	h.runner.script = func(r *fakeRun) {
		bodies <- r.Body
		hello(r)
	}
	return bodies
}

// Frames are the events that a stream has.
func TestWebSocketEvents(t *testing.T) {
	h := newHost(t)
	s := h.connect()
	s.send(`{"type":"response.create","model":"m1","input":"hi","stream":false,"background":true,"stream_options":{"include_obfuscation":true}}`)
	var list []frame
	for {
		text := s.next()
		kind, _, _ := strings.Cut(strings.TrimPrefix(text, `{"type":"`), `"`)
		list = append(list, frame{kind, text})
		if kind == "response.completed" {
			break
		}
	}
	var e event
	if err := json.Unmarshal([]byte(list[len(list)-1].data), &e); err != nil {
		t.Fatal(err)
	}
	a := h.get("/v1/responses/" + e.Response.ID + "?stream=true")
	want := frames(t, a.body)
	if got := append(list, frame{"", "[DONE]"}); len(got) != len(want) {
		t.Fatalf("got %d frames, want %d", len(got), len(want))
	}
	for i, f := range list {
		if f != want[i] {
			t.Errorf("frame %d: got %s, want %s", i, f.data, want[i].data)
		}
	}
	if got := h.get("/v1/responses/" + e.Response.ID).object(t); got.Background {
		t.Error("background counted")
	}
	h.awaitLog(`"status":200`)
}

// A turn may go on from a stored response of another connection, or of none.
func TestWebSocketGoesOnFromTheStore(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	s := h.connect()
	second := s.completes(after(o.ID))
	s.completes(after(second))
	h.key = "key-beta"
	h.connect().fails(after(o.ID), "previous_response_not_found")
}

// generate:false answers with an empty response and calls no model; the next
// turn may go on from it.
func TestWebSocketWarmUp(t *testing.T) {
	h := newHost(t)
	bodies := h.bodies()
	s := h.connect()
	e := s.turn(`{"model":"m1","input":"hi","generate":false}`)
	if e.Type != "response.completed" || len(e.Response.Output) != 0 || e.Response.Usage == nil || e.Response.Usage.Total != 0 {
		t.Fatalf("got %+v, want an empty response", e)
	}
	if len(bodies) != 0 {
		t.Error("something ran")
	}
	s.completes(after(e.Response.ID))
	brief, err := response.DecodeBrief(wait(t, bodies, "run"))
	if err != nil || len(brief.Context) != 1 {
		t.Errorf("got context %v, %v, want the first input", brief.Context, err)
	}
	s.fails(`{"model":"m1","input":"hi","generate":"no"}`, "invalid_type")
	s.fails(`{"model":"nobody","input":"hi","generate":false}`, "model_not_found")
	h.get("/v1/responses/"+e.Response.ID).wantError(t, 404, "not_found", "id")
}

// What is no create is an error, and the connection goes on.
func TestWebSocketBadFrames(t *testing.T) {
	h := newHost(t)
	s := h.connect()
	for _, c := range []struct{ frame, code, param string }{
		{`{"type":"response.cancel"}`, "invalid_value", "type"},
		{`{"type":7}`, "missing_required_parameter", "type"},
		{`{"model":"m1"}`, "missing_required_parameter", "type"},
		{`[]`, "missing_required_parameter", "type"},
		{`null`, "missing_required_parameter", "type"},
		{`{"type":`, "invalid_json", ""},
		{``, "invalid_json", ""},
		{`{"type":"response.create"}`, "missing_required_parameter", "model"},
		{`{"type":"response.create","model":"m1","input":7}`, "invalid_type", "input"},
		{`{"type":"response.create","model":"nobody","input":"hi"}`, "model_not_found", "model"},
		{`{"type":"response.create","model":"m1","input":"hi","previous_response_id":7}`, "invalid_type", "previous_response_id"},
	} {
		s.send(c.frame)
		e := s.answer()
		param := ""
		if e.Error.Param != nil {
			param = *e.Error.Param
		}
		if e.Type != "error" || e.Error.Code != c.code || param != c.param {
			t.Errorf("%s: got %+v, want %s on %q", c.frame, e, c.code, c.param)
		}
	}
	if err := s.conn.Write(t.Context(), websocket.MessageBinary, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if e := s.answer(); e.Error.Code != "invalid_frame" {
		t.Errorf("a binary frame: got %+v", e)
	}
	s.completes(unstored)
}

func TestWebSocketHandshake(t *testing.T) {
	h := newHost(t)
	h.key = "nobody"
	if _, status, err := h.tryDial(&websocket.DialOptions{}); err == nil || status != 401 {
		t.Errorf("an unknown key: got %v, %v, want 401 before the upgrade", status, err)
	}
	h.key = "key-acme"
	h.connect("Origin", "https://elsewhere.example").completes(unstored)
	a := h.get("/v1/responses")
	a.wantError(t, 405, "method_not_allowed", "")
	if got := a.header.Get("Allow"); got != "POST" {
		t.Errorf("got Allow %q, want POST", got)
	}
	h.do("GET", "/v1/responses", "", "Upgrade", "websocket", "Connection", "Upgrade").wantError(t, 400, "invalid_handshake", "")
	open, err := tenant.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h = newHost(t, func(o *api.Options) { o.Tenants = open })
	h.key = ""
	if _, status, err := h.tryDial(&websocket.DialOptions{}, "Origin", "https://elsewhere.example"); err == nil || status != 403 {
		t.Errorf("a page of elsewhere without a key: got %v, %v, want 403", status, err)
	}
	h.connect("Origin", "http://localhost:3000").completes(unstored)
	h.connect().completes(unstored)
}

// closed waits for the end of a connection and returns its code.
func (s *socket) closed() websocket.StatusCode {
	s.t.Helper()
	var end websocket.CloseError
	for {
		text, err := s.read()
		if errors.As(err, &end) {
			return end.Code
		}
		if err != nil {
			s.t.Fatalf("got %q, %v, want the end of the connection", text, err)
		}
	}
}
