package response_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// inner is a step of the n-th nested call of "/1", which asked tool t for args.
func inner(ordinal, n int, args string, change func(*response.Step)) response.Step {
	s := response.Step{
		Scope: "/1", Ordinal: ordinal, Kind: response.ToolCall, State: response.Completed, Effects: "once", Plugin: "p", Tool: "t",
		CallID: response.NestedID(n, "t", []byte(args)), Input: []byte(args), Output: []byte("out"), Tries: 1, Attempt: 1,
	}
	if change != nil {
		change(&s)
	}
	return s
}

func TestNextNested(t *testing.T) {
	parent := response.Step{Ordinal: 1, Kind: response.ToolCall, State: response.Running}
	running := func(s *response.Step) { s.State, s.Output = response.Running, nil }
	began := func(s *response.Step) { running(s); s.EffectStarted = true }
	idempotent := func(s *response.Step) { began(s); s.Effects = "idempotent" }
	failed := func(s *response.Step) {
		s.State, s.Class, s.Output = response.Failed, queue.GuestTrap, nil
		s.Detail, s.Log = "why", "what it said"
	}
	final := func(s *response.Step) { failed(s); s.Verdict = response.Final }
	none := func(s *response.Step) {
		s.State, s.Verdict, s.Tool, s.Plugin = response.Skipped, response.Final, "no", ""
	}
	for _, tt := range []struct {
		name        string
		steps       []response.Step
		n           int
		tool, args  string
		answer, run string // key, state and tries of the step
		settle      string
		fresh       bool
	}{
		{name: "first", run: "/1/0 planned 0", fresh: true},
		{name: "answered", steps: []response.Step{inner(0, 0, "{}", nil)}, answer: "/1/0 completed 1"},
		{name: "next", steps: []response.Step{inner(0, 0, "{}", nil)}, n: 1, run: "/1/1 planned 0", fresh: true},
		{name: "second answered", steps: []response.Step{inner(0, 0, "{}", nil), inner(1, 1, "{}", nil)}, n: 1, answer: "/1/1 completed 1"},
		{name: "in any order of rows", steps: []response.Step{inner(1, 1, "{}", nil), inner(0, 0, "{}", nil)}, n: 1, answer: "/1/1 completed 1"},
		{name: "after one that was refused", steps: []response.Step{inner(0, 1, "{}", nil)}, n: 1, answer: "/1/0 completed 1"},
		{name: "other arguments", steps: []response.Step{inner(0, 0, `{"n":1}`, nil), inner(1, 1, "{}", nil)}, run: "/1/2 planned 0", fresh: true},
		{name: "another tool", steps: []response.Step{inner(0, 0, "{}", nil)}, tool: "u", run: "/1/1 planned 0", fresh: true},
		{
			name:  "after a difference nothing is answered",
			steps: []response.Step{inner(0, 0, `{"n":1}`, nil), inner(1, 1, "{}", nil), inner(2, 0, "{}", nil)}, n: 1, run: "/1/3 planned 0", fresh: true,
		},
		{
			name:  "before a difference all is",
			steps: []response.Step{inner(0, 0, "{}", nil), inner(1, 1, `{"n":1}`, nil), inner(2, 1, "{}", nil)}, answer: "/1/0 completed 1",
		},
		{
			name:  "the difference itself is",
			steps: []response.Step{inner(0, 0, "{}", nil), inner(1, 1, `{"n":1}`, nil), inner(2, 1, "{}", nil)}, n: 1, answer: "/1/2 completed 1",
		},
		{name: "lost once without an effect", steps: []response.Step{inner(0, 0, "{}", running)}, run: "/1/0 planned 1"},
		{name: "lost once", steps: []response.Step{inner(0, 0, "{}", began)}, answer: "/1/0 abandoned 1", settle: "/1/0 abandoned"},
		{name: "lost idempotent", steps: []response.Step{inner(0, 0, "{}", idempotent)}, run: "/1/0 planned 1"},
		{name: "failed, open", steps: []response.Step{inner(0, 0, "{}", failed)}, run: "/1/0 planned 1"},
		{name: "failed for good", steps: []response.Step{inner(0, 0, "{}", final)}, answer: "/1/0 failed 1"},
		{
			name:  "open ones in the way are settled",
			steps: []response.Step{inner(0, 0, "{}", failed), inner(1, 1, `{"n":1}`, began), inner(2, 2, "{}", failed), inner(3, 3, "{}", nil)}, n: 1,
			run: "/1/4 planned 0", settle: "/1/1 abandoned,/1/2 failed", fresh: true,
		},
		{name: "unknown tool", tool: "no", answer: "/1/0 skipped 0", settle: "/1/0 skipped", fresh: true},
		{
			name: "unknown tool again", tool: "no", answer: "/1/0 skipped 0",
			steps: []response.Step{inner(0, 0, "{}", func(s *response.Step) {
				none(s)
				s.CallID, s.Tries = response.NestedID(0, "no", []byte("{}")), 0
			})},
		},
		{name: "one that waits for approval", tool: "ask", answer: "/1/0 skipped 0", settle: "/1/0 skipped", fresh: true},
		{name: "broken arguments", args: `{"n":`, answer: "/1/0 skipped 0", settle: "/1/0 skipped", fresh: true},
		{name: "against the schema", args: `{"refuse":1}`, answer: "/1/0 skipped 0", settle: "/1/0 skipped", fresh: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := response.NestedView{
				NestedCall: response.NestedCall{Parent: parent, N: tt.n, Tool: "t", Arguments: []byte("{}")}, Steps: tt.steps,
				Tools: map[string]response.ServerTool{
					"t": {Offer: response.Offer{Plugin: "p", Tool: "t"}}, "u": {Offer: response.Offer{Plugin: "p", Tool: "u"}, Effects: "pure"},
					"ask": {Offer: response.Offer{Plugin: "p", Tool: "ask"}, Approval: true},
				},
				Check: func(_ response.ServerTool, args []byte) error {
					if strings.Contains(string(args), "refuse") {
						return errors.New("refused")
					}
					return nil
				},
			}
			if tt.tool != "" {
				v.Tool = tt.tool
			}
			if tt.args != "" {
				v.Arguments = []byte(tt.args)
			}
			p := response.NextNested(v)
			tell := func(s *response.Step) string {
				if s == nil {
					return ""
				}
				return fmt.Sprintf("%s %s %d", s.Key(), s.State, s.Tries)
			}
			if got := []any{tell(p.Answer), tell(p.Run), strings.Join(keys(p.Settle), ","), p.New}; !reflect.DeepEqual(got, []any{tt.answer, tt.run, tt.settle, tt.fresh}) {
				t.Errorf("got %q", got)
			}
			if s := p.Run; s != nil && (s.Class != "" || s.Code != "" || len(s.Output) > 0 || s.Detail != "" || s.Log != "" || s.Effects == "" || s.CallID != response.NestedID(tt.n, v.Tool, v.Arguments)) {
				t.Errorf("to be run: %+v", *s)
			}
			for _, s := range p.Settle {
				if !s.Settled() || len(s.Output) == 0 {
					t.Errorf("settled step %s: state %s, output %q", s.Key(), s.State, s.Output)
				}
			}
		})
	}
}

