package loop

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/translate"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// modelCall is one try of a model call: all that it needs of its chain, which
// goes on meanwhile.
type modelCall struct {
	run    *run
	claim  queue.Claim
	screen *screen
	step   response.Step
	first  bool // nothing was done for the response yet
	call   translate.Call
	info   abi.RequestInfo
	tried  []abi.Tried
	fare   Fare
}

// modelCall returns the next try of a model call.
func (c *chain) modelCall(s response.Step) modelCall {
	t, steps := c.triesOf(s.Ordinal), c.run.ledger.of(c.scope)
	return modelCall{
		run: c.run, claim: c.claim, screen: c.screen, step: s, info: c.info(), tried: t.tried, fare: t.fare,
		call:  translate.Call{Brief: c.budgeted(), Steps: steps, Tools: c.kit.list},
		first: c.agent == nil && !slices.ContainsFunc(steps, func(o response.Step) bool { return o.Ordinal != s.Ordinal && o.Kind != response.ListTools }),
	}
}

// budgeted returns the brief with as many output tokens as the next model call
// may use, and those that the chain has used.
func (c *chain) budgeted() response.Brief {
	b := c.brief
	if most := b.Request.MaxOutputTokens; most != nil {
		q := *b.Request
		n := c.run.ledger.grant(c.scope, *most) + c.run.ledger.used(c.scope).Output
		q.MaxOutputTokens, b.Request = &n, &q
	}
	return b
}

// say says the call in the words of a kind of API, and reads its answer in them.
func (m modelCall) say(kind upstream.Kind, key string) (path string, body []byte, r translate.Reader, err error) {
	if kind == upstream.Responses {
		body, err = translate.ResponsesRequest(m.call)
		return upstream.ResponsesPath, body, translate.NewResponsesReader(key), err
	}
	body, err = translate.ChatRequest(m.call)
	return "/chat/completions", body, translate.NewChatReader(key), err
}

// do makes the call. It shows what it reads to the response's listeners.
func (m modelCall) do(ctx context.Context) result {
	s, key := m.step, m.step.IdempotencyKey(m.claim.ID)
	res := result{step: s}
	var reader translate.Reader
	up := m.run.loop.caller.Do(ctx, UpstreamCall{
		Info: m.info, Realtime: m.claim.Realtime, Step: s.Key(), Try: s.Tries, Fare: m.fare, Key: key, Tried: m.tried,
		Say: func(kind upstream.Kind) (Said, error) {
			path, body, r, err := m.say(kind, key)
			reader = r
			return Said{Path: path, Body: body, OnData: func(data []byte) error { return m.read(r, data) }}, err
		},
	})
	res.left.Decisions = []store.Decision{up.Decision}
	res.tried, res.called = up.Tried, up.Called
	if reader == nil { // no target was called
		return m.failed(ctx, res, up)
	}
	var err error
	if up.Failure == nil && !up.Reply.Streamed {
		_, err = reader.Body(up.Reply.Body)
	}
	out, cut := reader.Output()
	if n := reader.Usage(); n != (response.Usage{}) {
		res.left.Usage = []store.Usage{{
			Scope: s.Scope, Ordinal: s.Ordinal, Try: s.Tries, Target: up.Target, Tokens: n,
			Tenant: m.run.claim.Tenant, Model: m.run.claim.Model,
		}}
	}
	switch {
	case up.Failure != nil:
		return m.failed(ctx, res, up)
	case err != nil || cut != nil:
		return res.failed(queue.UpstreamInvalid, 502, "")
	}
	m.run.loop.caller.Good(m.fare, m.info.Model)
	res.step.State, res.step.Class, res.step.Status = response.Completed, queue.OK, up.Reply.Status
	res.step.Output, res.step.Usage, res.output = out.Encode(), out.Usage, out
	return res
}

// read takes one event of a streamed answer.
func (m modelCall) read(r translate.Reader, data []byte) error {
	deltas, err := r.Chunk(data)
	for _, d := range deltas {
		m.screen.show(d)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", upstream.ErrInvalid, err)
	}
	return nil
}

