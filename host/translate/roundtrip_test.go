package translate_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

// conversation is a random chat as Chat Completions has it: turns of users and of
// a model with its calls, each answered right after it.
func conversation(random *rand.Rand) []map[string]any {
	var all []map[string]any
	arguments := []string{`{}`, `{"a":"\u00e9 <b>"}`, `{"n":1.50}`}
	for turn := range 1 + random.IntN(4) {
		all = append(all, map[string]any{"role": "user", "content": fmt.Sprint("question ", turn)})
		answer := map[string]any{"role": "assistant", "content": fmt.Sprint("answer ", turn)}
		all = append(all, answer)
		var calls []any
		var results []map[string]any
		for i := range random.IntN(4) {
			id := fmt.Sprintf("call_%d_%d", turn, i)
			calls = append(calls, map[string]any{"id": id, "type": "function", "function": map[string]any{
				"name": fmt.Sprintf("f%d", random.IntN(3)), "arguments": arguments[random.IntN(len(arguments))],
			}})
			results = append(results, map[string]any{"role": "tool", "tool_call_id": id, "content": fmt.Sprint("result of ", id)})
		}
		if len(calls) == 0 {
			continue
		}
		answer["tool_calls"] = calls
		if random.IntN(2) == 0 {
			answer["content"] = nil
		}
		all = append(all, results...)
	}
	return append(all, map[string]any{"role": "user", "content": []any{
		map[string]any{"type": "text", "text": "look"},
		map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64,AA==", "detail": "low"}},
		map[string]any{"type": "file", "file": map[string]any{"file_data": "data:text/plain;base64,aGk=", "filename": "a"}},
	}})
}

// A chat that becomes a request of Responses and then a chat again is what it
// was: no call, id or argument is lost and the order is kept.
func TestRoundTripOfRequests(t *testing.T) {
	for seed := range uint64(300) {
		want := conversation(rand.New(rand.NewPCG(seed, 1)))
		own, err := translate.ChatAsResponses(encode(t, map[string]any{"model": "m", "messages": want}))
		if err != nil {
			t.Fatal(err)
		}
		r, err := response.ParseRequest(own)
		if err != nil {
			t.Fatalf("%v in %s", err, own)
		}
		brief := response.Brief{Request: r}
		if err := response.CheckOutputs(brief); err != nil {
			t.Fatalf("%v in %s", err, own)
		}
		chat, err := translate.ChatRequest(translate.Call{Brief: brief})
		if err != nil {
			t.Fatal(err)
		}
		same(t, chat, want)
		// And once more by the words of Responses.
		again, err := translate.ResponsesRequest(translate.Call{Brief: brief})
		if err != nil {
			t.Fatal(err)
		}
		var was, is struct{ Input []any }
		if json.Unmarshal(own, &was) != nil || json.Unmarshal(again, &is) != nil || !reflect.DeepEqual(was, is) {
			t.Fatalf("seed %d: input\n got %s\nwant %s", seed, again, own)
		}
	}
}

func same(t *testing.T, chat []byte, want []map[string]any) {
	t.Helper()
	var got struct{ Messages []map[string]any }
	var clean []map[string]any
	if json.Unmarshal(chat, &got) != nil || json.Unmarshal(encode(t, want), &clean) != nil {
		t.Fatalf("cannot be read: %s", chat)
	}
	if !reflect.DeepEqual(got.Messages, clean) {
		t.Fatalf("messages\n got %s\nwant %s", encode(t, got.Messages), encode(t, clean))
	}
}

// An answer that becomes a chat completion is read to what it was, whichever API
// it came in.
func TestRoundTripOfAnswers(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		want := response.ModelOutput{
			Model: "m", Finish: "stop", Usage: response.Usage{Input: random.Int64N(9), Output: random.Int64N(9), Cached: 1, CacheWrite: 2, Reasoning: 3},
		}
		if random.IntN(2) == 0 {
			want.Text = "said <é>\n"
		}
		if random.IntN(4) == 0 {
			want.Refusal = "no"
		}
		if random.IntN(2) == 0 {
			want.Reasoning = "hm"
		}
		for i := range random.IntN(4) {
			want.Finish = "tool_calls"
			want.Calls = append(want.Calls, response.Call{ID: fmt.Sprint("call_", i), Name: "f", Arguments: []string{`{}`, `{"a":`, `{"b":"\n"}`}[random.IntN(3)]})
		}
		if want.Text != "" {
			want.Annotations = []json.RawMessage{json.RawMessage(`{"title":"t","type":"url_citation","url":"http://x"}`)}
			want.Logprobs = []json.RawMessage{json.RawMessage(`{"token":"a","logprob":-1.50}`)}
		}
		r := translate.NewChatReader("k")
		if _, err := r.Body(translate.ChatCompletion(want, "c", "m", 1)); err != nil {
			t.Fatal(err)
		}
		got, err := r.Output()
		if err != nil || string(got.Encode()) != string(want.Encode()) {
			t.Fatalf("seed %d: %v\n got %s\nwant %s", seed, err, got.Encode(), want.Encode())
		}
	}
}
