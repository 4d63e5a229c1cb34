package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// mcpVersions are those of the protocol that clients speak.
var mcpVersions = []string{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", ""}

// withMCP serves /mcp.
func withMCP(o *api.Options) {
	o.MCP = mcp.NewServer("test")
	o.Tools = fakeTools{
		effects(tool("notes", "add"), "idempotent"), effects(tool("notes", "list"), "pure"), tool("calc", "add"),
	}
}

func effects(t response.ServerTool, e string) response.ServerTool {
	t.Description, t.Effects = "Of "+t.Plugin+".", e
	return t
}

// keyed adds a key to each request of a client.
type keyed string

func (k keyed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(k))
	return http.DefaultTransport.RoundTrip(r)
}

// dialMCP connects an MCP client to the host.
func (h *host) dialMCP(version string) *sdk.ClientSession {
	h.t.Helper()
	c := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	s, err := c.Connect(h.t.Context(), &sdk.StreamableClientTransport{
		Endpoint: h.url + "/mcp", HTTPClient: &http.Client{Transport: keyed(h.key)}, DisableStandaloneSSE: true,
	}, &sdk.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = s.Close() })
	return s
}

// answers is the script of a call whose output tells what was asked.
func answers(failed bool) func(*fakeRun) {
	return func(r *fakeRun) {
		b, err := response.DecodeBrief(r.Body)
		if err != nil || b.Direct == nil {
			panic("no direct call")
		}
		var offers []string
		for _, o := range b.Offers {
			offers = append(offers, o.Name)
		}
		text := fmt.Sprintf("%s %s %s %s store=%v stream=%v %s %s %s", r.Tenant, r.Path, r.Model, b.Request.Model, r.Store, r.Stream,
			b.Direct.Name, b.Direct.Arguments, strings.Join(offers, "+"))
		body, _ := json.Marshal(map[string]any{"output": text, "error": "", "failed": failed})
		r.end(queue.Outcome{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200, ContentType: "application/json", Body: body})
	}
}

// TestMCPTools lists and calls tools in every version of the protocol.
func TestMCPTools(t *testing.T) {
	for _, version := range mcpVersions {
		t.Run("version "+version, func(t *testing.T) {
			h := newHost(t, withMCP)
			h.runner.script = answers(false)
			s := h.dialMCP(version)
			if got := s.InitializeResult().ProtocolVersion; version != "" && got != version {
				t.Errorf("got version %s", got)
			}
			list, err := s.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, tool := range list.Tools {
				line := tool.Name + ":" + tool.Description
				if a := tool.Annotations; a != nil {
					line += fmt.Sprint(a.ReadOnlyHint, a.IdempotentHint)
				}
				schema, _ := json.Marshal(tool.InputSchema)
				got = append(got, line+string(schema))
			}
			want := `calc__add:{"type":"object"} list:Of notes.true false{"type":"object"} notes__add:Of notes.false true{"type":"object"}`
			if sorted := strings.Join([]string{got[0], got[2], got[1]}, " "); sorted != want {
				t.Errorf("got  %s\nwant %s", sorted, want)
			}
			for _, failed := range []bool{false, true} {
				h.runner.script = answers(failed)
				res, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "notes__add", Arguments: json.RawMessage(`{"text":"hi"}`)})
				if err != nil {
					t.Fatal(err)
				}
				text := res.Content[0].(*sdk.TextContent).Text
				if want := `acme /mcp mcp mcp store=false stream=false notes__add {"text":"hi"} calc__add+notes__add+list`; text != want || res.IsError != failed {
					t.Errorf("got  %s, error %v\nwant %s", text, res.IsError, want)
				}
			}
			_, err = s.CallTool(t.Context(), &sdk.CallToolParams{Name: "nothing"})
			if err == nil || !strings.Contains(err.Error(), "unknown tool") {
				t.Errorf("got %v", err)
			}
			if strings.Contains(h.logged(), "hi") {
				t.Errorf("the log holds arguments: %s", h.logged())
			}
		})
	}
}

