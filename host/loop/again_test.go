package loop_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// TestNestedIsAnsweredAgain checks that a new owner's try of a tool gets what
// the calls of the last try got, and runs what was under way under its key.
func TestNestedIsAnsweredAgain(t *testing.T) {
	for _, tt := range []struct {
		tool   string // in flight when the first owner is lost
		effect bool
		runs   int
		told   string
		state  response.StepState
	}{
		{"pure", false, 2, "second run", response.Completed},
		{"idempotent", true, 2, "second run", response.Completed},
		{"once", false, 2, "second run", response.Completed},
		{"once", true, 1, "step_abandoned", response.Abandoned},
		{"opaque", false, 1, "step_abandoned", response.Abandoned},
	} {
		t.Run(fmt.Sprint(tt.tool, " effect ", tt.effect), func(t *testing.T) {
			r := newRig(t, thenTell("outer {}"), loop.Options{})
			var n counter
			began := make(chan struct{})
			r.tools.calls["outer"] = r.asks("done {}", tt.tool+" {}", "done {}")
			r.tools.calls["done"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
				return ok(fmt.Sprint("done ", n.run(c)))
			}
			r.tools.calls[tt.tool] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if n.run(c) > 1 {
					return ok("second run")
				}
				if tt.effect {
					r.check(c.Effect(ctx))
				}
				close(began)
				return stopped(ctx)
			}
			rec := r.takenOver(began)
			if got := string(r.step(rec, "/1").Output); !strings.HasPrefix(got, "done 1,") || !strings.Contains(got, tt.told) || !strings.HasSuffix(got, ",done 2") {
				t.Errorf("the caller got %q; want the first result again, then %q", got, tt.told)
			}
			if n.runs[tt.tool+" {}"] != tt.runs || len(n.keys) != 3 {
				t.Errorf("ran %s; want %d runs of the lost one, under one key", &n, tt.runs)
			}
			if s := r.step(rec, "/1/1"); s.State != tt.state || s.Tries != tt.runs {
				t.Errorf("step is %s after %d tries; want %s after %d", s.State, s.Tries, tt.state, tt.runs)
			}
		})
	}
}

// TestNestedDiverges checks that a try that asks for something else is given
// nothing that was meant for the last one, and that what was done stays.
func TestNestedDiverges(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	var n counter
	began := make(chan struct{})
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Info.Attempt > 1 {
			return r.ask(ctx, c, `a {}`, `a {"other":1}`, `a {"n":2}`)
		}
		r.ask(ctx, c, `a {}`, `a {"n":1}`, `a {"n":2}`, `fails {}`)
		close(began)
		return stopped(ctx)
	}
	r.tools.calls["a"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
		return ok(fmt.Sprint(string(c.Arguments), n.run(c)))
	}
	r.tools.calls["fails"] = func(context.Context, loop.ToolCall) loop.ToolResult { return transient("no") }
	rec := r.takenOver(began)
	if got, want := string(r.step(rec, "/1").Output), `{}1,{"other":1}1,{"n":2}2`; got != want {
		t.Errorf("the caller got %q, want %q", got, want)
	}
	if got, want := n.String(), `map[a {"n":1}:1 a {"n":2}:2 a {"other":1}:1 a {}:1] under 5 keys`; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	for key, want := range map[string]string{
		"/1/0": "{}1", "/1/1": `{"n":1}1`, "/1/2": `{"n":2}1`, "/1/4": `{"other":1}1`, "/1/5": `{"n":2}2`,
	} {
		if s := r.step(rec, key); s.State != response.Completed || string(s.Output) != want {
			t.Errorf("step %s is %s with %s, want %s", key, s.State, s.Output, want)
		}
	}
	if s := r.step(rec, "/1/3"); !s.Settled() {
		t.Errorf("the step that nothing asks for any more is %s and open", s.State)
	}
}

// TestNestedFailures checks that a retry of the caller tries again what may
// pass, under its key, and nothing that must not be repeated.
func TestNestedFailures(t *testing.T) {
	r := newRig(t, thenTell("outer {}"), loop.Options{})
	r.policy.retry = retries(1, 0)
	var n counter
	r.tools.calls["outer"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		res := r.ask(ctx, c, "good {}", "flaky {}", "once_flaky {}", "once_effect {}", "hopeless {}")
		if n.run(c) == 1 {
			return transient("my own failure")
		}
		return res
	}
	r.tools.calls["good"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult { return ok(fmt.Sprint(n.run(c))) }
	flaky := func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if strings.HasSuffix(c.Tool.Tool, "effect") {
			r.check(c.Effect(ctx))
		}
		if n.run(c) == 1 {
			return transient("once is no")
		}
		return ok("passed")
	}
	r.tools.calls["flaky"], r.tools.calls["once_flaky"], r.tools.calls["once_effect"] = flaky, flaky, flaky
	r.tools.calls["hopeless"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
		n.run(c)
		return loop.ToolResult{Class: queue.GuestError, Code: "permanent", RetryAfter: -1, Output: "no"}
	}
	_, _, id := r.run(simple)
	failure := string(response.ErrorOutput("transient", "once is no"))
	if got, want := string(r.step(r.record(id), "/1").Output), "1,passed,passed,"+failure+",no"; got != want {
		t.Errorf("the caller got %q, want %q", got, want)
	}
	if got, want := n.String(), "map[flaky {}:2 good {}:1 hopeless {}:1 once_effect {}:1 once_flaky {}:2 outer {}:2] under 6 keys"; got != want {
		t.Errorf("ran %s, want %s", got, want)
	}
	if len(r.policy.questions) != 1 {
		t.Errorf("the policy was asked %d times; want once, for the caller", len(r.policy.questions))
	}
}
