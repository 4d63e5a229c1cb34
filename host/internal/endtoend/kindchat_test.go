package endtoend_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
)

// chunk is what tests look at in a chat completion or a chunk of one.
type chunk struct {
	ID, Object, Model string
	Choices           []struct {
		Message, Delta struct {
			Role      string
			Content   string
			Refusal   string
			ToolCalls []struct {
				ID       string
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		Finish *string `json:"finish_reason"`
	}
	Usage json.RawMessage
}

// joined is what a stream of chunks adds up to: texts, calls and the reason of
// its end.
func joined(chunks []chunk) (text, calls, finish string) {
	for _, c := range chunks {
		for _, choice := range c.Choices {
			text += choice.Delta.Content + choice.Message.Content + choice.Delta.Refusal + choice.Message.Refusal
			for _, call := range append(choice.Delta.ToolCalls, choice.Message.ToolCalls...) {
				calls += call.ID + call.Function.Name + call.Function.Arguments
			}
			if choice.Finish != nil {
				finish += *choice.Finish
			}
		}
	}
	return text, calls, finish
}

// readChunks reads the stream of a chat completion: its chunks are one
// completion's, the first says who speaks, the usage is where it belongs, and
// [DONE] is the end.
func readChunks(t *testing.T, data []byte, usage bool) []chunk {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(string(data), "\n\n"), "\n\n")
	if last := lines[len(lines)-1]; last != "data: [DONE]" {
		t.Fatalf("the last line is %q", last)
	}
	chunks := make([]chunk, len(lines)-1)
	for i, line := range lines[:len(lines)-1] {
		c := &chunks[i]
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), c); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		last := usage && i == len(chunks)-1
		if c.Object != "chat.completion.chunk" || c.ID == "" || c.ID != chunks[0].ID || (len(c.Choices) == 0) != last {
			t.Errorf("chunk %d of %d: %s", i, len(chunks), line)
		}
		if counted := len(c.Usage) > 0 && string(c.Usage) != "null"; counted != last {
			t.Errorf("chunk %d of %d has the usage %s", i, len(chunks), c.Usage)
		}
	}
	if len(chunks) == 0 || chunks[0].Choices[0].Delta.Role != "assistant" {
		t.Errorf("the stream begins with %s", lines[0])
	}
	return chunks
}

