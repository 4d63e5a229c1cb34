package policy_test

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

// A retry policy is a function of its question, so that a test asks it as the
// host does.
func Example() {
	decide := func(q abi.RetryQuestion) (abi.RetryAnswer, error) {
		if why := policy.Hopeless(q); why != "" {
			return policy.Fail(why), nil
		}
		if wait, ok := policy.RetryAfter(q); ok {
			return policy.AgainFree(wait, "told to wait"), nil
		}
		return policy.Again(time.Second, "may pass"), nil
	}
	for _, o := range []abi.FailedTry{
		{Class: abi.ClassUpstreamNetwork, RetryAfterMS: -1},
		{Class: abi.ClassRateLimited, RetryAfterMS: 2500},
		{Class: abi.ClassUpstreamNetwork, RetryAfterMS: -1, VisibleOutputSent: true},
	} {
		a, err := decide(abi.RetryQuestion{V: abi.Version, Outcome: o})
		fmt.Println(a.Action, a.DelayMS, a.Reason, err)
	}
	// Output:
	// retry 1000 may pass <nil>
	// retry 2500 told to wait <nil>
	// fail 0 output was seen already <nil>
}
