package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

func TestAuth(t *testing.T) {
	h := newHost(t)
	tests := []struct {
		name, value string
		want        int
	}{
		{"bearer", "Bearer key-acme", 200},
		{"lower case scheme", "bearer key-acme", 200},
		{"upper case scheme", "BEARER  key-acme ", 200},
		{"missing", "", 401},
		{"no key", "Bearer ", 401},
		{"unknown key", "Bearer nobody", 401},
		{"other scheme", "Basic key-acme", 401},
		{"no scheme", "key-acme", 401},
		{"key in other case", "Bearer KEY-ACME", 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := h.do("GET", "/v1/models", "", "Authorization", tt.value)
			if tt.want != 200 {
				a.wantError(t, tt.want, "invalid_api_key", "")
				return
			}
			if a.status != tt.want {
				t.Errorf("got %d, want %d", a.status, tt.want)
			}
		})
	}
	if strings.Contains(h.logged(), "key-acme") || strings.Contains(h.logged(), "nobody") {
		t.Error("a key is in the log")
	}
}

// A page of elsewhere may have its browser send a request to a host that wants no
// key: it is not served. One of this machine is.
func TestOpenHostIsForThisMachine(t *testing.T) {
	open, err := tenant.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, func(o *api.Options) { o.Tenants = open })
	h.key = ""
	for path, body := range map[string]string{"/v1/responses": `{"model":"m1","input":"hi"}`, "/v1/conversations": `{}`} {
		a := h.do("POST", path, body, "Origin", "https://elsewhere.example", "Content-Type", "text/plain")
		a.wantError(t, 403, "origin_not_allowed", "")
		if a := h.do("POST", path, body, "Origin", "http://localhost:3000"); a.status != 200 {
			t.Errorf("%s of this machine: got %d %s", path, a.status, a.body)
		}
	}
	if len(h.runner.runs) != 1 {
		t.Errorf("got %d runs, want 1", len(h.runner.runs))
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	h := newHost(t)
	for _, path := range []string{"/v1/nothing", "/v1", "/v1/", "/", "/v1/responses/", "/v1/responses/a/b", "/v1//responses", "/v1/models/"} {
		h.get(path).wantError(t, 404, "unknown_url", "")
	}
	for path, allow := range map[string]string{
		"/v1/responses": "GET, POST", "/v1/responses/x": "DELETE, GET", "/v1/responses/x/cancel": "POST",
		"/v1/chat/completions": "POST", "/v1/embeddings": "POST", "/v1/models": "GET", "/healthz": "GET, HEAD",
	} {
		a := h.do("PATCH", path, "{}")
		a.wantError(t, 405, "method_not_allowed", "")
		if got := a.header.Get("Allow"); got != allow {
			t.Errorf("%s: got Allow %q, want %q", path, got, allow)
		}
	}
}

// B2: a request that comes back from a host's own upstream ends here, instead
// of going round for ever or being answered with nothing.
func TestLoopIsRefused(t *testing.T) {
	h := newHost(t)
	for path, body := range map[string]string{
		"/v1/responses":        `{"model":"m1","input":"hi"}`,
		"/v1/chat/completions": `{"model":"m1","messages":[]}`,
	} {
		a := h.do("POST", path, body, queue.HopHeader, "1")
		a.wantError(t, http.StatusLoopDetected, "loop_detected", "")
		if got := a.header.Get("X-Should-Retry"); got != "false" {
			t.Errorf("%s: got x-should-retry %q, want false", path, got)
		}
	}
	if len(h.runner.runs) != 0 || len(h.store.records) != 0 {
		t.Errorf("got %d runs, %d records, want nothing submitted", len(h.runner.runs), len(h.store.records))
	}
}

