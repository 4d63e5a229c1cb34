package response_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// What ParseRequest accepts survives its stored form, can be sent upstream and
// begins a valid stream.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"model":"m","input":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := response.ParseRequest(body)
		if err != nil {
			return
		}
		j := response.Brief{Request: r, Offers: []response.Offer{{Name: "a", Plugin: "p", Tool: "a"}}}
		b, err := j.Encode()
		if err != nil {
			t.Fatalf("Encode: %v", err)
		}
		again, err := response.DecodeBrief(b)
		if err != nil {
			t.Fatalf("DecodeBrief: %v", err)
		}
		if b2, _ := again.Encode(); !bytes.Equal(b, b2) {
			t.Errorf("stored form changes:\n%s\n%s", b, b2)
		}
		exercise(t, again)
		s := response.NewStream(simID, simID.Time(), r, nil)
		events := append(s.Created(r.Background), s.Finish(response.End{Status: "completed"})...)
		if err := response.Validate(events); err != nil {
			t.Error(err)
		}
	})
}

// exercise does with a brief what a host does; it must not panic.
func exercise(t *testing.T, j response.Brief) {
	t.Helper()
	_ = response.CheckOutputs(j)
	_ = response.CheckTools(j)
	chat, err := response.ChatRequest(j, nil, []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}})
	if err != nil {
		t.Fatalf("ChatRequest: %v", err)
	}
	if !json.Valid(chat) || string(chat) == "null" {
		t.Errorf("chat body is not JSON: %s", chat)
	}
}

func FuzzDecodeBrief(f *testing.F) {
	f.Add([]byte(`{"v":1,"request":{"model":"m","input":[{"role":"user","content":"x"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if j, err := response.DecodeBrief(b); err == nil {
			exercise(t, j)
			_, _ = response.Ancestor(j, b)
		}
	})
}

// Chunks, one a line, or one body: deltas add up to the output, and the stream
// that they make is valid.
func FuzzFold(f *testing.F) {
	f.Add([]byte(`{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}`), true)
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		r := &response.Request{Model: "m", Functions: []response.FunctionTool{{Name: "f"}}}
		s := response.NewStream(simID, simID.Time(), r, []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}})
		events := append(s.Created(false), s.Started()...)
		fold, said := response.NewFold(), ""
		lines := bytes.Split(data, []byte("\n"))
		if body {
			lines = [][]byte{data}
		}
		for _, line := range lines {
			add := fold.Chunk
			if body {
				add = fold.Body
			}
			deltas, err := add(line)
			if err != nil {
				return
			}
			for _, d := range deltas {
				if d.Kind == response.TextDelta {
					said += d.Text
				}
				events = append(events, s.Delta(d)...)
			}
		}
		out, err := fold.Output()
		if err != nil {
			return
		}
		if out.Text != said {
			t.Errorf("deltas say %q, output %q", said, out.Text)
		}
		events = append(events, s.ModelDone(out)...)
		seen := map[string]bool{}
		for _, c := range out.Calls {
			if c.ID == "" || seen[c.ID] {
				t.Errorf("call id %q is empty or repeated", c.ID)
			}
			seen[c.ID] = true
			events = append(events, s.ToolDone(c.ID, response.ToolReceipt{Output: "o"})...)
		}
		events = append(events, s.Finish(response.End{Status: "completed"})...)
		if err := response.Validate(events); err != nil {
			t.Error(err)
		}
		out.ChatCompletion("c", "m", 1)
	})
}

// Any log, an event a line: a stream that can be restored can be ended.
func FuzzRestore(f *testing.F) {
	var log []byte
	for _, e := range sampleEvents() {
		log = append(append(log, e.Data...), '\n')
	}
	f.Add(log)
	f.Fuzz(func(t *testing.T, data []byte) {
		var events []response.Event
		for i, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
			events = append(events, response.Event{Seq: int64(i), Data: line})
		}
		_ = response.Validate(events)
		s, err := response.Restore(events)
		if err != nil {
			return
		}
		s.Resume(&response.Request{Model: "m"}, nil)
		s.Rebuild(nil)
		s.Delta(response.Delta{Kind: response.TextDelta, Text: "x"})
		s.Interrupted()
		s.Finish(response.End{Status: "failed"})
		if !json.Valid(s.Response()) {
			t.Errorf("response is not JSON: %s", s.Response())
		}
	})
}

func sampleEvents() []response.Event {
	s := response.NewStream(simID, simID.Time(), &response.Request{Model: "m"}, nil)
	events := append(s.Created(true), s.Started()...)
	events = append(events, s.Delta(response.Delta{Kind: response.ReasoningDelta, Text: "r"})...)
	events = append(events, s.Delta(response.Delta{Kind: response.TextDelta, Text: "t"})...)
	events = append(events, s.Delta(response.Delta{Kind: response.RefusalDelta, Text: "n"})...)
	events = append(events, s.ModelDone(response.ModelOutput{
		Reasoning: "r", Text: "t", Refusal: "n", Finish: "tool_calls",
		Calls: []response.Call{{ID: "c", Name: "a", Arguments: "{}"}},
	})...)
	return events
}
