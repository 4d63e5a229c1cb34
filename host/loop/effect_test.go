package loop_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

// stopped waits for the end of a call's time, as a tool does that a host kills.
func stopped(ctx context.Context) loop.ToolResult {
	<-ctx.Done()
	return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
}

// takenOver runs a request in the background, takes it from its first owner
// once began is closed, and returns it when the second one has ended it.
func (r *rig) takenOver(began <-chan struct{}) store.Record {
	r.Helper()
	n, events := r.brief(`{"model":"m","input":"hello","background":true}`)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	if err := r.claimer.Enqueue(r.Context(), store.Write{Insert: &n, Events: events}); err != nil {
		r.Fatal(err)
	}
	<-began
	r.claimer.Stop(n.ID, queue.ErrShutdown)
	r.events(l)
	rec := r.record(n.ID)
	if rec.State != queue.Completed || rec.Attempt != 2 {
		r.Fatalf("%s at attempt %d; want completed at 2", rec.State, rec.Attempt)
	}
	return rec
}

// step returns a step of a record, which must have it.
func (r *rig) step(rec store.Record, key string) response.Step {
	r.Helper()
	i := slices.IndexFunc(rec.Steps, func(s response.Step) bool { return s.Key() == key })
	if i < 0 {
		r.Fatalf("there is no step %s", key)
	}
	return rec.Steps[i]
}

// TestEffectIsStoredFirst checks that the store knows of an effect before it
// begins, is told of it once, and forgets it with no later write.
func TestEffectIsStoredFirst(t *testing.T) {
	r := newRig(t, thenTell("once_post {}"), loop.Options{})
	r.tools.calls["once_post"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		id := id(c)
		if r.step(r.record(id), "/1").EffectStarted {
			t.Error("an effect began before it was asked for")
		}
		for range 3 {
			r.check(c.Effect(ctx))
			if s := r.step(r.record(id), "/1"); !s.EffectStarted || s.State != response.Running {
				t.Errorf("step is %s, effect started %t; want running, begun", s.State, s.EffectStarted)
			}
		}
		return ok("posted")
	}
	_, _, id := r.run(simple)
	if s := r.step(r.record(id), "/1"); !s.EffectStarted || s.State != response.Completed {
		t.Errorf("step is %s, effect started %t; want completed, begun", s.State, s.EffectStarted)
	}
	r.spy.mu.Lock()
	defer r.spy.mu.Unlock()
	told := 0
	for _, w := range r.spy.writes {
		for _, s := range w.Steps {
			if s.EffectStarted && s.State == response.Running {
				told++
			}
		}
	}
	if told != 1 {
		t.Errorf("the store was told %d times; want once", told)
	}
}

// TestTakenOverCalls is what becomes of a call in flight when another worker
// takes over.
func TestTakenOverCalls(t *testing.T) {
	for _, tt := range []struct {
		tool   string
		effect bool
		state  response.StepState
		tries  int
	}{
		{"pure", false, response.Completed, 2},
		{"idempotent", true, response.Completed, 2},
		{"once", false, response.Completed, 2},
		{"once", true, response.Abandoned, 1},
		{"opaque", false, response.Abandoned, 1},
	} {
		t.Run(fmt.Sprint(tt.tool, " effect ", tt.effect), func(t *testing.T) {
			r := newRig(t, thenTell(tt.tool+" {}"), loop.Options{})
			began := make(chan struct{})
			r.tools.calls[tt.tool] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if c.Info.Attempt > 1 {
					return ok("again")
				}
				if tt.effect {
					r.check(c.Effect(ctx))
				}
				close(began)
				return stopped(ctx)
			}
			s := r.step(r.takenOver(began), "/1")
			if s.State != tt.state || s.Tries != tt.tries {
				t.Errorf("step is %s after %d tries; want %s after %d", s.State, s.Tries, tt.state, tt.tries)
			}
			if want := tt.effect || tt.tool == "opaque"; s.EffectStarted != want {
				t.Errorf("effect started %t; want %t", s.EffectStarted, want)
			}
		})
	}
}

