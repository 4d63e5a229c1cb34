package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// script is a server by hand: what it answers to a method.
type script map[string]http.HandlerFunc

func (s script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var m struct {
		ID     json.RawMessage
		Method string
	}
	_ = json.Unmarshal(body, &m)
	if do := s[m.Method]; do != nil {
		r.Header.Set("X-Id", string(m.ID))
		do(w, r)
		return
	}
	switch m.Method {
	case "initialize":
		w.Header().Set("Mcp-Session-Id", "s1")
		result(w, m.ID, `{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1"}}`)
	case "server/discover":
		http.Error(w, "no", http.StatusBadRequest)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func result(w http.ResponseWriter, id json.RawMessage, body string) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, body)
}

// says answers a request with a result.
func says(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { result(w, json.RawMessage(r.Header.Get("X-Id")), body) }
}

// raw answers with any status, type and body.
func raw(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// endless writes a piece again and again, for as long as somebody reads.
func endless(kind, first, piece string, pause time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, err := io.WriteString(w, first)
		for err == nil {
			_, err = io.WriteString(w, piece)
			if pause > 0 {
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(pause):
				}
			}
		}
	}
}

func hangs(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func cuts(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":`)
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

func redirects(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

// TestHostile asks servers that answer badly at each point, and checks the
// closed words of the error, that it came in time, and that nothing is left.
func TestHostile(t *testing.T) {
	big := strings.Repeat("x", 64<<10)
	answers := []struct {
		name string
		do   http.HandlerFunc
		code string
	}{
		{"a huge answer", endless("application/json", `{"jsonrpc":"2.0","id":1,"result":"`, big, 0), "invalid"},
		{"a huge event", endless("text/event-stream", "data: ", big, 0), "invalid"},
		{"endless events", endless("text/event-stream", "", "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\""+big+"\"}}\n\n", 0), "invalid"},
		{"a slow drip", endless("application/json", `{"jsonrpc"`, " ", 10*time.Millisecond), "timeout"},
		{"a slow stream", endless("text/event-stream", "", ": still here\n\n", 10*time.Millisecond), "timeout"},
		{"no answer", hangs, "timeout"},
		{"no JSON", raw(200, "application/json", "<html>"), "invalid"},
		{"JSON of another kind", raw(200, "application/json", `[1,2]`), "invalid"},
		{"deep JSON", raw(200, "application/json", strings.Repeat("[", 100_000)), "invalid"},
		{"no event", raw(200, "text/event-stream", "data: {\"jsonrpc\n\n"), "invalid"},
		{"an empty stream", raw(200, "text/event-stream", ""), "invalid"},
		{"another type", raw(200, "text/html", "hello"), "invalid"},
		{"401", raw(401, "text/plain", "who are you"), "unauthorized"},
		{"403", raw(403, "text/plain", "no"), "unauthorized"},
		{"429", raw(429, "text/plain", "no"), "unreachable"},
		{"500", raw(500, "text/plain", "no"), "unreachable"},
		{"a cut answer", cuts, "unreachable"},
		{"metadata", redirects("http://169.254.169.254/latest/meta-data/"), "denied"},
		{"elsewhere", redirects("http://127.0.0.1:1/mcp"), "denied"},
		{"outside the path", redirects("/admin"), "denied"},
		{"a circle", redirects("/mcp"), "unreachable"},
	}
	for _, method := range []string{"initialize", "tools/list", "tools/call"} {
		for _, tt := range answers {
			t.Run(method+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				at := remote(t, script{method: tt.do})
				c := client(t, mcp.Options{CallTime: 2 * time.Second, ListTime: 2 * time.Second, MaxAnswers: 1 << 20}, at)
				began := time.Now()
				var got, text string
				if method == "tools/call" {
					r := c.Call(t.Context(), asked(at), callOf("x", `{}`))
					got, text = r.Code, r.Output
				} else {
					_, err := c.Tools(t.Context(), asked(at))
					got, text = code(err), fmt.Sprint(err)
				}
				if got != tt.code || strings.Contains(text, "127.0.0.1") || strings.Contains(text, "169.254") || strings.Contains(text, "who are") {
					t.Errorf("got %q: %s; want %s", got, text, tt.code)
				}
				if since := time.Since(began); since > 30*time.Second {
					t.Errorf("it took %s", since)
				}
			})
		}
	}
}

// TestNothingLeft ends sessions with bad servers and counts what is left.
func TestNothingLeft(t *testing.T) {
	noneLeft(t)
	big := strings.Repeat("x", 64<<10)
	for name, do := range map[string]http.HandlerFunc{
		"huge": endless("text/event-stream", "data: ", big, 0), "drip": endless("text/event-stream", "", ": x\n\n", time.Millisecond),
		"silent": hangs, "cut": cuts, "html": raw(200, "text/html", "x"),
	} {
		for _, method := range []string{"initialize", "tools/call", "notifications/cancelled", "notifications/initialized"} {
			s := script{method: do}
			if method == "notifications/cancelled" {
				s["tools/call"] = hangs
			}
			at := remote(t, s)
			c := client(t, mcp.Options{CallTime: 200 * time.Millisecond, MaxAnswers: 1 << 20}, at)
			if r := c.Call(t.Context(), asked(at), callOf("x", `{}`)); r.Class == queue.OK {
				t.Errorf("%s %s: got %s", name, method, r.Output)
			}
			c.Close()
		}
	}
}

// TestLists reads lists that are beyond their bounds.
func TestLists(t *testing.T) {
	many := func(n int, size int) string {
		var tools []string
		for i := range n {
			tools = append(tools, fmt.Sprintf(`{"name":"t%d","description":%q,"inputSchema":{"type":"object"}}`, i, strings.Repeat("d", size)))
		}
		return `{"tools":[` + strings.Join(tools, ",") + `]}`
	}
	var pages atomic.Int64
	tests := []struct {
		name string
		do   http.HandlerFunc
		want string // names, or what the error says
	}{
		{"odd tools", says(`{"tools":[{"name":"ok"},{"name":"ok","description":"again"},{"name":"a b","inputSchema":{"type":"object"}},{"name":""},
			{"name":"` + strings.Repeat("n", 65) + `"},null,{"name":"arr","inputSchema":{"type":"array"}},{"name":"str","inputSchema":"x"},
			{"name":"typeless","inputSchema":{"properties":{}},"annotations":{"readOnlyHint":true}}]}`), "ok,typeless"},
		{"none", says(`{"tools":[]}`), ""},
		{"null", says(`{"tools":null}`), ""},
		{"256 tools", says(many(256, 1)), "t0,"},
		{"257 tools", says(many(257, 1)), "allowed_tools"},
		{"too long", says(many(20, 60_000)), "allowed_tools"},
		{"one cursor", says(`{"tools":[],"nextCursor":"again"}`), "does not end"},
		{"pages", func(w http.ResponseWriter, r *http.Request) {
			says(fmt.Sprintf(`{"tools":[],"nextCursor":"c%d"}`, pages.Add(1)))(w, r)
		}, "does not end"},
		{"an error", func(w http.ResponseWriter, r *http.Request) {
			raw(200, "application/json", `{"jsonrpc":"2.0","id":`+r.Header.Get("X-Id")+`,"error":{"code":-32603,"message":"at 10.0.0.1"}}`)(w, r)
		}, "refused to list"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			noneLeft(t)
			at := remote(t, script{"tools/list": tt.do})
			c := client(t, mcp.Options{}, at)
			tools, err := c.Tools(t.Context(), asked(at))
			got := strings.Join(names(tools), ",")
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tt.want) || tt.want == "" && got != "" || strings.Contains(got, "10.0.0.1") {
				t.Errorf("got %.200q, want %q", got, tt.want)
			}
		})
	}
}

