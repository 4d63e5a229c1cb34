package response_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

func agentStep(state response.StepState) response.Step {
	return response.Step{Ordinal: 1, Kind: response.ToolCall, Plugin: response.AgentLabel, Tool: "helper", Effects: "once", State: state, Tries: 1, Attempt: 1, EffectStarted: true}
}

func TestAgentRequest(t *testing.T) {
	schema := json.RawMessage(`{"type":"object"}`)
	for _, tt := range []struct {
		parameters json.RawMessage
		arguments  string
		content    string
	}{
		{nil, `{"input":"do it"}`, "do it"},
		{nil, `{"task":"do it"}`, `{"task":"do it"}`},
		{schema, `{"input":"do it"}`, `{"input":"do it"}`},
	} {
		r := response.AgentRequest(response.AgentBrief{Model: "m", Instructions: "be brief", Parameters: tt.parameters}, []byte(tt.arguments))
		var msg struct{ Type, Role, Content string }
		if err := json.Unmarshal(r.Input[0].Raw, &msg); err != nil {
			t.Fatal(err)
		}
		if r.Model != "m" || *r.Instructions != "be brief" || msg.Type != "message" || msg.Role != "user" || msg.Content != tt.content {
			t.Errorf("%s: got %+v asked %+v", tt.arguments, r, msg)
		}
	}
}

func TestEndAgent(t *testing.T) {
	said := func(text, refusal string) response.Step {
		out := response.ModelOutput{Text: text, Refusal: refusal, Finish: "stop"}
		return response.Step{Scope: "/1", Ordinal: 2, Kind: response.ModelCall, State: response.Completed, Output: out.Encode()}
	}
	earlier := said("not this", "")
	earlier.Ordinal = 0
	for _, tt := range []struct {
		name  string
		plan  response.Plan
		steps []response.Step
		state response.StepState
		want  string
	}{
		{"its last text", response.Plan{Action: response.Complete}, []response.Step{said("done", ""), earlier}, response.Completed, "done"},
		{"a refusal", response.Plan{Action: response.Complete}, []response.Step{said("", "no")}, response.Completed, "no"},
		{"cut", response.Plan{Action: response.Incomplete, Reason: "max_output_tokens"}, []response.Step{said("do", "")}, response.Failed, "agent_incomplete"},
		{"failed", response.Plan{Action: response.Fail, Failure: &response.Failure{Message: "The model is rate limited."}}, nil, response.Failed, "rate limited"},
		{"without a reason", response.Plan{Action: response.Fail}, nil, response.Failed, "agent_failed"},
		{"nothing was said", response.Plan{Action: response.Complete}, nil, response.Failed, "agent_failed"},
	} {
		s := response.EndAgent(agentStep(response.Running), tt.plan, tt.steps)
		if s.State != tt.state || !s.Settled() || !strings.Contains(string(s.Output), tt.want) {
			t.Errorf("%s: got %s %q, want %s with %q", tt.name, s.State, s.Output, tt.state, tt.want)
		}
		if r := response.Receipt(s); r.Failed != (tt.state == response.Failed) || r.Failed && r.Error != s.Code {
			t.Errorf("%s: receipt %+v", tt.name, r)
		}
	}
}

// L10: an agent is descended into again, never abandoned, and no policy is
// asked about its end.
func TestAgentInFlight(t *testing.T) {
	v := response.View{Request: &response.Request{Model: "m"}, Attempt: 2, Tools: map[string]response.ServerTool{}}
	v.Steps = chain(agentStep(response.Running))
	if got := keys(response.Next(v).Run); !reflect.DeepEqual(got, []string{"/1 planned"}) {
		t.Errorf("its worker died: run %v, want it again", got)
	}
	s := agentStep(response.Failed)
	s.Class, s.Output = queue.UpstreamNetwork, []byte("why")
	v.Steps = chain(s)
	p := response.Next(v)
	if got := keys(p.Settle); !reflect.DeepEqual(got, []string{"/1 failed"}) || string(p.Settle[0].Output) != "why" {
		t.Errorf("it failed: got %+v, want it settled as it is", p)
	}
}

// L10: agents that call agents come to an end.
func TestAgentDepth(t *testing.T) {
	out := response.ModelOutput{Finish: "tool_calls", Calls: []response.Call{{ID: "c", Name: "helper", Arguments: "{}"}, {ID: "d", Name: "t", Arguments: "{}"}}}
	tools := map[string]response.ServerTool{
		"helper": {Offer: response.Offer{Plugin: response.AgentLabel, Tool: "helper"}, Agent: &response.AgentBrief{}},
		"t":      {Offer: response.Offer{Plugin: "p", Tool: "t"}},
	}
	for depth := range 10 {
		scope := strings.Repeat("/1", depth)
		p := response.Next(response.View{
			Request: &response.Request{Model: "m"}, Scope: scope, Attempt: 1, Tools: tools,
			Steps: []response.Step{{Scope: scope, Kind: response.ModelCall, State: response.Completed, Output: out.Encode()}},
		})
		deep := len(p.Settle) == 1 && p.Settle[0].Code == "depth" && p.Settle[0].Tool == "helper"
		if want := depth >= response.MaxAgentDepth; deep != want || !want && len(p.Run) != 2 {
			t.Errorf("at depth %d: got %+v", depth, p)
		}
	}
}

