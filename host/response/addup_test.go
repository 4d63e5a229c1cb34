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

// shown is what a response's items say, whatever they are cut into.
type shown struct {
	text, refusal, reasoning, summary string
	annotations, logprobs, encrypted  int
	calls                             []string
}

func shownBy(t *testing.T, object []byte) shown {
	t.Helper()
	var o struct {
		Output []struct {
			Type, Arguments, Input, Name string
			Encrypted                    string `json:"encrypted_content"`
			Summary                      []struct{ Text string }
			Content                      []struct {
				Type, Text, Refusal   string
				Annotations, Logprobs []json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(object, &o); err != nil {
		t.Fatal(err)
	}
	var s shown
	for _, it := range o.Output {
		for _, p := range it.Summary {
			s.summary += p.Text
		}
		if it.Encrypted != "" {
			s.encrypted++
		}
		for _, p := range it.Content {
			s.refusal += p.Refusal
			s.annotations += len(p.Annotations)
			s.logprobs += len(p.Logprobs)
			if p.Type == "output_text" {
				s.text += p.Text
			} else {
				s.reasoning += p.Text
			}
		}
		if it.Name != "" {
			s.calls = append(s.calls, it.Type+" "+it.Name+" "+it.Arguments+it.Input)
		}
	}
	slices.Sort(s.calls)
	return s
}

// However much of a model call's output came in pieces, with its end it is all
// there, once.
func TestPiecesAndTheEndAddUp(t *testing.T) {
	sealed := 0
	for seed := range uint64(60) {
		body := worldBody(seed*3, true) // encrypted reasoning is asked for
		w := newWorld(t, seed, body)
		step := response.Step{Ordinal: 9, Kind: response.ModelCall}
		w.live = map[string]response.Step{"/9": step, "/1": {Ordinal: 1, Kind: response.ModelCall}}
		out := w.output(step, rand.New(rand.NewPCG(seed, 5)))
		all := deltasOf(out, rand.New(rand.NewPCG(seed, 6)))
		var want string
		for n := range len(all) + 1 {
			s := response.NewStream(simID, simID.Time(), w.brief.Request, w.local)
			events := append(s.Created(false), s.Started()...)
			for _, d := range all[:n] {
				events = append(events, s.Delta(d)...)
			}
			events = append(events, s.ModelDone(out)...)
			for _, c := range out.Calls {
				events = append(events, s.ToolDone(c.ID, response.ToolReceipt{Output: "o"})...)
			}
			events = append(events, s.Finish(response.End{Status: "completed"})...)
			if err := response.Validate(events); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got := shownBy(t, s.Response())
			sealed += got.encrypted
			if n == 0 {
				want = fmt.Sprintf("%+v", got)
				if got.text != out.Text || got.refusal != out.Refusal || got.reasoning != out.Reasoning || got.summary != strings.Join(out.Summary, "") ||
					got.annotations != len(out.Annotations) || got.logprobs != len(out.Logprobs) || len(got.calls) != len(out.Calls) {
					t.Fatalf("seed %d: got %s\nof %+v", seed, want, out)
				}
				continue
			}
			// Behind the text that it led to, encrypted reasoning is left out.
			if late := got; out.Encrypted != "" && got.encrypted == 0 {
				late.encrypted = 1
				got = late
			}
			if got := fmt.Sprintf("%+v", got); got != want {
				t.Fatalf("seed %d, %d of %d pieces: got\n%s\nwant\n%s", seed, n, len(all), got, want)
			}
		}
	}
	if sealed == 0 {
		t.Error("no reasoning was encrypted")
	}
}
