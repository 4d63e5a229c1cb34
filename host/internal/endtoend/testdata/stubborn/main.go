// Command stubborn is a retry policy that always wants another try, whatever
// the step may have done.
package main

import (
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

func init() {
	policy.Plugin("stubborn", "0.1.0", "Always tries again.")
	policy.Retry(func(abi.RetryQuestion) (abi.RetryAnswer, error) {
		return abi.RetryAnswer{V: abi.Version, Action: abi.ActionRetry, Reason: "always"}, nil
	})
}

func main() {}
