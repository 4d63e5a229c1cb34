package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// remotes are MCP servers made of functions, by label.
type remotes struct {
	mu    sync.Mutex
	list  map[string]func(ctx context.Context) ([]response.RemoteTool, error)
	call  func(ctx context.Context, c loop.ToolCall) loop.ToolResult
	asked []loop.RemoteServer
}

func (m *remotes) Tools(ctx context.Context, s loop.RemoteServer) ([]response.RemoteTool, error) {
	m.mu.Lock()
	m.asked = append(m.asked, s)
	m.mu.Unlock()
	return m.list[s.Label](ctx)
}

func (m *remotes) Call(ctx context.Context, s loop.RemoteServer, c loop.ToolCall) loop.ToolResult {
	m.mu.Lock()
	m.asked = append(m.asked, s)
	m.mu.Unlock()
	if err := c.Effect(ctx); err != nil {
		return stopped(ctx)
	}
	return m.call(ctx, c)
}

func lists(names ...string) func(context.Context) ([]response.RemoteTool, error) {
	return func(context.Context) ([]response.RemoteTool, error) {
		var all []response.RemoteTool
		for _, name := range names {
			all = append(all, response.RemoteTool{Name: name, InputSchema: json.RawMessage(`{"type":"object"}`)})
		}
		return all, nil
	}
}

// refers lets each response name the servers, and the tools of this host.
func (r *rig) refers(servers ...response.Remote) {
	r.change = func(j *response.Brief, n *queue.New) {
		for _, s := range servers {
			ref := response.ServerRef{Label: s.Label, URL: s.URL}
			j.Request.Servers = append(j.Request.Servers, ref)
			if s.URL != "" {
				j.Remotes = append(j.Remotes, s)
			}
		}
		n.Secret = []byte(`{"maps":{"authorization":"token"}}`)
	}
}

func maps(allowed ...string) response.Remote {
	return response.Remote{Label: "maps", URL: "https://maps.example/mcp", Allowed: allowed}
}

// TestRemoteTools lists a server's tools and those of this host, and calls one
// of each.
func TestRemoteTools(t *testing.T) {
	m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find", "add", "hidden")}}
	m.call = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
		return ok(fmt.Sprintf("%s/%s %s", c.Tool.Plugin, c.Tool.Tool, c.Arguments))
	}
	r := newRig(t, thenTell(`find {"n":1}`, `maps__add {"n":2}`, `add {"n":3}`), loop.Options{Remotes: m})
	r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("3") }
	r.refers(response.Remote{Label: plugin}, maps("find", "add"))
	o, events, id := r.run(`{"model":"m","input":"hello","stream":true}`)
	got := r.object(o.Body)
	if want := `call_0=maps/find {"n":1} | call_1=maps/add {"n":2} | call_2=3`; got.text() != want {
		t.Errorf("text %q, want %q", got.text(), want)
	}
	if want := "mcp_list_tools: mcp_list_tools: mcp_call:completed mcp_call:completed mcp_call:completed message:completed"; got.kinds() != want {
		t.Errorf("items %q, want %q", got.kinds(), want)
	}
	if all := names(events); strings.Count(all, "response.mcp_list_tools.completed") != 2 {
		t.Errorf("events %s", all)
	}
	if tools := asked(r.upstream.Requests()[0].Body).tools(); tools != "add find maps__add" {
		t.Errorf("the model was offered %s", tools)
	}
	for _, s := range m.asked {
		if s.URL != "https://maps.example/mcp" || s.Authorization != "token" || s.Tenant != "t" {
			t.Errorf("asked %+v", s)
		}
	}
	if len(m.asked) != 3 {
		t.Errorf("asked %d times, want for a list and two calls", len(m.asked))
	}
	rec := r.record(id)
	for key, kind := range map[string]response.StepKind{"/0": response.ListTools, "/1": response.ListTools, "/2": response.ModelCall, "/3": response.ToolCall} {
		if s := r.step(rec, key); s.Kind != kind || s.State != response.Completed {
			t.Errorf("step %s: %+v", key, s)
		}
	}
	if s := r.step(rec, "/3"); s.Effects != "once" || !s.EffectStarted {
		t.Errorf("a server's call is %+v; want once, and begun", s)
	}
	r.spy.mu.Lock()
	for _, w := range r.spy.writes {
		for _, s := range w.Steps {
			if s.Plugin == "maps" && s.Kind == response.ToolCall && s.State == response.Running && !s.EffectStarted {
				t.Errorf("a server's call ran as if it could not have begun an effect: %+v", s)
			}
		}
	}
	r.spy.mu.Unlock()
	for _, text := range []string{string(o.Body), string(rec.Body), fmt.Sprint(rec.Steps), fmt.Sprint(events)} {
		if strings.Contains(text, "token\"") && strings.Contains(text, "authorization") {
			t.Errorf("the client's credentials are in %s", text)
		}
	}
}

