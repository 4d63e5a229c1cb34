package loop

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// modelCall is one try of a model call.
type modelCall struct {
	step  response.Step
	body  []byte
	info  abi.RequestInfo
	tried []abi.Tried
	fare  Fare
}

// callModel runs one try of a model call, unless err says that it could not be
// written. It streams what it reads to the response's listeners.
func (r *run) callModel(m modelCall, err error) result {
	s := m.step
	res := result{step: s}
	if err != nil {
		return res.failed(queue.HostError, 0, "")
	}
	fold := response.NewFold()
	fold.Key = s.IdempotencyKey(r.claim.ID)
	up := r.loop.caller.Do(r.ctx, UpstreamCall{
		Info: m.info, Realtime: r.claim.Realtime, Step: s.Key(), Try: s.Tries, Fare: m.fare,
		Key: s.IdempotencyKey(r.claim.ID), Tried: m.tried,
		Say: func(upstream.Kind) (Said, error) {
			return Said{Path: "/chat/completions", Body: m.body, OnData: func(data []byte) error {
				deltas, err := fold.Chunk(data)
				for _, d := range deltas {
					r.show(d)
				}
				if err != nil {
					return fmt.Errorf("%w: %w", upstream.ErrInvalid, err)
				}
				return nil
			}}, nil
		},
	})
	res.decisions = []store.Decision{up.Decision}
	res.tried, res.called = up.Tried, up.Called
	if up.Failure == nil && !up.Reply.Streamed {
		_, err = fold.Body(up.Reply.Body)
	}
	out, cut := fold.Output()
	if n := fold.Usage(); n != (response.Usage{}) {
		res.usage = []store.Usage{{Scope: s.Scope, Ordinal: s.Ordinal, Try: s.Tries, Target: up.Target, Tokens: n, Tenant: r.claim.Tenant, Model: r.claim.Model}}
	}
	switch {
	case up.Failure != nil && r.ctx.Err() != nil:
		res.stopped = true
		return res
	case up.Failure != nil:
		return r.failedModel(res, up)
	case err != nil || cut != nil:
		return res.failed(queue.UpstreamInvalid, 502, "")
	}
	r.loop.caller.Good(m.fare, m.info.Model)
	res.step.State, res.step.Class, res.step.Status = response.Completed, queue.OK, up.Reply.Status
	res.step.Output, res.step.Usage, res.output = out.Encode(), out.Usage, out
	return res
}

// failedModel is how a model call ended that no target served.
func (r *run) failedModel(res result, up UpstreamResult) result {
	f := up.Failure
	res = res.failed(f.Class, f.Status, f.Code)
	if f.RetryAfter >= 0 {
		res.step.RetryAfter = f.RetryAfter.Milliseconds()
	}
	switch {
	case f.Rejected:
		res.step.Verdict = response.Final
		res.rejected = &response.Failure{
			Code: f.Code, Message: f.Message, Status: f.Status, Class: f.Class,
			Rejected: true, RetryAfter: max(0, f.RetryAfter),
		}
	case res.step.Ordinal == 0 && up.NoRoom(r.claim.Realtime, res.step.Tries):
		res.step.Verdict = response.Final
		res.step.RetryAfter = max(res.step.RetryAfter, time.Second.Milliseconds())
	}
	return res
}

// show emits a delta of a response that somebody may watch grow. One that only
// its end is waited for shows nothing before its step is settled, so a model
// call that is cut may be tried again.
func (r *run) show(d response.Delta) {
	if r.claim.Stream || r.claim.Background {
		r.out.deltas(r.stream.Delta(d))
	}
}

func (res result) failed(class queue.Class, status int, code string) result {
	res.step.State, res.step.Verdict = response.Failed, response.Unasked
	res.step.Class, res.step.Status, res.step.Code, res.step.RetryAfter = class, status, code, -1
	return res
}

// unwritten is how a call that succeeded failed all the same, since what it
// wrote to its plugin's state was refused. Its output says what is not so.
func (res result) unwritten(class queue.Class, code string) result {
	res.step.Output = nil
	return res.failed(class, 0, code)
}

// ask puts failed tries to the retry policy and takes over its verdicts.
func (r *run) ask(steps []response.Step) {
	for _, s := range steps {
		t := r.triesOf(s.Ordinal)
		b := policy.Bounds{
			MaxFailures: r.loop.opt.MaxFailures, Began: s.Began(), Tries: s.Tries - 1,
			Model: r.claim.Served(), Realtime: r.claim.Realtime, InPlace: r.loop.opt.InPlace,
		}
		if s.Kind == response.ModelCall && t.called {
			b.Budget = r.loop.caller.Budget
		}
		v, d := r.loop.policy.Retry(r.ctx, r.question(s, t), b)
		t.paid, t.free = v.Paid, !t.called
		r.pending.Decisions = append(r.pending.Decisions, store.Decision{
			Step: s.Key(), Try: s.Tries, Kind: d.Kind, Question: d.Question, Answer: d.Answer,
			Generation: d.Generation, Fallback: d.Fallback, Fuel: d.Fuel,
		})
		t.history = append(t.history, abi.HistoryTry{Class: string(s.Class), Status: s.Status, DelayMS: v.Delay.Milliseconds()})
		if v.Retry {
			if v.Count {
				r.pending.Failures++
			}
			t.due = time.Now().Add(v.Delay)
			s.State, s.Verdict = response.Planned, response.Retry
			r.put(s)
			continue
		}
		s.Verdict = response.Final
		if v.RetryAfter > 0 {
			s.RetryAfter = max(s.RetryAfter, v.RetryAfter.Milliseconds())
		}
		r.put(s)
		if s.Kind == response.ToolCall {
			r.emit(r.stream.ToolDone(s.CallID, response.Receipt(s)))
		}
	}
}

// question is what the retry policy is asked of a failed try.
func (r *run) question(s response.Step, t *tries) abi.RetryQuestion {
	q := abi.RetryQuestion{
		V: abi.Version, NowMS: time.Now().UnixMilli(), Seed: Seed(), Request: r.info(),
		Step:     abi.StepInfo{Kind: string(s.Kind), Tool: s.Tool, Effects: abi.Effects(s.Effects)},
		Failures: r.claim.Failures + r.pending.Failures, MaxFailures: r.loop.opt.MaxFailures,
		Outcome: abi.FailedTry{
			Class: string(s.Class), Code: s.Code, Status: s.Status, RetryAfterMS: s.RetryAfter,
			VisibleOutputSent: s.Kind == response.ModelCall && r.stream.Visible(),
		},
		History: t.history,
	}
	q.DeadlineInMS = q.Request.DeadlineInMS
	return q
}
