package response_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

// What ParseRequest accepts survives its stored form, can be sent upstream and
// begins a valid stream.
func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"model":"m","input":"x"}`))
	f.Add([]byte(stress))
	f.Add([]byte(codingAgent))
	f.Add([]byte(`{"model":"m","conversation":{"id":"c"},"input":[{"id":"r"},{"type":"mcp_approval_response","approval_request_id":"i","approve":true},{"type":"custom_tool_call","call_id":"c","name":"n","input":"x"}],` +
		`"tools":[{"type":"mcp","server_label":"l","server_url":"https://x","require_approval":{"never":{"tool_names":["a"]}}},{"type":"custom","name":"n","format":{"type":"text"}}],"tool_choice":{"type":"allowed_tools","tools":[{"type":"custom","name":"n"}]}}`))
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
	chat, err := translate.ChatRequest(translate.Call{Brief: j, Tools: []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}}})
	if no := (*translate.Unsupported)(nil); errors.As(err, &no) {
		return
	}
	if err != nil {
		t.Fatalf("ChatRequest: %v", err)
	}
	if !json.Valid(chat) || string(chat) == "null" {
		t.Errorf("chat body is not JSON: %s", chat)
	}
}

func FuzzDecodeBrief(f *testing.F) {
	f.Add([]byte(`{"v":1,"request":{"model":"m","input":[{"role":"user","content":"x"}]}}`))
	f.Add([]byte(firstBrief))
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
		fold, said := translate.NewChatReader("k"), ""
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
	})
}

// Any log, an event a line: what is valid can be restored, and what can be
// restored can be ended so that it is valid.
func FuzzRestore(f *testing.F) {
	for _, events := range [][]response.Event{sampleEvents(), newWorld(&testing.T{}, 3, worldBody(3, true)).play().events} {
		var log []byte
		for _, e := range events {
			log = append(append(log, e.Data...), '\n')
		}
		f.Add(log)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var events []response.Event
		for i, line := range bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")) {
			events = append(events, response.Event{Seq: int64(i), Data: line})
		}
		invalid := response.Validate(events)
		if errors.Is(invalid, response.ErrUnfinished) {
			invalid = nil
		}
		s, err := response.Restore(events)
		if err != nil {
			if invalid == nil {
				t.Errorf("valid and not restored: %v", err)
			}
			return
		}
		s.Resume(&response.Request{Model: "m"}, nil)
		s.Rebuild(nil)
		rest := slices.Concat(s.Delta(response.Delta{Kind: response.TextDelta, Text: "x"}), s.Interrupted(), s.Finish(response.End{Status: "failed"}))
		if !json.Valid(s.Response()) {
			t.Errorf("response is not JSON: %s", s.Response())
		}
		if err := response.Validate(append(events, rest...)); invalid == nil && err != nil {
			t.Errorf("ended: %v", err)
		}
	})
}

// Any events, one a line, some of them heartbeats.
func FuzzValidator(f *testing.F) {
	s := newStream(&testing.T{}, `{"model":"m","input":"x"}`)
	var log []byte
	for _, e := range append(s.Created(true), s.Started()...) {
		log = append(append(log, e.Data...), '\n')
	}
	f.Add(append(log, s.Heartbeat()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v response.Validator
		n := 0
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if v.Event(line) != nil {
				return
			}
			n++
		}
		if v.Heartbeats >= n && n > 0 {
			t.Errorf("%d events, %d heartbeats among them", n, v.Heartbeats)
		}
		_ = v.End()
	})
}

func sampleEvents() []response.Event {
	r := &response.Request{Model: "m", Include: []string{"reasoning.encrypted_content"}, Functions: []response.FunctionTool{{Name: "f"}, {Name: "x", Custom: true}}}
	s := response.NewStream(simID, simID.Time(), r, []response.ServerTool{
		{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}, {Offer: response.Offer{Name: "q", Plugin: "p", Tool: "q"}, Approval: true},
	})
	events := append(s.Created(true), s.Started()...)
	list := response.Step{Kind: response.ListTools, Plugin: "p", State: response.Completed, Output: []byte(`[{"name":"a","input_schema":{}}]`)}
	events = append(events, s.Planned(response.Plan{Run: []response.Step{list}})...)
	events = append(events, s.StepDone(list)...)
	for _, d := range []response.Delta{
		{Kind: response.SummaryDelta, Text: "s"},
		{Kind: response.ReasoningDelta, Text: "r"},
		{Kind: response.EncryptedDelta, Text: "e"},
		{Kind: response.TextDelta, Text: "t", Logprobs: json.RawMessage(`[{"token":"t"}]`)},
		{Kind: response.AnnotationDelta, Raw: json.RawMessage(`{"type":"url_citation"}`)},
		{Kind: response.RefusalDelta, Text: "n"},
	} {
		events = append(events, s.Delta(d)...)
	}
	return append(events, s.ModelDone(response.ModelOutput{
		Summary: []string{"s"}, Reasoning: "r", Encrypted: "e", Text: "t", Refusal: "n", Finish: "tool_calls",
		Calls: []response.Call{{ID: "q", Name: "q", Arguments: "{}"}, {ID: "f", Name: "f", Arguments: "{}"}, {ID: "x", Name: "x", Arguments: "{}"}, {ID: "c", Name: "a", Arguments: "{}"}},
	})...)
}
