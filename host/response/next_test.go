package response_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// chain is a completed model call that called n tools, and their steps.
func chain(tools ...response.Step) []response.Step {
	out := response.ModelOutput{Finish: "tool_calls"}
	for i := range tools {
		tools[i].Ordinal, tools[i].Kind, tools[i].CallID = i+1, response.ToolCall, string(rune('a'+i))
		out.Calls = append(out.Calls, response.Call{ID: tools[i].CallID, Name: "t", Arguments: "{}"})
	}
	first := response.Step{Kind: response.ModelCall, State: response.Completed, Output: out.Encode()}
	return append([]response.Step{first}, tools...)
}

func keys(steps []response.Step) []string {
	var k []string
	for _, s := range steps {
		k = append(k, s.Key()+" "+string(s.State))
	}
	return k
}

// What the scripts do not reach: steps in flight, and takeovers of every mix
// of siblings.
func TestNextFrontier(t *testing.T) {
	running := func(attempt int, effects string) response.Step {
		return response.Step{State: response.Running, Attempt: attempt, Tries: 1, Effects: effects, EffectStarted: true}
	}
	began := func(s response.Step) response.Step {
		s.EffectStarted = true
		return s
	}
	harmless := running(1, "once")
	harmless.EffectStarted = false
	planned := response.Step{State: response.Planned, Effects: "once"}
	done := response.Step{State: response.Completed, Effects: "pure", Output: []byte("x")}
	for _, tc := range []struct {
		name             string
		steps            []response.Step
		age              time.Duration
		settle, ask, run []string
		wait             bool
		action           response.Action
	}{
		{name: "in flight here", steps: chain(running(2, "once")), wait: true},
		{name: "in flight of a later attempt", steps: chain(running(3, "once")), wait: true},
		{name: "one in flight, one to run", steps: chain(running(2, "pure"), planned), wait: true, run: []string{"/2 planned"}},
		{name: "never begun once", steps: chain(planned), run: []string{"/1 planned"}},
		{name: "lost pure", steps: chain(running(1, "pure")), run: []string{"/1 planned"}},
		{name: "lost idempotent", steps: chain(running(1, "idempotent")), run: []string{"/1 planned"}},
		{name: "lost once", steps: chain(running(1, "once")), settle: []string{"/1 abandoned"}},
		{name: "lost once without an effect", steps: chain(harmless), run: []string{"/1 planned"}},
		{name: "lost undeclared", steps: chain(running(1, "")), settle: []string{"/1 abandoned"}},
		{name: "lost mix: the abandoned one first", steps: chain(done, running(1, "pure"), running(1, "once"), planned), settle: []string{"/3 abandoned"}},
		{name: "failed and in flight", steps: chain(response.Step{State: response.Failed, Class: queue.GuestTrap, Tries: 1, Effects: "pure"}, running(2, "pure")), ask: []string{"/1 failed"}},
		{name: "the policy's retry of a once step", steps: chain(began(response.Step{State: response.Planned, Verdict: response.Retry, Tries: 1, Effects: "once"})), settle: []string{"/1 failed"}},
		{name: "the policy's retry of a once step that ran out of the tenant's fuel amid its effects", steps: chain(began(response.Step{State: response.Planned, Verdict: response.Retry, Tries: 1, Effects: "once", Class: queue.GuestThrottled})), settle: []string{"/1 failed"}},
		{name: "the policy's retry of a once step without an effect", steps: chain(response.Step{State: response.Planned, Verdict: response.Retry, Tries: 1, Effects: "once", Class: queue.GuestTrap}), run: []string{"/1 planned"}},
		{name: "the policy's retry of an idempotent step", steps: chain(began(response.Step{State: response.Planned, Verdict: response.Retry, Tries: 1, Effects: "idempotent"})), run: []string{"/1 planned"}},
		{name: "all done", steps: chain(done, done), run: []string{"/3 planned"}},
		{name: "siblings before the model call settle nothing", steps: []response.Step{{Kind: response.ModelCall, State: response.Running, Attempt: 1, Tries: 1}}, run: []string{"/0 planned"}},
		{name: "too late to run", steps: chain(planned, done), age: time.Hour, settle: []string{"/1 skipped"}},
		{name: "too late for a model call", steps: chain(done), age: time.Hour, action: response.Fail},
		{name: "unreadable output", steps: []response.Step{{Kind: response.ModelCall, State: response.Completed, Output: []byte("x")}}, action: response.Fail},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.action == "" {
				tc.action = response.Do
			}
			p := response.Next(response.View{
				Request: &response.Request{Model: "m"}, Steps: tc.steps, Attempt: 2, Age: tc.age,
				Tools: map[string]response.ServerTool{"t": {Effects: "pure"}},
				Caps:  response.Caps{Wall: time.Minute * 30},
			})
			got := []any{p.Action, keys(p.Settle), keys(p.Ask), keys(p.Run), p.Wait}
			want := []any{tc.action, tc.settle, tc.ask, tc.run, tc.wait}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			for _, s := range p.Settle {
				if !s.Settled() || len(s.Output) == 0 {
					t.Errorf("settled step %s: state %s, output %q", s.Key(), s.State, s.Output)
				}
			}
		})
	}
}

// A chain that a host of the version before began has no lists: none is asked
// for any more, whatever its first model call came to.
func TestNextOfEarlierChain(t *testing.T) {
	req, err := response.ParseRequest([]byte(`{"model":"m","input":"hi","tools":[{"type":"mcp","server_label":"near"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []response.Step{
		{State: response.Running, Attempt: 1, Tries: 1},
		{State: response.Planned, Attempt: 1, Tries: 1},
		{State: response.Completed, Attempt: 1, Tries: 1, Output: response.ModelOutput{Calls: []response.Call{{ID: "c", Name: "add", Arguments: "{}"}}}.Encode()},
	} {
		s.Kind, s.RetryAfter = response.ModelCall, -1
		p := response.Next(response.View{
			Request: req, Steps: []response.Step{s}, Attempt: 2, Lists: response.Lists(response.Brief{Request: req}),
			Tools: map[string]response.ServerTool{"add": {Offer: response.Offer{Name: "add", Plugin: "near", Tool: "add"}}},
		})
		if len(p.Run) != 1 || len(p.Settle)+len(p.Record) > 0 || p.Run[0].Kind == response.ListTools {
			t.Errorf("after a model call that is %s: %+v", s.State, p)
		}
	}
}
