package response_test

import (
	"testing"

	"github.com/casemate/casemate/host/response"
)

// BenchmarkDelta is what one token of a stream costs.
func BenchmarkDelta(b *testing.B) {
	r := &response.Request{Model: "m"}
	s := response.NewStream(simID, simID.Time(), r, nil)
	s.Created(false)
	b.ReportAllocs()
	for b.Loop() {
		s.Delta(response.Delta{Kind: response.TextDelta, Text: " token"})
	}
}
