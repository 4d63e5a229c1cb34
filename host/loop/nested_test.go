package loop_test

import (
	"context"
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
	"github.com/casemate/casemate/host/store"
)

// asks is a tool that makes nested calls, "name {json}", and answers with what
// it got, joined.
func (r *rig) asks(calls ...string) func(context.Context, loop.ToolCall) loop.ToolResult {
	return func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		return r.ask(ctx, c, calls...)
	}
}

func (r *rig) ask(ctx context.Context, c loop.ToolCall, calls ...string) loop.ToolResult {
	var got []string
	for n, call := range calls {
		name, args, _ := strings.Cut(call, " ")
		reply, err := c.Nested.Call(ctx, n, name, []byte(args))
		switch {
		case ctx.Err() != nil:
			return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
		case err != nil:
			got = append(got, err.Error())
		default:
			got = append(got, reply.Output)
		}
	}
	return ok(strings.Join(got, ","))
}

// counter counts runs by name, and the keys that they ran under.
type counter struct {
	mu   sync.Mutex
	runs map[string]int
	keys map[string]bool
}

// run counts a run of c and returns how many there were.
func (n *counter) run(c loop.ToolCall) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.runs == nil {
		n.runs, n.keys = map[string]int{}, map[string]bool{}
	}
	name := c.Tool.Tool + " " + string(c.Arguments)
	n.runs[name]++
	n.keys[c.Info.IdempotencyKey] = true
	return n.runs[name]
}

func (n *counter) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fmt.Sprintf("%v under %d keys", n.runs, len(n.keys))
}

// TestNestedCalls checks what a nested call is: a step below its caller's, that
// a model and a client do not see, with the deadline of its caller.
func TestNestedCalls(t *testing.T) {
	r := newRig(t, thenTell("outer {}", "pure {}"), loop.Options{})
	r.tools.calls["outer"] = r.asks(`inner {"n":1}`, `inner {"n":2}`, `middle {}`)
	r.tools.calls["pure"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("beside") }
	r.tools.calls["middle"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		return r.ask(ctx, c, `inner {"n":3}`)
	}
	var mu sync.Mutex
	var seen []string
	r.tools.calls["inner"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		mu.Lock()
		defer mu.Unlock()
		key := strings.TrimPrefix(c.Info.IdempotencyKey, strings.TrimPrefix(c.Info.ResponseID, "resp_"))
		seen = append(seen, fmt.Sprintf("%s%s at %d", c.Info.Step, strings.TrimPrefix(key, "/"+c.Info.Step), c.Depth))
		if end, ok := ctx.Deadline(); !ok || time.Until(end) > 10*time.Second || c.Info.DeadlineInMS <= 0 {
			t.Errorf("deadline %v, told %d ms", end, c.Info.DeadlineInMS)
		}
		return ok("got " + string(c.Arguments))
	}
	o, events, id := r.run(`{"model":"m","input":"hello","stream":true}`)
	got := r.object(o.Body)
	if want := `call_0=got {"n":1},got {"n":2},got {"n":3} | call_1=beside`; got.text() != want {
		t.Errorf("told %q, want %q", got.text(), want)
	}
	if want := "mcp_call:completed mcp_call:completed message:completed"; got.kinds() != want {
		t.Errorf("items %q, want %q", got.kinds(), want)
	}
	for _, e := range events {
		if strings.Contains(string(e.Data), "inner") {
			t.Errorf("the client was told of a nested call: %s", e.Data)
		}
	}
	if want := "/1/0 at 1,/1/1 at 1,/1/2/0 at 2"; strings.Join(seen, ",") != want {
		t.Errorf("ran %q, want %q", seen, want)
	}
	rec := r.record(id)
	for key, tool := range map[string]string{"/1/0": "inner", "/1/1": "inner", "/1/2": "middle", "/1/2/0": "inner"} {
		s := r.step(rec, key)
		if s.State != response.Completed || s.Tool != tool || s.Plugin != plugin || s.Tries != 1 || s.Kind != response.ToolCall {
			t.Errorf("step %s: %+v; want %s completed", key, s, tool)
		}
	}
	if s := r.step(rec, "/1/1"); s.CallID != response.NestedID(1, "inner", []byte(`{"n":2}`)) || string(s.Input) != `{"n":2}` {
		t.Errorf("step /1/1 has the id %q, input %s", s.CallID, s.Input)
	}
}

