package loop_test

import (
	"context"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// TestDirect checks a tool call without a model: its result is the response.
func TestDirect(t *testing.T) {
	for _, tt := range []struct{ name, call, args, want string }{
		{"good", "add", `{"a":1}`, `{"output":"got {\"a\":1}","error":"","failed":false}`},
		{"calls", "outer", `{}`, `{"output":"got {}","error":"","failed":false}`},
		{"agent", "expert", `{"input":"x"}`, `{"output":"call_0=got {}","error":"","failed":false}`},
		{"unknown", "nothing", `{}`, `{"output":"{\"error\":{\"code\":\"unknown_tool\",\"message\":\"There is no tool with this name.\"}}","error":"unknown_tool","failed":true}`},
		{"fails", "bad", `{}`, `{"output":"{\"error\":{\"code\":\"permanent\",\"message\":\"no\"}}","error":"permanent","failed":true}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCrew(t, map[string]demo.Script{"expert": thenTell("add {}")}, loop.Options{})
			c.agent("expert", "add")
			c.shown = []string{"add", "outer", "bad", "agents/expert"}
			offers := c.change
			c.change = func(j *response.Brief, n *queue.New) {
				offers(j, n)
				j.Direct = &response.Call{ID: "call", Name: tt.call, Arguments: tt.args}
				n.Path = "/mcp"
			}
			c.tools.calls["add"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult { return ok("got " + string(c.Arguments)) }
			c.tools.calls["outer"] = c.asks("add {}")
			c.tools.calls["bad"] = func(context.Context, loop.ToolCall) loop.ToolResult {
				return loop.ToolResult{Class: queue.GuestError, Code: "permanent", RetryAfter: -1, Output: string(response.ErrorOutput("permanent", "no"))}
			}
			n, _ := c.brief(`{"model":"m","input":"hello","store":false}`)
			run, err := c.claimer.Submit(t.Context(), store.Write{Insert: &n})
			if err != nil {
				t.Fatal(err)
			}
			o, err := run.Wait(t.Context())
			if err != nil || o.To != queue.Completed || o.Status != 200 || o.ContentType != "application/json" {
				t.Errorf("%s %d %s, %v", o.To, o.Status, o.ContentType, err)
			}
			if string(o.Body) != tt.want {
				t.Errorf("result %s, want %s", o.Body, tt.want)
			}
		})
	}
}
