package loop_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

const simple = `{"model":"m","input":"hello"}`

func TestPlainAnswer(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "hello there", ChunkRunes: 3} }, loop.Options{})
	o, events, id := r.run(simple)
	got := r.object(o.Body)
	if o.To != queue.Completed || got.Status != "completed" || got.text() != "hello there" || got.Usage.Total == 0 {
		t.Errorf("outcome %s, object %+v; want a completed answer with usage", o.To, got)
	}
	rec := r.record(id)
	if rec.State != queue.Completed || rec.Result == nil || string(rec.Result.Body) != string(o.Body) {
		t.Errorf("stored: %s, result %v; want what the client got", rec.State, rec.Result)
	}
	if len(rec.Events) != len(events) {
		t.Errorf("%d events in the log, %d were heard", len(rec.Events), len(events))
	}
	if len(rec.Usage) != 1 || len(rec.Decisions) != 1 || len(rec.Steps) != 1 {
		t.Errorf("%d usage rows, %d decisions, %d steps; want one each", len(rec.Usage), len(rec.Decisions), len(rec.Steps))
	}
}

// TestEventsCommitWithTheirStep checks that only deltas go ahead of the write
// that settles their step, and that the end is not told before it is written.
func TestEventsCommitWithTheirStep(t *testing.T) {
	for range 20 {
		r := newRig(t, func(_ int, req demo.Request) demo.Turn {
			if outs := told(req.Body); len(outs) > 0 {
				return demo.Turn{Text: "some text in several deltas", ChunkRunes: 4}
			}
			return demo.Turn{Calls: calls("add {}")}
		}, loop.Options{})
		r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("3") }
		r.run(`{"model":"m","input":"hello","stream":true}`)
		r.spy.mu.Lock()
		for _, w := range r.spy.writes {
			all := names(w.Events)
			if strings.Contains(all, "response.completed") || len(w.Steps) == 0 && strings.Contains(all, ".done") {
				t.Errorf("a write with %d steps holds %s", len(w.Steps), all)
			}
		}
		r.spy.mu.Unlock()
	}
}

func TestUnstoredLeavesNothing(t *testing.T) {
	r := newRig(t, thenTell("add {}"), loop.Options{})
	r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("3") }
	o, events, id := r.run(`{"model":"m","input":"hello","store":false,"stream":true}`)
	if got := r.object(o.Body); got.text() != "call_0=3" {
		t.Errorf("text %q", got.text())
	}
	if last := eventType(events[len(events)-1]); last != "response.completed" {
		t.Errorf("the stream ended with %s", last)
	}
	rec := r.record(id)
	if rec.Body != nil || rec.Result != nil || len(rec.Steps)+len(rec.Events) != 0 {
		t.Errorf("left behind: body %d bytes, result %v, %d steps, %d events", len(rec.Body), rec.Result, len(rec.Steps), len(rec.Events))
	}
	if len(rec.Usage) != 2 {
		t.Errorf("%d usage rows; want 2", len(rec.Usage))
	}
}

// TestParallelTools checks that siblings run side by side, that each output
// goes back under its own call id, and that items come in the order of calls.
//
// L1: a follow-up call carries each output under the model's own call id.
func TestParallelTools(t *testing.T) {
	r := newRig(t, thenTell(`slow {"n":1}`, `quick {"n":2}`), loop.Options{})
	both := make(chan struct{})
	var running atomic.Int32
	meet := func(text string) func(context.Context, loop.ToolCall) loop.ToolResult {
		return func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
			if running.Add(1) == 2 {
				close(both)
			}
			select {
			case <-both:
			case <-ctx.Done():
				return loop.ToolResult{Class: queue.GuestDeadline}
			}
			return ok(text)
		}
	}
	r.tools.calls["slow"], r.tools.calls["quick"] = meet("s"), meet("q")
	o, _, _ := r.run(simple)
	got := r.object(o.Body)
	if got.text() != "call_0=s | call_1=q" {
		t.Errorf("the model was told %q; want both outputs under their own ids", got.text())
	}
	if want := "mcp_call:completed mcp_call:completed message:completed"; got.kinds() != want {
		t.Errorf("items %q; want %q", got.kinds(), want)
	}
	if got.Output[0].Name != "slow" {
		t.Errorf("first item is %s; want the first call's", got.Output[0].Name)
	}
}

