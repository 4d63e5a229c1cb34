package loop_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
)

// TestUnstoredGoesOn checks that a response without an event log has all of its
// output when another attempt ends it: lists, agents, calls and the text that
// came before them.
func TestUnstoredGoesOn(t *testing.T) {
	c := newCrew(t, map[string]demo.Script{
		"": func(_ int, req demo.Request) demo.Turn {
			if outs := told(req.Body); len(outs) > 0 {
				return demo.Turn{Text: "told"}
			}
			return demo.Turn{Text: "I ask.", Calls: calls("done {}", "expert "+asks, "hang {}")}
		},
		"expert": says("an answer"),
	}, loop.Options{})
	c.agent("expert")
	c.shown = []string{"agents/expert", "done", "hang"}
	offers := c.change
	c.change = func(j *response.Brief, n *queue.New) {
		offers(j, n)
		j.Request.Servers = []response.ServerRef{{Label: plugin}}
		n.Tier = "flex"
	}
	var n counter
	began, second := make(chan struct{}), make(chan *stream.Listener, 1)
	c.tools.calls["done"] = func(_ context.Context, call loop.ToolCall) loop.ToolResult { n.run(call); return ok("done") }
	c.tools.calls["hang"] = func(ctx context.Context, call loop.ToolCall) loop.ToolResult {
		if n.run(call) == 1 {
			close(began)
			return stopped(ctx)
		}
		second <- c.hub.Listen(id(call), -1)
		return ok("hung")
	}
	brief, _ := c.brief(`{"model":"m","input":"hello","store":false}`)
	c.check(c.claimer.Enqueue(t.Context(), store.Write{Insert: &brief}))
	<-began
	c.claimer.Stop(brief.ID, queue.ErrShutdown)
	events := c.events(<-second)
	var last struct{ Response json.RawMessage }
	c.check(json.Unmarshal(events[len(events)-1].Data, &last))
	got := c.object(last.Response)
	if want := "mcp_list_tools: message:completed mcp_call:completed mcp_call:completed mcp_call:completed message:completed"; got.kinds() != want {
		t.Errorf("items %q, want %q", got.kinds(), want)
	}
	if n.String() != "map[done {}:1 hang {}:2] under 2 keys" {
		t.Errorf("ran %s", n.String())
	}
}

// TestRetryStreamsAfresh checks that what a try held back, such as a call that
// waits for approval, does not hold back the next try.
func TestRetryStreamsAfresh(t *testing.T) {
	n := 0
	r := newRig(t, func(_ int, req demo.Request) demo.Turn {
		switch n++; {
		case n == 1:
			return demo.Turn{Calls: calls(`find {"text":"something long enough"}`), ChunkRunes: 4, CutAfter: 4}
		case len(told(req.Body)) > 0:
			return demo.Turn{Text: "told"}
		}
		return demo.Turn{Calls: calls(`look {"text":"something long enough"}`), ChunkRunes: 4}
	}, loop.Options{})
	for _, name := range []string{"find", "look"} {
		r.tools.calls[name] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("done") }
	}
	r.change = func(j *response.Brief, _ *queue.New) {
		j.Request.Servers = []response.ServerRef{{Label: plugin, Approval: &response.Approval{Named: []string{"find"}}}}
		j.Context = items(t, `{"type":"mcp_list_tools","id":"mcpl_0","server_label":"test","tools":[]}`)
	}
	r.policy.retry = retries(1, 0)
	o, events, _ := r.run(`{"model":"m","input":"hello","stream":true}`)
	if got := r.object(o.Body); got.kinds() != "mcp_call:completed message:completed" || n != 3 {
		t.Errorf("items %q after %d calls of the model", got.kinds(), n)
	}
	if k := strings.Count(names(events), "response.mcp_call_arguments.delta"); k < 3 {
		t.Errorf("the arguments came in %d pieces: they were held back", k)
	}
}