// TestRefusedOpaque checks that a tool which was not begun, for want of room,
// may be tried again even where the host does not see its effects, and that one
// whose tenant ran out of fuel amid its work, or whose plugin closed, may not.
func TestRefusedOpaque(t *testing.T) {
	for _, tt := range []struct {
		class queue.Class
		fuel  uint64
		tries int
	}{
		{queue.GuestThrottled, 0, 2},
		{queue.PluginUnavailable, 0, 2},
		{queue.GuestThrottled, 1, 1},
		{queue.PluginUnavailable, 1, 1},
		{queue.GuestTrap, 0, 1},
	} {
		r := newRig(t, thenTell("opaque {}"), loop.Options{})
		r.policy.retry = retries(5, 0)
		r.tools.calls["opaque"] = func(_ context.Context, c loop.ToolCall) loop.ToolResult {
			if r.step(r.record(id(c)), "/1").Tries > 1 {
				return ok("ran")
			}
			return loop.ToolResult{Class: tt.class, Fuel: tt.fuel, RetryAfter: -1}
		}
		_, _, id := r.run(simple)
		if s := r.step(r.record(id), "/1"); s.Tries != tt.tries {
			t.Errorf("%s after %d fuel: %d tries; want %d", tt.class, tt.fuel, s.Tries, tt.tries)
		}
	}
}

// TestEffectNeedsTheLease checks that no effect begins for a run that has lost
// its claim, whatever tells first.
func TestEffectNeedsTheLease(t *testing.T) {
	clock := func(_ *rig, live *atomic.Bool, _ queue.ID) { live.Store(false) }
	ends := func(r *rig, _ *atomic.Bool, id queue.ID) { r.claimer.Stop(id, queue.ErrFenced) }
	for _, tt := range []struct {
		name  string
		lose  func(r *rig, live *atomic.Bool, id queue.ID)
		begun bool // an effect began before
		state response.StepState
	}{
		{"the host's own clock", clock, false, response.Completed},
		{"the host's own clock, later", clock, true, response.Abandoned},
		{"the run's context", ends, false, response.Completed},
		{"the run's context, later", ends, true, response.Abandoned},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var live atomic.Bool
			live.Store(true)
			r := newRig(t, thenTell("once {}"), loop.Options{Live: live.Load})
			began := make(chan struct{})
			r.tools.calls["once"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if c.Info.Attempt > 1 {
					return ok("again")
				}
				if tt.begun {
					r.check(c.Effect(ctx))
				}
				tt.lose(r, &live, id(c))
				if err := c.Effect(ctx); !errors.Is(err, queue.ErrFenced) {
					t.Errorf("effect: got %v, want ErrFenced", err)
				}
				if ctx.Err() == nil {
					t.Error("the call goes on")
				}
				live.Store(true)
				close(began)
				return stopped(ctx)
			}
			if s := r.step(r.takenOver(began), "/1"); s.State != tt.state || s.EffectStarted != tt.begun {
				t.Errorf("step is %s, effect started %t; want %s, %t", s.State, s.EffectStarted, tt.state, tt.begun)
			}
		})
	}
}

