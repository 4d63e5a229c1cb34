package loop

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// Caller makes one upstream call on behalf of the loop or of the default
// processor: it asks the route policy, then walks the targets it named until
// one serves the call or the failure is not the target's.
type Caller struct {
	Policy   Policy
	Upstream Upstream
}

// UpstreamCall is what a Caller needs to know.
type UpstreamCall struct {
	Info   abi.RequestInfo
	Step   string // for the decision: Step.Key, or "" on the default path
	Try    int
	Path   string // "/chat/completions", "/embeddings"
	Body   []byte
	Key    string // idempotency key
	Tried  []abi.Tried
	OnData func(data []byte) error // each event of a streamed answer
}

// UpstreamResult is how the call ended. Failure is nil when it succeeded.
type UpstreamResult struct {
	Reply    upstream.Reply
	Target   string
	Tried    []abi.Tried // targets that failed, in order
	Decision store.Decision
	Failure  *CallFailure
}

// CallFailure says why no target served the call.
type CallFailure struct {
	Class      queue.Class
	Status     int
	Code       string
	Message    string // of a policy's rejection; else ""
	RetryAfter time.Duration
	Rejected   bool // by the route policy: final
}

// Do makes the call.
func (c *Caller) Do(ctx context.Context, u UpstreamCall) UpstreamResult {
	q := abi.RouteQuestion{
		V: abi.Version, NowMS: time.Now().UnixMilli(), Seed: Seed(), Request: u.Info,
		Candidates: c.Upstream.Candidates(u.Info.Model), Tried: u.Tried,
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
		return res
	}
	res.Failure = &CallFailure{Class: queue.UpstreamNetwork, Status: 503, RetryAfter: -1}
	for _, target := range answer.Targets {
		reply, err := c.Upstream.Do(ctx, upstream.Call{
			Target: target, Model: u.Info.Model, Path: u.Path, Body: u.Body, IdempotencyKey: u.Key,
			Timeout: time.Duration(answer.TimeoutMS) * time.Millisecond, OnData: u.OnData,
		})
		res.Reply, res.Target = reply, target
		if err == nil {
			res.Failure = nil
			return res
		}
		failure, begun := failureOf(err)
		res.Failure = failure
		res.Tried = append(res.Tried, abi.Tried{Target: target, Class: string(failure.Class), Status: failure.Status})
		if begun || ctx.Err() != nil || !othersMayServe(failure) {
			return res
		}
	}
	return res
}

// failureOf reads an error of the upstream package.
func failureOf(err error) (f *CallFailure, begun bool) {
	var e *upstream.Error
	if errors.As(err, &e) {
		return &CallFailure{Class: e.Class, Status: e.Status, Code: e.Code, RetryAfter: e.RetryAfter}, e.Begun
	}
	return &CallFailure{Class: queue.HostError, Status: 500, RetryAfter: -1}, true
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
