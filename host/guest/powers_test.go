package guest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/internal/testguest"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// every is every op that the probe asks for.
var every = []string{abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall}

// probe is the source of a plugin that does what its arguments say.
func (r *rig) probe(change ...func(*guest.Source)) guest.Source {
	r.Helper()
	s := r.tool("testdata/probe", every...)
	for _, f := range change {
		f(&s)
	}
	return s
}

// request is one op that the probe is to ask for, and answer what it was told.
type request struct {
	Op   string          `json:"op"`
	Head json.RawMessage `json:"head,omitempty"`
	Body string          `json:"body,omitempty"`
}

type answer struct {
	Errno string          `json:"errno"`
	Head  json.RawMessage `json:"head"`
	Body  string          `json:"body"`
}

func op(name, head, body string) request { return request{name, json.RawMessage(head), body} }

// toolCall is a call of a tool of the probe for tenant acme.
func (r *rig) toolCall(set loop.Toolset, tool, arguments string) loop.ToolCall {
	r.Helper()
	i := slices.IndexFunc(set.Tools(), func(t response.ServerTool) bool { return t.Tool == tool })
	if i < 0 {
		r.Fatalf("no tool %s", tool)
	}
	return loop.ToolCall{
		Tool: set.Tools()[i], Arguments: []byte(arguments),
		Info:   abi.CallInfo{ResponseID: "resp_1", Step: "/1", Attempt: 1, IdempotencyKey: "1//1", Tenant: "acme", Model: "m"},
		Effect: func(context.Context) error { return nil },
	}
}

func (r *rig) resolve() loop.Toolset {
	r.Helper()
	var offers []response.Offer
	for _, t := range r.catalog.Granted() {
		offers = append(offers, response.Offer{Name: t.Tool, Plugin: t.Plugin, Tool: t.Tool})
	}
	set := r.catalog.Resolve("acme", offers)
	r.Cleanup(set.Release)
	return set
}

// ask lets the probe ask for ops, and returns what it was answered.
func (r *rig) ask(set loop.Toolset, change func(*loop.ToolCall), asked ...request) ([]answer, loop.ToolResult) {
	r.Helper()
	arguments, err := json.Marshal(map[string]any{"requests": asked})
	if err != nil {
		r.Fatal(err)
	}
	c := r.toolCall(set, "ask", string(arguments))
	if change != nil {
		change(&c)
	}
	res := set.Call(r.Context(), c)
	var answers []answer
	if res.Class == queue.OK {
		if err := json.Unmarshal([]byte(res.Output), &answers); err != nil || len(answers) != len(asked) {
			r.Fatalf("%s: %v, want %d answers", res.Output, err, len(asked))
		}
	}
	return answers, res
}

// head is what tests look at in the head of a reply.
type head struct {
	Status     int
	Error      string
	HTTPStatus int `json:"http_status"`
}

func (a answer) head(t *testing.T) head {
	t.Helper()
	var h head
	if err := json.Unmarshal(a.Head, &h); err != nil {
		t.Fatalf("head %q (errno %q): %v", a.Head, a.Errno, err)
	}
	return h
}

func TestState(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe())
	r.state["acme/probe/a"], r.state["acme/probe/b"], r.state["other/probe/c"] = "1", "2", "3"
	answers, res := r.ask(
		r.resolve(), nil,
		op(abi.OpKVGet, `{"key":"a"}`, ""), op(abi.OpKVGet, `{"key":"c"}`, ""), op(abi.OpKVList, `{}`, ""),
		op(abi.OpKVPut, `{"key":"a","ttl_ms":5000}`, "one"), op(abi.OpKVDelete, `{"key":"b"}`, ""),
	)
	for i, want := range []struct {
		status int
		body   string
	}{{200, "1"}, {404, ""}, {200, `["a","b"]`}, {204, ""}, {204, ""}} {
		if h := answers[i].head(t); h.Status != want.status || answers[i].Body != want.body {
			t.Errorf("answer %d: %+v %q, want %d %q", i, h, answers[i].Body, want.status, want.body)
		}
	}
	want := []store.KVPut{
		{Plugin: "probe", Key: "a", Value: []byte("one"), TTL: 5 * time.Second, Checked: true, Had: true, Was: []byte("1")},
		{Plugin: "probe", Key: "b", Delete: true},
	}
	if !reflect.DeepEqual(res.KV, want) {
		t.Errorf("writes\n%+v, want\n%+v", res.KV, want)
	}
}

