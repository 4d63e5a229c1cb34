package loop

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/translate"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// Caller makes one upstream call on behalf of the loop or of the default
// processor: it asks the route policy, then walks the targets it named until
// one serves the call or the failure is not the target's.
type Caller struct {
	Policy   Policy
	Upstream Upstream
	Budget   *policy.Budget // pays for retries; nil: they need no paying for
	// Escalates reports whether requests of a model may run on another one: then
	// its lane stays open while its own targets cool down. nil: none do.
	Escalates func(model string) bool
}

// UpstreamCall is what a Caller needs to know.
type UpstreamCall struct {
	Info     abi.RequestInfo // its Model is the one that serves: see info
	Realtime bool
	Step     string // for the decision: Step.Key, or "" on the default path
	Try      int
	Fare     Fare
	// Say says the call in the words of a kind of API. It is asked once for each
	// target that is called, so what its last Said gathered is that target's
	// answer. A *translate.Unsupported leaves it to the targets of another kind;
	// where there is none the failure is the client's, a 400. Any other error is a
	// HostError: no target is called.
	Say func(kind upstream.Kind) (Said, error)
	// Serves reports why targets of a kind cannot serve the call, as Say would;
	// those are no candidates. nil: all kinds can.
	Serves func(kind upstream.Kind) error
	Key    string // idempotency key
	Tried  []abi.Tried
}

// Said is a call as one kind of API has it.
type Said struct {
	Path   string // "/chat/completions", "/responses", "/embeddings"
	Body   []byte
	OnData func(data []byte) error // each event of a streamed answer
}

// Fare says what a call means to the retry budget.
type Fare int

// The fares.
const (
	Free  Fare = iota // neither: tried again, and not since its upstream failed
	First             // a first try: pays in
	Paid              // a retry that the budget paid for
)

// UpstreamResult is how the call ended. Failure is nil when it succeeded.
type UpstreamResult struct {
	Reply    upstream.Reply
	Target   string
	Tried    []abi.Tried // targets that failed, in order
	Decision store.Decision
	Called   bool // a target was called: not if none had a slot, or the policy rejected
	Failure  *CallFailure
}

// CallFailure says why no target served the call.
type CallFailure struct {
	Class      queue.Class
	Status     int
	Code       string
	Message    string        // of a policy's rejection, or of what no target can say; else ""
	Param      string        // of the client's request, where it is to blame; else ""
	RetryAfter time.Duration // < 0: not said
	Rejected   bool          // by the route policy: final
}

// NoRoom reports whether a realtime request is to be refused: its first call
// found no slot at any target, and waiting would only keep others out.
func (r UpstreamResult) NoRoom(realtime bool, tries int) bool {
	return realtime && tries == 1 && !r.Called && r.Failure != nil && r.Failure.Class == queue.RateLimited
}

// Do makes the call.
func (c *Caller) Do(ctx context.Context, u UpstreamCall) UpstreamResult {
	candidates, cannot := c.candidates(u)
	if len(candidates) == 0 && cannot != nil {
		return UpstreamResult{Failure: unsaid(cannot)}
	}
	q := abi.RouteQuestion{
		V: abi.Version, NowMS: time.Now().UnixMilli(), Seed: Seed(), Request: u.Info,
		Candidates: candidates, Tried: u.Tried,
	}
	answer, d := c.Policy.Route(ctx, q)
	res := UpstreamResult{Decision: store.Decision{
		Step: u.Step, Try: u.Try, Kind: d.Kind, Question: d.Question, Answer: d.Answer,
		Generation: d.Generation, Fallback: d.Fallback, Fuel: d.Fuel,
	}}
	if rej := answer.Reject; rej != nil {
		res.Failure = &CallFailure{
			Class: queue.UpstreamStatus, Status: rej.Status, Code: rej.Code, Message: rej.Message,
			RetryAfter: time.Duration(rej.RetryAfterMS) * time.Millisecond, Rejected: true,
		}
	} else {
		c.walk(ctx, u, answer, &res)
	}
	switch {
	case u.Fare == First && res.Called:
		c.Budget.Deposit(u.Info.Model)
	case u.Fare == Paid && !res.Called:
		c.Budget.Refund(u.Info.Model)
	}
	return res
}

// candidates returns the targets that can serve the call; cannot: why the last
// one of the others cannot.
func (c *Caller) candidates(u UpstreamCall) (all []abi.Candidate, cannot error) {
	all = c.Upstream.Candidates(u.Info.Model)
	if u.Serves == nil {
		return all, nil
	}
	all = slices.DeleteFunc(all, func(t abi.Candidate) bool {
		err := u.Serves(c.Upstream.Kind(t.Target))
		if err != nil {
			cannot = err
		}
		return err != nil
	})
	return all, cannot
}

