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

// longName is the length of the names of upstreams, models and tenants in the
// kit's questions, in bytes: the most that a configuration may give most of them.
const longName = 63

// long returns name, filled up to longName.
func long(name string) string { return name + strings.Repeat("x", longName-len(name)) }

// LargestRoute returns the largest question that a route policy is asked.
func LargestRoute() abi.RouteQuestion {
	q := abi.RouteQuestion{V: abi.Version, NowMS: sampleTime, Seed: 1, Request: sampleRequest()}
	for i := range abi.MaxCandidates {
		name, model := long(fmt.Sprintf("upstream-%02d-", i)), long("model-")
		q.Candidates = append(q.Candidates, abi.Candidate{
			Target: name + "/" + model, Upstream: name, Model: model, Weight: 1, Healthy: i%3 != 0,
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
		Step: abi.StepInfo{Kind: "tool_call", Tool: long("tool_"), Effects: abi.EffectsIdempotent}, Failures: 1, MaxFailures: 5, DeadlineInMS: 60_000,
		Outcome: abi.FailedTry{Class: "guest_error", Code: "transient", RetryAfterMS: 1000},
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
		ID: "00000000000070008000000000000000", Tenant: long("tenant-"), Path: "/v1/chat/completions", Model: long("model-"),
		Tier: "default", Queued: true, AgeMS: 1_000_000, DeadlineInMS: 60_000, InputBytes: 1_000_000, MaxOutputTokens: 100_000, ToolCount: 128,
		Modalities: []string{"text", "image", "audio", "file"}, Metadata: metadata,
	}
}
