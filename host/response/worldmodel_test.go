package response_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// output is what the model answers in a step: it calls tools for some turns,
// then ends with text.
func (w *world) output(s response.Step, r *rand.Rand) response.ModelOutput {
	turns := 0
	for _, o := range w.of(s.Scope) {
		if o.Kind == response.ModelCall {
			turns++
		}
	}
	out := response.ModelOutput{Finish: "stop", Usage: response.Usage{Input: 3, Output: 2}}
	maybe := func(n int) bool { return r.IntN(n) == 0 }
	if maybe(2) {
		out.Summary = []string{"first " + s.Key(), "second"}[:1+r.IntN(2)]
	}
	if maybe(3) {
		out.Reasoning = "because " + s.Key()
	}
	if maybe(2) {
		out.Encrypted = "sealed " + s.Key()
	}
	if maybe(2) || turns > 3 {
		out.Text = "text of " + s.Key()
		out.Logprobs = []json.RawMessage{json.RawMessage(`{"token":"t","logprob":-1}`), json.RawMessage(`{"token":"u","logprob":-2}`)}[:r.IntN(3)]
		out.Annotations = []json.RawMessage{json.RawMessage(`{"type":"url_citation","url":"https://x","start_index":0,"end_index":1,"title":"x"}`)}[:r.IntN(2)]
	}
	if maybe(9) {
		out.Refusal = "no"
	}
	if turns > 3 || s.Scope != "" && turns > 2 {
		return out
	}
	names := []string{"a", "b", "a", "b", "o", "helper", "clerk", "f", "far__a", "nothing"}
	if turns > 1 && s.Scope == "" {
		names = append(names, "lookup", "shell", "q", "g")
	}
	if strings.Count(s.Scope, "/") > 1 {
		names = slices.DeleteFunc(names, func(n string) bool { return n == "helper" })
	}
	for i := range r.IntN(4) {
		name := names[r.IntN(len(names))]
		args := []string{"{}", `{"n":1}`, `{"input":"say\n\u00e9\""}`, `{"n":`}[r.IntN(4)]
		out.Calls = append(out.Calls, response.Call{ID: fmt.Sprintf("c%s_%d", s.Key(), i), Name: name, Arguments: args})
		out.Finish = "tool_calls"
	}
	return out
}

// deltasOf cuts an output into pieces as an upstream sends them.
func deltasOf(out response.ModelOutput, r *rand.Rand) []response.Delta {
	var all []response.Delta
	pieces := func(s string, piece func(string) response.Delta) {
		for s != "" {
			n := 1 + r.IntN(len(s))
			all = append(all, piece(s[:n]))
			s = s[n:]
		}
	}
	for i, part := range out.Summary {
		pieces(part, func(s string) response.Delta { return response.Delta{Kind: response.SummaryDelta, Index: i, Text: s} })
	}
	pieces(out.Reasoning, func(s string) response.Delta { return response.Delta{Kind: response.ReasoningDelta, Text: s} })
	if out.Encrypted != "" && r.IntN(4) > 0 {
		all = append(all, response.Delta{Kind: response.EncryptedDelta, Text: out.Encrypted})
	}
	late := ""
	if len(out.Calls) > 0 && out.Text != "" && r.IntN(3) == 0 {
		late, out.Text = out.Text[3:], out.Text[:3]
	}
	if out.Text != "" {
		logprobs, _ := json.Marshal(out.Logprobs)
		all = append(all, response.Delta{Kind: response.TextDelta, Text: out.Text[:1], Logprobs: logprobs})
		pieces(out.Text[1:], func(s string) response.Delta { return response.Delta{Kind: response.TextDelta, Text: s} })
	}
	for _, a := range out.Annotations {
		all = append(all, response.Delta{Kind: response.AnnotationDelta, Raw: a})
	}
	pieces(out.Refusal, func(s string) response.Delta { return response.Delta{Kind: response.RefusalDelta, Text: s} })
	for i, c := range out.Calls {
		pieces(c.Arguments, func(s string) response.Delta {
			return response.Delta{Kind: response.CallDelta, Index: i, CallID: c.ID, Name: c.Name, Text: s}
		})
	}
	pieces(late, func(s string) response.Delta { return response.Delta{Kind: response.TextDelta, Text: s} })
	return all[:r.IntN(len(all)+1)] // what is missing comes with the end
}

// worldBody is a request with everything that comes before the first model call.
func worldBody(seed uint64, stream bool) string {
	include, lists, input := "", "", ""
	if seed%3 == 0 {
		include = `"include":["reasoning.encrypted_content"],`
	}
	if seed%4 > 0 {
		lists = `,{"type":"mcp","server_label":"far","server_url":"https://far.example.com/mcp","require_approval":{"always":{"tool_names":["g"]}}},{"type":"mcp","server_label":"p"}`
	}
	if seed%5 > 1 {
		input = `,{"type":"mcp_approval_request","id":"mcpr_1","server_label":"q","name":"q","arguments":"{\"n\":1}"},
		 {"type":"mcp_approval_request","id":"mcpr_2","server_label":"p","name":"a","arguments":"{}"},
		 {"type":"mcp_approval_request","id":"mcpr_3","server_label":"agents","name":"helper","arguments":"{\"input\":\"x\"}"},
		 {"type":"mcp_approval_response","approval_request_id":"mcpr_2","approve":true},
		 {"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":false},
		 {"type":"mcp_approval_response","approval_request_id":"mcpr_3","approve":true}`
	}
	return fmt.Sprintf(`{"model":"m","stream":%t,%s"input":[{"role":"user","content":"hi"}%s],
		"tools":[{"type":"function","name":"lookup"},{"type":"custom","name":"shell"}%s]}`, stream, include, input, lists)
}

