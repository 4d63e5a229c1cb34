package api_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// serve starts srv on a free port and returns its base URL.
func serve(t *testing.T, srv *http.Server) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + ln.Addr().String()
}

func chunk(i int64) []response.Event {
	return []response.Event{{Seq: i, Data: fmt.Appendf(nil, `{"object":"chat.completion.chunk","n":%d}`, i)}}
}

func TestCompletion(t *testing.T) {
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
		h := newHost(t)
		const body = `{ "model":"m1", "input":["a\u0000"], "messages":[{"role":"user","content":"a\u0000b"}], "odd":1e400 }`
		got := make(chan queue.New, 1)
		h.runner.script = func(r *fakeRun) {
			got <- r.New
			r.end(queue.Outcome{To: queue.Completed, Status: 200, ContentType: "application/json; charset=utf-8", Body: []byte(`{"x":1}`)})
		}
		a := h.post(path, body)
		if a.status != 200 || string(a.body) != `{"x":1}` || a.header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%s: got %d %s, want the outcome's body", path, a.status, a.body)
		}
		if n := <-got; string(n.Body) != body || n.Path != path || n.Store || n.Stream || n.Model != "m1" || n.DeadlineIn == 0 {
			t.Errorf("%s: got %+v, want the body as it came", path, n)
		}
	}
}

func TestCompletionStream(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		for i := range int64(3) {
			r.emit(chunk(i))
		}
		r.end(queue.Outcome{To: queue.Completed, Status: 200})
	}
	a := h.post("/v1/chat/completions", `{"model":"m1","stream":true}`)
	want := "data: {\"object\":\"chat.completion.chunk\",\"n\":0}\n\n" +
		"data: {\"object\":\"chat.completion.chunk\",\"n\":1}\n\n" +
		"data: {\"object\":\"chat.completion.chunk\",\"n\":2}\n\ndata: [DONE]\n\n"
	if a.status != 200 || string(a.body) != want || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %d %v %q, want %q", a.status, a.header, a.body, want)
	}
}

func TestCompletionStreamEndsBadly(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.emit(chunk(0))
		r.end(queue.Outcome{To: queue.Failed, Class: queue.UpstreamNetwork})
	}
	list := frames(t, h.post("/v1/chat/completions", `{"model":"m1","stream":true}`).body)
	if len(list) != 2 || !strings.HasPrefix(list[1].data, `{"error":{"message":`) {
		t.Errorf("got %v, want a chunk and an error without [DONE]", list)
	}
	h.runner.script = func(r *fakeRun) { r.end(queue.Outcome{To: queue.Failed, Class: queue.RateLimited}) }
	h.post("/v1/chat/completions", `{"model":"m1","stream":true}`).wantError(t, 429, "rate_limit_exceeded", "")
	h.runner.script = func(r *fakeRun) { // the upstream does not stream
		r.end(queue.Outcome{To: queue.Completed, Status: 200, Body: []byte(`{"x":1}`)})
	}
	if a := h.post("/v1/chat/completions", `{"model":"m1","stream":true}`); a.status != 200 || string(a.body) != `{"x":1}` {
		t.Errorf("got %d %s, want the outcome's body", a.status, a.body)
	}
	h.runner.script = func(r *fakeRun) {
		r.emit(chunk(0))
		r.producer.Close(false)
		r.err = fmt.Errorf("claimer: %w", queue.ErrLeaseLost)
	}
	if list := frames(t, h.post("/v1/chat/completions", `{"model":"m1","stream":true}`).body); len(list) != 2 {
		t.Errorf("got %v, want a chunk and an error", list)
	}
}

// A run that ended without closing its events ends its stream all the same.
func TestCompletionStreamIsLeftOpen(t *testing.T) {
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.emit(chunk(0))
		r.outcome = queue.Outcome{To: queue.Completed, Status: 200}
	}
	if list := frames(t, h.post("/v1/chat/completions", `{"model":"m1","stream":true}`).body); len(list) != 2 || list[1].data != "[DONE]" {
		t.Errorf("got %v, want a chunk and [DONE]", list)
	}
}

func TestBadCompletions(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name, body  string
		status      int
		code, param string
	}{
		{"malformed", `{"model":}`, 400, "invalid_json", ""},
		{"array", `[]`, 400, "invalid_type", ""},
		{"null", `null`, 400, "invalid_type", ""},
		{"no model", `{}`, 400, "missing_required_parameter", "model"},
		{"empty model", `{"model":""}`, 400, "missing_required_parameter", "model"},
		{"null model", `{"model":null}`, 400, "missing_required_parameter", "model"},
		{"model of wrong type", `{"model":["m1"]}`, 400, "invalid_type", "model"},
		{"stream of wrong type", `{"model":"m1","stream":"true"}`, 400, "invalid_type", "stream"},
		{"unknown model", `{"model":"m9"}`, 404, "model_not_found", "model"},
		{"NUL in model", `{"model":"m1\u0000"}`, 400, "invalid_value", "model"},
		{"NUL in user", `{"model":"m1","user":"\u0000"}`, 400, "invalid_value", "user"},
		{"NUL in metadata", `{"model":"m1","metadata":{"\u0000":"x"}}`, 400, "invalid_value", "metadata"},
		{"NUL in tool name", `{"model":"m1","tools":[{"function":{"name":"a\u0000"}}]}`, 400, "invalid_value", "tools[0]"},
		{"NUL in call id", `{"model":"m1","messages":[{},{"tool_call_id":"\u0000"}]}`, 400, "invalid_value", "messages[1]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h.post("/v1/chat/completions", tt.body).wantError(t, tt.status, tt.code, tt.param)
			h.post("/v1/embeddings", tt.body).wantError(t, tt.status, tt.code, tt.param)
		})
	}
}
