package processor_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/sdk/abi"
)

// inBoth runs a test in a bubble for each stage.
func inBoth(t *testing.T, f func(t *testing.T, path string)) {
	for _, path := range paths {
		t.Run(path[4:], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, path) })
		})
	}
}

// again claims a request once more when it is due.
func (w *world) again(e *entry) queue.Outcome {
	<-time.After(time.Until(e.due))
	e.claim.Attempt++
	return w.run(e)
}

// drain takes what the budget of model has.
func (w *world) drain(model string) {
	for paid := true; paid; {
		paid = w.budget.Withdraw(model)
	}
}

// TestClaimedAgainIsPaidFor follows a request through attempts: what was put
// off is tried again when the budget pays for it, and is put off without a
// failure until then.
func TestClaimedAgainIsPaidFor(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 5, nil)
		w.set(&failure{code: 503, retryAfter: "5"})
		e := w.enqueue(path)
		if o := w.again(e); o.To != queue.Waiting || o.Delay < 5*time.Second || e.claim.Failures != 1 || len(w.calls) != 1 {
			t.Fatalf("first: %s for %v, %d failures, %d calls; want waiting for 5 s, one each", o.To, o.Delay, e.claim.Failures, len(w.calls))
		}
		counts := w.budget.Counts()["m"]
		if counts.Deposits != 1 || counts.Paid != 0 {
			t.Errorf("first: budget %+v, want one first try and nothing paid", counts)
		}
		for i := range 3 {
			<-time.After(time.Until(e.due))
			w.drain("m")
			o := w.again(e)
			if o.To != queue.Waiting || o.By != queue.ByRetry || o.Delay < 10*time.Second || o.Delay > 40*time.Second || e.claim.Failures != 1 || len(w.calls) != 1 {
				t.Errorf("no budget: %s for %v, %d failures, %d calls; want it put off, nothing spent", o.To, o.Delay, e.claim.Failures, len(w.calls))
			}
			if i == 0 && o.Park != 0 {
				t.Errorf("parked for %v when the cooldown was over", o.Park)
			}
		}
		paid := w.budget.Counts()["m"].Paid
		w.set(nil)
		if o := w.again(e); o.To != queue.Completed || len(w.calls) != 2 {
			t.Errorf("paid for: %s, %d calls; want completed by the second", o.To, len(w.calls))
		}
		if c := w.budget.Counts()["m"]; c.Paid != paid+1 || c.Refunds != 1 || c.Deposits != 1 {
			t.Errorf("paid for: budget %+v, want one more paid, one first try, one back", c)
		}
	})
}

// A request is not lost for want of budget: where its deadline would pass while
// it waits for some, it is tried at once.
func TestLastTryNeedsNoBudget(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		for left, calls := range map[time.Duration]int{9 * time.Second: 1, 5 * time.Minute: 0} {
			w := newWorld(t, 5, nil)
			e := w.enqueue(path)
			e.claim.Attempt, e.claim.Failures = 2, 1
			e.rec.Steps = []response.Step{{Kind: response.ModelCall, State: response.Planned, Tries: 1, RetryAfter: -1}}
			e.due = time.Now()
			w.drain("m")
			e.claim.Attempt++
			ctx, cancel := context.WithTimeoutCause(t.Context(), left, queue.ErrDeadline)
			end, err := w.stage.Process(ctx, e.claim)
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			want := queue.Waiting
			if calls == 1 {
				want = queue.Completed
			}
			if end.Outcome.To != want || len(w.calls) != calls {
				t.Errorf("%s to the deadline: %s after %d calls, want %s after %d", left, end.Outcome.To, len(w.calls), want, calls)
			}
			end.Done(true)
		}
	})
}

// Who comes while the upstream is not to be called is told when to come back, at
// once; queued work is put off until then, for nothing.
func TestWhileTheTargetIsParked(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 1, nil)
		w.client.Cool("up/real", 40*time.Second)
		e, began := w.enqueue(path), time.Now()
		e.claim.Realtime = true
		if o := w.again(e); o.To != queue.Failed || o.Status != 429 || o.RetryAfter != 40*time.Second || time.Since(began) != 0 {
			t.Errorf("realtime: %s %d, to come back in %v, after %v", o.To, o.Status, o.RetryAfter, time.Since(began))
		}
		e = w.enqueue(path)
		if o := w.again(e); o.To != queue.Waiting || o.Delay < 40*time.Second || o.Park != 40*time.Second || e.claim.Failures != 0 {
			t.Errorf("queued: %s for %v, parked for %v, %d failures", o.To, o.Delay, o.Park, e.claim.Failures)
		}
		if len(w.calls) != 0 {
			t.Errorf("%d calls", len(w.calls))
		}
		if o := w.again(e); o.To != queue.Completed {
			t.Errorf("then: %s, want completed", o.To)
		}
	})
}