// outputOf returns the items of a response, without ids and without what
// interrupted tries left; streamed ones may leave whole texts, so only calls
// and lists are given of those.
func outputOf(t *testing.T, w *world) []string {
	t.Helper()
	var o struct{ Output []map[string]any }
	if err := json.Unmarshal(w.stream.Response(), &o); err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, it := range o.Output {
		text := it["type"] == "message" || it["type"] == "reasoning"
		if it["status"] == "incomplete" || text && w.brief.Request.Stream {
			continue
		}
		delete(it, "id")
		b, err := json.Marshal(it)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	return all
}

// Whenever its workers die, and in whatever order its steps end, a response
// with lists, approvals, agents and calls of every kind does the same, and its
// stream is one that every client can read, heartbeats among it.
func TestWorldsEndTheSame(t *testing.T) {
	kinds := map[string]bool{}
	for seed := range uint64(25) {
		for _, stream := range []bool{true, false} {
			body := worldBody(seed, stream)
			calm := newWorld(t, seed, body)
			calm.caps = response.Caps{ModelCalls: 500, ToolCalls: 1000, Steps: 2000}
			calm.play()
			want, chain := outputOf(t, calm), calm.chain()
			for _, s := range calm.stored {
				kinds[string(s.Kind)+" "+s.Plugin+" "+s.Code] = true
				if !s.Settled() {
					t.Errorf("seed %d: step %s is %s at the end", seed, s.Key(), s.State)
				}
			}
			for i, fuse := range []int{0, 4, 4} {
				w := newWorld(t, seed, body)
				w.chance = rand.New(rand.NewPCG(seed, 100+uint64(i)))
				w.caps, w.fuse, w.unlogged = calm.caps, fuse, i == 2
				w.caps.FanOut = 1 + w.chance.IntN(4)
				w.play()
				if got := w.chain(); got != chain {
					t.Fatalf("seed %d, fuse %d, stream %t: chain:\n%s\nwant\n%s", seed, fuse, stream, got, chain)
				}
				timed := !stream || !w.unlogged // else it is not known what came when
				if got := outputOf(t, w); timed && !slices.Equal(got, want) {
					t.Fatalf("seed %d, fuse %d, stream %t: output:\n%s\nwant\n%s", seed, fuse, stream, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		}
	}
	for _, kind := range []string{"list_tools far ", "list_tools far unreachable", "tool_call agents ", "tool_call agents agent_failed", "tool_call q denied", "tool_call far "} {
		if !kinds[kind] {
			t.Errorf("no step of the kind %q: %v", kind, kinds)
		}
	}
}

// A response comes to its end, and its stream is one that every client can read,
// also when the tools of plugins go and come back between its workers.
func TestWorldsLoseTools(t *testing.T) {
	gone := 0
	for seed := range uint64(60) {
		w := newWorld(t, seed, worldBody(seed, seed%2 == 0))
		w.caps, w.fuse = response.Caps{ModelCalls: 500, ToolCalls: 1000, Steps: 2000}, 4
		w.shelf, w.unlogged = w.local, seed%3 == 0
		w.play()
		for _, s := range w.stored {
			if !s.Settled() {
				t.Errorf("seed %d: step %s is %s at the end", seed, s.Key(), s.State)
			}
			if s.Code == "unknown_tool" {
				gone++
			}
		}
	}
	if gone == 0 {
		t.Error("no tool was ever missed")
	}
}

// Caps hold over all scopes together, whatever dies: a model call or tool call
// beyond them is never begun.
func TestWorldsKeepTheirCaps(t *testing.T) {
	capped := 0
	for seed := range uint64(100) {
		w := newWorld(t, seed, worldBody(seed, seed%2 == 0))
		w.caps, w.fuse = response.Caps{ModelCalls: 6, ToolCalls: 9, Steps: 14, FanOut: 1}, 20
		w.play()
		models, calls := 0, 0
		for _, s := range w.stored {
			if s.Kind == response.ModelCall {
				models++
			}
			if s.Kind == response.ToolCall && s.State != response.Skipped {
				calls++
			}
		}
		if models > 6 || calls > 9 || len(w.stored) > 14 {
			t.Errorf("seed %d: %d model calls, %d tool calls, %d steps; want at most 6, 9 and 14", seed, models, calls, len(w.stored))
		}
		if strings.Contains(string(w.stream.Response()), `"status":"failed","incomplete_details":null`) {
			capped++
		}
	}
	if capped == 0 {
		t.Error("no response met its caps")
	}
}
