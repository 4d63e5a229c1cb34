package loop_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

func TestCancelStopsEverything(t *testing.T) {
	r := newRig(t, thenTell("hang {}"), loop.Options{})
	began, stopped := make(chan struct{}), make(chan error, 1)
	r.tools.calls["hang"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		close(began)
		<-ctx.Done()
		stopped <- context.Cause(ctx)
		return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
	}
	n, events := r.brief(simple)
	run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	if _, did, err := r.store.Cancel(t.Context(), "t", n.ID, ""); err != nil || !did {
		t.Fatalf("cancel: %v, %v", did, err)
	}
	r.claimer.Stop(n.ID, queue.ErrCanceled)
	if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Canceled {
		t.Errorf("outcome %s, %v; want canceled", o.To, err)
	}
	if cause := <-stopped; !errors.Is(cause, queue.ErrCanceled) {
		t.Errorf("the tool was stopped by %v", cause)
	}
	rec := r.record(n.ID)
	if rec.State != queue.Canceled || rec.Worker != 0 {
		t.Errorf("%s, worker %d; want canceled and let go", rec.State, rec.Worker)
	}
}

// TestCancelStopsTheModel checks that a cancel amid a model's stream ends the
// call upstream too, where it is paid for, and leaves a legal log.
func TestCancelStopsTheModel(t *testing.T) {
	r := newRig(t, func(int, demo.Request) demo.Turn {
		return demo.Turn{Text: "some words that never end", ChunkRunes: 4, Gate: make(chan struct{}), GateAfter: 3}
	}, loop.Options{})
	n, events := r.brief(`{"model":"m","input":"hello","stream":true}`)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	for heard := ""; !strings.Contains(heard, "response.output_text.delta"); {
		more, err := l.Next(t.Context())
		if err != nil {
			t.Fatalf("the stream ended after %s: %v", heard, err)
		}
		heard += names(more) + " "
	}
	if now := r.models.Candidates("m")[0].InFlight; now != 1 {
		t.Errorf("%d calls upstream amid the stream; want 1", now)
	}
	if _, did, err := r.store.Cancel(t.Context(), "t", n.ID, ""); err != nil || !did {
		t.Fatalf("cancel: %v, %v", did, err)
	}
	r.claimer.Stop(n.ID, queue.ErrCanceled)
	if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Canceled {
		t.Errorf("outcome %s, %v; want canceled", o.To, err)
	}
	if now := r.models.Candidates("m")[0].InFlight; now != 0 {
		t.Errorf("%d calls upstream after the cancel; want none", now)
	}
	rec := r.record(n.ID)
	if rec.State != queue.Canceled || rec.Worker != 0 {
		t.Errorf("%s, worker %d; want canceled and let go", rec.State, rec.Worker)
	}
	if err := response.Validate(rec.Events); err != nil && !errors.Is(err, response.ErrUnfinished) {
		t.Errorf("log: %v: %s", err, names(rec.Events))
	}
}

// TestCancelStopsServers checks that a cancel ends what a server is asked, its
// list or a call, with and without a model.
func TestCancelStopsServers(t *testing.T) {
	for _, during := range []string{"list", "call"} {
		t.Run(during, func(t *testing.T) {
			began, ended := make(chan struct{}), make(chan error, 1)
			hang := func(ctx context.Context) error {
				close(began)
				<-ctx.Done()
				ended <- context.Cause(ctx)
				return ctx.Err()
			}
			m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){"maps": lists("find")}}
			m.call = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
				r := hang(ctx)
				return loop.ToolResult{Class: queue.ClassCanceled, Output: fmt.Sprint(r), RetryAfter: -1}
			}
			if during == "list" {
				m.list["maps"] = func(ctx context.Context) ([]response.RemoteTool, error) { return nil, hang(ctx) }
			}
			r := newRig(t, thenTell("find {}"), loop.Options{Remotes: m})
			r.refers(maps())
			n, events := r.brief(simple)
			run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
			if err != nil {
				t.Fatal(err)
			}
			<-began
			if _, did, err := r.store.Cancel(t.Context(), "t", n.ID, ""); err != nil || !did {
				t.Fatalf("cancel: %v, %v", did, err)
			}
			r.claimer.Stop(n.ID, queue.ErrCanceled)
			if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Canceled {
				t.Errorf("outcome %s, %v; want canceled", o.To, err)
			}
			if cause := <-ended; !errors.Is(cause, queue.ErrCanceled) {
				t.Errorf("the server's tool was stopped by %v", cause)
			}
			rec := r.record(n.ID)
			if rec.State != queue.Canceled || rec.Worker != 0 {
				t.Errorf("%s, worker %d; want canceled and let go", rec.State, rec.Worker)
			}
			if err := response.Validate(rec.Events); err != nil && !errors.Is(err, response.ErrUnfinished) {
				t.Errorf("log: %v: %s", err, names(rec.Events))
			}
		})
	}
}

// TestReapedRealtime checks that a request that nobody can wait for any more
// is not run a second time when its worker lost its lease.
func TestReapedRealtime(t *testing.T) {
	r := newRig(t, thenTell("hang {}"), loop.Options{})
	began := make(chan struct{})
	r.tools.calls["hang"] = func(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
		close(began)
		<-ctx.Done()
		return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
	}
	n, events := r.brief(`{"model":"m","input":"hello","store":false}`)
	run, err := r.claimer.Submit(t.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	<-began
	r.claimer.Stop(n.ID, queue.ErrLeaseLost)
	if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Failed || o.Class != queue.WorkerLost {
		t.Errorf("%s %s, %v; want failed worker_lost", o.To, o.Class, err)
	}
}

func TestShutdownKeepsTheChain(t *testing.T) {
	verdict := policy.Verdict{}
	r := newRig(t, thenTell("hang {}"), loop.Options{})
	r.policy.retry = func(abi.RetryQuestion) policy.Verdict { return verdict }
	began := make(chan struct{})
	r.tools.calls["hang"] = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Info.Attempt > 1 {
			return ok("second attempt")
		}
		close(began)
		<-ctx.Done()
		return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
	}
	n, events := r.brief(`{"model":"m","input":"hello","background":true}`)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	if err := r.claimer.Enqueue(t.Context(), store.Write{Insert: &n, Events: events}); err != nil {
		t.Fatal(err)
	}
	<-began
	r.claimer.Stop(n.ID, queue.ErrShutdown)
	r.events(l)
	rec := r.record(n.ID)
	if rec.State != queue.Completed || rec.Attempt != 2 || rec.Failures != 0 || rec.Reaps != 0 {
		t.Errorf("%s at attempt %d, failures %d, reaps %d; want completed at 2, nothing spent", rec.State, rec.Attempt, rec.Failures, rec.Reaps)
	}
	if s := rec.Steps[0]; s.Tries != 1 {
		t.Errorf("the finished model call was tried %d times; want once", s.Tries)
	}
	if s := rec.Steps[1]; s.Tries != 2 || string(s.Output) != "second attempt" {
		t.Errorf("tool step: %d tries, output %q", s.Tries, s.Output)
	}
}