// TestFailedSibling checks that a failed call never fails the response and
// never loses a sibling's output, wherever it stands.
//
// L5: where the failed call stands decides nothing.
func TestFailedSibling(t *testing.T) {
	for _, order := range []string{"bad good good", "good bad good", "good good bad"} {
		t.Run(order, func(t *testing.T) {
			var script []string
			for _, name := range strings.Fields(order) {
				script = append(script, name+" {}")
			}
			r := newRig(t, thenTell(script...), loop.Options{})
			r.tools.calls["good"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("fine") }
			r.tools.calls["bad"] = func(context.Context, loop.ToolCall) loop.ToolResult {
				return loop.ToolResult{Class: queue.GuestTrap, RetryAfter: -1}
			}
			o, _, _ := r.run(simple)
			got := r.object(o.Body)
			if o.To != queue.Completed || strings.Count(got.text(), "fine") != 2 || strings.Count(got.text(), "call_") != 3 {
				t.Errorf("%s, told %q; want two outputs and an error", o.To, got.text())
			}
		})
	}
}

func TestToolsThatDoNotRun(t *testing.T) {
	tests := []struct{ name, call, want string }{
		{"unknown", "nobody {}", "call_0="},
		{"broken arguments", `add {"a":`, "call_0="},
		{"against the schema", `add {"refuse":1}`, "refused by the schema"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, thenTell(tt.call), loop.Options{})
			r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult {
				t.Error("the tool ran")
				return ok("")
			}
			o, _, id := r.run(simple)
			if got := r.object(o.Body); o.To != queue.Completed || !strings.Contains(got.text(), tt.want) {
				t.Errorf("%s, the model was told %q; want %q", o.To, got.text(), tt.want)
			}
			if s := r.record(id).Steps[1]; s.State != response.Skipped {
				t.Errorf("step is %s; want skipped", s.State)
			}
		})
	}
}

// B5: the client's own functions are handed out, not looked up here.
func TestClientFunctions(t *testing.T) {
	r := newRig(t, thenTell("add {}", `mine {"x":1}`), loop.Options{})
	var ran atomic.Int32
	r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		ran.Add(1)
		return ok("3")
	}
	o, _, _ := r.run(`{"model":"m","input":"hello","tools":[{"type":"function","name":"mine","parameters":{"type":"object"}}]}`)
	got := r.object(o.Body)
	if want := "mcp_call:completed function_call:completed"; got.Status != "completed" || got.kinds() != want {
		t.Errorf("%s with items %q; want completed with %q", got.Status, got.kinds(), want)
	}
	if ran.Load() != 1 || len(r.upstream.Requests()) != 1 {
		t.Errorf("the server tool ran %d times, %d model calls; want 1 and 1", ran.Load(), len(r.upstream.Requests()))
	}
	if got.Output[1].CallID != "call_1" {
		t.Errorf("call_id %q; want the model's", got.Output[1].CallID)
	}
}

func TestModelCallIsTriedAgain(t *testing.T) {
	r := newRig(t, func(n int, _ demo.Request) demo.Turn {
		if n < 2 {
			return demo.Turn{Status: http.StatusServiceUnavailable}
		}
		return demo.Turn{Text: "third"}
	}, loop.Options{})
	r.policy.retry = retries(5, time.Millisecond)
	o, _, id := r.run(simple)
	if got := r.object(o.Body); got.text() != "third" {
		t.Errorf("%s %q; want the third try's text", o.To, got.text())
	}
	rec := r.record(id)
	if len(rec.Steps) != 1 || rec.Steps[0].Tries != 3 || rec.Failures != 2 {
		t.Errorf("%d steps, tries %d, failures %d; want 1, 3, 2", len(rec.Steps), rec.Steps[0].Tries, rec.Failures)
	}
	keys := map[string]bool{}
	for _, q := range r.upstream.Requests() {
		keys[q.Header.Get("Idempotency-Key")] = true
	}
	if len(keys) != 1 {
		t.Errorf("idempotency keys %v; want the same in every try", keys)
	}
}