// TestNestedKeepsArguments checks that the step does not change with the memory
// of the tool that made the call.
func TestNestedKeepsArguments(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	r.tools.calls["flaky"] = func(context.Context, loop.ToolCall) loop.ToolResult { return transient("no") }
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		memory := []byte(`{"n":1}`)
		_, err := c.Nested.Call(ctx, 0, "flaky", memory)
		r.check(err)
		clear(memory)
		return ok("done") // which settles the nested call
	}
	_, _, id := r.run(simple)
	if s := r.step(r.record(id), "/1/0"); string(s.Input) != `{"n":1}` {
		t.Errorf("input %q", s.Input)
	}
}

// TestNestedRefused checks the calls that are an error of the caller's, and
// those that the model would be told of.
func TestNestedRefused(t *testing.T) {
	r := newRig(t, thenTell("t0 {}"), loop.Options{})
	refused := func(ctx context.Context, c loop.ToolCall, tool string) {
		if reply, err := c.Nested.Call(ctx, 0, tool, []byte("{}")); !errors.Is(err, loop.ErrNestedDenied) {
			t.Errorf("%s from %s: %+v, %v; want ErrNestedDenied", tool, c.Tool.Tool, reply, err)
		}
	}
	for i := range 6 {
		r.tools.calls[fmt.Sprint("t", i)] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
			if c.Depth != i {
				t.Errorf("t%d is at depth %d", i, c.Depth)
			}
			for j := range i + 1 {
				refused(ctx, c, fmt.Sprint("t", j))
			}
			if i == response.MaxNesting {
				refused(ctx, c, fmt.Sprint("t", i+1))
				return ok("deep enough")
			}
			return r.ask(ctx, c, fmt.Sprintf("t%d {}", i+1))
		}
	}
	o, _, id := r.run(simple)
	if got := r.object(o.Body).text(); got != "call_0=deep enough" {
		t.Errorf("told %q", got)
	}
	if n := len(r.record(id).Steps); n != 2+1+response.MaxNesting {
		t.Errorf("%d steps; want two model calls, one of the model's and four nested", n)
	}

	r = newRig(t, thenTell("outer {}"), loop.Options{})
	r.tools.calls["inner"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		t.Error("it ran")
		return ok("")
	}
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		for n, tt := range []struct{ tool, args, want string }{
			{"mine", "{}", "unknown_tool"},
			{"nobody", "{}", "unknown_tool"},
			{"inner", `{"n":`, "invalid_args"},
			{"inner", `{"refuse":1}`, "refused by the schema"},
		} {
			reply, err := c.Nested.Call(ctx, n, tt.tool, []byte(tt.args))
			if err != nil || !reply.IsError || !strings.Contains(reply.Output, tt.want) {
				t.Errorf("%s %s: %+v, %v; want an error with %q", tt.tool, tt.args, reply, err, tt.want)
			}
		}
		return ok("done")
	}
	_, _, id = r.run(`{"model":"m","input":"hello","tools":[{"type":"function","name":"mine","parameters":{"type":"object"}}]}`)
	for n := range 4 {
		if s := r.step(r.record(id), fmt.Sprint("/1/", n)); s.State != response.Skipped {
			t.Errorf("step %s is %s; want skipped", s.Key(), s.State)
		}
	}
}

// TestNestedNamesake checks that a tool of another plugin with the same name is
// none of those that wait.
func TestNestedNamesake(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	r.tools.calls["outer"] = r.asks("other__outer {}")
	r.tools.calls["other__outer"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("theirs") }
	o, _, _ := r.run(simple)
	if got := r.object(o.Body).text(); got != "call_0=theirs" {
		t.Errorf("told %q", got)
	}
}

// TestNestedBudget checks that nested calls count toward the caps of the
// response, whoever runs beside them.
func TestNestedBudget(t *testing.T) {
	for _, tt := range []struct {
		name string
		caps response.Caps
		want int
	}{
		{"tool calls", response.Caps{ToolCalls: 5}, 3},
		{"steps", response.Caps{Steps: 7}, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, thenTell("outer {}", "other {}"), loop.Options{Caps: tt.caps})
			r.tools.calls["inner"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("in") }
			asks := r.asks("inner {}", "inner {}", "inner {}", "inner {}")
			r.tools.calls["outer"], r.tools.calls["other"] = asks, asks
			o, _, id := r.run(simple)
			all := ""
			ran := 0
			for _, s := range r.record(id).Steps {
				if s.Scope != "" {
					ran++
					continue
				}
				all += string(s.Output)
			}
			if ran != tt.want || strings.Count(all, "in") < tt.want || !strings.Contains(all, loop.ErrNestedBudget.Error()) {
				t.Errorf("%d nested calls, outputs %q; want %d and the rest refused", ran, all, tt.want)
			}
			if got := r.object(o.Body); tt.caps.Steps > 0 && got.Status != "failed" {
				t.Errorf("response %s; want failed for want of steps", got.Status)
			}
		})
	}
}