func TestBadBodies(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.MaxBodyBytes = 30000 })
	const ok = `"model":"m1","input":"hi"`
	tests := []struct {
		name, body  string
		status      int
		code, param string
	}{
		{"empty", ``, 400, "invalid_json", ""},
		{"malformed", `{"model":"secret-thing",}`, 400, "invalid_json", ""},
		{"cut", `{"model":"secret-thing"`, 400, "invalid_json", ""},
		{"two values", `{} {}`, 400, "invalid_json", ""},
		{"not UTF-8", "{\"model\":\"\xff\"}", 400, "invalid_json", ""},
		{"array", `[]`, 400, "invalid_type", ""},
		{"no model", `{"input":"hi"}`, 400, "missing_required_parameter", "model"},
		{"model of wrong type", `{"model":1,"input":"hi"}`, 400, "invalid_type", "model"},
		{"unknown model", `{"model":"m9","input":"hi"}`, 404, "model_not_found", "model"},
		{"no input", `{"model":"m1"}`, 400, "missing_required_parameter", "input"},
		{"empty input", `{"model":"m1","input":[]}`, 400, "missing_required_parameter", "input"},
		{"too deep", `{` + ok + `,"foo":` + strings.Repeat("[", 10001) + strings.Repeat("]", 10001) + `}`, 400, "invalid_json", ""},
		{"input of wrong type", `{"model":"m1","input":7}`, 400, "invalid_type", "input"},
		{"stream of wrong type", `{` + ok + `,"stream":"yes"}`, 400, "invalid_type", "stream"},
		{"background without store", `{` + ok + `,"background":true,"store":false}`, 400, "invalid_value", "background"},
		{"NUL in model", `{"model":"m\u0000","input":"hi"}`, 400, "invalid_value", "model"},
		{"NUL in metadata", `{` + ok + `,"metadata":{"a":"b\u0000"}}`, 400, "invalid_value", "metadata"},
		{"NUL in a message's name", `{"model":"m1","input":[{"role":"user","name":"a\u0000","content":"x"}]}`, 400, "invalid_value", "input[0].name"},
		{"NUL in an allowed tool", `{` + ok + `,"tools":[{"type":"mcp","server_label":"far","connector_id":"x"},{"type":"mcp","server_label":"calc","allowed_tools":["a\u0000"]}]}`, 400, "invalid_value", "tools[1].allowed_tools"},
		{"NUL in a tool of tool_choice", `{` + ok + `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"\u0000"}]}}`, 400, "invalid_value", "tool_choice.tools[0].name"},
		{"NUL in user", `{` + ok + `,"user":"\u0000"}`, 400, "invalid_value", "user"},
		{"malformed previous", `{` + ok + `,"previous_response_id":"resp_zz"}`, 400, "previous_response_not_found", "previous_response_id"},
		{"output without call", `{"model":"m1","input":[{"type":"function_call_output","call_id":"c","output":"x"}]}`, 400, "invalid_value", "input"},
		{"unknown server", `{` + ok + `,"tools":[{"type":"mcp","server_label":"nothing"}]}`, 400, "unknown_server", "tools"},
		{"unknown tool of a server", `{` + ok + `,"tools":[{"type":"mcp","server_label":"calc","allowed_tools":["sub"]}]}`, 400, "unknown_tool", "tools"},
		{"clash", `{` + ok + `,"tools":[{"type":"function","name":"list"}]}`, 400, "duplicate_tool_name", "tools"},
		{"clash with a long name", `{` + ok + `,"tools":[{"type":"function","name":"calc__add"}]}`, 400, "duplicate_tool_name", "tools"},
		{"too large", `{` + ok + `,"instructions":"` + strings.Repeat("x", 30000) + `"}`, 413, "payload_too_large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := h.post("/v1/responses", tt.body)
			a.wantError(t, tt.status, tt.code, tt.param)
			if strings.Contains(string(a.body), "secret-thing") {
				t.Errorf("the body is echoed: %s", a.body)
			}
		})
	}
	if len(h.store.records) != 0 {
		t.Errorf("got %d requests stored, want none", len(h.store.records))
	}
	if a := h.post("/v1/responses", `{"model":"m1","input":"a\u0000b"}`); a.status != 200 {
		t.Errorf("U+0000 in text: got %d %s, want 200", a.status, a.body)
	}
	a := h.post("/v1/responses", `{"model":"m1",, "input":"hi"}`)
	if msg := a.object(t).Error.Message; !strings.Contains(msg, "byte 15") {
		t.Errorf("got message %q, want the place of the mistake", msg)
	}
	h.do("POST", "/v1/responses", "{}", "Content-Encoding", "gzip").wantError(t, 415, "unsupported_encoding", "")
}