// web is a server on loopback, and a rule for it.
func web(t *testing.T) (url string, rule egress.Rule, got *[]string) {
	t.Helper()
	got = &[]string{}
	var mu sync.Mutex
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mu.Lock()
		*got = append(*got, fmt.Sprintf("%s %s %s %v", r.Method, r.URL.Path, body, err))
		mu.Unlock()
		_, _ = w.Write([]byte("hello"))
	}))
	t.Cleanup(srv.Close)
	at, err := netip.ParseAddrPort(strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return srv.URL, egress.Rule{
		Scheme: "http", Host: at.Addr().String(), Port: int(at.Port()), Methods: []string{"GET", "POST"}, PathPrefix: "/v1", Private: true,
	}, got
}

func fetch(method, url string) request {
	return op(abi.OpHTTPFetch, fmt.Sprintf(`{"method":%q,"url":%q}`, method, url), "")
}

func TestFetch(t *testing.T) {
	r := newRig(t)
	url, rule, got := web(t)
	r.apply(r.probe(func(s *guest.Source) { s.HTTP = []egress.Rule{rule} }))
	effects := 0
	answers, res := r.ask(
		r.resolve(), func(c *loop.ToolCall) { c.Effect = func(context.Context) error { effects++; return nil } },
		fetch("GET", url+"/v1/x"), fetch("GET", url+"/v2"), fetch("POST", url+"/v1/x"), fetch("DELETE", url+"/v1/x"),
	)
	if res.Class != queue.OK {
		t.Fatalf("%+v", res)
	}
	for i, want := range []head{{200, "", 200}, {403, "denied", 0}, {200, "", 200}, {403, "denied", 0}} {
		if h := answers[i].head(t); h != want {
			t.Errorf("answer %d: %+v, want %+v", i, h, want)
		}
	}
	if answers[0].Body != "hello" || !slices.Equal(*got, []string{"GET /v1/x  <nil>", "POST /v1/x  <nil>"}) {
		t.Errorf("body %q, the server got %q, want the two that are allowed", answers[0].Body, *got)
	}
	if effects == 0 || effects > 2 {
		t.Errorf("told of %d effects, want those that are no GET", effects)
	}
	if text := r.audit.String(); strings.Contains(text, "127.0.0.1") || strings.Contains(text, "/v2") {
		t.Errorf("the guest's words are in the audit: %s", text)
	}
	if want := []refusal{{"probe.wasm", abi.OpHTTPFetch, capability.AuditRule}, {"probe.wasm", abi.OpHTTPFetch, capability.AuditRule}}; !slices.Equal(r.refused, want) {
		t.Errorf("refused %v, want %v", r.refused, want)
	}
}

// TestNoEffectWithoutTheLease: nothing goes out when the lease is not held.
func TestNoEffectWithoutTheLease(t *testing.T) {
	r := newRig(t)
	url, rule, got := web(t)
	r.apply(r.probe(func(s *guest.Source) { s.HTTP = []egress.Rule{rule} }))
	_, res := r.ask(r.resolve(), func(c *loop.ToolCall) {
		c.Effect = func(context.Context) error { return errors.New("lease lost") }
	}, fetch("POST", url+"/v1/x"))
	if res.Class != queue.ClassCanceled || len(*got) != 0 {
		t.Errorf("class %s, the server got %q, want the call to end before", res.Class, *got)
	}
}

func TestNestedCalls(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe(), r.tool("../../examples/tools/calculator"))
	set := r.resolve()
	var called []string
	answers, res := r.ask(
		set, func(c *loop.ToolCall) {
			c.Nested = nestedFunc(func(ctx context.Context, n int, tool string, arguments []byte) (loop.NestedReply, error) {
				called = append(called, fmt.Sprint(n, tool, string(arguments)))
				if tool == "again" {
					return loop.NestedReply{}, loop.ErrNestedDenied
				}
				inner := r.toolCall(set, tool, string(arguments))
				inner.Depth = 1
				out := set.Call(ctx, inner)
				return loop.NestedReply{Output: out.Output, IsError: out.Class != queue.OK}, nil
			})
		},
		op(abi.OpToolCall, `{"tool":"calculator"}`, `{"expression":"6*7"}`),
		op(abi.OpToolCall, `{"tool":"calculator"}`, `{"expression":"6*"}`), op(abi.OpToolCall, `{"tool":"again"}`, `{}`),
	)
	if res.Class != queue.OK {
		t.Fatalf("%+v", res)
	}
	if h := answers[0].head(t); h.Status != 200 || answers[0].Body != "42" {
		t.Errorf("6*7: %+v %q, want 42", h, answers[0].Body)
	}
	if h := answers[1].head(t); h.Status != abi.StatusToolFailed || h.Error != "invalid_args" {
		t.Errorf("6*: %+v, want the tool's code", h)
	}
	if want := abi.EPERM.Error(); answers[2].Errno != want {
		t.Errorf("a cycle: errno %q, want %q", answers[2].Errno, want)
	}
	if want := []string{`0calculator{"expression":"6*7"}`, `1calculator{"expression":"6*"}`, "2again{}"}; !slices.Equal(called, want) {
		t.Errorf("called %q, want %q", called, want)
	}
}

