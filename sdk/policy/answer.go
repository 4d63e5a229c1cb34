package policy

import (
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// Fail is the answer that ends a step as failed. The reason is recorded with
// the decision.
func Fail(reason string) abi.RetryAnswer {
	return abi.RetryAnswer{V: abi.Version, Action: abi.ActionFail, Reason: reason}
}

// Again is the answer that tries a step again after delay, which is given to
// the host in whole milliseconds. It spends one of the request's failures.
func Again(delay time.Duration, reason string) abi.RetryAnswer {
	return abi.RetryAnswer{V: abi.Version, Action: abi.ActionRetry, DelayMS: delay.Milliseconds(), Reason: reason}
}

// AgainFree is Again but spends no failure: for what is nobody's fault, like
// a rate limit.
func AgainFree(delay time.Duration, reason string) abi.RetryAnswer {
	a := Again(delay, reason)
	free := false
	a.Count = &free
	return a
}

// Hopeless tells why no policy should try the step of q again, or returns "".
// The host would clamp such an answer:
//
//   - output that a client has seen cannot be taken back;
//   - a tool that declares once, or declares nothing, may have acted;
//   - the request is over: canceled, or past its deadline.
func Hopeless(q abi.RetryQuestion) string {
	switch q.Outcome.Class {
	case abi.ClassOK:
		return "nothing failed"
	case abi.ClassCanceled:
		return "canceled"
	case abi.ClassDeadline:
		return "past the deadline"
	case abi.ClassStepAbandoned:
		return "abandoned"
	}
	switch {
	case q.Outcome.VisibleOutputSent:
		return "output was seen already"
	case actsOnce(q.Step) && began(q.Outcome.Class):
		return "the tool may have acted already"
	}
	return ""
}

func actsOnce(s abi.StepInfo) bool {
	return s.Kind == "tool_call" && s.Effects != abi.EffectsPure && s.Effects != abi.EffectsIdempotent
}

// began reports whether a tool call that ended in class had reached the guest.
func began(class string) bool {
	switch class {
	case abi.ClassGuestThrottled, abi.ClassGuestDenied, abi.ClassPluginUnavailable:
		return false
	}
	return true
}

// InTime reports whether a try after delay would still begin before the
// deadline of q; without a deadline it always would.
func InTime(q abi.RetryQuestion, delay time.Duration) bool {
	return q.DeadlineInMS <= 0 || delay.Milliseconds() < q.DeadlineInMS
}

// RetryAfter returns how long the upstream or the tool asked to wait; ok is
// false when it did not.
func RetryAfter(q abi.RetryQuestion) (wait time.Duration, ok bool) {
	ms := q.Outcome.RetryAfterMS
	if ms < 0 {
		return 0, false
	}
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond, true
}

// RateLimited reports whether a step was refused for its rate, by the upstream
// or by a limit of the host. That spends no failure of a request, only time.
// An account without quota looks the same but does not pass by waiting.
func RateLimited(o abi.FailedTry) bool {
	return o.Class == abi.ClassRateLimited && o.Code != "insufficient_quota"
}

// StatusMayPass reports whether an HTTP status that an upstream answered may
// be another one at the next try: 408, 409, 425, 429, 499, and 5xx but for
// 501, 505 and 508, which say that the upstream cannot do this at all.
func StatusMayPass(status int) bool {
	switch status {
	case 408, 409, 425, 429, 499:
		return true
	case 501, 505, 508:
		return false
	}
	return status >= 500
}