// A request whose worker was lost is run again whatever the budget has left.
func TestReapedIsNoRetry(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 5, nil)
		w.drain("m")
		paid := w.budget.Counts()["m"].Paid
		e := w.enqueue(path)
		e.claim.Attempt, e.claim.Reaps = 1, 1
		e.rec.Steps = []response.Step{{Kind: response.ModelCall, State: response.Running, Tries: 1, Attempt: 1, RetryAfter: -1}}
		if o := w.again(e); o.To != queue.Completed || len(w.calls) != 1 {
			t.Errorf("%s after %d calls, want completed after one", o.To, len(w.calls))
		}
		if c := w.budget.Counts()["m"]; c.Paid != paid || c.Deposits != 0 || c.Refused != 1 {
			t.Errorf("budget %+v, want it untouched", c)
		}
	})
}

// TestRetryWithoutBudget checks a try that would follow at once: queued work is
// put off, who waits for the answer is told when to come back.
func TestRetryWithoutBudget(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		for _, code := range []int{429, 503} {
			w := newWorld(t, 5, nil)
			w.set(&failure{code: code, retryAfter: "0.6"})
			e := w.enqueue(path)
			w.dry()
			failures := 1
			if code == 429 {
				failures = 0
			}
			if o := w.again(e); o.To != queue.Waiting || o.Delay < 10*time.Second || o.Delay > 20*time.Second || e.claim.Failures != failures || len(w.calls) != 1 {
				t.Errorf("%d, queued: %s for %v, %d failures, %d calls; want it put off", code, o.To, o.Delay, e.claim.Failures, len(w.calls))
			}
			<-time.After(time.Second) // the upstream is not to be called for so long
			e = w.enqueue(path)
			e.claim.Realtime = true
			if o := w.again(e); o.To != queue.Failed || o.Status != code || o.RetryAfter < 10*time.Second || len(w.calls) != 2 {
				t.Errorf("%d, realtime: %s %d, to come back in %v, %d calls; want failed and told", code, o.To, o.Status, o.RetryAfter, len(w.calls))
			}
		}
	})
}

// dry makes the stages anew with a budget that pays for nothing.
func (w *world) dry() {
	w.stages(policy.NewBudget(policy.BudgetOptions{Ratio: -1, MinPerSecond: -1}), 5)
}

// TestRateLimitSpendsNoFailure checks a rate limit that goes on for hours: with
// no failure spent, never sooner than it was asked for, and with the lane left
// alone meanwhile.
func TestRateLimitSpendsNoFailure(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 1, nil)
		w.set(&failure{code: 429, retryAfter: "40"})
		e := w.enqueue(path)
		for range 30 {
			began, calls := time.Now(), len(w.calls)
			o := w.again(e)
			if o.To != queue.Waiting || o.Delay < 40*time.Second || o.Park != 40*time.Second || e.claim.Failures != 0 || len(w.calls) != calls+1 {
				t.Fatalf("after %v: %s for %v, parked for %v, %d failures, %d calls", began.Sub(w.began), o.To, o.Delay, o.Park, e.claim.Failures, len(w.calls)-calls)
			}
		}
		w.set(nil)
		if o := w.again(e); o.To != queue.Completed {
			t.Errorf("in the end: %s, want completed", o.To)
		}
	})
}

// A rate limit without a Retry-After is asked less and less often, from attempt
// to attempt.
func TestRateLimitBacksOff(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 1, nil)
		w.set(&failure{code: 429})
		e := w.enqueue(path)
		var o queue.Outcome
		for range 10 {
			o = w.again(e)
		}
		if o.To != queue.Waiting || o.Delay < 30*time.Second || e.claim.Failures != 0 {
			t.Errorf("after %d calls: %s for %v, %d failures; want it to wait half a minute, for nothing", len(w.calls), o.To, o.Delay, e.claim.Failures)
		}
	})
}

