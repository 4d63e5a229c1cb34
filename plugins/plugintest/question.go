package plugintest

import (
	"fmt"
	"strings"

	"github.com/casemate/casemate/sdk/abi"
)

// sampleTime is the time of the kit's questions, in milliseconds since 1970.
const sampleTime = 1_700_000_000_000

// What a host cuts a question to.
const (
	mostTried        = 64
	mostMetadata     = 16
	longMetadataKey  = 64  // bytes
	longMetadataText = 512 // bytes
)

// LargestRoute returns the largest question that a route policy is asked.
func LargestRoute() abi.RouteQuestion {
	q := abi.RouteQuestion{V: abi.Version, NowMS: sampleTime, Seed: 1, Request: sampleRequest()}
	for i := range abi.MaxCandidates {
		name := fmt.Sprintf("upstream-%02d", i)
		q.Candidates = append(q.Candidates, abi.Candidate{
			Target: name + "/model", Upstream: name, Model: "model", Weight: 1, Healthy: i%3 != 0,
			InFlight: i, Limit: 100, LatencyMS: float64(100 * i), ErrorRate: float64(i) / abi.MaxCandidates,
		})
	}
	for i := range mostTried {
		q.Tried = append(q.Tried, abi.Tried{Target: q.Candidates[i%len(q.Candidates)].Target, Class: "upstream_status", Status: 503})
	}
	return q
}

// LargestRetry returns the largest question that a retry policy is asked.
func LargestRetry() abi.RetryQuestion {
	q := abi.RetryQuestion{
		V: abi.Version, NowMS: sampleTime, Seed: 1, Request: sampleRequest(),
		Step: abi.StepInfo{Kind: "model_call"}, Failures: 1, MaxFailures: 5, DeadlineInMS: 60_000,
		Outcome: abi.FailedTry{Class: "upstream_status", Status: 503, RetryAfterMS: -1},
	}
	for range mostTried {
		q.History = append(q.History, abi.HistoryTry{Class: "upstream_status", Status: 503, DelayMS: 500})
	}
	return q
}

func sampleRequest() abi.RequestInfo {
	metadata := map[string]string{}
	for i := range mostMetadata {
		metadata[fmt.Sprintf("%0*d", longMetadataKey, i)] = strings.Repeat("x", longMetadataText)
	}
	return abi.RequestInfo{
		ID: "00000000000070008000000000000000", Tenant: conformance, Path: "/v1/responses", Model: "model",
		Tier: "default", AgeMS: 10, InputBytes: 1000, Modalities: []string{"text"}, Metadata: metadata,
	}
}
