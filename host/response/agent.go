package response

import (
	"encoding/json"

	"github.com/casemate/casemate/host/queue"
)

// MaxAgentDepth is how deep agents may call agents: the scope of an agent that
// the response's own model calls is at depth 1.
const MaxAgentDepth = 8

// Agent reports whether the step is a call of an agent. It is not run but
// descended into: what it does are the steps of the scope that is its Key.
func (s Step) Agent() bool { return s.Kind == ToolCall && s.Plugin == AgentLabel }

// The codes of an agent's call that has no result.
const (
	codeAgentIncomplete = "agent_incomplete"
	codeAgentFailed     = "agent_failed"
)

// AgentRequest is what the model of an agent is asked. An agent that takes no
// other arguments than a text is asked that text.
func AgentRequest(a AgentBrief, arguments []byte) *Request {
	r := &Request{Model: a.Model}
	if a.Instructions != "" {
		r.Instructions = &a.Instructions
	}
	content := string(arguments)
	var in struct{ Input *string }
	if isNull(a.Parameters) && json.Unmarshal(arguments, &in) == nil && in.Input != nil {
		content = *in.Input
	}
	raw := marshal(map[string]any{"type": itemMessage, "role": "user", "content": content})
	r.Input = []Item{{Type: itemMessage, Raw: raw}}
	return r
}

// EndAgent settles an agent's call by the plan that ended its scope, whose
// steps are given: its output is the text of the last model call.
func EndAgent(s Step, p Plan, steps []Step) Step {
	code, message := codeAgentFailed, "The agent failed."
	switch p.Action {
	case Complete:
		if out, ok := lastOutput(steps); ok {
			s.State, s.Verdict, s.Class, s.Code = Completed, Unasked, queue.OK, ""
			s.Output = []byte(out.Text + out.Refusal)
			return s
		}
	case Incomplete:
		code, message = codeAgentIncomplete, "The agent did not come to an end: "+p.Reason+"."
	case Fail:
		if p.Failure != nil {
			message = "The agent failed: " + p.Failure.Message
		}
	case Do: // does not end a scope
	}
	s.State, s.Verdict, s.Class, s.Code = Failed, Final, queue.GuestError, code
	s.Output = ErrorOutput(code, message)
	return s
}

// lastOutput is the output of the last model call of a scope.
func lastOutput(steps []Step) (ModelOutput, bool) {
	last := -1
	for i, s := range steps {
		if s.Kind == ModelCall && s.State == Completed && (last < 0 || s.Ordinal > steps[last].Ordinal) {
			last = i
		}
	}
	if last < 0 {
		return ModelOutput{}, false
	}
	out, err := DecodeModelOutput(steps[last].Output)
	return out, err == nil
}