// TestNestedID: no two calls share an id.
func TestNestedID(t *testing.T) {
	seen := map[string]string{}
	for _, c := range []struct {
		n          int
		tool, args string
	}{{0, "t", "{}"}, {1, "t", "{}"}, {0, "t{", "}"}, {0, "u", "{}"}, {0, "t", "{ }"}, {0, "", "t{}"}, {11, "t", "{}"}} {
		id, what := response.NestedID(c.n, c.tool, []byte(c.args)), fmt.Sprint(c)
		if seen[id] != "" {
			t.Errorf("%s and %s have the id %s", seen[id], what, id)
		}
		seen[id] = what
	}
}

func TestEndNested(t *testing.T) {
	for _, tt := range []struct {
		name    string
		step    response.Step
		settled bool
	}{
		{"completed", response.Step{State: response.Completed, Effects: "once"}, true},
		{"a trap", response.Step{State: response.Failed, Class: queue.GuestTrap, Effects: "once"}, false},
		{"a trap amid an effect", response.Step{State: response.Failed, Class: queue.GuestTrap, Effects: "once", EffectStarted: true}, true},
		{"a trap of an idempotent tool", response.Step{State: response.Failed, Class: queue.GuestTrap, Effects: "idempotent", EffectStarted: true}, false},
		{"permanent", response.Step{State: response.Failed, Class: queue.GuestError, Code: "permanent", Effects: "pure"}, true},
		{"transient", response.Step{State: response.Failed, Class: queue.GuestError, Code: "transient", Effects: "pure"}, false},
	} {
		tt.step.Kind = response.ToolCall
		if got := response.EndNested(tt.step).Settled(); got != tt.settled {
			t.Errorf("%s: settled %t, want %t", tt.name, got, tt.settled)
		}
	}
}