// Inside an agent nobody can be asked for approval.
func TestAgentAsksNobody(t *testing.T) {
	out := response.ModelOutput{Finish: "tool_calls", Calls: []response.Call{{ID: "c", Name: "t", Arguments: "{}"}}}
	v := response.View{
		Request: &response.Request{Model: "m"}, Attempt: 1,
		Tools: map[string]response.ServerTool{"t": {Offer: response.Offer{Plugin: "p", Tool: "t"}, Approval: true}},
	}
	for scope, want := range map[string]string{"": "complete []", "/1": "do [/1/1 skipped]"} {
		v.Scope = scope
		v.Steps = []response.Step{{Scope: scope, Kind: response.ModelCall, State: response.Completed, Output: out.Encode()}}
		p := response.Next(v)
		if got := fmt.Sprint(p.Action, " ", keys(p.Settle)); got != want {
			t.Errorf("in scope %q: got %s, want %s", scope, got, want)
		}
	}
}

// Caps and max_output_tokens are about all scopes, an agent's own cap about its.
func TestScopesCountTogether(t *testing.T) {
	limit := int64(100)
	for _, tt := range []struct {
		name   string
		change func(*response.View)
		action response.Action
	}{
		{"room", func(*response.View) {}, response.Do},
		{"model calls", func(v *response.View) { v.Caps.ModelCalls, v.NestedModels = 4, 3 }, response.Fail},
		{"model calls of the agent", func(v *response.View) { v.MaxModelCalls = 1 }, response.Fail},
		{"room for the agent's", func(v *response.View) { v.MaxModelCalls, v.NestedModels = 2, 5 }, response.Do},
		{"tokens", func(v *response.View) { v.Caps.Tokens, v.NestedUsage = 60, response.Usage{Input: 30, Output: 20} }, response.Incomplete},
		{"output tokens", func(v *response.View) { v.Request.MaxOutputTokens, v.NestedUsage.Output = &limit, 95 }, response.Incomplete},
		{"room for output", func(v *response.View) { v.Request.MaxOutputTokens, v.NestedUsage.Output = &limit, 90 }, response.Do},
	} {
		v := response.View{
			Request: &response.Request{Model: "m"}, Attempt: 1,
			Steps: chain(response.Step{State: response.Completed, Effects: "pure"}),
		}
		v.Steps[0].Usage = response.Usage{Input: 5, Output: 5}
		tt.change(&v)
		if p := response.Next(v); p.Action != tt.action {
			t.Errorf("%s: got %+v, want %s", tt.name, p, tt.action)
		}
	}
}

// Lists and approved calls are bound by the caps too.
func TestBeforeTheModelIsCapped(t *testing.T) {
	approved := []response.Approved{{RequestID: "1", Call: response.Call{Name: "t", Arguments: "{}"}, Approve: true}, {RequestID: "2", Call: response.Call{Name: "t", Arguments: "{}"}, Approve: true}}
	one := int64(1)
	for _, tt := range []struct {
		name string
		view response.View
		want string
	}{
		{"lists", response.View{Lists: []string{"a", "b", "c"}, Caps: response.Caps{Steps: 2}}, "fail [] [] []"},
		{"width", response.View{Lists: []string{"a", "b", "c"}, Caps: response.Caps{FanOut: 2}}, "do [/0 planned /1 planned] [/2 planned] []"},
		{"calls", response.View{Approved: approved, Caps: response.Caps{ToolCalls: 1}}, "fail [] [] []"},
		{"max_tool_calls", response.View{Approved: approved, Request: &response.Request{MaxToolCalls: &one}}, "do [] [/0 planned] [/1 skipped]"},
	} {
		v := tt.view
		v.Attempt = 1
		if v.Request == nil {
			v.Request = &response.Request{Model: "m"}
		}
		v.Tools = map[string]response.ServerTool{"t": {Offer: response.Offer{Plugin: "p", Tool: "t"}}}
		p := response.Next(v)
		if got := fmt.Sprint(p.Action, " ", keys(p.Run), " ", keys(p.Record), " ", keys(p.Settle)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// A list that failed is asked about unless its server said that it is of no use.
func TestFailedLists(t *testing.T) {
	for code, asked := range map[string]bool{"unreachable": true, "timeout": true, "": true, "denied": false, "unauthorized": false, "invalid": false} {
		s := response.Step{Kind: response.ListTools, Plugin: "far", State: response.Failed, Class: queue.UpstreamNetwork, Code: code, Tries: 1, Attempt: 1}
		p := response.Next(response.View{Request: &response.Request{Model: "m"}, Attempt: 1, Lists: []string{"far"}, Steps: []response.Step{s}})
		if got := len(p.Ask) == 1; got != asked || !got && (len(p.Settle) != 1 || len(p.Settle[0].Output) == 0) {
			t.Errorf("%q: got %+v, want asked %t", code, p, asked)
		}
	}
}

// What is open below an agent that ended is closed, model calls included.
func TestCloseBelowAgent(t *testing.T) {
	open := func(scope string, kind response.StepKind, state response.StepState) response.Step {
		return response.Step{Scope: scope, Kind: kind, State: state}
	}
	got := keys(response.CloseNested(agentStep(response.Failed), []response.Step{
		open("/1", response.ModelCall, response.Running), open("/1/1", response.ModelCall, response.Planned),
		open("/1/2", response.ToolCall, response.Running), open("/12", response.ModelCall, response.Running),
	}))
	if want := []string{"/1/0 failed", "/1/1/0 skipped", "/1/2/0 abandoned"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
