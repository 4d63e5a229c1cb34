package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

const asks = `{"input":"what is 1+2?"}`

// TestAgent checks what an agent is: a chain of its own model calls and tools
// below its call, of which its caller gets the last text and the client nothing
// else.
func TestAgent(t *testing.T) {
	c := newCrew(t, map[string]demo.Script{
		"": thenTell("expert " + asks), "expert": thenTell(`add {"n":1}`, `add {"n":2}`),
	}, loop.Options{})
	c.agent("expert", "add")
	c.shown = []string{"agents/expert"}
	c.tools.calls["add"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
		return ok(fmt.Sprintf("%s:%s:%d", c.Info.Step, c.Info.Model, c.Depth))
	}
	o, events, id := c.run(`{"model":"m","input":"hello","stream":true,"max_output_tokens":1000}`)
	got := c.object(o.Body)
	if want := "call_0=call_0=/1/1:helper:0 | call_1=/1/2:helper:0"; got.text() != want {
		t.Errorf("text %q, want %q", got.text(), want)
	}
	if want := "mcp_call:completed message:completed"; got.kinds() != want {
		t.Errorf("items %q, want %q", got.kinds(), want)
	}
	for _, e := range events {
		if strings.Contains(string(e.Data), `"add"`) || strings.Contains(string(e.Data), `{\"n\"`) {
			t.Errorf("the client was told of an agent's tool: %s", e.Data)
		}
	}
	reqs := c.upstream.Requests()
	first, second := asked(reqs[1].Body), asked(reqs[2].Body)
	if first.Model != "agent" || first.said("user") != "what is 1+2?" || first.tools() != "add" || asked(reqs[0].Body).tools() != "expert" {
		t.Errorf("the agent's model was asked %s", reqs[1].Body)
	}
	if first.MaxTokens <= 0 || first.MaxTokens >= 1000 || second.MaxTokens >= first.MaxTokens {
		t.Errorf("it may write %d, then %d tokens; want less than 1000, and ever less", first.MaxTokens, second.MaxTokens)
	}
	rec := c.record(id)
	var tokens int64
	scopes := ""
	for _, u := range rec.Usage {
		tokens += u.Tokens.Input + u.Tokens.Output
		scopes += u.Scope + ";"
	}
	if len(rec.Usage) != 4 || strings.Count(scopes, "/1;") != 2 || got.Usage.Total != tokens {
		t.Errorf("usage of %q, %d tokens in all; the response says %d", scopes, tokens, got.Usage.Total)
	}
	for key, kind := range map[string]response.StepKind{
		"/0": response.ModelCall, "/1": response.ToolCall, "/1/0": response.ModelCall, "/1/1": response.ToolCall,
		"/1/2": response.ToolCall, "/1/3": response.ModelCall, "/2": response.ModelCall,
	} {
		if s := c.step(rec, key); s.Kind != kind || s.State != response.Completed || s.Tries != 1 {
			t.Errorf("step %s: %+v; want a completed %s", key, s, kind)
		}
	}
	if len(rec.Decisions) != 4 || c.policy.routes[1].Request.Model != "helper" {
		t.Errorf("%d decisions, the second for %s", len(rec.Decisions), c.policy.routes[1].Request.Model)
	}
}

