package guest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// asker is a module as a policy.
type asker struct {
	m     *module
	entry string
}

// noAnswer is why a policy did not answer. Its text is the class: closed, and
// without a word of the guest's.
type noAnswer plugins.Class

func (e noAnswer) Error() string { return "guest: policy: " + string(e) }

// Class implements policy.Classed.
func (e noAnswer) Class() queue.Class { return queue.Class(e) }

// Ask implements policy.Asker.
func (a asker) Ask(ctx context.Context, question []byte, seed, nowMS int64) ([]byte, uint64, error) {
	a.m.hold()
	defer a.m.release()
	r := a.m.plugin.Call(ctx, plugins.Call{Entry: a.entry, Input: question, Seed: seed, NowMS: nowMS})
	if r.Class != plugins.OK {
		return nil, r.Usage.Fuel, noAnswer(r.Class)
	}
	return r.Output, r.Usage.Fuel, nil
}

// Generation implements policy.Asker.
func (a asker) Generation() string { return a.m.digest }

// rehearse asks a policy the largest question before it goes to work: an
// answer must come in time and must be one. The error holds no word of the
// guest's.
func (m *module) rehearse(ctx context.Context, role Role) error {
	entry, question, answer := abi.ExportRoute, any(largestRoute()), any(&abi.RouteAnswer{})
	if role == Retry {
		entry, question, answer = abi.ExportRetry, largestRetry(), &abi.RetryAnswer{}
	}
	input, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("guest: rehearse: %w", err)
	}
	r := m.plugin.Call(ctx, plugins.Call{Entry: entry, Input: input, Seed: 1, NowMS: 1_700_000_000_000})
	if r.Class != plugins.OK {
		return fmt.Errorf("guest: policy %q does not answer a %s question: %s", m.descriptor.Name, role, r.Class)
	}
	if err := json.Unmarshal(r.Output, answer); err != nil {
		return fmt.Errorf("guest: policy %q answers a %s question with something else", m.descriptor.Name, role)
	}
	switch a := answer.(type) {
	case *abi.RouteAnswer:
		if a.V != abi.Version || len(a.Targets) == 0 && a.Reject == nil {
			return fmt.Errorf("guest: policy %q names no target for a %s question", m.descriptor.Name, role)
		}
	case *abi.RetryAnswer:
		if a.V != abi.Version || a.Action != abi.ActionRetry && a.Action != abi.ActionFail {
			return fmt.Errorf("guest: policy %q answers a %s question with another action than %q or %q",
				m.descriptor.Name, role, abi.ActionRetry, abi.ActionFail)
		}
	}
	return nil
}

func largestRoute() abi.RouteQuestion {
	q := abi.RouteQuestion{V: abi.Version, NowMS: 1_700_000_000_000, Seed: 1, Request: sampleRequest()}
	for i := range abi.MaxCandidates {
		name := fmt.Sprintf("upstream-%02d", i)
		q.Candidates = append(q.Candidates, abi.Candidate{
			Target: name + "/model", Upstream: name, Model: "model", Weight: 1, Healthy: i%3 != 0,
			InFlight: i, Limit: 100, LatencyMS: float64(100 * i), ErrorRate: float64(i) / abi.MaxCandidates,
		})
	}
	q.Tried = []abi.Tried{{Target: q.Candidates[0].Target, Class: "upstream_status", Status: 503}}
	return q
}

func largestRetry() abi.RetryQuestion {
	q := abi.RetryQuestion{
		V: abi.Version, NowMS: 1_700_000_000_000, Seed: 1, Request: sampleRequest(),
		Step: abi.StepInfo{Kind: "model_call"}, Failures: 1, MaxFailures: 5, DeadlineInMS: 60_000,
		Outcome: abi.FailedTry{Class: "upstream_status", Status: 503, RetryAfterMS: -1},
	}
	for range 8 {
		q.History = append(q.History, abi.HistoryTry{Class: "upstream_status", Status: 503, DelayMS: 500})
	}
	return q
}

func sampleRequest() abi.RequestInfo {
	return abi.RequestInfo{
		ID: "00000000000070008000000000000000", Tenant: "rehearsal", Path: "/v1/responses", Model: "model",
		Tier: "default", AgeMS: 10, InputBytes: 1000, Modalities: []string{"text"},
	}
}
