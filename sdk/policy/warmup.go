package policy

import (
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// WarmUpRoute replaces the made-up question that the host asks a routing
// policy before any other: with candidates that the policy would take, for
// one. It may be called more than once. An error of the policy does not
// matter then.
func WarmUpRoute(q abi.RouteQuestion) {
	guest.Process().WarmUp(abi.ExportRoute, true, abi.WarmUp{Route: example(q)})
}

// WarmUpRetry is WarmUpRoute for a retry policy.
func WarmUpRetry(q abi.RetryQuestion) {
	guest.Process().WarmUp(abi.ExportRetry, true, abi.WarmUp{Retry: example(q)})
}

// example encodes a question; a mistake is reported with the descriptor.
func example(q any) json.RawMessage {
	text, err := json.Marshal(q)
	if err != nil {
		guest.Process().Mistake(fmt.Errorf("warm-up: %w", err))
		return nil
	}
	return text
}

// exampleNow is a moment of 2023, in milliseconds since 1970.
const exampleNow = 1_700_000_000_000

func exampleRequest() abi.RequestInfo {
	return abi.RequestInfo{
		ID: "req_example", Tenant: "example", Path: "/v1/responses", Model: "example", Tier: "default", Stream: true,
		AgeMS: 10, DeadlineInMS: 60_000, InputBytes: 1000, MaxOutputTokens: 1000, Modalities: []string{"text"}, ToolCount: 1,
		Metadata: map[string]string{"example": "example"},
	}
}

func routeExample() abi.RouteQuestion {
	candidate := func(upstream string, weight float64) abi.Candidate {
		return abi.Candidate{
			Target: upstream + "/example", Upstream: upstream, Model: "example", Weight: weight, Healthy: true,
			InFlight: 1, Limit: 8, LatencyMS: 120.5, ErrorRate: 0.125,
		}
	}
	return abi.RouteQuestion{
		V: abi.Version, NowMS: exampleNow, Seed: 1, Request: exampleRequest(),
		Candidates: []abi.Candidate{candidate("a", 1), candidate("b", 2), candidate("c", 0.5)},
		Tried:      []abi.Tried{{Target: "c/example", Class: abi.ClassUpstreamStatus, Status: 503}},
	}
}

func retryExample() abi.RetryQuestion {
	return abi.RetryQuestion{
		V: abi.Version, NowMS: exampleNow, Seed: 1, Request: exampleRequest(),
		Step: abi.StepInfo{Kind: "model_call"}, Failures: 1, MaxFailures: 5, DeadlineInMS: 60_000,
		Outcome: abi.FailedTry{Class: abi.ClassUpstreamStatus, Status: 503, RetryAfterMS: -1},
		History: []abi.HistoryTry{{Class: abi.ClassUpstreamNetwork, DelayMS: 400}},
	}
}