// TestAgentEnds checks what its caller is told of an agent that does not end
// well. The response goes on.
func TestAgentEnds(t *testing.T) {
	for _, tt := range []struct {
		name, calls string
		script      demo.Script
		max         int
		want        string
	}{
		{"fails", asks, func(int, demo.Request) demo.Turn { return demo.Turn{Status: http.StatusTeapot} }, 0, "agent_failed"},
		{"length", asks, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "half", Finish: "length"} }, 0, "agent_incomplete"},
		{"model calls", asks, func(int, demo.Request) demo.Turn { return demo.Turn{Calls: calls("add {}")} }, 3, "agent_failed"},
		{"refusal", asks, func(int, demo.Request) demo.Turn { return demo.Turn{Refusal: "no"} }, 0, "no"},
		{"arguments", `{"inptu":"x"}`, says("never asked"), 0, "invalid_args"},
		{"no object", `"x"`, says("never asked"), 0, "invalid_args"},
		{"unknown tool", asks, thenTell("other {}"), 0, "unknown_tool"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCrew(t, map[string]demo.Script{"": thenTell("expert " + tt.calls), "expert": tt.script}, loop.Options{})
			c.agent("expert", "add")
			c.agents[0].MaxModelCalls = tt.max
			c.shown = []string{"agents/expert", "other"}
			c.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("3") }
			c.tools.calls["other"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("wrong") }
			o, _, _ := c.run(simple)
			got := c.object(o.Body)
			if got.Status != "completed" || !strings.Contains(got.text(), tt.want) {
				t.Errorf("%s, told %q; want completed and %s", got.Status, got.text(), tt.want)
			}
			if n := strings.Count(got.text(), "call_0"); tt.max > 0 && len(c.upstream.Requests()) != tt.max+2 {
				t.Errorf("%d calls of models, %d", len(c.upstream.Requests()), n)
			}
		})
	}
}

// TestAgentRetries checks that an agent's failures are the response's: its model
// call is tried again, even when it was cut, since nobody saw it.
func TestAgentRetries(t *testing.T) {
	var tries atomic.Int32
	c := newCrew(t, map[string]demo.Script{"": thenTell("expert " + asks), "expert": func(int, demo.Request) demo.Turn {
		if tries.Add(1) == 1 {
			return demo.Turn{Text: "some text that is cut amid it", ChunkRunes: 3, CutAfter: 4}
		}
		return demo.Turn{Text: "whole"}
	}}, loop.Options{})
	c.policy.retry = retries(1, 0)
	c.agent("expert")
	c.shown = []string{"agents/expert"}
	o, _, id := c.run(`{"model":"m","input":"hello","stream":true}`)
	if got := c.object(o.Body); got.text() != "call_0=whole" {
		t.Errorf("text %q", got.text())
	}
	rec := c.record(id)
	if s := c.step(rec, "/1/0"); s.Tries != 2 || rec.Failures != 1 || len(c.policy.questions) != 1 {
		t.Errorf("%d tries, %d failures, %d questions; want 2, 1, 1", s.Tries, rec.Failures, len(c.policy.questions))
	}
}

// TestAgentDepth checks that agents which call each other come to an end, and
// that the caps of a response hold for all of them together.
func TestAgentDepth(t *testing.T) {
	deeper := func(_ int, req demo.Request) demo.Turn {
		if outs := told(req.Body); len(outs) > 0 {
			return demo.Turn{Text: strings.Join(outs, "")}
		}
		return demo.Turn{Calls: calls("expert " + asks)}
	}
	for _, tt := range []struct {
		name   string
		caps   response.Caps
		agents int
		want   string
	}{
		{"depth", response.Caps{ModelCalls: 100}, response.MaxAgentDepth, "depth"},
		{"model calls", response.Caps{ModelCalls: 5}, 4, ""},
		{"steps", response.Caps{Steps: 6}, 3, ""},
		{"tool calls", response.Caps{ToolCalls: 3}, 3, "limit of 3 tool calls"},
		{"tokens", response.Caps{Tokens: 20}, 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newCrew(t, map[string]demo.Script{"": deeper, "expert": deeper}, loop.Options{Caps: tt.caps})
			c.agent("expert", "agents/expert")
			c.shown = []string{"agents/expert"}
			o, _, id := c.run(simple)
			deepest, models, called := 0, 0, 0
			var used, last int64
			for _, s := range c.record(id).Steps {
				deepest = max(deepest, strings.Count(s.Scope, "/"))
				if s.Kind == response.ModelCall {
					models++
					last = max(last, s.Usage.Input+s.Usage.Output)
					used += s.Usage.Input + s.Usage.Output
				} else if s.State != response.Skipped {
					called++
				}
				if !s.Settled() {
					t.Errorf("step %s is open", s.Key())
				}
			}
			got := c.object(o.Body)
			if !strings.Contains(got.text(), tt.want) || (tt.want != "") != (got.Status == "completed") {
				t.Errorf("%s, told %q; want %q", got.Status, got.text(), tt.want)
			}
			if tt.want != "" && deepest != tt.agents || deepest > tt.agents || tt.caps.ModelCalls < 100 && models > 10 {
				t.Errorf("scopes to a depth of %d, %d model calls; want %d", deepest, models, tt.agents)
			}
			if tt.caps.Tokens > 0 && used-last >= tt.caps.Tokens {
				t.Errorf("%d tokens used, %d by one call, by %d calls", used, last, models)
			}
			if tt.caps.ModelCalls > 0 && models > tt.caps.ModelCalls || tt.caps.ToolCalls > 0 && called > tt.caps.ToolCalls {
				t.Errorf("%d model calls, %d tool calls; more than the caps %+v", models, called, tt.caps)
			}
		})
	}
}

