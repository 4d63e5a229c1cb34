package policy

import (
	"encoding/json"
	"testing"

	"github.com/casemate/casemate/plugins/plugintest"
	"github.com/casemate/casemate/sdk/abi"
)

// TestLargestQuestions: the questions that modules are tried with are as large
// as those that a host asks: nothing of them is cut, and no more fits.
func TestLargestQuestions(t *testing.T) {
	route, retry := plugintest.LargestRoute(), plugintest.LargestRetry()
	if got, want := text(t, fitRoute(route)), text(t, route); got != want {
		t.Errorf("the route question is cut to\n%s, from\n%s", got, want)
	}
	if got, want := text(t, fitRetry(retry)), text(t, retry); got != want {
		t.Errorf("the retry question is cut to\n%s, from\n%s", got, want)
	}
	if len(route.Candidates) != abi.MaxCandidates || len(route.Tried) != maxPast || len(retry.History) != maxPast {
		t.Errorf("%d candidates, %d tried, a history of %d: want the most of each",
			len(route.Candidates), len(route.Tried), len(retry.History))
	}
	for _, r := range []abi.RequestInfo{route.Request, retry.Request} {
		if len(r.Metadata) != maxMetadata {
			t.Errorf("%d keys of metadata, want %d", len(r.Metadata), maxMetadata)
		}
		for k, v := range r.Metadata {
			if len(k) != maxMetadataKey || len(v) != maxMetadataText {
				t.Errorf("metadata of %d and %d bytes, want %d and %d", len(k), len(v), maxMetadataKey, maxMetadataText)
			}
		}
	}
}

func text(t *testing.T, question any) string {
	t.Helper()
	b, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
