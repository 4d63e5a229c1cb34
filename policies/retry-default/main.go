// Command retry-default is the retry policy that Casemate ships: exponential
// backoff with full jitter for what may pass, an end for what will not. It
// decides only; the host clamps, waits and tries.
package main

import (
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

// The backoff before a try that follows n earlier failed ones of its step is
// any delay up to base·2ⁿ, and never more than most. Failures of the request
// count as tries too.
const (
	base = 500 * time.Millisecond
	most = 30 * time.Second
)

// The delays of queued work whose upstream fails again and again: once it has
// spent quick failures, from half to all of outage, then of four times as long
// with each further one. So the usual five failures outlast an outage of minutes.
const (
	quick      = 2
	outage     = 20 * time.Second
	mostOutage = 4 * time.Minute
)

// longest bounds a Retry-After before anything is added to it. One of a rate
// limit that did not help so many times as patient is not all that is waited for.
const (
	longest = time.Hour
	patient = 10
)

func init() {
	policy.Plugin("retry-default", "0.1.0", "Exponential backoff with full jitter; honours Retry-After and the deadline.")
	policy.Retry(decide)
}

func main() {}

func decide(q abi.RetryQuestion) (abi.RetryAnswer, error) {
	if why := policy.Hopeless(q); why != "" {
		return policy.Fail(why), nil
	}
	if !passing(q.Outcome, len(q.History)) {
		return policy.Fail("another try would end the same"), nil
	}
	limited := policy.RateLimited(q.Outcome)
	if !limited && q.Failures >= q.MaxFailures {
		return policy.Fail("no failures left"), nil
	}
	tries := max(len(q.History), q.Failures)
	delay, reason := policy.Backoff(q.Seed, tries, base, most), "backoff"
	wait, _ := policy.RetryAfter(q)
	switch wait = min(wait, longest); {
	case limited && (wait < base || tries >= patient): // it spends nothing, so only time keeps such tries apart
		delay = spread(q, max(wait, min(base<<min(tries, 16), most)))
	case wait > 0:
		delay, reason = spread(q, wait), "retry-after"
	}
	if least := outlast(q); !limited && least > delay {
		delay, reason = least, "outage"
	}
	if !policy.InTime(q, delay) {
		return policy.Fail("the next try would miss the deadline"), nil
	}
	if limited {
		return policy.AgainFree(delay, reason), nil
	}
	return policy.Again(delay, reason), nil
}

// spread adds to a delay that many get at once, so that not all come back at
// once: up to half of it, but not past the deadline.
func spread(q abi.RetryQuestion, delay time.Duration) time.Duration {
	top := min(max(delay, base)/2, most)
	if left := q.DeadlineInMS - delay.Milliseconds(); q.DeadlineInMS > 0 && left <= top.Milliseconds() {
		top = time.Duration(max(left-1, 0)) * time.Millisecond
	}
	return delay + policy.Backoff(q.Seed, 0, top, top)
}

// outlast is the least delay of queued work whose upstream fails again and
// again, but never more than half of the time that is left.
func outlast(q abi.RetryQuestion) time.Duration {
	if !q.Request.Queued || q.Step.Kind == "tool_call" || q.Failures < quick {
		return 0
	}
	top := min(outage<<min(2*(q.Failures-quick), 16), mostOutage)
	if half := q.DeadlineInMS / 2; half > 0 && half < top.Milliseconds() {
		top = time.Duration(half) * time.Millisecond
	}
	return top/2 + policy.Backoff(q.Seed, 0, top/2, top/2)
}

// passing reports whether what happened may be gone at the next try. A trap,
// a limit of the sandbox, time among them, and a broken output are the
// plugin's own doing and come back. An internal error of a plugin gets the
// benefit of the doubt once.
func passing(o abi.FailedTry, earlier int) bool {
	switch o.Class {
	case abi.ClassRateLimited, abi.ClassUpstreamTimeout, abi.ClassUpstreamNetwork, abi.ClassUpstreamInvalid,
		abi.ClassGuestThrottled, abi.ClassPluginUnavailable,
		abi.ClassWorkerLost, abi.ClassHostError:
		return true
	case abi.ClassGuestError:
		return o.Code == abi.FailTransient.String() || o.Code == abi.FailInternal.String() && earlier == 0
	case abi.ClassUpstreamStatus:
		return policy.StatusMayPass(o.Status)
	}
	return false
}
