package translate

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// FuzzQuickText holds the quick reader to the whole one: what it takes adds the
// same text and nothing else.
func FuzzQuickText(f *testing.F) {
	for _, s := range []string{
		hotChunk,
		`{"choices":[{"delta":{"content":"a\n\u00e9\ud83d"}}]}`,
		`{"choices":[{"delta":{"content":"a","content":"b"}}]}`,
		`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`,
		`{"choices":[{"index":1,"delta":{"content":"a"}}]}`,
		`{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"b"}}]}`,
		`{"choices":[{"delta":{"content":"a","reasoning":"r"}}],"ERROR":"x"}`,
		`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1},"error":null}`,
		`{"n":-0.5e3,"choices":[{"delta":{"content":"a"}}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := quickText(data)
		if !ok {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("took what is no JSON: %q", data)
		}
		r := &chatReader{byIndex: map[int]*gatheredCall{}}
		deltas, err := r.add(data, "")
		if err != nil || r.out.Finish != "" || r.out.Usage != (response.Usage{}) || r.counted {
			t.Fatalf("%q: %v, %+v", data, err, r.out)
		}
		want := ""
		for _, d := range deltas {
			if d.Kind != response.TextDelta || d.Logprobs != nil {
				t.Errorf("%q also says %+v", data, d)
			}
			want += d.Text
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", data, got, want)
		}
	})
}

// FuzzQuickEvent likewise: what it takes is what the whole decoder takes it for.
func FuzzQuickEvent(f *testing.F) {
	for _, s := range []string{
		hotEvent,
		`{"type":"response.function_call_arguments.delta","item_id":"fc_1","output_index":0,"delta":"{\\"a\\""}`,
		`{"type":"response.refusal.delta","delta":7,"Delta":"x"}`,
		`{"type":"response.output_text.delta","type":"error","delta":"\\x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, ok := quickEvent(data)
		if !ok {
			return
		}
		var want responsesEvent
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", data, got, want)
		}
	})
}

const hotEvent = `{"type":"response.output_text.delta","sequence_number":7,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" token","logprobs":[],"obfuscation":"aB3xY9"}`

const hotChunk = `{"id":"chatcmpl-AbCdEf0123456789","object":"chat.completion.chunk","created":1795393943,"model":"gpt-4o-mini-2024-07-18","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"aB3xY9"}`

// Nearly all events of a stream are read the quick way.
func TestQuickEventTakesTheHotEvent(t *testing.T) {
	if e, ok := quickEvent([]byte(hotEvent)); !ok || text(e.Delta) != " token" {
		t.Errorf("got %+v %v", e, ok)
	}
}

// Nearly all chunks of a stream are read the quick way.
func TestQuickTextTakesTheHotChunk(t *testing.T) {
	for _, c := range []string{
		hotChunk,
		`{"id":"c","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"\u00e9\n"},"finish_reason":null}]}`,
		`{"id": "c", "choices": [ {"index": 0, "delta": {"content": "a", "tool_calls": null}, "finish_reason": null} ] }`,
	} {
		if s, ok := quickText([]byte(c)); !ok || s == "" {
			t.Errorf("got %q %v of %s", s, ok, c)
		}
	}
}

func BenchmarkChunk(b *testing.B) {
	chunk := []byte(hotChunk)
	b.Run("reader", func(b *testing.B) {
		b.ReportAllocs()
		r := NewChatReader("k")
		for b.Loop() {
			if d, err := r.Chunk(chunk); err != nil || len(d) != 1 {
				b.Fatal(d, err)
			}
		}
	})
	b.Run("passage", func(b *testing.B) {
		b.ReportAllocs()
		p := NewChatPassage()
		for b.Loop() {
			if usage, err := p.Chunk(chunk); err != nil || usage {
				b.Fatal(usage, err)
			}
		}
	})
	b.Run("whole decoder", func(b *testing.B) {
		b.ReportAllocs()
		r := &chatReader{byIndex: map[int]*gatheredCall{}}
		for b.Loop() {
			if d, err := r.add(chunk, ""); err != nil || len(d) != 1 {
				b.Fatal(d, err)
			}
		}
	})
	event := []byte(hotEvent)
	b.Run("responses", func(b *testing.B) {
		b.ReportAllocs()
		r := NewResponsesReader("k")
		for b.Loop() {
			if d, err := r.Chunk(event); err != nil || len(d) != 1 {
				b.Fatal(d, err)
			}
		}
	})
}
