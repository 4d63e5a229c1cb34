package translate_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/translate"
)

// seeds adds a file of each archive of a folder of testdata.
func seeds(f *testing.F, folder string, add func(a *txtar.Archive)) {
	f.Helper()
	paths, _ := filepath.Glob(filepath.Join("testdata", folder, "*.txtar"))
	if len(paths) == 0 {
		f.Fatal("no seeds")
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		add(txtar.Parse(b))
	}
}

// readers are those of an answer in either API.
var readers = map[string]func(string) translate.Reader{
	"chat": translate.NewChatReader, "responses": translate.NewResponsesReader,
}

// FuzzReader reads anything as an answer, events one a line or one body. What the
// deltas say is what the output holds, in both readers; calls have ids that
// differ, and no null-like arguments.
func FuzzReader(f *testing.F) {
	seeds(f, "answer", func(a *txtar.Archive) {
		for _, file := range a.Files {
			if !strings.HasPrefix(file.Name, "out.") {
				f.Add(file.Data, file.Name == "body.json")
			}
		}
	})
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		for kind, make := range readers {
			r := make("key")
			if deltas, ok := readAll(r, data, body); ok {
				out, err := r.Output()
				if err == nil {
					sameAsDeltas(t, kind, out, deltas)
				}
				again := make("key")
				readAll(again, data, body)
				if o, _ := again.Output(); !bytes.Equal(o.Encode(), out.Encode()) {
					t.Errorf("%s: read twice:\n%s\n%s", kind, out.Encode(), o.Encode())
				}
			}
		}
	})
}

// readAll reads data; false: it is an error in this API.
func readAll(r translate.Reader, data []byte, body bool) (all []response.Delta, ok bool) {
	if body {
		deltas, err := r.Body(data)
		return deltas, err == nil
	}
	for line := range bytes.Lines(data) {
		deltas, err := r.Chunk(line)
		if err != nil {
			return nil, false
		}
		all = append(all, deltas...)
	}
	return all, true
}

// said gathers deltas as a listener does.
type said struct {
	text, refusal, reasoning, encrypted string
	summary                             map[int]string
	annotations                         int
	logprobs                            int
	arguments                           map[string]string
}

func gather(t *testing.T, deltas []response.Delta) said {
	t.Helper()
	s := said{summary: map[int]string{}, arguments: map[string]string{}}
	for _, d := range deltas {
		switch d.Kind {
		case response.TextDelta:
			s.text += d.Text
			var l []json.RawMessage
			if d.Logprobs != nil && json.Unmarshal(d.Logprobs, &l) != nil {
				t.Errorf("logprobs are no array: %s", d.Logprobs)
			}
			s.logprobs += len(l)
		case response.RefusalDelta:
			s.refusal += d.Text
		case response.ReasoningDelta:
			s.reasoning += d.Text
		case response.EncryptedDelta:
			s.encrypted = d.Text
		case response.SummaryDelta:
			s.summary[d.Index] += d.Text
		case response.AnnotationDelta:
			s.annotations++
		case response.CallDelta:
			if d.CallID == "" || d.Name == "" {
				t.Errorf("a call's delta without id or name: %+v", d)
			}
			s.arguments[d.CallID] += d.Text
		}
	}
	return s
}

func sameAsDeltas(t *testing.T, kind string, out response.ModelOutput, deltas []response.Delta) {
	t.Helper()
	s := gather(t, deltas)
	if s.text != out.Text || s.refusal != out.Refusal || s.reasoning != out.Reasoning || s.encrypted != out.Encrypted {
		t.Errorf("%s: deltas say %+v, the output %s", kind, s, out.Encode())
	}
	if s.annotations != len(out.Annotations) || s.logprobs != len(out.Logprobs) || len(s.summary) != len(out.Summary) {
		t.Errorf("%s: deltas say %+v, the output %s", kind, s, out.Encode())
	}
	for i, part := range out.Summary {
		if s.summary[i] != part {
			t.Errorf("%s: summary %d: deltas say %q, the output %q", kind, i, s.summary[i], part)
		}
	}
	seen := map[string]bool{}
	for _, c := range out.Calls {
		if c.ID == "" || seen[c.ID] {
			t.Errorf("%s: call id %q is empty or repeated", kind, c.ID)
		}
		seen[c.ID] = true
		if a := strings.TrimSpace(c.Arguments); a == "" || a == "null" || a == `""` {
			t.Errorf("%s: arguments %q are no canonical form of none", kind, c.Arguments)
		}
		if c.Name != "" && s.arguments[c.ID] != c.Arguments && c.Arguments != "{}" {
			t.Errorf("%s: arguments: deltas say %q, the output %q", kind, s.arguments[c.ID], c.Arguments)
		}
	}
}