// TestListFails checks that a response does without a server that does not list
// its tools, whatever the reason, and that nobody is asked for another try.
func TestListFails(t *testing.T) {
	hangs := func(ctx context.Context) ([]response.RemoteTool, error) {
		<-ctx.Done()
		return nil, fmt.Errorf("maps: %w", ctx.Err())
	}
	for _, tt := range []struct {
		name string
		list func(context.Context) ([]response.RemoteTool, error)
		want string
	}{
		{"denied", func(context.Context) ([]response.RemoteTool, error) {
			return nil, fmt.Errorf("wrapped: %w", &loop.RemoteError{Code: "denied", Message: "Not that one."})
		}, "Not that one."},
		{"odd", func(context.Context) ([]response.RemoteTool, error) { return nil, errors.New("its own words") }, "did not answer"},
		{"hangs", hangs, "in time"},
		{"panics", func(context.Context) ([]response.RemoteTool, error) { panic("oh") }, "failed"},
		{"nil", nil, "no other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": tt.list}}
			o := loop.Options{ListWithin: 20 * time.Millisecond}
			if tt.list != nil {
				o.Remotes = m
			}
			r := newRig(t, thenTell("add {}", "find {}"), o)
			r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("3") }
			r.policy.retry = retries(3, 0)
			r.refers(maps())
			out, events, id := r.run(`{"model":"m","input":"hello","stream":true}`)
			got := r.object(out.Body)
			if got.Status != "completed" || !strings.HasPrefix(got.text(), "call_0=3 | call_1=") || !strings.Contains(got.text(), "unknown_tool") {
				t.Errorf("%s, text %q", got.Status, got.text())
			}
			if all := names(events); !strings.Contains(all, "response.mcp_list_tools.failed") {
				t.Errorf("events %s", all)
			}
			if told, _ := json.Marshal(got.Output[0].Error); !strings.Contains(string(told), tt.want) || strings.Contains(string(out.Body), "its own words") {
				t.Errorf("the client was told %s, want %q", told, tt.want)
			}
			if s := r.step(r.record(id), "/0"); s.State != response.Failed || s.Tries != 1 {
				t.Errorf("the list's step: %+v", s)
			}
		})
	}
}

// TestApproval follows a call that waits for the client through two responses.
func TestApproval(t *testing.T) {
	for _, tt := range []struct{ answer, want string }{
		{`{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":true}`, "found"},
		{`{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":false,"reason":"not now"}`, "not now"},
	} {
		m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find", "look")}}
		var n counter
		m.call = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
			n.run(c)
			return ok("found")
		}
		r := newRig(t, func(_ int, req demo.Request) demo.Turn {
			if outs := told(req.Body); len(outs) > 0 {
				return demo.Turn{Text: strings.Join(outs, " | ")}
			}
			return demo.Turn{Calls: calls(`find {"n":1}`, `look {"n":2}`)}
		}, loop.Options{Remotes: m})
		server := maps()
		server.Approval = response.Approval{Named: []string{"find"}}
		r.refers(server)
		o, _, _ := r.run(simple)
		got := r.object(o.Body)
		if !strings.Contains(got.kinds(), "mcp_approval_request") || got.Status != "completed" || n.String() != `map[look {"n":2}:1] under 1 keys` {
			t.Errorf("first: %s, items %s, ran %s", got.Status, got.kinds(), n.String())
		}
		r.run(strings.ReplaceAll(`{"model":"m","input":[
			{"type":"message","role":"user","content":"hello"},
			{"type":"mcp_approval_request","id":"mcpr_1","server_label":"maps","name":"find","arguments":"{\"n\":1}"},
			ANSWER]}`, "ANSWER", tt.answer))
		reqs := r.upstream.Requests()
		if all := strings.Join(told(reqs[len(reqs)-1].Body), "|"); !strings.Contains(all, tt.want) {
			t.Errorf("then the model was told %q, want %q", all, tt.want)
		}
		if want := map[bool]string{true: "2 keys", false: "1 keys"}[tt.want == "found"]; !strings.HasSuffix(n.String(), want) {
			t.Errorf("ran %s, want %s", n.String(), want)
		}
	}
}