// TestBudgetOutlivesTheOwner checks that a new owner counts what the last one
// has recorded.
func TestBudgetOutlivesTheOwner(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{Caps: response.Caps{ToolCalls: 3}})
	began := make(chan struct{})
	r.tools.calls["inner"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("in") }
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Info.Attempt > 1 {
			return r.ask(ctx, c, `inner {"other":1}`, "inner {}")
		}
		r.ask(ctx, c, "inner {}")
		close(began)
		return stopped(ctx)
	}
	if got, want := string(r.step(r.takenOver(began), "/1").Output), "in,"+loop.ErrNestedBudget.Error(); got != want {
		t.Errorf("the caller got %q, want %q", got, want)
	}
}

// TestCallingIsAnEffect checks that a once tool which called one that may have
// an effect is not run again, and that all callers of a tool that began one are
// known to have.
func TestCallingIsAnEffect(t *testing.T) {
	for _, tt := range []struct {
		tool   string
		effect bool
		state  response.StepState
	}{
		{"pure", false, response.Completed},
		{"pure", true, response.Abandoned},         // it says that it is pure, and is not
		{"pure_opaque", false, response.Abandoned}, // nobody saw whether it is
		{"idempotent", false, response.Abandoned},
		{"once", false, response.Abandoned},
	} {
		t.Run(fmt.Sprint(tt.tool, " effect ", tt.effect), func(t *testing.T) {
			r := newRig(t, thenTell("once_outer {}"), loop.Options{})
			began := make(chan struct{})
			r.tools.calls["once_outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				res := r.ask(ctx, c, "pure_middle {}")
				if c.Info.Attempt == 1 {
					close(began)
					return stopped(ctx)
				}
				return res
			}
			r.tools.calls["pure_middle"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				return r.ask(ctx, c, tt.tool+" {}")
			}
			r.tools.calls[tt.tool] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if tt.effect {
					r.check(c.Effect(ctx))
					for _, key := range []string{"/1", "/1/0", "/1/0/0"} {
						if !r.step(r.record(id(c)), key).EffectStarted {
							t.Errorf("step %s has begun no effect", key)
						}
					}
				}
				return ok("in")
			}
			if s := r.step(r.takenOver(began), "/1"); s.State != tt.state {
				t.Errorf("the caller is %s; want %s", s.State, tt.state)
			}
		})
	}
}

// TestNestedState checks that what a nested call writes is committed when the
// call returns, also when it must run again since another changed what it read.
func TestNestedState(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	value := func() string {
		v, _, err := r.store.KVGet(t.Context(), "t", plugin, "k")
		r.check(err)
		return string(v)
	}
	var n counter
	r.tools.calls["inner"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		old, had, err := r.store.KVGet(ctx, "t", plugin, "k")
		r.check(err)
		if n.run(c) == 1 { // another is quicker
			f := queue.Fence{ID: id(c), Attempt: 1, State: queue.Processing}
			r.check(r.store.Write(ctx, store.Write{Fence: f, KV: []store.KVPut{{Plugin: plugin, Key: "k", Value: []byte("theirs")}}}))
		}
		res := ok("wrote")
		res.KV = []store.KVPut{{Plugin: plugin, Key: "k", Value: append(old, " ours"...), Checked: true, Had: had, Was: old}}
		return res
	}
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		res := r.ask(ctx, c, "inner {}")
		if got := value(); got != "theirs ours" {
			t.Errorf("after the call: %q", got)
		}
		res.KV = []store.KVPut{{Plugin: plugin, Key: "outer", Value: []byte("too")}}
		return res
	}
	_, _, id := r.run(simple)
	rec := r.record(id)
	if s := r.step(rec, "/1/0"); s.State != response.Completed || s.Tries != 1 || len(n.keys) != 1 {
		t.Errorf("step is %s after %d tries, %s; want completed, the lost one not counted", s.State, s.Tries, &n)
	}
	if v, _, err := r.store.KVGet(t.Context(), "t", plugin, "outer"); err != nil || string(v) != "too" {
		t.Errorf("the caller's own write: %q, %v", v, err)
	}
}