// A body of unknown length is cut off at the cap too.
func TestChunkedBodyOverCap(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.MaxBodyBytes = 1000 })
	body := struct{ *strings.Reader }{strings.NewReader(`{"input":"` + strings.Repeat("x", 5000) + `"}`)}
	req, err := http.NewRequest("POST", h.url+"/v1/responses", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-acme")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 413 {
		t.Errorf("got %d, want 413", res.StatusCode)
	}
}

func TestModelsOfATenant(t *testing.T) {
	h := newHost(t)
	if o := h.get("/v1/models").object(t); len(o.Data) != 2 || o.Data[0].ID != "m1" || o.Data[1].ID != "m2" || o.Data[0].Created == 0 {
		t.Errorf("got %+v, want m1 and m2", o.Data)
	}
	if o := h.get("/v1/models/m2").object(t); o.ID != "m2" || o.Object != "model" {
		t.Errorf("got %+v, want m2", o)
	}
	h.key = "key-beta"
	if o := h.get("/v1/models").object(t); len(o.Data) != 1 || o.Data[0].ID != "m1" {
		t.Errorf("beta: got %+v, want m1 alone", o.Data)
	}
	h.get("/v1/models/m2").wantError(t, 404, "model_not_found", "model")
	h.get("/v1/models/org/m3").wantError(t, 404, "model_not_found", "model")
	h.post("/v1/responses", `{"model":"m2","input":"hi"}`).wantError(t, 404, "model_not_found", "model")
	h.post("/v1/chat/completions", `{"model":"m2","messages":[]}`).wantError(t, 404, "model_not_found", "model")
}

func TestHealth(t *testing.T) {
	var conditions fakeHealth
	h := newHost(t, func(o *api.Options) { o.Health = &conditions })
	h.key = ""
	if a := h.get("/healthz"); a.status != 200 {
		t.Errorf("healthz: got %d, want 200", a.status)
	}
	if a := h.do("HEAD", "/readyz", ""); a.status != 200 || len(a.body) != 0 {
		t.Errorf("HEAD readyz: got %d %q, want 200 without a body", a.status, a.body)
	}
	conditions = fakeHealth{{Name: "plugin calc", Optional: true, Message: "it traps at start"}}
	if a := h.get("/readyz"); a.status != 200 || !strings.Contains(string(a.body), "it traps at start") {
		t.Errorf("got %d %s, want 200 and the plugin's error", a.status, a.body)
	}
	conditions = fakeHealth{{Name: "store"}}
	if a := h.get("/readyz"); a.status != 503 {
		t.Errorf("got %d, want 503 without a store", a.status)
	}
	conditions = nil
	h.api.Drain()
	if a := h.get("/readyz"); a.status != 503 {
		t.Errorf("got %d, want 503 while draining", a.status)
	}
}

// overload says how long to wait.
type overload struct{}

func (overload) Error() string             { return "overloaded" }
func (overload) RetryAfter() time.Duration { return 2500 * time.Millisecond }

func TestRefusals(t *testing.T) {
	const body = `{"model":"m1","input":"hi","stream":%v}`
	tests := []struct {
		name   string
		change func(*host)
		status int
		code   string
		after  string
	}{
		{"lane at its cap", func(h *host) { h.runner.err = fmt.Errorf("x: %w", queue.ErrAtCap) }, 429, "concurrency_limit_exceeded", "1"},
		{"overloaded", func(h *host) { h.runner.err = fmt.Errorf("x: %w", overload{}) }, 503, "service_unavailable", "3"},
		{"store away", func(h *host) { h.store.sick = true }, 503, "service_unavailable", "5"},
		{"draining", func(h *host) { h.api.Drain() }, 503, "service_unavailable", "1"},
		{"database away", func(h *host) {
			h.runner.err = fmt.Errorf("x: %w: %w", store.ErrUnavailable, os.ErrDeadlineExceeded)
		}, 503, "service_unavailable", "5"},
		{"store closed", func(h *host) { h.runner.err = fmt.Errorf("x: %w", store.ErrClosed) }, 503, "service_unavailable", "1"},
		{"broken", func(h *host) { h.runner.err = errors.New("SELECT secret") }, 500, "server_error", ""},
	}
	for _, tt := range tests {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, " stream ", stream), func(t *testing.T) {
				h := newHost(t)
				tt.change(h)
				a := h.post("/v1/responses", fmt.Sprintf(body, stream))
				a.wantError(t, tt.status, tt.code, "")
				if got := a.header.Get("Retry-After"); got != tt.after {
					t.Errorf("got Retry-After %q, want %q", got, tt.after)
				}
				if strings.Contains(string(a.body), "secret") {
					t.Errorf("got %s, want nothing of the cause", a.body)
				}
			})
		}
	}
}