// unsaid is the failure of a call that cannot be said to a target.
func unsaid(err error) *CallFailure {
	var u *translate.Unsupported
	if !errors.As(err, &u) {
		return &CallFailure{Class: queue.HostError, Status: 500, RetryAfter: -1}
	}
	return &CallFailure{
		Class: queue.UpstreamStatus, Status: 400, Code: u.Code, Message: u.Message, Param: u.Param, RetryAfter: -1,
	}
}

// Good says that the answer to a call of model was of use, so that a retry was
// no load in vain.
func (c *Caller) Good(f Fare, model string) {
	if f == Paid {
		c.Budget.Refund(model)
	}
}

// walk calls the targets in their order. Another target's call is no retry: of
// one try, each target gets one call at most.
func (c *Caller) walk(ctx context.Context, u UpstreamCall, route abi.RouteAnswer, res *UpstreamResult) {
	res.Failure = &CallFailure{Class: queue.UpstreamNetwork, Status: 503, RetryAfter: -1}
	for _, target := range route.Targets {
		said, err := u.Say(c.Upstream.Kind(target))
		if err != nil {
			failure := unsaid(err)
			if failure.Class == queue.HostError {
				res.Failure = failure
				return
			}
			if !res.Called && res.Target == "" { // what a target said of itself says more
				res.Failure = failure
			}
			continue
		}
		reply, err := c.Upstream.Do(ctx, upstream.Call{
			Target: target, Model: u.Info.Model, Path: said.Path, Body: said.Body, IdempotencyKey: u.Key,
			Timeout: time.Duration(route.TimeoutMS) * time.Millisecond, Realtime: u.Realtime, OnData: said.OnData,
		})
		if err == nil {
			res.Reply, res.Target, res.Called, res.Failure = reply, target, true, nil
			return
		}
		failure, e := failureOf(err)
		if e.NoCall {
			if !res.Called { // what a call ended with says more
				res.Target, res.Failure = target, failure
			}
		} else {
			// When a rate limit will have passed is known, and so says more than that
			// the next target is broken.
			limited := res.Called && res.Failure.Class == queue.RateLimited && !e.Begun && othersMayServe(failure)
			if !limited || failure.Class == queue.RateLimited {
				res.Target, res.Failure = target, failure
			}
			res.Called = true
			res.Tried = append(res.Tried, abi.Tried{Target: target, Class: string(failure.Class), Status: failure.Status})
		}
		if e.Begun || ctx.Err() != nil || !othersMayServe(failure) {
			return
		}
	}
}

// Again settles what a call that is made again means to the retry budget, if it
// was not paid for yet. wait > 0: there is no budget, so the request is to be put
// off for so long. One that somebody waits for, or that would miss its deadline
// by that, is tried all the same.
func (c *Caller) Again(ctx context.Context, claim queue.Claim) (f Fare, wait time.Duration) {
	if c.Budget.Withdraw(claim.Served()) {
		return Paid, 0
	}
	wait = policy.PutOff(claim.Attempt - 1)
	end, ok := ctx.Deadline()
	if claim.Realtime || ok && time.Until(end) <= wait {
		return Free, 0
	}
	return Free, wait
}

// Park returns for how long the lane of a request that is put off is to be left
// alone: until the first target of its model may be called again, 1 s to 5 min.
// 0: there is one already, or the lane has work for another model.
func (c *Caller) Park(claim queue.Claim) time.Duration {
	if claim.Escalated != "" || c.Escalates != nil && c.Escalates(claim.Model) {
		return 0
	}
	open, wait := c.Upstream.Available(claim.Model)
	if open || wait <= 0 {
		return 0
	}
	return min(max(wait, time.Second), 5*time.Minute)
}

// failureOf reads an error of the upstream package.
func failureOf(err error) (*CallFailure, *upstream.Error) {
	var e *upstream.Error
	if errors.As(err, &e) {
		return &CallFailure{Class: e.Class, Status: e.Status, Code: e.Code, RetryAfter: e.RetryAfter}, e
	}
	return &CallFailure{Class: queue.HostError, Status: 500, RetryAfter: -1}, &upstream.Error{Begun: true}
}

// othersMayServe reports whether a failure is the target's own, so that the
// next target may do better: everything but a request that no target likes.
func othersMayServe(f *CallFailure) bool {
	if f.Class != queue.UpstreamStatus {
		return f.Class != queue.ClassCanceled && f.Class != queue.HostError
	}
	switch f.Status {
	case 400, 413, 415, 422:
		return false
	}
	return true
}

// Seed returns a fresh seed for a policy, 0 … 2^53-1.
func Seed() int64 { return rand.Int64N(1 << 53) }
