package response_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

func TestCustomInput(t *testing.T) {
	for arguments, want := range map[string]string{
		`{"input":"a\nb"}`: "a\nb", `{"input":""}`: "", `{}`: "{}", `{"input":1}`: `{"input":1}`, `{"input":null}`: `{"input":null}`,
		`plain`: "plain", ``: "", `"text"`: `"text"`, `{"input":"cut`: `{"input":"cut`,
	} {
		if got := response.CustomInput(arguments); got != want {
			t.Errorf("%s: got %q, want %q", arguments, got, want)
		}
	}
}

// inputStream streams a custom tool's call in pieces, and returns the item's
// input and what its deltas were.
func inputStream(t *testing.T, pieces []string) (input string, deltas []string) {
	t.Helper()
	s := newStream(t, `{"model":"m","input":"x","tools":[{"type":"custom","name":"shell"}]}`)
	events := append(s.Created(false), s.Started()...)
	for _, p := range pieces {
		events = append(events, s.Delta(response.Delta{Kind: response.CallDelta, CallID: "c", Name: "shell", Text: p})...)
	}
	out := response.ModelOutput{Finish: "tool_calls", Calls: []response.Call{{ID: "c", Name: "shell", Arguments: strings.Join(pieces, "")}}}
	events = append(events, s.ModelDone(out)...)
	events = append(events, s.Finish(response.End{Status: "completed"})...)
	if err := response.Validate(events); err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		var d struct{ Type, Delta, Input string }
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		switch d.Type {
		case "response.custom_tool_call_input.delta":
			deltas = append(deltas, d.Delta)
		case "response.custom_tool_call_input.done":
			input = d.Input
		}
	}
	return input, deltas
}

// A custom tool's input grows as its arguments come, however they are cut.
func TestCustomInputStreams(t *testing.T) {
	text := "say \"hi\"\\ \n\t\u00e9\U0001f600/ \u2028 end"
	for _, arguments := range []string{
		string(mustJSON(t, map[string]string{"input": text})),
		" {\n \"input\" :\t\"" + `say \"hi\"\\ \n\t\u00E9\ud83D\uDE00\/ \u2028 end` + "\" } ",
	} {
		for cut := range len(arguments) {
			for _, pieces := range [][]string{{arguments[:cut], arguments[cut:]}, strings.Split(arguments, "")} {
				input, deltas := inputStream(t, pieces)
				if input != text || strings.Join(deltas, "") != text {
					t.Fatalf("cut at %d: got %q in %q, want %q", cut, input, deltas, text)
				}
				if len(pieces) > 2 && len(deltas) < 10 {
					t.Fatalf("got %d deltas, want it to grow", len(deltas))
				}
			}
		}
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// However arguments are cut, and whatever they are, the stream is valid; what
// is one object with one text is read as that.
func FuzzCustomInput(f *testing.F) {
	f.Add(`{"input":"a\ud83d\ude00\n"}`, uint8(3))
	f.Add(`{"input":"a\ud83dx"}`, uint8(1))
	f.Add(`{"in`, uint8(1))
	f.Fuzz(func(t *testing.T, arguments string, cut uint8) {
		var pieces []string
		for rest := arguments; rest != ""; {
			n := min(len(rest), 1+int(cut)%7)
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		input, _ := inputStream(t, pieces)
		var one struct {
			Input *string `json:"input"`
		}
		d := json.NewDecoder(strings.NewReader(arguments))
		d.DisallowUnknownFields()
		if d.Decode(&one) != nil || one.Input == nil || strings.Count(strings.ToLower(arguments), `"input"`) != 1 || !json.Valid([]byte(arguments)) {
			return
		}
		if strings.HasPrefix(strings.TrimSpace(arguments[strings.Index(arguments, "{")+1:]), `"input"`) && input != *one.Input {
			t.Errorf("%q: got %q, want %q", arguments, input, *one.Input)
		}
	})
}
