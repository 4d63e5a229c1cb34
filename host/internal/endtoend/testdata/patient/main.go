// Command patient is a retry policy that waits longer than a host waits in
// place, so that what it decides on goes back to the queue.
package main

import (
	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

func init() {
	policy.Plugin("patient", "0.1.0", "Tries again after 8 s.")
	policy.Retry(func(abi.RetryQuestion) (abi.RetryAnswer, error) {
		return abi.RetryAnswer{V: abi.Version, Action: abi.ActionRetry, DelayMS: 8000, Reason: "patience"}, nil
	})
}

func main() {}