// TestNestedConflictAfterAnEffect checks that an effect is not repeated since
// another changed what a nested call had read.
func TestNestedConflictAfterAnEffect(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	r.tools.calls["outer"] = r.asks("once {}")
	var n counter
	r.tools.calls["once"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		n.run(c)
		r.check(c.Effect(ctx))
		res := ok("written")
		res.KV = []store.KVPut{{Plugin: plugin, Key: "k", Checked: true, Had: true}}
		return res
	}
	_, _, id := r.run(simple)
	rec := r.record(id)
	if s := r.step(rec, "/1"); n.runs["once {}"] != 1 || !strings.Contains(string(s.Output), "was not run again") {
		t.Errorf("ran %s, told %s", &n, s.Output)
	}
	if s := r.step(rec, "/1/0"); !s.Settled() || s.Class != queue.StepAbandoned {
		t.Errorf("step is %s, %s; want settled, abandoned", s.State, s.Class)
	}
}

// TestNoNestedStepStaysOpen checks that a call that ends leaves nothing open
// below it, however it ends.
func TestNoNestedStepStaysOpen(t *testing.T) {
	for _, end := range []string{"completed", "completed with state", "failed", "abandoned"} {
		t.Run(end, func(t *testing.T) {
			r := newRig(t, func(_ int, req demo.Request) demo.Turn {
				if outs := told(req.Body); len(outs) > 0 {
					return demo.Turn{Text: "end"}
				}
				return demo.Turn{Calls: calls("once_outer {}")}
			}, loop.Options{})
			began := make(chan struct{})
			r.tools.calls["once_outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				res := r.ask(ctx, c, "middle {}", "flaky {}")
				switch end {
				case "completed with state":
					res.KV = []store.KVPut{{Plugin: plugin, Key: "k"}}
				case "failed":
					res = loop.ToolResult{Class: queue.GuestTrap, RetryAfter: -1}
				case "abandoned":
					close(began)
					return stopped(ctx)
				}
				return res
			}
			r.tools.calls["middle"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				r.ask(ctx, c, "flaky {}")
				return transient("no")
			}
			r.tools.calls["flaky"] = func(context.Context, loop.ToolCall) loop.ToolResult { return transient("no") }
			var rec store.Record
			if end == "abandoned" {
				rec = r.takenOver(began)
			} else {
				_, _, id := r.run(simple)
				rec = r.record(id)
			}
			for _, key := range []string{"/1", "/1/0", "/1/0/0", "/1/1"} {
				if s := r.step(rec, key); !s.Settled() {
					t.Errorf("step %s is %s and open", key, s.State)
				}
			}
		})
	}
}

// TestNestedOutlivesItsCallersTime checks that a nested call whose caller has no
// time left is stored as it ended, and one that was about to begin as one that
// may have begun.
func TestNestedOutlivesItsCallersTime(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	stop := make(chan context.CancelFunc, 1)
	r.spy.before = func(w store.Write) {
		for _, s := range w.Steps {
			if s.Tool == "early" && s.State == response.Running {
				(<-stop)()
			}
		}
	}
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		for n, tt := range []struct {
			tool string
			want error
		}{{"late", nil}, {"early", context.Canceled}} {
			short, cancel := context.WithCancel(ctx)
			stop <- cancel
			if _, err := c.Nested.Call(short, n, tt.tool, []byte("{}")); !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.tool, err, tt.want)
			}
			if _, err := c.Nested.Call(short, 2, "late", []byte("{}")); !errors.Is(err, context.Canceled) {
				t.Errorf("Call without time left: %v", err)
			}
		}
		return ok("done")
	}
	r.tools.calls["late"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		(<-stop)()
		<-ctx.Done()
		return loop.ToolResult{Class: queue.GuestDeadline, RetryAfter: -1}
	}
	r.tools.calls["early"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		t.Error("it ran")
		return ok("")
	}
	o, _, id := r.run(simple)
	rec := r.record(id)
	if s := r.step(rec, "/1/0"); o.To != queue.Completed || s.State != response.Failed || s.Class != queue.GuestDeadline {
		t.Errorf("%s, step is %s, %s; want completed, failed in time", o.To, s.State, s.Class)
	}
	if s := r.step(rec, "/1/1"); s.State != response.Abandoned {
		t.Errorf("step is %s; want abandoned", s.State)
	}
}