// TestOutcomes says what each failed outcome is answered with.
func TestOutcomes(t *testing.T) {
	tests := []struct {
		o      queue.Outcome
		status int
		code   string
	}{
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 401}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 402}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 403}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 408}, 504, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 429}, 429, "rate_limit_exceeded"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 400, Code: "context_length_exceeded"}, 400, "context_length_exceeded"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 422}, 422, "upstream_rejected"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 422, Code: "Key sk-123 is bad"}, 422, "upstream_rejected"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 500}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 503}, 503, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 504}, 504, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 404, Code: "model_gone", Message: "An upstream's."}, 502, "model_gone"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 529}, 503, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 501}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamStatus, Rejected: true, Status: 403, Code: "no_budget", Message: "Your budget is spent."}, 403, "no_budget"},
		{queue.Outcome{Class: queue.UpstreamStatus, Rejected: true, Status: 501, Code: "not_here", Message: "Not here."}, 501, "not_here"},
		{queue.Outcome{Class: queue.UpstreamStatus, Rejected: true, Status: 408, Code: "later", Message: "Later."}, 408, "later"},
		{queue.Outcome{Class: queue.UpstreamStatus, Rejected: true, Status: 429, Message: "Slowly."}, 429, "rejected_by_policy"},
		{queue.Outcome{Class: queue.UpstreamStatus, Rejected: true, Status: 200, Code: "odd", Message: "Odd."}, 502, "odd"},
		{queue.Outcome{Class: queue.UpstreamTimeout}, 504, "server_error"},
		{queue.Outcome{Class: queue.UpstreamNetwork}, 502, "server_error"},
		{queue.Outcome{Class: queue.UpstreamInvalid}, 502, "server_error"},
		{queue.Outcome{Class: queue.RateLimited, Status: 429}, 429, "rate_limit_exceeded"},
		{queue.Outcome{Class: queue.ClassDeadline}, 504, "server_error"},
		{queue.Outcome{Class: queue.WorkerLost}, 503, "server_error"},
		{queue.Outcome{Class: queue.PluginUnavailable}, 503, "server_error"},
		{queue.Outcome{Class: queue.HostError}, 500, "server_error"},
		{queue.Outcome{Class: queue.GuestTrap}, 500, "server_error"},
		{queue.Outcome{To: queue.Canceled}, 409, "canceled"},
	}
	for _, tt := range tests {
		for _, path := range []string{"/v1/responses", "/v1/chat/completions", "/v1/embeddings"} {
			t.Run(fmt.Sprintf("%s %d %s", tt.o.Class, tt.o.Status, path), func(t *testing.T) {
				h := newHost(t)
				h.runner.script = func(r *fakeRun) {
					o := tt.o
					if o.To == 0 {
						o.To = queue.Failed
					}
					o.RetryAfter = 7 * time.Second
					r.end(o)
				}
				a := h.post(path, `{"model":"m1","input":"hi"}`)
				a.wantError(t, tt.status, tt.code, "")
				if strings.Contains(string(a.body), "sk-123") || !strings.Contains(string(a.body), tt.o.Message) {
					t.Errorf("got %s, want the outcome's message and nothing of the upstream's", a.body)
				}
				if a.header.Get("Retry-After") != "7" {
					t.Errorf("got Retry-After %q, want 7", a.header.Get("Retry-After"))
				}
			})
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.Tools = nil })
	h.post("/v1/responses", `{"model":"m1","input":"hi"}`).wantError(t, 500, "server_error", "")
	if a := h.get("/healthz"); a.status != 200 {
		t.Errorf("after a panic: got %d, want 200", a.status)
	}
	if !strings.Contains(h.logged(), "handler panicked") {
		t.Error("the panic is not in the log")
	}
}