// TestBytesOfAll checks that the answers of a session are bounded together.
func TestBytesOfAll(t *testing.T) {
	noneLeft(t)
	var pages atomic.Int64
	at := remote(t, script{"tools/list": func(w http.ResponseWriter, r *http.Request) {
		n := pages.Add(1)
		body := fmt.Sprintf(`{"tools":[],"_meta":{"x":%q},"nextCursor":"c%d"}`, strings.Repeat("x", 10<<10), n)
		if n == 20 {
			body = `{"tools":[]}`
		}
		says(body)(w, r)
	}})
	c := client(t, mcp.Options{MaxAnswers: 100 << 10}, at)
	_, err := c.Tools(t.Context(), asked(at))
	if code(err) != "invalid" || !strings.Contains(err.Error(), "too long") || pages.Load() > 12 {
		t.Errorf("got %v after %d pages", err, pages.Load())
	}
}

// TestForgotten checks that a server which forgot the session is asked again,
// once, and that the call is announced each time.
func TestForgotten(t *testing.T) {
	for _, times := range []int64{1, 2} {
		t.Run(fmt.Sprint(times), func(t *testing.T) {
			noneLeft(t)
			var calls atomic.Int64
			at := remote(t, script{"tools/call": func(w http.ResponseWriter, r *http.Request) {
				if calls.Add(1) <= times {
					http.Error(w, "session not found", http.StatusNotFound)
					return
				}
				says(`{"content":[{"type":"text","text":"there"}]}`)(w, r)
			}})
			c := client(t, mcp.Options{}, at)
			effects := 0
			call := callOf("x", `{}`)
			call.Effect = func(context.Context) error { effects++; return nil }
			r := c.Call(t.Context(), asked(at), call)
			if ok := r.Class == queue.OK && r.Output == "there"; ok != (times == 1) || effects != 2 || calls.Load() != 2 {
				t.Errorf("forgotten %d times: got %s %s after %d calls and %d effects", times, r.Class, r.Output, calls.Load(), effects)
			}
		})
	}
}

