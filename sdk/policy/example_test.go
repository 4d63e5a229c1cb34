package policy_test

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

// A retry policy is a function of its question, so that a test can ask it
// without a host.
func Example() {
	decide := func(q abi.RetryQuestion) abi.RetryAnswer {
		if why := policy.Hopeless(q); why != "" {
			return policy.Fail(why)
		}
		if wait, ok := policy.RetryAfter(q); ok {
			return policy.AgainFree(wait, "told to wait")
		}
		return policy.Again(time.Second, "may pass")
	}
	for _, o := range []abi.FailedTry{
		{Class: abi.ClassUpstreamNetwork, RetryAfterMS: -1},
		{Class: abi.ClassRateLimited, RetryAfterMS: 2500},
		{Class: abi.ClassUpstreamNetwork, RetryAfterMS: -1, VisibleOutputSent: true},
	} {
		a := decide(abi.RetryQuestion{V: abi.Version, Outcome: o})
		fmt.Println(a.Action, a.DelayMS, a.Reason)
	}
	// Output:
	// retry 1000 may pass
	// retry 2500 told to wait
	// fail 0 output was seen already
}
