package processor

import (
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
)

// BenchmarkToken is what one streamed token costs between the upstream's event
// and the listeners of its chunk.
func BenchmarkToken(b *testing.B) {
	for _, bm := range []struct {
		name  string
		kind  upstream.Kind
		event string
	}{
		{"chat", upstream.Chat, `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}`},
		{"responses", upstream.Responses, `{"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" token","logprobs":[]}`},
	} {
		b.Run(bm.name, func(b *testing.B) {
			hub := stream.NewHub(nil, stream.Options{})
			claim := queue.Claim{
				ID: queue.NewID(), Path: "/v1/chat/completions", Model: "m", Stream: true,
				Body: []byte(`{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}`),
			}
			k := &call{claim: claim, producer: hub.Open(claim.ID, false)}
			said, err := k.said(bm.kind)
			if err != nil {
				b.Fatal(err)
			}
			event := []byte(bm.event)
			b.ReportAllocs()
			for b.Loop() {
				if err := said.OnData(event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