// TestMCPTenants checks that each tenant sees and calls its own tools only.
func TestMCPTenants(t *testing.T) {
	h := newHost(t, withMCP)
	h.runner.script = answers(false)
	for key, want := range map[string]string{
		"key-acme": "calc__add notes__add list", "key-beta": "calc__add notes__add list", "key-gamma": "add list",
	} {
		h.key = key
		s := h.dialMCP("")
		list, err := s.ListTools(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, tool := range list.Tools {
			got = append(got, tool.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %s", key, got, want)
		}
	}
	h.key = "key-gamma"
	if _, err := h.dialMCP("").CallTool(t.Context(), &sdk.CallToolParams{Name: "notes__add"}); err == nil {
		t.Error("another tenant's tool was called")
	}
	h.key = "key-none"
	if a := h.post("/mcp", `{"jsonrpc":"2.0","id":1,"method":"ping"}`); a.status != http.StatusUnauthorized {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

// stuck is the script of a call that ends when it is stopped.
func stuck(began chan<- queue.ID) func(*fakeRun) {
	return func(r *fakeRun) {
		began <- r.ID
		<-r.ctx.Done()
		r.end(queue.Outcome{To: queue.Canceled, Class: queue.ClassCanceled})
	}
}

// TestMCPCancel checks that a client which gives a call up stops its run, in
// every version of the protocol.
func TestMCPCancel(t *testing.T) {
	for _, version := range mcpVersions {
		t.Run("version "+version, func(t *testing.T) {
			h := newHost(t, withMCP)
			began := make(chan queue.ID, 1)
			h.runner.script = stuck(began)
			s := h.dialMCP(version)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := s.CallTool(ctx, &sdk.CallToolParams{Name: "list"})
				done <- err
			}()
			id := wait(t, began, "the run")
			cancel()
			if err := wait(t, done, "the call"); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			if got := wait(t, h.store.canceled, "the cancel"); got != id {
				t.Errorf("%s was canceled, want %s", got, id)
			}
			if cause := wait(t, h.runner.stopped, "the stop"); !errors.Is(cause, queue.ErrClientGone) {
				t.Errorf("stopped with %v", cause)
			}
		})
	}
}

const mcpCall = `{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"list","arguments":{}}}`

// TestMCPCancelMessage checks that a client may cancel its own call by a
// message, and nobody else's.
func TestMCPCancelMessage(t *testing.T) {
	h := newHost(t, withMCP)
	began := make(chan queue.ID, 2)
	h.runner.script = stuck(began)
	head := []string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "Mcp-Session-Id", "s1"}
	done := make(chan answer, 1)
	go func() { done <- h.do("POST", "/mcp", fmt.Sprintf(mcpCall, `"7"`), head...) }()
	id := wait(t, began, "the run")
	cancel := func(id string, header ...string) {
		t.Helper()
		a := h.do("POST", "/mcp", `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`+id+`}}`, append(head[:len(head):len(head)], header...)...)
		if a.status != http.StatusAccepted {
			t.Errorf("got %d %s", a.status, a.body)
		}
	}
	cancel(`7`)
	cancel(`"7"`, "Mcp-Session-Id", "s2")
	cancel(`"7"`, "Authorization", "Bearer key-beta")
	select {
	case <-h.store.canceled:
		t.Fatal("a stranger canceled the call")
	default:
	}
	cancel(`"7"`)
	if got := wait(t, h.store.canceled, "the cancel"); got != id {
		t.Errorf("%s was canceled", got)
	}
	if a := wait(t, done, "the answer"); a.status != http.StatusAccepted || len(a.body) > 0 {
		t.Errorf("got %d %s, want no answer", a.status, a.body)
	}
}

// TestMCPFailures checks what a client is told of a call that did not end.
func TestMCPFailures(t *testing.T) {
	ends := func(o queue.Outcome) func(*fakeRun) { return func(r *fakeRun) { r.end(o) } }
	tests := []struct {
		name   string
		err    error
		script func(*fakeRun)
		want   string
	}{
		{"at the cap", fmt.Errorf("store: %w", queue.ErrAtCap), nil, "As many requests"},
		{"no store", fmt.Errorf("store: at 10.0.0.1: %w", store.ErrUnavailable), nil, "store is away"},
		{"deadline", nil, ends(queue.Outcome{To: queue.Failed, Class: queue.ClassDeadline}), "deadline"},
		{"host error", nil, ends(queue.Outcome{To: queue.Failed, Class: queue.HostError, Status: 500}), "failed inside the host"},
		{"canceled", nil, ends(queue.Outcome{To: queue.Canceled}), "canceled"},
		{"nonsense", nil, ends(queue.Outcome{To: queue.Completed, Class: queue.OK, Body: []byte("10.0.0.1")}), "made a mistake"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, withMCP)
			h.runner.err, h.runner.script = tt.err, tt.script
			_, err := h.dialMCP("2025-06-18").CallTool(t.Context(), &sdk.CallToolParams{Name: "list"})
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "10.0.0.1") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestMCPRefused checks what is refused before the protocol begins.
func TestMCPRefused(t *testing.T) {
	h := newHost(t, withMCP, func(o *api.Options) { o.MaxBodyBytes = 1 << 10 })
	h.runner.script = answers(false)
	call := fmt.Sprintf(mcpCall, "1")
	head := []string{"Content-Type", "application/json", "Accept", "application/json, text/event-stream"}
	tests := []struct {
		name, method, body string
		header             []string
		status             int
		want               string
	}{
		{"fine", "POST", call, nil, 200, `"result"`},
		{"own origin", "POST", call, []string{"Origin", h.url}, 200, `"result"`},
		{"foreign origin", "POST", call, []string{"Origin", "https://evil.example.com"}, 403, "origin_not_allowed"},
		{"null origin", "POST", call, []string{"Origin", "null"}, 403, "origin_not_allowed"},
		{"a stream", "GET", "", nil, 405, "method_not_allowed"},
		{"an end", "DELETE", "", nil, 405, "method_not_allowed"},
		{"a batch", "POST", " [" + call + "," + call + "]", nil, 400, "Batches"},
		{"no JSON", "POST", "{", nil, 400, ""},
		{"nothing", "POST", "", nil, 400, ""},
		{"no method", "POST", `{"jsonrpc":"2.0","id":1,"method":"prompts/list","params":{}}`, nil, 200, "-32601"},
		{"subscriptions", "POST", `{"jsonrpc":"2.0","id":1,"method":"logging/setLevel","params":{"level":"debug"}}`, nil, 200, "-32601"},
		{"too large", "POST", call + strings.Repeat(" ", 1<<10), nil, 413, "payload_too_large"},
		{"a loop", "POST", call, []string{queue.HopHeader, "1"}, 508, "loop_detected"},
		{"an old version", "POST", call, []string{"Mcp-Protocol-Version", "1999-01-01"}, 400, ""},
		{"an odd type", "POST", call, []string{"Content-Type", "text/plain"}, 415, ""},
	}
	for _, tt := range tests {
		a := h.do(tt.method, "/mcp", tt.body, append(head[:len(head):len(head)], tt.header...)...)
		if a.status != tt.status || !strings.Contains(string(a.body), tt.want) {
			t.Errorf("%s: got %d %s, want %d with %s", tt.name, a.status, a.body, tt.status, tt.want)
		}
	}
	h.api.Drain()
	if a := h.do("POST", "/mcp", call, head...); a.status != http.StatusServiceUnavailable {
		t.Errorf("draining: got %d %s", a.status, a.body)
	}
	if a := newHost(t).post("/mcp", call); a.status != http.StatusNotFound {
		t.Errorf("without a server: got %d %s", a.status, a.body)
	}
}

// TestMCPOpenHost checks that where no key is needed only pages of this machine
// may ask: a page elsewhere could give its own name to this address.
func TestMCPOpenHost(t *testing.T) {
	h := newHost(t, withMCP, func(o *api.Options) {
		open, err := tenant.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		o.Tenants = open
	})
	h.runner.script = answers(false)
	for origin, status := range map[string]int{
		"http://localhost:6274": 200, "http://127.0.0.1:3000": 200, "http://[::1]:3000": 200, "http://evil.example.com": 403, "file://": 403,
	} {
		a := h.do("POST", "/mcp", fmt.Sprintf(mcpCall, "1"), "Content-Type", "application/json",
			"Accept", "application/json, text/event-stream", "Origin", origin, "Host", "evil.example.com")
		if a.status != status {
			t.Errorf("%s: got %d %s, want %d", origin, a.status, a.body, status)
		}
	}
}

// TestMCPDrain checks that a call which the end of the host cuts is not canceled
// in the store.
func TestMCPDrain(t *testing.T) {
	h := newHost(t, withMCP)
	began := make(chan queue.ID, 1)
	h.runner.script = func(r *fakeRun) {
		began <- r.ID
		<-r.ctx.Done()
		r.end(queue.Outcome{To: queue.Canceled})
	}
	done := make(chan error, 1)
	s := h.dialMCP("2025-06-18")
	go func() {
		_, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "list"})
		done <- err
	}()
	id := wait(t, began, "the run")
	h.api.Drain()
	h.endConns(queue.ErrShutdown)
	if err := wait(t, done, "the call"); err == nil {
		t.Error("the call has a result")
	}
	select {
	case <-h.store.canceled:
		t.Error("the call was canceled in the store")
	case <-time.After(20 * time.Millisecond):
	}
	h.runner.mu.Lock()
	run := h.runner.runs[id]
	h.runner.mu.Unlock()
	run.cancel(queue.ErrShutdown)
}
