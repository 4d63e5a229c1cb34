package processor_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// standIn is an upstream that does what a function says.
type standIn func(ctx context.Context, n int) (upstream.Reply, error)

type standInUpstream struct {
	do    standIn
	calls atomic.Int32
}

func (u *standInUpstream) Candidates(string) []abi.Candidate {
	return []abi.Candidate{{Target: "up/real", Weight: 1, Healthy: true}}
}
func (u *standInUpstream) Kind(string) upstream.Kind              { return upstream.Chat }
func (u *standInUpstream) Available(string) (bool, time.Duration) { return true, 0 }
func (u *standInUpstream) Do(ctx context.Context, _ upstream.Call) (upstream.Reply, error) {
	return u.do(ctx, int(u.calls.Add(1)))
}

var good = upstream.Reply{Status: 200, ContentType: "application/json", Body: []byte(
	`{"choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}]}`)}

// work is a queued request for a stage.
func work(t *testing.T, path string) queue.New {
	t.Helper()
	n := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: path, Store: true, Body: []byte(`{"model":"m","messages":[]}`)}
	if path == processor.ResponsesPath {
		req, err := response.ParseRequest([]byte(`{"model":"m","input":"hello","background":true}`))
		if err != nil {
			t.Fatal(err)
		}
		n.Background = true
		if n.Body, err = (response.Brief{Request: req}).Encode(); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// enqueue queues a request and returns it.
func (r *rig) enqueue(path string) queue.New {
	r.Helper()
	n := work(r.T, path)
	var events []response.Event
	if path == processor.ResponsesPath {
		brief, err := response.DecodeBrief(n.Body)
		if err != nil {
			r.Fatal(err)
		}
		events = response.NewStream(n.ID, n.ID.Time(), brief.Request, nil).Created(true)
	}
	if err := r.claimer.Enqueue(r.Context(), store.Write{Insert: &n, Events: events}); err != nil {
		r.Fatal(err)
	}
	return n
}

// until polls a row until is is content with it.
func (r *rig) until(n queue.New, is func(store.Record) bool) store.Record {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		rec := r.record(n)
		if is(rec) {
			return rec
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.Fatalf("%s is %s at attempt %d, worker %d", n.Path, rec.State, rec.Attempt, rec.Worker)
		}
	}
}

// TestLostClaimIsNeverDispatched takes the claim away at the write that begins
// the work: no byte goes upstream then.
//
// U5: a start that found the row to be somebody else's went on to the call.
func TestLostClaimIsNeverDispatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5, nil)
		e := w.enqueue(processor.ResponsesPath)
		w.refuse = &store.LeaseLost{ID: e.claim.ID, State: queue.Claimed, Attempt: 2}
		if o := w.again(e); o.To != queue.Pending || len(w.calls) != 0 {
			t.Errorf("%s after %d calls; want it to stop without one", o.To, len(w.calls))
		}
	})
}

// panicky panics in its first decisions.
type panicky struct {
	*policy.Decider
	left atomic.Int32
}

func (p *panicky) Route(ctx context.Context, q abi.RouteQuestion) (abi.RouteAnswer, policy.Decision) {
	if p.left.Add(-1) >= 0 {
		panic("bug")
	}
	return p.Decider.Route(ctx, q)
}

// TestPanicIsTriedAgain checks that a panic amid a request costs it a failure,
// not its host, and never its place in the queue.
//
// U6: a panic was written as failed first, so that the retry that followed
// found the row not to be processing, and was lost.
func TestPanicIsTriedAgain(t *testing.T) {
	up := &standInUpstream{do: func(context.Context, int) (upstream.Reply, error) { return good, nil }}
	for _, path := range paths {
		t.Run(path[4:], func(t *testing.T) {
			p := &panicky{Decider: policy.New(nil)}
			p.left.Store(1)
			r := openRig(t, &loop.Caller{Policy: p, Upstream: up}, processor.Options{}, claimer.Options{})
			n := r.enqueue(path)
			rec := r.until(n, func(rec store.Record) bool { return rec.State.Final() })
			if rec.State != queue.Completed || rec.Failures != 1 || rec.Worker != 0 {
				t.Errorf("%s %s, %d failures, worker %d; want completed after one", rec.State, rec.Class, rec.Failures, rec.Worker)
			}
			p.left.Store(1000)
			n = r.enqueue(path)
			rec = r.until(n, func(rec store.Record) bool { return rec.State != queue.Pending && !rec.State.Owned() })
			if rec.Failures == 0 || rec.Worker != 0 {
				t.Errorf("%s %s, %d failures, worker %d; want failures, and no worker", rec.State, rec.Class, rec.Failures, rec.Worker)
			}
		})
	}
}