// TestOwnKindChat serves chat completions with an upstream that speaks
// Responses, in the shapes of OpenAI.
func TestOwnKindChat(t *testing.T) {
	turns := map[string]demo.Turn{
		"text":    {Text: "Hello there, my friend.", Reasoning: "not for chat", Usage: &demo.Usage{Input: 3, Output: 4, Cached: 2, Reasoning: 1}},
		"calls":   {Calls: []demo.Call{{ID: "c1", Name: "a", Arguments: `{"x":1}`}, {ID: "c2", Name: "b", Arguments: `{}`}}, Usage: &demo.Usage{Input: 3, Output: 4, Cached: 2, Reasoning: 1}},
		"length":  {Text: "cut off", Finish: "length", Usage: &demo.Usage{Input: 3, Output: 4, Cached: 2, Reasoning: 1}},
		"refusal": {Refusal: "No.", Usage: &demo.Usage{Input: 3, Output: 4, Cached: 2, Reasoning: 1}},
	}
	want := map[string][3]string{
		"text": {"Hello there, my friend.", "", "stop"}, "calls": {"", `c1a{"x":1}c2b{}`, "tool_calls"},
		"length": {"cut off", "", "length"}, "refusal": {"No.", "", "stop"},
	}
	r := newRig(t, "sqlite:"+t.TempDir()+"/h.db", func(_ int, req demo.Request) demo.Turn {
		for name, turn := range turns {
			if bytes.Contains(req.Body, []byte("say "+name)) {
				return turn
			}
		}
		return demo.Turn{Status: 400, ErrorBody: "{}"}
	})
	r.kind = "responses"
	c := compliance{r.start()}
	function := func(name string) any {
		return map[string]any{"type": "function", "function": map[string]any{"name": name, "parameters": map[string]any{"type": "object"}}}
	}
	for name := range turns {
		for _, mode := range []string{"whole", "stream", "stream with usage"} {
			t.Run(name+", "+mode, func(t *testing.T) {
				usage := mode == "stream with usage"
				body := map[string]any{"model": "m", "messages": []any{map[string]any{"role": "user", "content": "say " + name}}, "tools": []any{function("a"), function("b")}}
				if mode != "whole" {
					body["stream"] = true
				}
				if usage {
					body["stream_options"] = map[string]any{"include_usage": true}
				}
				status, data := c.call(t, "/v1/chat/completions", body)
				if status != http.StatusOK {
					t.Fatalf("%d: %s", status, data)
				}
				chunks := make([]chunk, 1)
				if mode != "whole" {
					chunks = readChunks(t, data, usage)
				} else if err := json.Unmarshal(data, &chunks[0]); err != nil || chunks[0].Object != "chat.completion" || chunks[0].Choices[0].Message.Role != "assistant" {
					t.Fatalf("%s, %v", data, err)
				}
				text, calls, finish := joined(chunks)
				if got := [3]string{text, calls, finish}; got != want[name] {
					t.Errorf("got %q, want %q", got, want[name])
				}
				var u struct {
					Prompt, Completion, Total int
					In                        struct{ Cached int }
					Out                       struct{ Reasoning int }
				}
				if mode == "stream" {
					return
				}
				raw := chunks[len(chunks)-1].Usage
				named := strings.NewReplacer(`"prompt_tokens_details"`, `"In"`, `"completion_tokens_details"`, `"Out"`, `_tokens"`, `"`).Replace(string(raw))
				if err := json.Unmarshal([]byte(named), &u); err != nil || u.Prompt != 3 || u.Completion != 4 || u.Total != 7 || u.In.Cached != 2 || u.Out.Reasoning != 1 {
					t.Errorf("usage %s, %v", raw, err)
				}
			})
		}
	}
	for _, req := range r.upstream.Requests() {
		if req.Path != "/v1/responses" || !bytes.Contains(req.Body, []byte(`"store":false`)) {
			t.Errorf("asked %s %s; want a response that is not kept", req.Path, req.Body)
		}
	}
}

// TestOwnKindFallback has a target of each kind, of which the one that speaks
// Responses fails before its first byte of text: the other serves the call.
func TestOwnKindFallback(t *testing.T) {
	for name, failing := range map[string]demo.Turn{
		"status":     {Status: 503, ErrorBody: `{"error":{"code":"server_error"}}`},
		"cut":        {Text: "never", CutAfter: 2}, // the response was announced, no more
		"no answer":  {CutAfter: -1},
		"overloaded": {Status: 429, ErrorBody: `{}`, RetryAfter: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "sqlite:"+t.TempDir()+"/h.db", func(_ int, req demo.Request) demo.Turn {
				if req.Path == "/v1/responses" {
					return failing
				}
				return demo.Turn{Text: "the other one"}
			})
			r.kind = "responses"
			r.more = fmt.Sprintf("  - {name: chat, kind: chat, base_url: %q}\n", r.upstream.URL())
			for i := range 4 { // each has its own health, so that none is left out early
				r.more += fmt.Sprintf("  - {name: own%d, kind: responses, base_url: %q}\n", i, r.upstream.URL())
				r.models += fmt.Sprintf("  - name: both%d\n    targets: [{upstream: own%d, model: x, weight: 1000}, {upstream: chat, model: x, weight: 0.001}]\n", i, i)
			}
			c := compliance{r.start()}
			for i := range 4 {
				model := fmt.Sprintf("both%d", i)
				status, data := c.call(t, "/v1/chat/completions", map[string]any{"model": model, "stream": true, "messages": []any{user("hello")}})
				if text, _, finish := joined(readChunks(t, data, false)); status != http.StatusOK || text != "the other one" || finish != "stop" {
					t.Errorf("chat completion: %d %s", status, data)
				}
				if got := c.respond(t, map[string]any{"model": model, "stream": true, "input": "hello"}); !strings.Contains(string(got.Output[0]), "the other one") {
					t.Errorf("response %s", got.Output)
				}
			}
			var paths []string
			for _, req := range r.upstream.Requests() {
				paths = append(paths, req.Path)
			}
			if !slices.Contains(paths, "/v1/responses") || !slices.Contains(paths, "/v1/chat/completions") {
				t.Errorf("asked %v; want both kinds", paths)
			}
		})
	}
}
