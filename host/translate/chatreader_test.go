package translate_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/translate"
)

// B24: an error inside a stream of status 200 is one, and not skipped.
func TestChatReaderErrors(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		want       error
	}{
		{"error envelope", `{"error":{"message":"secret words","code":429}}`, translate.ErrEnvelope},
		{"error beside choices", `{"choices":[],"error":"secret words"}`, translate.ErrEnvelope},
		{"error beside text", `{"choices":[{"delta":{"content":"a"}}],"error":"secret words"}`, translate.ErrEnvelope},
		{"finish_reason error", `{"choices":[{"delta":{"content":"secret words"},"finish_reason":"error"}]}`, translate.ErrEnvelope},
		{"not JSON", `<html>secret words`, translate.ErrMalformed},
		{"not an object", `["secret words"]`, translate.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := translate.NewChatReader("")
			if _, err := r.Chunk([]byte(`{"choices":[{"delta":{"content":"a"}}]}`)); err != nil {
				t.Fatal(err)
			}
			_, err := r.Chunk([]byte(tc.data))
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds upstream's words: %v", err)
			}
		})
	}
}

func TestChatReaderOutput(t *testing.T) {
	for _, tc := range []struct {
		name   string
		chunks []string
		want   string // ModelOutput as JSON; "" for ErrCut
	}{
		{"cut", []string{`{"choices":[{"delta":{"content":"a"}}]}`, `[DONE]`}, ``},
		{"no choices", []string{`{"choices":[]}`}, ``},
		{"usage in the last chunk only counts once", []string{
			`{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
			`{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}`,
			`{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1,"cache_write_tokens":2},"completion_tokens_details":null}}`, `[DONE]`,
		}, `{"text":"a","finish":"stop","usage":{"input":3,"output":2,"cached":1,"cache_write":2}}`},
		{"odd types", []string{`{"id":7,"model":null,"object":1,"choices":[{"index":"0","delta":{"content":[{"type":"text","text":"a"}],"role":3},"finish_reason":"stop"}],"usage":{"prompt_tokens":"x","completion_tokens":-1}}`}, `{"text":"a","finish":"stop","usage":{"input":0,"output":0}}`},
		{"second choice", []string{`{"choices":[{"index":1,"delta":{"content":"no"}},{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}`}, `{"text":"a","finish":"stop","usage":{"input":0,"output":0}}`},
		{"reasoning sent twice", []string{`{"choices":[{"delta":{"reasoning":"r","reasoning_content":"r","reasoning_details":[{"text":"r"}]},"finish_reason":"stop"}]}`}, `{"reasoning":"r","finish":"stop","usage":{"input":0,"output":0}}`},
		{"reasoning details", []string{`{"choices":[{"delta":{"reasoning_details":[{"text":"r"},{"text":"s"}]},"finish_reason":"stop"}]}`}, `{"reasoning":"rs","finish":"stop","usage":{"input":0,"output":0}}`},
		{"interleaved by index", []string{
			`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"{\"k\""}},{"index":1,"id":"b","function":{"name":"y","arguments":""}}]}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}},{"index":0,"function":{"arguments":":1}"}}]}}]}`,
			`{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}`,
		}, `{"calls":[{"id":"a","name":"x","arguments":"{\"k\":1}"},{"id":"b","name":"y","arguments":"{}"}],"finish":"tool_calls","usage":{"input":0,"output":0}}`},
		{"no index", []string{
			`{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"x","arguments":"{\"k\""}}]}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":":1}"}}]}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"id":"b","function":{"name":"y","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`,
		}, `{"calls":[{"id":"a","name":"x","arguments":"{\"k\":1}"},{"id":"b","name":"y","arguments":"{}"}],"finish":"tool_calls","usage":{"input":0,"output":0}}`},
		{"name repeated in each chunk", []string{
			`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"{"}}]}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"x","arguments":"}"}}]},"finish_reason":"tool_calls"}]}`,
		}, `{"calls":[{"id":"a","name":"x","arguments":"{}"}],"finish":"tool_calls","usage":{"input":0,"output":0}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := translate.NewChatReader("")
			for _, c := range tc.chunks {
				if _, err := f.Chunk([]byte(c)); err != nil {
					t.Fatalf("Chunk(%s): %v", c, err)
				}
			}
			out, err := f.Output()
			if tc.want == "" {
				if !errors.Is(err, translate.ErrCut) {
					t.Errorf("got %v, want ErrCut", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := string(out.Encode()); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

// A streamed chat completion folds into the object that its body would be.
func TestChatCompletionRoundTrip(t *testing.T) {
	body := `{"id":"c1","object":"chat.completion","created":7,"model":"alias","choices":[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"x","arguments":"{\"k\":\"<\u0000>\"}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1},"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":5}}`
	f := translate.NewChatReader("")
	if _, err := f.Body([]byte(body)); err != nil {
		t.Fatal(err)
	}
	out, err := f.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(translate.ChatCompletion(out, "c1", "alias", 7)); got != body {
		t.Errorf("got  %s\nwant %s", got, body)
	}
}

// A long answer costs the same per delta: 100,000 deltas would not end otherwise.
func TestChatReaderIsLinear(t *testing.T) {
	f := translate.NewChatReader("")
	chunk, _ := json.Marshal(map[string]any{"choices": []any{map[string]any{"delta": map[string]any{"content": "12345678"}}}})
	for range 100_000 {
		if _, err := f.Chunk(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Body([]byte(`{"choices":[{"message":{},"finish_reason":"stop"}]}`)); err != nil {
		t.Fatal(err)
	}
	out, err := f.Output()
	if got, want := len(out.Text), 800_000; err != nil || got != want {
		t.Errorf("text: got %d bytes and %v, want %d", got, err, want)
	}
}
