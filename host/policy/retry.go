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

	// Budget pays for another call of Model's upstream that this attempt makes
	// itself. nil: it needs no paying for.
	Budget *Budget
	Model  string
	// Realtime: somebody waits, so all tries are made in this attempt. Of other
	// requests, a try that is further away than InPlace is left to the attempt
	// that claims the request then, and that pays.
	Realtime bool
	InPlace  time.Duration
}

// Verdict is a clamped retry decision.
type Verdict struct {
	Retry   bool
	Delay   time.Duration // least time until the next try
	Count   bool          // the retry spends one of the request's failures
	Reason  string        // the policy's, or the clamp's: short, printable
	Clamped bool          // the host changed the policy's answer
	Paid    bool          // Bounds.Budget paid for the next try
	// RetryAfter is what the client is told, at the least, when there was no
	// budget for a try that the policy asked for; else 0.
	RetryAfter time.Duration
}

const (
	defaultMaxDelay = 10 * time.Minute
	maxAsked        = time.Hour // the longest Retry-After that is waited for
)

// The delays of BuiltinRetry, and of every retry that spends no failure.
const (
	baseDelay = 500 * time.Millisecond
	capDelay  = 30 * time.Second
)

// The delays of BuiltinRetry before another upstream call of queued work that
// has spent quickFailures: up to firstOutage, then four times as long each time.
// So the five failures that a request usually has outlast an outage of minutes:
// they take 170 s at least.
const (
	quickFailures = 2
	firstOutage   = 20 * time.Second
	maxOutage     = 4 * time.Minute
)

// A rate limit spends no failure, so something else must end it: the deadline
// or, for a request without one, its age: past maxFreeAge a rate limit counts as
// other failures do. patientTries is how many tries of a step come back as soon
// as the upstream said; after them the delay grows however short that is.
const (
	maxFreeAge   = 24 * time.Hour
	patientTries = 10
)

// noQuota is the code of an account that is empty: it comes as a rate limit and
// does not pass by waiting.
const noQuota = "insufficient_quota"

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
	if v.Retry && b.Realtime {
		v = patient(v, q, b)
	}
	if v.Retry {
		v = afford(v, q, b)
	}
	final := abi.RetryAnswer{V: abi.Version, Action: abi.ActionFail, Reason: v.Reason}
	if v.Retry {
		final.Action, final.DelayMS, final.Count = abi.ActionRetry, v.Delay.Milliseconds(), &v.Count
	}
	dec.Answer = used(final)
	d.count(dec, v.Clamped)
	if ok && why != "" {
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
	switch free := mayBeFree(q); {
	case !free && !v.Count:
		v.Count, why = true, clampCount
	case free && v.Count && q.Outcome.Code != noQuota:
		v.Count = false
		if ans.Count != nil {
			why = clampCount
		}
	}
	if why := ruledOut(q, b, v.Count); why != "" {
		return Verdict{Reason: clampReasons[why], Clamped: true}, why
	}
	ms := clampDelayMS(max(ans.DelayMS, 0), q, b, v.Count)
	if ms != ans.DelayMS && why == "" {
		why = clampDelay
	}
	if q.DeadlineInMS > 0 && ms >= q.DeadlineInMS {
		return Verdict{Reason: "the deadline comes before the next try", Clamped: true}, clampDeadline
	}
	v.Delay, v.Clamped = time.Duration(ms)*time.Millisecond, why != ""
	return v, why
}

// clampDelayMS keeps a delay, in milliseconds, between what the upstream asked
// for, which is never cut, and the longest one. What the host chooses in place
// of a policy it spreads.
func clampDelayMS(ms int64, q abi.RetryQuestion, b Bounds, counted bool) int64 {
	floor := asked(q)
	if !counted {
		floor = freeFloor(q, b.Tries)
	}
	if most := b.MaxDelay.Milliseconds(); ms > most {
		ms = most - jitter(q.Seed, b.MaxDelay/10)
	}
	if ms < floor {
		ms = floor + beyond(q, floor)
	}
	return ms
}

// mayBeFree reports whether a retry may spend no failure.
func mayBeFree(q abi.RetryQuestion) bool {
	return queue.Class(q.Outcome.Class) == queue.RateLimited &&
		(q.DeadlineInMS > 0 || q.Request.AgeMS < maxFreeAge.Milliseconds())
}

// realtimeDelay is the longest that a client is kept waiting for one retry that
// spends no failure.
const realtimeDelay = 10 * time.Second

// patient ends what would go on for as long as a rate limit does while somebody
// waits: nothing but the deadline bounds retries that spend no failure. The
// client is told when to come back.
func patient(v Verdict, q abi.RetryQuestion, b Bounds) Verdict {
	if v.Count || v.Delay <= realtimeDelay && b.Tries < q.MaxFailures {
		return v
	}
	return Verdict{Reason: "the rate limit lasts", Clamped: true, RetryAfter: v.Delay}
}

