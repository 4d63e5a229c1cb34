package policy

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/sdk/abi"
)

// Bounds is what the host allows a retry decision, whatever the policy says.
type Bounds struct {
	// MaxFailures is how many of a request's failures may be spent; at so many,
	// only an uncounted retry is left. 0: RetryQuestion.MaxFailures says.
	MaxFailures int
	MaxDelay    time.Duration // longest delay; 0: 10 minutes
	Began       bool          // the step began: of a once step, that rules out another try
	// Deadline is the time that is left; 0: RetryQuestion.DeadlineInMS says (0
	// there: no deadline), < 0: it has passed.
	Deadline time.Duration
	// Tries is how many tries of the step failed before this one, where that is
	// more than History says, as after another attempt.
	Tries int
}

// Verdict is a clamped retry decision.
type Verdict struct {
	Retry   bool
	Delay   time.Duration // least time until the next try
	Count   bool          // the retry spends one of the request's failures
	Reason  string        // the policy's, or the clamp's: short, printable
	Clamped bool          // the host changed the policy's answer
}

const defaultMaxDelay = 10 * time.Minute

// The delays of BuiltinRetry, and of every retry that spends no failure.
const (
	baseDelay = 500 * time.Millisecond
	capDelay  = 30 * time.Second
)

// maxFree is how many failed tries a step may have before each further one
// spends a failure of the request, whatever the policy says: free retries end.
const maxFree = 100

// Retry returns whether the failed try of q is made again. V, bounds and the
// cut of the question are filled in here; what b knows better wins over q.
func (d *Decider) Retry(ctx context.Context, q abi.RetryQuestion, b Bounds) (Verdict, Decision) {
	if b.MaxFailures > 0 {
		q.MaxFailures = b.MaxFailures
	}
	if b.MaxDelay <= 0 {
		b.MaxDelay = defaultMaxDelay
	}
	if b.Deadline > 0 {
		q.DeadlineInMS = max(b.Deadline.Milliseconds(), 1)
	}
	b.Tries = max(b.Tries, len(q.History)) // the question holds the latest alone
	q = fitRetry(q)
	var ans abi.RetryAnswer
	dec, ok := d.ask(ctx, &d.retry, abi.KindRetry, Question{Tenant: q.Request.Tenant, Seed: q.Seed, NowMS: q.NowMS}, q, func(text []byte) bool {
		return takeRetry(text, &ans)
	})
	if !ok {
		ans = BuiltinRetry(q)
	}
	v, why := clampRetry(ans, q, b)
	final := abi.RetryAnswer{V: abi.Version, Action: abi.ActionFail, Reason: v.Reason}
	if v.Retry {
		final.Action, final.DelayMS, final.Count = abi.ActionRetry, v.Delay.Milliseconds(), &v.Count
	}
	dec.Answer = used(final)
	d.count(dec, v.Clamped)
	if ok && v.Clamped {
		d.warn(msgClamped, dec.Kind, why, dec.Generation)
	}
	return v, dec
}

// takeRetry reads a module's answer; false: it is nonsense.
func takeRetry(text []byte, ans *abi.RetryAnswer) bool {
	return json.Unmarshal(text, ans) == nil && ans.V == abi.Version &&
		(ans.Action == abi.ActionRetry || ans.Action == abi.ActionFail)
}

// The codes of clamps, for the log.
const (
	clampCount     = "count"
	clampDelay     = "delay"
	clampDeadline  = "deadline"
	clampFailures  = "no_failures_left"
	clampOnce      = "once_began"
	clampPermanent = "nothing_to_try"
	clampVisible   = "output_sent"
)

// clampReasons says what a clamp that rules a retry out means.
var clampReasons = map[string]string{
	clampDeadline:  "the deadline has passed",
	clampFailures:  "no failures left",
	clampOnce:      "a once step began",
	clampPermanent: "nothing to try again",
	clampVisible:   "output was sent",
}

// clampRetry turns an answer into what the host allows; why is the code of the
// clamp when there was one.
func clampRetry(ans abi.RetryAnswer, q abi.RetryQuestion, b Bounds) (v Verdict, why string) {
	reason := line(ans.Reason, maxReason)
	if ans.Action != abi.ActionRetry {
		return Verdict{Reason: reason}, ""
	}
	v = Verdict{Retry: true, Count: ans.Count == nil || *ans.Count, Reason: reason}
	if !v.Count && (queue.Class(q.Outcome.Class) != queue.RateLimited || b.Tries >= maxFree) {
		v.Count, why = true, clampCount
	}
	if why := ruledOut(q, b, v.Count); why != "" {
		return Verdict{Reason: clampReasons[why], Clamped: true}, why
	}
	ms := max(ans.DelayMS, 0, q.Outcome.RetryAfterMS)
	if !v.Count && ms < freeFloor(q, b.Tries) {
		ms = freeDelay(q, b.Tries)
	}
	ms = min(ms, b.MaxDelay.Milliseconds())
	if ms != ans.DelayMS && why == "" {
		why = clampDelay
	}
	if q.DeadlineInMS > 0 && ms >= q.DeadlineInMS {
		return Verdict{Reason: "the deadline comes before the next try", Clamped: true}, clampDeadline
	}
	v.Delay, v.Clamped = time.Duration(ms)*time.Millisecond, why != ""
	return v, why
}