// TestLeaseEndsWhileEffectIsStored checks that nothing begins for a run whose
// lease ran out while the store was told that it would.
func TestLeaseEndsWhileEffectIsStored(t *testing.T) {
	for name, begin := range map[string]func(context.Context, loop.ToolCall) error{
		"effect": func(ctx context.Context, c loop.ToolCall) error { return c.Effect(ctx) },
		"nested call": func(ctx context.Context, c loop.ToolCall) error {
			_, err := c.Nested.Call(ctx, 0, "inner", []byte("{}"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			var live atomic.Bool
			live.Store(true)
			r := newRig(t, thenTell("once {}"), loop.Options{Live: live.Load})
			began := make(chan struct{})
			r.spy.before = func(w store.Write) {
				if slices.ContainsFunc(w.Steps, func(s response.Step) bool { return s.EffectStarted }) {
					live.Store(false)
				}
			}
			r.tools.calls["inner"] = func(context.Context, loop.ToolCall) loop.ToolResult {
				t.Error("it ran")
				return ok("")
			}
			r.tools.calls["once"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if err := begin(ctx, c); !errors.Is(err, queue.ErrFenced) {
					t.Errorf("got %v, want ErrFenced", err)
				}
				close(began)
				return stopped(ctx)
			}
			if s := r.step(r.takenOver(began), "/1"); s.State != response.Abandoned || s.Tries != 1 {
				t.Errorf("step is %s after %d tries; want abandoned after one", s.State, s.Tries)
			}
		})
	}
}

// TestFirstEffectIsFenced checks that a run that was canceled behind its back
// begins no effect.
func TestFirstEffectIsFenced(t *testing.T) {
	r := newRig(t, thenTell("once {}"), loop.Options{})
	r.tools.calls["once"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if _, did, err := r.store.Cancel(ctx, "t", id(c), ""); err != nil || !did {
			t.Errorf("cancel: %t, %v", did, err)
		}
		if err := c.Effect(ctx); !errors.Is(err, queue.ErrLeaseLost) {
			t.Errorf("effect: got %v, want ErrLeaseLost", err)
		}
		return stopped(ctx) // which the refusal ends
	}
	n, events := r.brief(simple)
	run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run.Wait(t.Context()); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("Wait: got %v, want ErrLeaseLost", err)
	}
	if rec := r.record(n.ID); rec.State != queue.Canceled || rec.Worker != 0 || r.step(rec, "/1").EffectStarted {
		t.Errorf("%s, worker %d, effect started %t; want canceled, let go and none", rec.State, rec.Worker, r.step(rec, "/1").EffectStarted)
	}
}

// id is the request that a tool call is of.
func id(c loop.ToolCall) queue.ID {
	id, err := queue.ParseID(strings.TrimPrefix(c.Info.ResponseID, "resp_"))
	if err != nil {
		panic(err)
	}
	return id
}

// TestConflictAfterAnEffect checks that a call whose state was changed
// meanwhile is not run again if that would repeat an effect.
func TestConflictAfterAnEffect(t *testing.T) {
	for _, tt := range []struct {
		tool string
		runs int32
		told string
	}{
		{"once", 2, "written"},
		{"once_effect", 1, "was not run again"},
		{"idempotent_effect", 2, "written"},
	} {
		t.Run(tt.tool, func(t *testing.T) {
			r := newRig(t, thenTell(tt.tool+" {}"), loop.Options{})
			r.policy.retry = retries(5, 0)
			var n atomic.Int32
			r.tools.calls[tt.tool] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
				if strings.HasSuffix(tt.tool, "effect") {
					r.check(c.Effect(ctx))
				}
				res := ok("written")
				res.KV = []store.KVPut{{Plugin: plugin, Key: "k", Value: []byte("v"), Checked: true, Had: n.Add(1) == 1, Was: nil}}
				return res
			}
			o, _, _ := r.run(simple)
			if got := r.object(o.Body).text(); n.Load() != tt.runs || !strings.Contains(got, tt.told) {
				t.Errorf("ran %d times, told %q; want %d and %q", n.Load(), got, tt.runs, tt.told)
			}
		})
	}
}