// TestRemotesOfAgents checks that an agent uses none of the client's servers,
// even one that has the name of a plugin that the agent is to use.
func TestRemotesOfAgents(t *testing.T) {
	m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find", "look")}}
	m.call = func(_ context.Context, c loop.ToolCall) loop.ToolResult { return ok("found by " + c.Info.Step) }
	c := newCrew(t, map[string]demo.Script{"": thenTell("expert " + asks), "expert": thenTell("find {}", "look {}")}, loop.Options{Remotes: m})
	c.agents = []response.AgentBrief{{Name: "expert", Model: "helper", Instructions: "expert", Offers: []response.Offer{
		{Name: "find", Plugin: "maps", Tool: "find"}, {Name: "look", Plugin: "maps", Tool: "look"},
	}}}
	c.shown = []string{"agents/expert"}
	offers := c.change
	server := maps()
	server.Approval = response.Approval{Named: []string{"look"}}
	c.refers(server)
	refs := c.change
	c.change = func(j *response.Brief, n *queue.New) {
		offers(j, n)
		refs(j, n)
	}
	o, _, _ := c.run(simple)
	if got := c.object(o.Body).text(); strings.Contains(got, "found by") || strings.Count(got, "unknown_tool") != 2 {
		t.Errorf("text %q", got)
	}
}

// TestLocalApproval checks that a client may want to be asked for a tool of this
// host as well, and that no tool gets round it by calling it itself.
func TestLocalApproval(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	var n counter
	r.tools.calls["add"] = r.effect(&n)
	r.tools.calls["outer"] = r.asks("add {}")
	r.change = func(j *response.Brief, _ *queue.New) {
		j.Request.Servers = append(j.Request.Servers, response.ServerRef{Label: plugin, Approval: &response.Approval{Named: []string{"add"}}})
	}
	o, _, _ := r.run(simple)
	if got, want := r.object(o.Body).text(), "call_0="+loop.ErrNestedDenied.Error(); got != want || len(n.runs) != 0 {
		t.Errorf("told %q, want %q; ran %s", got, want, n.String())
	}
}

// TestToolCallsRemote checks that a tool may call a server's, within the caller's
// own step: what its caller did it is known to have done.
func TestToolCallsRemote(t *testing.T) {
	m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find")}}
	m.call = func(_ context.Context, c loop.ToolCall) loop.ToolResult { return ok("found " + string(c.Arguments)) }
	r := newRig(t, thenTell("once_outer {}"), loop.Options{Remotes: m})
	r.tools.calls["once_outer"] = r.asks(`find {"n":1}`)
	r.refers(maps())
	o, _, id := r.run(simple)
	if got, want := r.object(o.Body).text(), `call_0=found {"n":1}`; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	rec := r.record(id)
	if s := r.step(rec, "/2/0"); s.Plugin != "maps" || s.Effects != "once" || !s.EffectStarted || !r.step(rec, "/2").EffectStarted {
		t.Errorf("the server's call: %+v", s)
	}
}

// TestRemoteHangs checks that a server's call has its time, and is not made again.
func TestRemoteHangs(t *testing.T) {
	m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find")}}
	var n counter
	m.call = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		n.run(c)
		<-ctx.Done()
		return loop.ToolResult{Class: queue.GuestDeadline, RetryAfter: -1}
	}
	r := newRig(t, thenTell("find {}"), loop.Options{Remotes: m, CallWithin: 20 * time.Millisecond})
	r.policy.retry = retries(3, 0)
	r.refers(maps())
	o, _, _ := r.run(simple)
	if got := r.object(o.Body).text(); !strings.Contains(got, "timeout") || n.String() != "map[find {}:1] under 1 keys" {
		t.Errorf("told %q, ran %s", got, n.String())
	}
}