// A rate limit for ever ends, for a request without a deadline, some tries after
// a day.
func TestRateLimitEnds(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 2, nil)
		w.set(&failure{code: 429, retryAfter: "600"})
		e := w.enqueue(path)
		o := queue.Outcome{To: queue.Waiting}
		for o.To == queue.Waiting && e.claim.Attempt < 200 {
			<-time.After(time.Until(e.due))
			e.claim.Age = time.Since(e.claim.Created)
			o = w.again(e)
		}
		if age := time.Since(w.began); o.To != queue.Failed || o.Class != queue.RateLimited || o.Status != 429 || age < 24*time.Hour || age > 25*time.Hour {
			t.Errorf("%s %s %d after %v; want failed, rate limited, after a day", o.To, o.Class, o.Status, age)
		}
	})
}

// TestEscalatedRequest checks what goes by the model that serves an attempt and
// what by the model that was asked for.
func TestEscalatedRequest(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		w := newWorld(t, 5, nil)
		w.set(&failure{code: 503, retryAfter: "1"})
		time.AfterFunc(900*time.Millisecond, func() { w.set(nil) })
		e := w.enqueue(path)
		e.claim.Escalated = "big"
		if o := w.again(e); o.To != queue.Completed || len(w.bodies) != 2 {
			t.Fatalf("%s after %d calls, want completed after two", o.To, len(w.bodies))
		}
		for _, body := range w.bodies { // the retry in place stays where it was
			if !strings.Contains(body, `"model":"large"`) {
				t.Errorf("called with %s, want the other model's target", body)
			}
		}
		for _, d := range e.rec.Decisions {
			var q abi.RouteQuestion
			if err := json.Unmarshal(d.Question, &q); err != nil {
				t.Fatal(err)
			}
			if q.Request.Model != "big" || d.Kind == abi.KindRoute && (len(q.Candidates) != 1 || q.Candidates[0].Target != "up/large") {
				t.Errorf("asked the %s policy %s, want it asked about the other model", d.Kind, d.Question)
			}
		}
		if len(e.rec.Usage) != 1 || e.rec.Usage[0].Model != "m" || e.rec.Usage[0].Target != "up/large" {
			t.Errorf("usage %+v, want it under the model asked for", e.rec.Usage)
		}
		if c := w.budget.Counts(); c["big"].Paid != 1 || c["big"].Deposits != 1 || c["m"].Deposits != 0 {
			t.Errorf("budget %+v, want the other model's used", c)
		}
		w.set(&failure{code: 429, retryAfter: "60"})
		e = w.enqueue(path)
		e.claim.Escalated = "big"
		if o := w.again(e); o.To != queue.Waiting || o.Park != 0 {
			t.Errorf("%s, its lane parked for %v; want it put off, and its lane left open", o.To, o.Park)
		}
	})
}

// fullTarget has no slot free.
type fullTarget struct{ asked int }

func (f *fullTarget) Acquire(context.Context, string, bool) (func(), error) {
	f.asked++
	return nil, fullError{}
}

type fullError struct{}

func (fullError) Error() string             { return "share: full" }
func (fullError) RetryAfter() time.Duration { return 700 * time.Millisecond }

// TestNoSlotFree checks what a target without a free slot means: a realtime
// request is refused, queued work waits, and neither costs a failure or a retry.
func TestNoSlotFree(t *testing.T) {
	inBoth(t, func(t *testing.T, path string) {
		full := &fullTarget{}
		w := newWorld(t, 1, full)
		e := w.enqueue(path)
		e.claim.Realtime = true
		began := time.Now()
		if o := w.again(e); o.To != queue.Failed || o.Status != 429 || o.Class != queue.RateLimited || o.RetryAfter != time.Second || full.asked != 1 || time.Since(began) != 0 {
			t.Errorf("realtime: %s %s %d, to come back in %v, asked %d times; want refused at once", o.To, o.Class, o.Status, o.RetryAfter, full.asked)
		}
		e = w.enqueue(path)
		for range 5 {
			if o := w.again(e); o.To != queue.Waiting || o.Park != 0 || e.claim.Failures != 0 {
				t.Errorf("queued: %s, parked for %v, %d failures; want it to wait for nothing", o.To, o.Park, e.claim.Failures)
			}
		}
		if len(w.calls) != 0 {
			t.Errorf("%d calls", len(w.calls))
		}
		if c := w.budget.Counts()["m"]; c.Deposits != 0 || c.Paid != c.Refunds {
			t.Errorf("budget %+v, want what was paid to be back", c)
		}
	})
}
