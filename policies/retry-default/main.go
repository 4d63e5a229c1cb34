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

// longest bounds a Retry-After before anything is added to it.
const longest = 24 * time.Hour

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
	jitter := policy.Backoff(q.Seed, tries, base, most)
	delay, reason := jitter, "backoff"
	if limited { // such retries spend nothing, so only time keeps them apart
		delay = min(base<<min(tries, 16), most) + policy.Backoff(q.Seed, tries, base/2, most/2)
	}
	if wait, ok := policy.RetryAfter(q); ok && wait > 0 {
		// Beyond what was asked for, so that not all come back at once.
		delay, reason = min(wait, longest)+min(jitter, base), "retry-after"
	}
	if !policy.InTime(q, delay) {
		return policy.Fail("the next try would miss the deadline"), nil
	}
	if limited {
		return policy.AgainFree(delay, reason), nil
	}
	return policy.Again(delay, reason), nil
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