type nestedFunc func(ctx context.Context, n int, tool string, arguments []byte) (loop.NestedReply, error)

func (f nestedFunc) Call(ctx context.Context, n int, tool string, arguments []byte) (loop.NestedReply, error) {
	return f(ctx, n, tool, arguments)
}

// TestAudit: what is refused is told to the operator, a few lines whatever the
// guest does, and without a word of the guest.
func TestAudit(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe(func(s *guest.Source) { s.Grants = []string{abi.OpKVGet} }))
	var asked []request
	for i := range 50 {
		asked = append(asked, op(abi.OpKVPut, fmt.Sprintf(`{"key":"secret-%d"}`, i), "x"))
	}
	answers, _ := r.ask(r.resolve(), nil, append(asked, op("no.such/1", "{}", ""), op(abi.OpKVGet, `{"key":"k"}`, ""))...)
	if want := abi.EPERM.Error(); answers[0].Errno != want {
		t.Errorf("kv.put/1: errno %q, want %q", answers[0].Errno, want)
	}
	if want := abi.ENOSYS.Error(); answers[50].Errno != want {
		t.Errorf("an unknown op: errno %q, want %q", answers[50].Errno, want)
	}
	if h := answers[51].head(t); h.Status != abi.StatusNoEntry {
		t.Errorf("kv.get/1: %+v, want no entry", h)
	}
	if len(r.refused) != 50 || r.refused[0] != (refusal{"probe.wasm", abi.OpKVPut, capability.AuditNotGranted}) {
		t.Errorf("%d refusals, %v, want 50 of kv.put/1", len(r.refused), r.refused[:min(1, len(r.refused))])
	}
	text := r.audit.String()
	if n := strings.Count(text, "\n"); n != 2 {
		t.Errorf("%d lines of audit, want 2:\n%s", n, text)
	}
	for _, want := range []string{
		`"tenant":"acme"`, `"plugin":"probe"`, `"op":"kv.put/1"`, `"reason":"not_granted"`, `"times":49`, `"@module":"audit"`,
		`"response":"resp_1"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the audit:\n%s", want, text)
		}
	}
	if strings.Contains(text, "secret") || strings.Contains(text, "no.such") {
		t.Errorf("a guest's word is in the audit:\n%s", text)
	}
}

func TestLimits(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe(func(s *guest.Source) { s.Limits = plugins.Limits{Fuel: 2_000_000_000, Wall: 50 * time.Millisecond} }))
	set := r.resolve()
	if res := set.Call(t.Context(), r.toolCall(set, "spin", "{}")); res.Class != queue.GuestDeadline {
		t.Errorf("spin: %s, want the plugin's own time to end it", res.Class)
	}
	r.limits = plugins.Limits{Fuel: 1_000_000}
	set = r.resolve()
	res := set.Call(t.Context(), r.toolCall(set, "spin", "{}"))
	if res.Class != queue.GuestFuel || res.Fuel < 1_000_000 || res.Fuel > 1_100_000 {
		t.Errorf("spin: %s after %d, want the tenant's fuel to end it", res.Class, res.Fuel)
	}
	if res.Used.Memory == 0 {
		t.Errorf("used = %+v, want the memory of the call", res.Used)
	}
	if !strings.Contains(res.Detail, "1000000 fuel") {
		t.Errorf("detail %q, want the limit", res.Detail)
	}
	r.limits = plugins.Limits{Wall: time.Nanosecond} // counts from the next call on
	if res := set.Call(t.Context(), r.toolCall(set, "spin", "{}")); res.Class != queue.GuestDeadline || res.Fuel > 5_000_000 {
		t.Errorf("spin: %s after %d fuel, want the tenant's time to end it at once", res.Class, res.Fuel)
	}
}

func TestToolTimeout(t *testing.T) {
	r := newRig(t)
	timeout := func() time.Duration {
		set := r.resolve()
		return r.toolCall(set, "spin", "{}").Tool.Timeout
	}
	r.apply(r.probe())
	if got := timeout(); got != time.Second {
		t.Errorf("%s, want what the tool asks for", got)
	}
	r.limits = plugins.Limits{Wall: 20 * time.Millisecond}
	if got := timeout(); got != 20*time.Millisecond {
		t.Errorf("%s, want what the tenant may have", got)
	}
}

func TestLogAndDetail(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe())
	set := r.resolve()
	res := set.Call(t.Context(), r.toolCall(set, "say", `{"lines":["one\ntwo","\u001b[2J"]}`))
	if res.Class != queue.OK || !strings.Contains(res.Log, "warn: one") || strings.Contains(res.Log, "\x1b") {
		t.Errorf("%s, log %q, want the lines, fit to be read", res.Class, res.Log)
	}
	res = set.Call(t.Context(), r.toolCall(set, "say", `{"lines":["`+strings.Repeat("x", 200)+`"],"times":900}`))
	if len(res.Log) > response.MaxLog || !strings.Contains(res.Log, "more lines were not kept") {
		t.Errorf("log of %d bytes, want at most %d and a word of the rest", len(res.Log), response.MaxLog)
	}
	res = set.Call(t.Context(), r.toolCall(set, "die", "{}"))
	if res.Class != queue.GuestTrap || res.Detail == "" || len(res.Detail) > response.MaxDetail {
		t.Errorf("%s, detail %q, want a trap and a word on it", res.Class, res.Detail)
	}
	if text := r.log.String(); strings.Contains(text, "one") || strings.Contains(text, "xxx") {
		t.Errorf("a guest's words are in the host's log:\n%s", text)
	}
}

// TestEffects: the operator's word goes over the descriptor's.
func TestEffects(t *testing.T) {
	r := newRig(t)
	r.apply(r.probe(func(s *guest.Source) { s.Effects = map[string]string{"ask": "idempotent"} }))
	got := map[string]string{}
	for _, tool := range r.catalog.Granted() {
		got[tool.Tool] = tool.Effects
	}
	want := map[string]string{"ask": "idempotent", "say": "pure", "spin": "pure", "die": "pure"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	r.apply(r.probe())
	for _, tool := range r.catalog.Granted() {
		if tool.Tool == "ask" && tool.Effects != "once" {
			t.Errorf("a tool that declares nothing has effects %q, want once", tool.Effects)
		}
	}
}

func TestRefusedSettings(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		name   string
		source guest.Source
		want   string
	}{
		{"effects of no tool", r.probe(func(s *guest.Source) { s.Effects = map[string]string{"gone": "pure"} }), `plugin "probe" has no tool "gone"`},
		{"a rule that is none", r.probe(func(s *guest.Source) { s.HTTP = []egress.Rule{{Host: "a/b"}} }), "probe.wasm: egress: "},
		{"a policy with too little fuel", guest.Source{
			Role: guest.Retry, File: r.file("retry.wasm", testguest.Build(t, "../../policies/retry-default")),
			Limits: plugins.Limits{Fuel: 10_000},
		}, "does not answer the largest retry question with 5000 fuel in 50ms, half of what it has: guest_fuel"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := r.catalog.Apply(t.Context(), []guest.Source{tt.source})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Apply: %v; want %q", err, tt.want)
			}
		})
	}
}

// TestUnchangedSourceIsKept: a source is loaded again when any of it changed.
func TestUnchangedSourceIsKept(t *testing.T) {
	r := newRig(t)
	loads := func() int { return bytes.Count(r.log.Bytes(), []byte("module loaded")) }
	r.apply(r.probe())
	r.apply(r.probe())
	if n := loads(); n != 1 {
		t.Errorf("%d loads of the same source, want 1", n)
	}
	for i, change := range []func(*guest.Source){
		func(s *guest.Source) { s.Limits.Fuel = 1_000_000_000 },
		func(s *guest.Source) { s.Effects = map[string]string{"ask": "pure"} },
		func(s *guest.Source) { s.HTTP = []egress.Rule{{Host: "a.example"}} },
		func(s *guest.Source) {
			s.Secrets = []egress.Secret{{Name: "T", Host: "a.example", Header: "x", Value: "v"}}
		},
	} {
		before := loads()
		r.apply(r.probe(change))
		if loads() != before+1 {
			t.Errorf("change %d: not loaded again", i)
		}
	}
	if strings.Contains(r.log.String(), `"v"`) {
		t.Error("a secret is in the log")
	}
}