// failed is how a model call ended that no target served.
func (m modelCall) failed(ctx context.Context, res result, up UpstreamResult) result {
	f := up.Failure
	if ctx.Err() != nil {
		res.stopped = true
		return res
	}
	if f == nil { // of a call that was not made
		return res.failed(queue.HostError, 0, "")
	}
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
	case m.first && up.NoRoom(m.claim.Realtime, res.step.Tries):
		res.step.Verdict = response.Final
		res.step.RetryAfter = max(res.step.RetryAfter, time.Second.Milliseconds())
	}
	return res
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
func (c *chain) ask(steps []response.Step) {
	r := c.run
	for _, s := range steps {
		t := c.triesOf(s.Ordinal)
		b := policy.Bounds{
			MaxFailures: r.loop.opt.MaxFailures, Began: s.Began(), Tries: s.Tries - 1,
			Model: c.claim.Served(), Realtime: c.claim.Realtime, InPlace: r.loop.opt.InPlace,
		}
		if s.Kind == response.ModelCall && t.called {
			b.Budget = r.loop.caller.Budget
		}
		v, d := r.loop.policy.Retry(c.ctx, c.question(s, t), b)
		t.paid, t.free = v.Paid, !t.called
		c.pending.Decisions = append(c.pending.Decisions, store.Decision{
			Step: s.Key(), Try: s.Tries, Kind: d.Kind, Question: d.Question, Answer: d.Answer,
			Generation: d.Generation, Fallback: d.Fallback, Fuel: d.Fuel,
		})
		t.history = append(t.history, abi.HistoryTry{Class: string(s.Class), Status: s.Status, DelayMS: v.Delay.Milliseconds()})
		if v.Retry {
			if v.Count {
				c.pending.Failures++
				r.failures.Add(1)
			}
			t.due, t.class = time.Now().Add(v.Delay), s.Class
			s.State, s.Verdict = response.Planned, response.Retry
			c.put(s)
			if s.Kind == response.ModelCall {
				c.emit(c.screen.again())
			}
			continue
		}
		s.Verdict = response.Final
		if v.RetryAfter > 0 {
			s.RetryAfter = max(s.RetryAfter, v.RetryAfter.Milliseconds())
		}
		c.put(s)
		c.told(s)
	}
}

// question is what the retry policy is asked of a failed try.
func (c *chain) question(s response.Step, t *tries) abi.RetryQuestion {
	q := abi.RetryQuestion{
		V: abi.Version, NowMS: time.Now().UnixMilli(), Seed: Seed(), Request: c.info(),
		Step:     abi.StepInfo{Kind: string(s.Kind), Tool: s.Tool, Effects: abi.Effects(s.Effects)},
		Failures: int(c.run.failures.Load()), MaxFailures: c.run.loop.opt.MaxFailures,
		Outcome: abi.FailedTry{
			Class: string(s.Class), Code: s.Code, Status: s.Status, RetryAfterMS: s.RetryAfter,
			VisibleOutputSent: s.Kind == response.ModelCall && c.screen.visible(),
		},
		History: t.history,
	}
	q.DeadlineInMS = q.Request.DeadlineInMS
	return q
}

// remember rebuilds what earlier attempts' retry decisions tell of each step's
// tries, so that backoff goes on growing.
func (c *chain) remember(decisions []store.Decision) {
	steps := c.run.ledger.of(c.scope)
	for _, d := range decisions {
		if d.Kind != abi.KindRetry {
			continue
		}
		var q abi.RetryQuestion
		var a abi.RetryAnswer
		if json.Unmarshal(d.Question, &q) != nil || json.Unmarshal(d.Answer, &a) != nil {
			continue
		}
		for _, s := range steps {
			if s.Key() == d.Step {
				t := c.triesOf(s.Ordinal)
				t.history = append(t.history, abi.HistoryTry{Class: q.Outcome.Class, Status: q.Outcome.Status, DelayMS: a.DelayMS})
				t.class = queue.Class(q.Outcome.Class)
			}
		}
	}
}