// TestAgentsSideBySide checks that agents of one model call run at once, and
// that each is told what its own tools said.
func TestAgentsSideBySide(t *testing.T) {
	c := newCrew(t, map[string]demo.Script{
		"":  thenTell("a "+asks, "b "+asks, "meet {}"),
		"a": thenTell(`meet {"of":"a"}`), "b": thenTell(`meet {"of":"b"}`),
	}, loop.Options{})
	c.agent("a", "meet")
	c.agent("b", "meet")
	c.shown = []string{"agents/a", "agents/b", "meet"}
	var running atomic.Int32
	all := make(chan struct{})
	c.tools.calls["meet"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if running.Add(1) == 3 {
			close(all)
		}
		select {
		case <-all:
			return ok("met " + string(c.Arguments))
		case <-ctx.Done():
			return stopped(ctx)
		}
	}
	o, _, _ := c.run(simple)
	want := `call_0=call_0=met {"of":"a"} | call_1=call_0=met {"of":"b"} | call_2=met {}`
	if got := c.object(o.Body); got.text() != want {
		t.Errorf("text %q, want %q", got.text(), want)
	}
}

// TestCancelStopsAgents checks that a cancel stops what an agent's tool and
// model do, and that what they used is kept.
func TestCancelStopsAgents(t *testing.T) {
	gone := make(chan bool, 1)
	c := newCrew(t, map[string]demo.Script{
		"": thenTell("a "+asks, "b "+asks), "a": thenTell("hang {}"),
		"b": func(int, demo.Request) demo.Turn {
			return demo.Turn{Text: "words that never end", ChunkRunes: 4, Gate: make(chan struct{}), GateAfter: 3, Ended: func(whole bool) { gone <- whole }}
		},
	}, loop.Options{})
	c.agent("a", "hang")
	c.agent("b")
	c.shown = []string{"agents/a", "agents/b"}
	began, ended := make(chan struct{}), make(chan error, 1)
	c.tools.calls["hang"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		close(began)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return stopped(ctx)
	}
	n, events := c.brief(simple)
	run, err := c.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	if _, did, err := c.store.Cancel(t.Context(), "t", n.ID, ""); err != nil || !did {
		t.Fatalf("cancel: %v, %v", did, err)
	}
	c.claimer.Stop(n.ID, queue.ErrCanceled)
	if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Canceled {
		t.Errorf("outcome %s, %v; want canceled", o.To, err)
	}
	if cause := <-ended; !errors.Is(cause, queue.ErrCanceled) {
		t.Errorf("the tool was stopped by %v", cause)
	}
	if <-gone {
		t.Error("the agent's model wrote to its end")
	}
	if rec := c.record(n.ID); rec.State != queue.Canceled || len(rec.Usage) != 2 {
		t.Errorf("%s, %d usage rows; want canceled, and those of two calls that ended", rec.State, len(rec.Usage))
	}
}