func TestModelCallFails(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn {
		return demo.Turn{Status: 400, ErrorBody: `{"error":{"message":"secret words of the provider"}}`}
	}, loop.Options{})
	o, events, id := r.run(simple)
	if o.To != queue.Failed || o.Class != queue.UpstreamStatus || o.Status != 400 {
		t.Errorf("outcome %s %s %d; want failed, upstream_status 400", o.To, o.Class, o.Status)
	}
	if last := eventType(events[len(events)-1]); last != "response.failed" {
		t.Errorf("the stream ended with %s; want response.failed", last)
	}
	rec := r.record(id)
	all := string(o.Body) + o.Message + names(rec.Events)
	for _, e := range rec.Events {
		all += string(e.Data)
	}
	for _, d := range rec.Decisions {
		all += string(d.Question)
	}
	if strings.Contains(all, "secret") {
		t.Error("the provider's text went through")
	}
	if s := rec.Steps[0]; s.State != response.Failed || s.Status != 400 {
		t.Errorf("step %s, status %d; want failed, 400", s.State, s.Status)
	}
}

func TestCutAfterVisibleOutputFails(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn {
		return demo.Turn{Text: "some words that never end", ChunkRunes: 4, CutAfter: 3}
	}, loop.Options{})
	r.policy.retry = retries(5, 0)
	o, events, _ := r.run(`{"model":"m","input":"hello","stream":true}`)
	if o.To != queue.Failed || eventType(events[len(events)-1]) != "response.failed" {
		t.Errorf("%s, stream %s; want failed", o.To, names(events))
	}
	if n := len(r.upstream.Requests()); n != 1 {
		t.Errorf("%d model calls after visible output; want 1", n)
	}
	if q := r.policy.questions[0]; !q.Outcome.VisibleOutputSent {
		t.Error("the policy was not told of the visible output")
	}
}

func TestLengthIsIncomplete(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "cut", Finish: "length"} }, loop.Options{})
	o, events, _ := r.run(simple)
	got := r.object(o.Body)
	if o.To != queue.Completed || got.Status != "incomplete" || got.Incomplete.Reason != "max_output_tokens" {
		t.Errorf("%s: %+v; want incomplete by max_output_tokens", o.To, got)
	}
	if last := eventType(events[len(events)-1]); last != "response.incomplete" {
		t.Errorf("the stream ended with %s", last)
	}
}

func TestToolRetries(t *testing.T) {
	tests := []struct {
		tool  string
		tries int32
		state response.StepState
	}{
		{"again", 3, response.Completed},
		{"once_only", 3, response.Completed}, // it begins no effect
		{"once_effect", 1, response.Failed},
		{"opaque", 1, response.Failed},
	}
	for _, tt := range tests {
		t.Run(tt.tool, func(t *testing.T) {
			r := newRig(t, thenTell(tt.tool+" {}"), loop.Options{})
			r.policy.retry = retries(5, 0)
			var n atomic.Int32
			var mu sync.Mutex
			keys := map[string]bool{}
			r.tools.calls[tt.tool] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if strings.HasSuffix(tt.tool, "effect") {
					r.check(c.Effect(ctx))
				}
				mu.Lock()
				keys[c.Info.IdempotencyKey] = true
				mu.Unlock()
				if n.Add(1) < 3 {
					return transient("not yet")
				}
				return ok("done")
			}
			o, _, id := r.run(simple)
			if o.To != queue.Completed || n.Load() != tt.tries {
				t.Errorf("%s after %d tries; want completed after %d", o.To, n.Load(), tt.tries)
			}
			if s := r.record(id).Steps[1]; s.State != tt.state || len(keys) != 1 {
				t.Errorf("step %s under %d keys; want %s under one", s.State, len(keys), tt.state)
			}
		})
	}
}

