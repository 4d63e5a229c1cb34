// Command retry-eager is a retry policy for work that would rather try again
// at once than wait: a short fixed delay, and a second chance for failures
// that retry-default takes as final. It decides only; the host clamps, waits
// and tries.
package main

import (
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

// delay comes before each try that nobody asked to hold back longer.
const delay = 50 * time.Millisecond

// limitedDelay comes after a rate limit that named no time: the fixed delay
// would only be counted against the same limit.
const limitedDelay = time.Second

func init() {
	policy.Plugin("retry-eager", "0.1.0", "Tries again after 50 ms, guest failures included.")
	policy.Retry(decide)
}

func main() {}

func decide(q abi.RetryQuestion) (abi.RetryAnswer, error) {
	if why := policy.Hopeless(q); why != "" {
		return policy.Fail(why), nil
	}
	if final(q.Outcome) {
		return policy.Fail("another try would end the same"), nil
	}
	limited := policy.RateLimited(q.Outcome)
	if !limited && q.Failures >= q.MaxFailures {
		return policy.Fail("no failures left"), nil
	}
	wait, reason := delay, "at once"
	if limited {
		wait, reason = limitedDelay, "rate limited"
	}
	if asked, ok := policy.RetryAfter(q); ok && (limited || asked > wait) {
		wait, reason = max(asked, delay), "retry-after"
	}
	if !policy.InTime(q, wait) {
		return policy.Fail("the next try would miss the deadline"), nil
	}
	if limited {
		return policy.AgainFree(wait, reason), nil
	}
	return policy.Again(wait, reason), nil
}

// final reports whether even an eager policy gives up: the upstream refused
// the request itself, the guest told the model why, or the host refused to
// let the guest run.
func final(o abi.FailedTry) bool {
	switch o.Class {
	case abi.ClassGuestDenied:
		return true
	case abi.ClassGuestError:
		switch o.Code {
		case abi.FailInvalidArgs.String(), abi.FailNotFound.String(), abi.FailDenied.String(), abi.FailPermanent.String():
			return true
		}
	case abi.ClassUpstreamStatus:
		return !policy.StatusMayPass(o.Status)
	}
	return false
}