// afford has the budget pay for the try that v asks for, if this attempt makes
// it. Where there is none left, queued work is put off, until its turn comes
// with whoever claims it then; who waits for the answer is told to come back.
func afford(v Verdict, q abi.RetryQuestion, b Bounds) Verdict {
	switch {
	case b.Budget == nil, !b.Realtime && v.Delay > b.InPlace:
		return v
	case b.Budget.Withdraw(b.Model):
		v.Paid = true
		return v
	}
	wait := max(PutOff(1), v.Delay)
	if b.Realtime || q.DeadlineInMS > 0 && wait.Milliseconds() >= q.DeadlineInMS {
		return Verdict{Reason: "the retry budget is spent", Clamped: true, RetryAfter: wait}
	}
	v.Delay, v.Clamped = wait, true
	return v
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

// asked is the Retry-After of the failure, in milliseconds; 0: not said.
func asked(q abi.RetryQuestion) int64 {
	return min(max(q.Outcome.RetryAfterMS, 0), maxAsked.Milliseconds())
}

// freeFloor is the least delay, in milliseconds, before a retry that spends no
// failure: nothing else keeps such retries from coming as fast as the upstream
// answers. It doubles with each try, but where the upstream said when to come
// back, as long as that helps.
func freeFloor(q abi.RetryQuestion, tries int) int64 {
	said := asked(q)
	if said >= baseDelay.Milliseconds() && tries < patientTries {
		return said
	}
	return max(said, growing(tries).Milliseconds())
}

// freeDelay is freeFloor and a part of it more.
func freeDelay(q abi.RetryQuestion, tries int) int64 {
	floor := freeFloor(q, tries)
	return floor + beyond(q, floor)
}

// beyond is what is added to a delay, in milliseconds, that many get at once, so
// that not all come back at once: up to half of it, but not past the deadline.
func beyond(q abi.RetryQuestion, floor int64) int64 {
	top := min(max(floor, baseDelay.Milliseconds())/2, capDelay.Milliseconds())
	if q.DeadlineInMS > 0 {
		top = min(top, max(q.DeadlineInMS-floor, 0))
	}
	return jitter(q.Seed, time.Duration(top)*time.Millisecond)
}

// once reports whether a step may have an effect that must not be repeated. A
// tool that declares nothing may.
func once(s abi.StepInfo) bool {
	return s.Kind == "tool_call" && s.Effects != abi.EffectsPure && s.Effects != abi.EffectsIdempotent
}

// unbegun reports whether a class says that a tool was not reached. Where it was
// reached all the same, Bounds.Began rules another try out.
func unbegun(c queue.Class) bool {
	return c == queue.GuestThrottled || c == queue.PluginUnavailable
}

// BuiltinRetry tries again what may pass by itself, after an exponential delay
// with jitter from the seed, no sooner than the upstream asked and within the
// deadline; queued work outlives an outage of minutes. A rate limit spends no
// failure; a once tool that may have begun is never retried.
// The same question gives the same answer.
func BuiltinRetry(q abi.RetryQuestion) abi.RetryAnswer {
	no := func(reason string) abi.RetryAnswer {
		return abi.RetryAnswer{V: abi.Version, Action: abi.ActionFail, Reason: reason}
	}
	limited := queue.Class(q.Outcome.Class) == queue.RateLimited
	counted := !limited || q.Outcome.Code == noQuota
	switch {
	case !passing(q.Outcome, len(q.History)):
		return no("permanent")
	case q.Outcome.VisibleOutputSent:
		return no("output was sent")
	case once(q.Step) && !unbegun(queue.Class(q.Outcome.Class)):
		return no("once")
	case counted && q.Failures >= q.MaxFailures:
		return no("no failures left")
	}
	tries := max(len(q.History), q.Failures)
	delay := jitter(q.Seed, growing(tries))
	switch said := asked(q); {
	case !counted:
		delay = freeDelay(q, tries)
	case said > 0:
		delay = said + beyond(q, said)
	}
	if counted {
		delay = max(delay, outage(q))
	}
	if q.DeadlineInMS > 0 && delay >= q.DeadlineInMS {
		return no("the deadline comes before the next try")
	}
	return abi.RetryAnswer{V: abi.Version, Action: abi.ActionRetry, DelayMS: delay, Count: &counted, Reason: "backoff"}
}

// outage returns the least delay, in milliseconds, of queued work whose upstream
// fails again and again: half to all of what so many failures ask for, but not
// more than half of the time that is left.
func outage(q abi.RetryQuestion) int64 {
	n := q.Failures - quickFailures
	if !q.Request.Queued || q.Step.Kind == "tool_call" || n < 0 {
		return 0
	}
	top := min(firstOutage<<min(2*n, 16), maxOutage).Milliseconds()
	if q.DeadlineInMS > 0 {
		top = min(top, q.DeadlineInMS/2)
	}
	return top/2 + jitter(q.Seed, time.Duration(top/2)*time.Millisecond)
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