// ruledOut returns the code of why there can be no other try, or "".
func ruledOut(q abi.RetryQuestion, b Bounds, counted bool) string {
	class := queue.Class(q.Outcome.Class)
	switch {
	case class == queue.OK, class == queue.ClassCanceled, class == queue.ClassDeadline, class == queue.StepAbandoned:
		return clampPermanent
	case q.Outcome.VisibleOutputSent:
		return clampVisible
	case b.Began && once(q.Step):
		return clampOnce
	case b.Deadline < 0:
		return clampDeadline
	case counted && q.Failures >= q.MaxFailures:
		return clampFailures
	}
	return ""
}

// freeFloor is the least delay, in milliseconds, before a retry that spends no
// failure: nothing else keeps such retries from coming as fast as the upstream
// answers. It doubles with each try, but where the upstream said when to come
// back.
func freeFloor(q abi.RetryQuestion, tries int) int64 {
	if q.Outcome.RetryAfterMS >= baseDelay.Milliseconds() {
		return q.Outcome.RetryAfterMS
	}
	return growing(tries).Milliseconds()
}

// freeDelay is freeFloor and up to half of it more, so that not all come back
// at once.
func freeDelay(q abi.RetryQuestion, tries int) int64 {
	floor := freeFloor(q, tries)
	return floor + jitter(q.Seed, time.Duration(floor/2)*time.Millisecond)
}

// once reports whether a step may have an effect that must not be repeated. A
// tool that declares nothing may.
func once(s abi.StepInfo) bool {
	return s.Kind == "tool_call" && s.Effects != abi.EffectsPure && s.Effects != abi.EffectsIdempotent
}

// BuiltinRetry tries again what may pass by itself, after an exponential delay
// with jitter from the seed, no sooner than the upstream asked and within the
// deadline. A rate limit spends no failure; a once tool is never retried.
// The same question gives the same answer.
func BuiltinRetry(q abi.RetryQuestion) abi.RetryAnswer {
	no := func(reason string) abi.RetryAnswer {
		return abi.RetryAnswer{V: abi.Version, Action: abi.ActionFail, Reason: reason}
	}
	limited := queue.Class(q.Outcome.Class) == queue.RateLimited
	// An empty account looks like a rate limit and does not pass by waiting.
	counted := !limited || q.Outcome.Code == "insufficient_quota"
	switch {
	case !passing(q.Outcome, len(q.History)):
		return no("permanent")
	case q.Outcome.VisibleOutputSent:
		return no("output was sent")
	case once(q.Step):
		return no("once")
	case counted && q.Failures >= q.MaxFailures:
		return no("no failures left")
	}
	tries := max(len(q.History), q.Failures)
	delay := jitter(q.Seed, growing(tries))
	asked, least := q.Outcome.RetryAfterMS, baseDelay.Milliseconds()
	switch {
	case asked >= least, asked > 0 && counted:
		// Beyond what was asked for, so that not all come back at once.
		delay = asked + min(delay, least)
	case !counted:
		delay = freeDelay(q, tries)
	}
	if q.DeadlineInMS > 0 && delay >= q.DeadlineInMS {
		return no("the deadline comes before the next try")
	}
	return abi.RetryAnswer{V: abi.Version, Action: abi.ActionRetry, DelayMS: delay, Count: &counted, Reason: "backoff"}
}

// growing returns base · 2^tries, at most the cap.
func growing(tries int) time.Duration { return min(baseDelay<<min(max(tries, 0), 16), capDelay) }

// jitter returns milliseconds: from 0 to below top.
func jitter(seed int64, top time.Duration) int64 {
	random := stream(seed)
	return int64(random.float() * float64(top.Milliseconds()))
}

// passing reports whether a failure may pass by itself. A plugin's traps and
// the limits of its sandbox, time among them, come back; an internal error of
// one gets the benefit of the doubt once.
func passing(o abi.FailedTry, earlier int) bool {
	switch queue.Class(o.Class) {
	case queue.RateLimited, queue.UpstreamTimeout, queue.UpstreamNetwork, queue.UpstreamInvalid,
		queue.GuestThrottled, queue.PluginUnavailable, queue.WorkerLost, queue.HostError:
		return true
	case queue.UpstreamStatus:
		return passingStatus(o.Status)
	case queue.GuestError:
		return o.Code == abi.FailTransient.String() || o.Code == abi.FailInternal.String() && earlier == 0
	case queue.OK, queue.GuestTrap, queue.GuestDeadline, queue.GuestFuel, queue.GuestMemory, queue.GuestDepth, queue.GuestOutput,
		queue.GuestDenied, queue.GuestInvalidOutput, queue.ClassCanceled, queue.ClassDeadline, queue.StepAbandoned:
		return false
	}
	return false
}

func passingStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests, 499:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusLoopDetected:
		return false
	}
	return status >= http.StatusInternalServerError
}