// TestAsksBack checks that a server can ask nothing of this host, and not make
// it send without end.
func TestAsksBack(t *testing.T) {
	noneLeft(t)
	var answers, requests atomic.Int64
	var refused atomic.Bool
	inner := script{
		"tools/call": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i, m := range []string{"sampling/createMessage", "elicitation/create", "roots/list", "x/unknown"} {
				fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":\"q%d\",\"method\":%q,\"params\":{\"messages\":[],\"message\":\"x\"}}\n\n", i, m)
			}
			_ = http.NewResponseController(w).Flush()
			for answers.Load() < 4 && r.Context().Err() == nil {
				<-time.After(time.Millisecond)
			}
			fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"done\"}]}}\n\n", r.Header.Get("X-Id"))
		},
	}
	at := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"error"`) && strings.Contains(string(body), `"id":"q`) {
			answers.Add(1)
			refused.Store(strings.Contains(string(body), "-32601"))
		}
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		inner.ServeHTTP(w, r)
	}))
	c := client(t, mcp.Options{CallTime: 20 * time.Second}, at)
	if r := c.Call(t.Context(), asked(at), callOf("x", `{}`)); r.Output != "done" || answers.Load() != 4 || !refused.Load() {
		t.Errorf("got %s %s with %d refusals", r.Class, r.Output, answers.Load())
	}
	inner["tools/call"] = endless("text/event-stream", "", "data: {\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}\n\n", 100*time.Microsecond)
	requests.Store(0)
	began := time.Now()
	if r := c.Call(t.Context(), asked(at), callOf("x", `{}`)); r.Class == queue.OK {
		t.Errorf("got %s %s", r.Class, r.Output)
	}
	if since := time.Since(began); since > 15*time.Second {
		t.Errorf("the call was not given up before %s", since)
	}
	c.Close()
	if n := requests.Load(); n > 200 {
		t.Errorf("the server made this host send %d requests", n)
	}
}

// TestNeedsInput checks that a tool which asks for input before it goes on has
// failed.
func TestNeedsInput(t *testing.T) {
	noneLeft(t)
	at := remote(t, script{"tools/call": says(`{"resultType":"input_required","content":[],"inputRequests":{},"requestState":"s"}`)})
	c := client(t, mcp.Options{}, at)
	if r := c.Call(t.Context(), asked(at), callOf("x", `{}`)); r.Class != queue.GuestError || r.Code != "input_required" {
		t.Errorf("got %s %s", r.Class, r.Output)
	}
}

// TestEndpointElsewhere checks that a server of the older kind which names an
// address elsewhere to write to does not send the client's credentials there.
func TestEndpointElsewhere(t *testing.T) {
	noneLeft(t)
	var wrote atomic.Int64
	var leaked atomic.Bool
	other := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wrote.Add(1)
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "" || r.Header.Get("X-Key") != "")
		w.WriteHeader(http.StatusAccepted)
	}))
	at := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		endless("text/event-stream", "event: endpoint\ndata: "+other+"\n\n", ": wait\n\n", 10*time.Millisecond)(w, r)
	}))
	c := client(t, mcp.Options{CallTime: time.Second}, at, other)
	with := response.Credentials{Authorization: "t", Headers: map[string]string{"X-Key": "k"}}
	if r := c.Call(t.Context(), asked(at, with), callOf("x", `{}`)); r.Class != queue.GuestDeadline {
		t.Errorf("got %s %s", r.Class, r.Output)
	}
	if wrote.Load() == 0 || leaked.Load() {
		t.Errorf("%d requests came, with credentials: %v", wrote.Load(), leaked.Load())
	}
}