func TestCloseNested(t *testing.T) {
	open := func(scope string, state response.StepState) response.Step {
		return response.Step{Scope: scope, Kind: response.ToolCall, State: state, Effects: "pure"}
	}
	steps := []response.Step{
		open("/1", response.Running), open("/1", response.Completed), open("/1/0", response.Failed), open("/1/0/3", response.Planned),
		open("/10", response.Running), open("/2", response.Running), open("", response.Running),
	}
	got := keys(response.CloseNested(response.Step{Ordinal: 1, Kind: response.ToolCall}, steps))
	if want := []string{"/1/0 abandoned", "/1/0/0 failed", "/1/0/3/0 skipped"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNestedCountsTowardCaps: nested calls use up what the response may, but
// not what its client allowed the model.
func TestNestedCountsTowardCaps(t *testing.T) {
	two := int64(2)
	for _, tt := range []struct {
		name         string
		steps, calls int
		caps         response.Caps
		action       response.Action
	}{
		{"room", 1, 1, response.Caps{ToolCalls: 2, Steps: 4}, response.Do},
		{"no room for a call", 2, 2, response.Caps{ToolCalls: 2}, response.Fail},
		{"skipped ones are no calls", 2, 1, response.Caps{ToolCalls: 2}, response.Do},
		{"no room for a step", 3, 1, response.Caps{Steps: 4}, response.Fail},
	} {
		request := &response.Request{Model: "m", MaxToolCalls: &two}
		v := response.View{
			Request: request, Attempt: 1, Caps: tt.caps, NestedSteps: tt.steps, NestedCalls: tt.calls,
			Tools: map[string]response.ServerTool{"t": {Effects: "pure"}},
		}
		v.Steps = chain(response.Step{})[:1]
		p := response.Next(v)
		if p.Action != tt.action || tt.action == response.Do && len(p.Run) != 1 {
			t.Errorf("%s: got %+v, want %s", tt.name, p, tt.action)
		}
	}
	v := response.View{
		Request: &response.Request{Model: "m"}, Attempt: 1, Caps: response.Caps{Steps: 4}, NestedSteps: 2,
		Steps: chain(response.Step{State: response.Completed, Effects: "pure"}),
	}
	if p := response.Next(v); p.Action != response.Fail {
		t.Errorf("a model call beyond the cap: got %+v, want fail", p)
	}
	for _, tt := range []struct {
		steps, calls int
		want         bool
	}{{3, 1, true}, {4, 1, false}, {3, 2, false}} {
		if got := (response.Caps{Steps: 4, ToolCalls: 2}).Room(tt.steps, tt.calls); got != tt.want {
			t.Errorf("room at %d steps and %d calls: got %t", tt.steps, tt.calls, got)
		}
	}
}