// TestQueuedRetryWaits checks that a long retry of queued work gives its slot
// back and that the chain is kept.
func TestQueuedRetryWaits(t *testing.T) {
	r := newRig(t, func(n int, req demo.Request) demo.Turn {
		switch n {
		case 0:
			return demo.Turn{Calls: calls("add {}")}
		case 1:
			return demo.Turn{Status: http.StatusServiceUnavailable}
		}
		return demo.Turn{Text: strings.Join(told(req.Body), "")}
	}, loop.Options{InPlace: time.Millisecond})
	r.policy.retry = retries(3, 30*time.Millisecond)
	var ran atomic.Int32
	r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		ran.Add(1)
		return ok("3")
	}
	n, events := r.brief(`{"model":"m","input":"hello","background":true}`)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	if err := r.claimer.Enqueue(t.Context(), store.Write{Insert: &n, Events: events}); err != nil {
		t.Fatal(err)
	}
	heard := r.events(l)
	rec := r.record(n.ID)
	if rec.State != queue.Completed || rec.Attempt != 2 || rec.Failures != 1 || ran.Load() != 1 {
		t.Errorf("%s at attempt %d, failures %d, tool ran %d times; want completed at 2, 1, 1", rec.State, rec.Attempt, rec.Failures, ran.Load())
	}
	if len(heard) != len(rec.Events) {
		t.Errorf("heard %d of %d events", len(heard), len(rec.Events))
	}
}

func TestStateCommitsWithTheStep(t *testing.T) {
	r := newRig(t, thenTell("state_add {}", "state_add {}", "state_add {}", "state_fail {}"), loop.Options{})
	r.tools.calls["state_add"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		old, had, err := r.store.KVGet(ctx, "t", plugin, "n")
		if err != nil {
			return loop.ToolResult{Class: queue.HostError}
		}
		res := ok("added")
		res.KV = []store.KVPut{{
			Plugin: plugin, Key: "n", Value: append(slices.Clone(old), '+'), Checked: true, Was: old, Had: had,
		}}
		return res
	}
	r.tools.calls["state_fail"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		res := transient("no")
		res.KV = []store.KVPut{{Plugin: plugin, Key: "n", Value: []byte("lost")}}
		return res
	}
	r.run(simple)
	if v, _, err := r.store.KVGet(t.Context(), "t", plugin, "n"); err != nil || string(v) != "+++" {
		t.Errorf("state %q, %v; want each of three parallel calls in it, and no failed one", v, err)
	}
}

func TestRejectedByPolicy(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "never"} }, loop.Options{})
	r.policy.reject = &abi.Reject{Status: 429, Code: "busy", Message: "come back later"}
	o, _, _ := r.run(simple)
	if o.To != queue.Failed || o.Status != 429 || o.Code != "busy" || o.Message != "come back later" || len(r.upstream.Requests()) != 0 {
		t.Errorf("%s %d %s %q after %d calls; want failed as the policy said, without one", o.To, o.Status, o.Code, o.Message, len(r.upstream.Requests()))
	}
}

func TestCapsEndAnEndlessLoop(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Calls: calls("add {}")} }, loop.Options{Caps: response.Caps{ModelCalls: 3}})
	r.tools.calls["add"] = func(context.Context, loop.ToolCall) loop.ToolResult { return ok("again") }
	o, events, _ := r.run(simple)
	got := r.object(o.Body)
	if got.Status == "completed" || len(r.upstream.Requests()) != 3 {
		t.Errorf("%s after %d model calls; want an honest end after 3", got.Status, len(r.upstream.Requests()))
	}
	if last := eventType(events[len(events)-1]); last != "response.failed" && last != "response.incomplete" {
		t.Errorf("the stream ended with %s", last)
	}
}

// TestStalledListener checks that one who does not read holds nobody up and
// misses nothing.
func TestStalledListener(t *testing.T) {
	text := strings.Repeat("word ", 1200)
	r := newRig(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: text, ChunkRunes: 5} }, loop.Options{})
	n, events := r.brief(`{"model":"m","input":"hello","stream":true}`)
	stalled := r.hub.Listen(n.ID, -1)
	defer stalled.Close()
	run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	o, err := run.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := r.object(o.Body); got.text() != text {
		t.Errorf("%d bytes of text; want %d", len(got.text()), len(text))
	}
	if heard, want := len(r.events(stalled)), len(r.record(n.ID).Events); heard != want {
		t.Errorf("the stalled listener heard %d events; want all %d", heard, want)
	}
}