// TestAgentIsPutOff checks that queued work gives its slot back also when it is
// an agent's model that is to be left alone, and goes on where it was.
func TestAgentIsPutOff(t *testing.T) {
	var failed atomic.Bool
	c := newCrew(t, map[string]demo.Script{
		"":      thenTell("outer "+asks, "side {}"),
		"outer": thenTell("inner " + asks),
		"inner": func(_ int, req demo.Request) demo.Turn {
			if len(told(req.Body)) == 0 {
				return demo.Turn{Calls: calls("once {}")}
			}
			if failed.CompareAndSwap(false, true) {
				return demo.Turn{Status: http.StatusServiceUnavailable}
			}
			return demo.Turn{Text: "in the end"}
		},
	}, loop.Options{InPlace: time.Millisecond})
	c.policy.retry = retries(3, 30*time.Millisecond)
	c.agent("outer", "agents/inner")
	c.agent("inner", "once")
	c.shown = []string{"agents/outer", "side"}
	var n counter
	c.tools.calls["once"], c.tools.calls["side"] = c.effect(&n), c.effect(&n)
	rec := c.enqueue()
	if rec.State != queue.Completed || rec.Attempt != 2 || rec.Failures != 1 || n.String() != "map[once {}:1 side {}:1] under 2 keys" {
		t.Errorf("%s at attempt %d, %d failures, ran %s", rec.State, rec.Attempt, rec.Failures, n.String())
	}
	if got := c.object(rec.Result.Body); !strings.Contains(got.text(), "in the end") {
		t.Errorf("text %q", got.text())
	}
	if s := c.step(rec, "/1"); s.State != response.Completed {
		t.Errorf("the agent's step is %s after %d tries", s.State, s.Tries)
	}
}

// TestToolCallsAgent checks an agent that a tool calls: its tools borrow the
// slot of the tool that waits, which cannot be put off and is never run twice.
func TestToolCallsAgent(t *testing.T) {
	var failed atomic.Bool
	c := newCrew(t, map[string]demo.Script{"": thenTell("outer {}"), "expert": func(_ int, req demo.Request) demo.Turn {
		if len(told(req.Body)) == 0 {
			return demo.Turn{Calls: calls("inner {}", "outer {}")}
		}
		if failed.CompareAndSwap(false, true) {
			return demo.Turn{Status: http.StatusServiceUnavailable}
		}
		return demo.Turn{Text: strings.Join(told(req.Body), " | ")}
	}}, loop.Options{InPlace: time.Millisecond})
	c.policy.retry = retries(3, 20*time.Millisecond)
	c.agent("expert", "inner", "outer", "agents/expert")
	c.shown = []string{"outer", "agents/expert"}
	var mu sync.Mutex
	depths := map[string]int{}
	var n counter
	c.tools.calls["inner"] = func(_ context.Context, call loop.ToolCall) loop.ToolResult {
		mu.Lock()
		defer mu.Unlock()
		depths[call.Info.Step] = call.Depth
		n.run(call)
		return ok("in")
	}
	c.tools.calls["outer"] = func(ctx context.Context, call loop.ToolCall) loop.ToolResult {
		n.run(call)
		return c.ask(ctx, call, "expert "+asks)
	}
	rec := c.enqueue()
	if got, want := c.object(rec.Result.Body).text(), "call_0=call_0=in | call_1="; !strings.HasPrefix(got, want) {
		t.Errorf("text %q, want %q", got, want)
	}
	if depths["/1/0/1"] != 1 || n.String() != "map[inner {}:1 outer {}:2] under 3 keys" {
		t.Errorf("depths %v, ran %s", depths, n.String())
	}
	// The agent's tool may not call the agent that waits for it.
	if s := c.step(rec, "/1/0/2"); string(s.Output) != loop.ErrNestedDenied.Error() {
		t.Errorf("outer under the agent answered %s", s.Output)
	}
	for _, s := range rec.Steps {
		if !s.Settled() {
			t.Errorf("step %s is %s", s.Key(), s.State)
		}
	}
	if len(rec.Usage) != 4 || len(rec.Decisions) != 6 {
		t.Errorf("%d rows of usage and %d decisions; want those of 4 answers, and of 5 calls and a retry", len(rec.Usage), len(rec.Decisions))
	}
	if rec.Attempt != 1 {
		t.Errorf("ended at attempt %d; want it to stay while the tool waits", rec.Attempt)
	}
}