// fixedRetry answers every retry question alike.
type fixedRetry struct {
	*policy.Decider
	verdict policy.Verdict
}

func (f fixedRetry) Retry(ctx context.Context, q abi.RetryQuestion, b policy.Bounds) (policy.Verdict, policy.Decision) {
	_, d := f.Decider.Retry(ctx, q, b)
	return f.verdict, d
}

// TestEveryFailureIsWritten lets calls fail in each way that there is, for good
// and for now: every one is written, by the one place that ends claims, and no
// row is left in a worker's hands.
//
// U7: a failure to build the call was returned and written by nobody; the row
// stayed processing, was taken back for its age and failed the same for ever.
func TestEveryFailureIsWritten(t *testing.T) {
	var class atomic.Pointer[queue.Class]
	up := &standInUpstream{do: func(context.Context, int) (upstream.Reply, error) {
		if c := *class.Load(); c != "" {
			return upstream.Reply{}, &upstream.Error{Class: c, Status: 418, RetryAfter: -1}
		}
		return upstream.Reply{}, fmt.Errorf("not an error of the upstream package")
	}}
	for name, v := range map[string]policy.Verdict{
		"for good": {}, "for now": {Retry: true, Delay: time.Hour, Count: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := openRig(t, &loop.Caller{Policy: fixedRetry{policy.New(nil), v}, Upstream: up}, processor.Options{}, claimer.Options{})
			for _, path := range paths {
				for _, c := range append(queue.Classes(), "", "of tomorrow") {
					class.Store(&c)
					n := r.enqueue(path)
					rec := r.until(n, func(rec store.Record) bool { return rec.State != queue.Pending && !rec.State.Owned() })
					want := queue.Failed
					if v.Retry {
						want = queue.Waiting
					}
					if rec.State != want || rec.Worker != 0 || rec.Attempt != 1 || v.Retry != (rec.Failures == 1) {
						t.Errorf("%s %q: %s, worker %d, %d failures; want %s, let go", path, c, rec.State, rec.Worker, rec.Failures, want)
					}
				}
			}
		})
	}
	t.Run("a call that cannot be built", func(t *testing.T) {
		client, err := upstream.New(upstream.Config{
			Upstreams: []upstream.Upstream{{Name: "up", BaseURL: "http://127.0.0.1:1/v1"}},
			Models:    []upstream.Model{{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r := openRig(t, &loop.Caller{Policy: fixedRetry{policy.New(nil), policy.Verdict{}}, Upstream: client}, processor.Options{}, claimer.Options{})
		for _, broken := range []func(*queue.New){
			func(n *queue.New) { n.Path = "/v1/a\nb" },
			func(n *queue.New) { n.Path = "nothing" },
			func(n *queue.New) { n.Body = []byte("no JSON\n") },
			func(n *queue.New) { n.Body = nil },
		} {
			n := work(t, paths[0])
			broken(&n)
			if err := r.claimer.Enqueue(t.Context(), store.Write{Insert: &n}); err != nil {
				t.Fatal(err)
			}
			rec := r.until(n, func(rec store.Record) bool { return rec.State.Final() })
			if rec.State != queue.Failed || rec.Class != queue.HostError || rec.Worker != 0 || rec.Attempt != 1 {
				t.Errorf("%s %s at attempt %d, worker %d; want failed, host_error", rec.State, rec.Class, rec.Attempt, rec.Worker)
			}
		}
	})
}

// TestCallOutlastsTheLease checks that work goes on however long a call takes,
// as long as its host says that it lives.
//
// U20: requests were taken back by their age, no later than their calls timed
// out, and so run twice.
func TestCallOutlastsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lease = 20 * time.Second
		up := &standInUpstream{do: func(ctx context.Context, _ int) (upstream.Reply, error) {
			select {
			case <-time.After(10 * lease):
				return good, nil
			case <-ctx.Done():
				return upstream.Reply{}, &upstream.Error{Class: queue.ClassCanceled, RetryAfter: -1}
			}
		}}
		r := openRig(t, &loop.Caller{Policy: policy.New(nil), Upstream: up}, processor.Options{}, claimer.Options{Lease: lease, Poll: time.Second})
		n, m := r.enqueue(paths[0]), r.enqueue(paths[1])
		<-time.After(11 * lease)
		for _, n := range []queue.New{n, m} {
			rec := r.record(n)
			if rec.State != queue.Completed || rec.Attempt != 1 || rec.Reaps != 0 {
				t.Errorf("%s: %s at attempt %d, %d reaps; want completed at the first", n.Path, rec.State, rec.Attempt, rec.Reaps)
			}
		}
		if calls := up.calls.Load(); calls != 2 {
			t.Errorf("%d calls for two requests", calls)
		}
	})
}