// TestTenantTextStaysOnTheStep checks that what a plugin says of its failure and
// what it logs reach the step, cut, and nothing else.
func TestTenantTextStaysOnTheStep(t *testing.T) {
	const detail, log = "private detail", "private log \x00\xff"
	r := newRig(t, thenTell("flaky {}", "well {}", "caller {}"), loop.Options{})
	r.policy.retry = retries(1, 0)
	r.tools.calls["flaky"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		res := transient("no")
		res.Detail, res.Log = detail+strings.Repeat("é", response.MaxDetail), log
		return res
	}
	r.tools.calls["well"] = func(context.Context, loop.ToolCall) loop.ToolResult {
		res := ok("fine")
		res.Log = log + strings.Repeat("l", response.MaxLog)
		return res
	}
	r.tools.calls["caller"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		reply, err := c.Nested.Call(ctx, 0, "flaky", []byte("{}"))
		if err != nil || strings.Contains(reply.Output, "private") {
			t.Errorf("nested: %+v, %v", reply, err)
		}
		return ok("called")
	}
	o, events, id := r.run(`{"model":"m","input":"hello","stream":true}`)
	rec := r.record(id)
	if s := r.step(rec, "/1"); s.State != response.Failed || !strings.HasPrefix(s.Detail, detail+"é") || len(s.Detail) > response.MaxDetail || s.Detail[len(s.Detail)-2:] != "é" || s.Log != log {
		t.Errorf("step is %s with a detail of %d bytes, log %q; want both, the detail cut between characters", s.State, len(s.Detail), s.Log)
	}
	if s := r.step(rec, "/2"); len(s.Log) != response.MaxLog || !strings.HasPrefix(s.Log, log) || s.Detail != "" {
		t.Errorf("a log of %d bytes, detail %q; want its first %d", len(s.Log), s.Detail, response.MaxLog)
	}
	if s := r.step(rec, "/3/0"); !strings.HasPrefix(s.Detail, detail) || s.Log != log {
		t.Errorf("nested step: detail of %d bytes, log %q", len(s.Detail), s.Log)
	}
	elsewhere := string(o.Body) + o.Message + string(rec.Result.Body)
	for _, e := range append(events, rec.Events...) {
		elsewhere += string(e.Data)
	}
	for _, req := range r.upstream.Requests() {
		elsewhere += string(req.Body)
	}
	for _, s := range rec.Steps {
		elsewhere += string(s.Output) + string(s.Input)
	}
	elsewhere += fmt.Sprintf("%+v", r.policy.questions)
	if strings.Contains(elsewhere, "private") {
		t.Errorf("the plugin's text got out: %s", elsewhere)
	}
}

// TestGuestClasses checks that each way in which a guest ends reaches the step,
// the retry policy and its history.
func TestGuestClasses(t *testing.T) {
	for _, class := range []queue.Class{
		queue.GuestTrap, queue.GuestFuel, queue.GuestMemory, queue.GuestDepth, queue.GuestDeadline,
		queue.GuestOutput, queue.GuestDenied, queue.GuestThrottled, queue.PluginUnavailable, queue.GuestInvalidOutput,
	} {
		t.Run(string(class), func(t *testing.T) {
			if !slices.Contains(queue.Classes(), class) {
				t.Errorf("not in the closed set")
			}
			r := newRig(t, thenTell("bad {}"), loop.Options{})
			r.policy.retry = func(q abi.RetryQuestion) policy.Verdict { return policy.Verdict{Retry: len(q.History) == 0} }
			r.tools.calls["bad"] = func(context.Context, loop.ToolCall) loop.ToolResult {
				return loop.ToolResult{Class: class, RetryAfter: -1, Fuel: 7, Used: response.Used{Memory: 8}}
			}
			_, _, id := r.run(simple)
			if s := r.step(r.record(id), "/1"); s.Class != class || s.State != response.Failed || s.Tries != 2 || s.Fuel != 7 || s.Used.Memory != 8 {
				t.Errorf("step is %s, class %s, %d tries, fuel %d", s.State, s.Class, s.Tries, s.Fuel)
			}
			q := r.policy.questions
			if len(q) != 2 || q[1].Outcome.Class != string(class) || len(q[1].History) != 1 || q[1].History[0].Class != string(class) {
				t.Errorf("the policy was asked %+v", q)
			}
		})
	}
}