// TestAgentOutlivesNoCaller checks that an agent ends with the time of the tool
// that called it, and that a new try of the tool goes on with what it did.
func TestAgentOutlivesNoCaller(t *testing.T) {
	c := newCrew(t, map[string]demo.Script{"": thenTell("outer {}"), "expert": func(_ int, req demo.Request) demo.Turn {
		if len(told(req.Body)) > 0 {
			return demo.Turn{Text: strings.Join(told(req.Body), " | ")}
		}
		return demo.Turn{Calls: calls("once {}", "slow {}", "late {}")}
	}}, loop.Options{})
	c.policy.retry = func(q abi.RetryQuestion) policy.Verdict {
		return policy.Verdict{Retry: q.Step.Tool == "outer", Count: true}
	}
	c.agent("expert", "once", "slow", "late")
	c.shown = []string{"outer", "agents/expert"}
	var n counter
	var began sync.WaitGroup
	began.Add(3)
	c.tools.calls["once"] = func(ctx context.Context, call loop.ToolCall) loop.ToolResult {
		defer began.Done()
		return c.effect(&n)(ctx, call)
	}
	var tries atomic.Int32
	c.tools.calls["slow"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		if tries.Add(1) == 1 {
			began.Done()
			<-ctx.Done()
			return stopped(ctx)
		}
		return ok("at last")
	}
	c.tools.calls["late"] = func(ctx context.Context, call loop.ToolCall) loop.ToolResult {
		n.run(call)
		began.Done()
		<-ctx.Done() // and yet
		return ok("late")
	}
	c.tools.calls["outer"] = func(ctx context.Context, call loop.ToolCall) loop.ToolResult {
		if tries.Load() == 0 {
			short, cancel := context.WithCancel(ctx)
			go func() {
				began.Wait()
				cancel()
			}()
			if _, err := call.Nested.Call(short, 0, "expert", []byte(asks)); !errors.Is(err, context.Canceled) {
				t.Errorf("the agent's call ended with %v", err)
			}
			return loop.ToolResult{Class: queue.GuestDeadline, RetryAfter: -1}
		}
		return c.ask(ctx, call, "expert "+asks)
	}
	o, _, id := c.run(simple)
	if got, want := c.object(o.Body).text(), "call_0=call_0=done | call_1=at last | call_2=late"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if n.String() != "map[late {}:1 once {}:1] under 2 keys" || tries.Load() != 2 {
		t.Errorf("ran %s, slow %d times", n.String(), tries.Load())
	}
	rec := c.record(id)
	if s := c.step(rec, "/1/0/2"); s.Tries != 2 || s.State != response.Completed {
		t.Errorf("slow: %+v", s)
	}
	if s := c.step(rec, "/1/0/3"); s.Tries != 1 || s.State != response.Completed {
		t.Errorf("what ended after its caller's time is not stored: %+v", s)
	}
}

// TestAgentChecksArguments checks an agent with a schema of its own: its model
// is given the arguments as they are, and none that do not fit.
func TestAgentChecksArguments(t *testing.T) {
	c := newCrew(t, map[string]demo.Script{
		"": thenTell(`expert {"n":1}`, `expert {"m":1}`), "expert": func(_ int, req demo.Request) demo.Turn {
			return demo.Turn{Text: "asked " + asked(req.Body).said("user")}
		},
	}, loop.Options{Check: func(schema json.RawMessage, arguments []byte) error {
		if string(schema) != `{"type":"object","required":["n"]}` || !strings.Contains(string(arguments), `"n"`) {
			return errors.New("n is missing")
		}
		return nil
	}})
	c.agent("expert")
	c.agents[0].Parameters = json.RawMessage(`{"type":"object","required":["n"]}`)
	c.shown = []string{"agents/expert"}
	o, _, _ := c.run(simple)
	if got := c.object(o.Body).text(); !strings.HasPrefix(got, `call_0=asked {"n":1} | call_1=`) || !strings.Contains(got, "n is missing") {
		t.Errorf("text %q", got)
	}
}