// FuzzChatWriter reads anything as an answer of Responses. The chunks that it is
// told in are read by the chat reader to what the completion is read to.
func FuzzChatWriter(f *testing.F) {
	seeds(f, "answer", func(a *txtar.Archive) {
		for _, file := range a.Files {
			if !strings.HasPrefix(file.Name, "out.") {
				f.Add(file.Data, file.Name == "body.json")
			}
		}
	})
	f.Fuzz(func(t *testing.T, data []byte, body bool) {
		w := translate.NewChatWriter("c", "m", 1, true, "key")
		var chunks [][]byte
		if body {
			if w.Body(data) != nil {
				return
			}
			chunks = w.Chunks()
		} else {
			for line := range bytes.Lines(data) {
				more, err := w.Event(line)
				if err != nil {
					return
				}
				chunks = append(chunks, more...)
			}
		}
		whole, err := w.Completion()
		if err != nil {
			return
		}
		a, b := translate.NewChatReader("k"), translate.NewChatReader("k")
		if _, err := b.Body(whole); err != nil {
			t.Fatalf("%v in %s", err, whole)
		}
		for _, c := range chunks {
			if _, err := a.Chunk(c); err != nil {
				t.Fatalf("%v in %s", err, c)
			}
		}
		streamed, err := a.Output()
		if err != nil {
			t.Fatalf("%v in %s", err, bytes.Join(chunks, []byte("\n")))
		}
		once, err := b.Output()
		if err != nil {
			t.Fatal(err)
		}
		streamed.Reasoning, once.Reasoning = "", "" // its parts come in another order
		streamed.Annotations, once.Annotations = nil, nil
		if !bytes.Equal(streamed.Encode(), once.Encode()) {
			t.Errorf("streamed %s\nwhole    %s", streamed.Encode(), once.Encode())
		}
	})
}

// FuzzChatAsResponses: what it takes is a body that Responses takes, with the
// calls and their outputs in their order.
func FuzzChatAsResponses(f *testing.F) {
	seeds(f, "client", func(a *txtar.Archive) { f.Add(a.Files[0].Data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		body, err := translate.ChatAsResponses(data)
		if err != nil {
			return
		}
		var chat struct {
			Messages []struct {
				ToolCallID string `json:"tool_call_id"`
				Role       string
				ToolCalls  []struct{ ID string } `json:"tool_calls"`
			}
		}
		var got struct {
			Input []struct {
				Type      string
				CallID    string `json:"call_id"`
				Arguments *string
			}
		}
		if json.Unmarshal(data, &chat) != nil || json.Unmarshal(body, &got) != nil {
			t.Fatalf("%s became %s", data, body)
		}
		var want, have []string
		for _, m := range chat.Messages {
			if m.Role == "tool" {
				want = append(want, "output "+m.ToolCallID)
			}
			if m.Role == "assistant" {
				for _, c := range m.ToolCalls {
					want = append(want, "call "+c.ID)
				}
			}
		}
		for _, it := range got.Input {
			switch {
			case strings.HasSuffix(it.Type, "_output"):
				have = append(have, "output "+it.CallID)
			case strings.HasSuffix(it.Type, "_call"):
				have = append(have, "call "+it.CallID)
			}
			if it.Type == "function_call" && (it.Arguments == nil || strings.TrimSpace(*it.Arguments) == "null") {
				t.Errorf("arguments are not canonical: %s", body)
			}
		}
		if fmt.Sprint(want) != fmt.Sprint(have) {
			t.Errorf("calls and outputs: got %q, want %q", have, want)
		}
	})
}

// FuzzCall says any brief in both APIs: neither panics, and both tell of the same
// calls in the same order.
func FuzzCall(f *testing.F) {
	seeds(f, "call", func(a *txtar.Archive) { f.Add(a.Files[0].Data) })
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := response.ParseRequest(data)
		if err != nil {
			return
		}
		c := translate.Call{Brief: response.Brief{Request: r}, Tools: []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}}}
		chat, chatErr := translate.ChatRequest(c)
		own, err := translate.ResponsesRequest(c)
		if err != nil {
			t.Fatalf("responses: %v", err)
		}
		if chatErr != nil {
			return
		}
		if a, b := callsOfChat(t, chat), callsOfResponses(t, own); fmt.Sprint(a) != fmt.Sprint(b) {
			t.Errorf("chat calls %q, responses calls %q", a, b)
		}
	})
}

func callsOfChat(t *testing.T, body []byte) (calls []string) {
	t.Helper()
	var b struct {
		Messages []struct {
			ToolCalls []struct{ ID string } `json:"tool_calls"`
		}
	}
	if err := json.Unmarshal(body, &b); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for _, m := range b.Messages {
		for _, c := range m.ToolCalls {
			calls = append(calls, c.ID)
		}
	}
	return calls
}

func callsOfResponses(t *testing.T, body []byte) (calls []string) {
	t.Helper()
	var b struct {
		Input []struct {
			Type   string
			CallID string `json:"call_id"`
		}
	}
	if err := json.Unmarshal(body, &b); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for _, it := range b.Input {
		if strings.HasSuffix(it.Type, "_call") {
			calls = append(calls, it.CallID)
		}
	}
	return calls
}
