package response

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/queue"
)

// has reports whether there is a step with the ordinal.
func (p *planner) has(ordinal int) bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Ordinal == ordinal })
}

// executed counts the tool calls that were not skipped.
func (p *planner) executed() int {
	n := 0
	for _, s := range p.Steps {
		if s.Kind == ToolCall && s.State != Skipped {
			n++
		}
	}
	return n
}

// before plans the steps before the first model call; false when all are
// there. Each has the ordinal that its place gives it.
func (p *planner) before() (Plan, bool) {
	var lists []Step
	for i, label := range p.Lists {
		if !p.has(i) {
			lists = append(lists, Step{Scope: p.Scope, Ordinal: i, Kind: ListTools, State: Planned, Plugin: label, RetryAfter: -1})
		}
	}
	if len(lists) > 0 {
		return p.fanOut(lists, 0), true
	}
	set, executed := p.toolset(), p.executed()
	var calls []Step
	for i, a := range p.Approved {
		ordinal := len(p.Lists) + i
		if p.has(ordinal) {
			continue
		}
		s := p.approvedCall(set, a, ordinal, executed)
		if s.State != Skipped {
			executed++
		}
		calls = append(calls, s)
	}
	if len(calls) == 0 {
		return Plan{}, false
	}
	// They are recorded at once, whatever becomes of each: that is their order.
	plan := p.fanOut(calls, executed)
	if skipped, rest := parted(calls); plan.Action == Do && len(skipped) > 0 {
		plan = Plan{Action: Do, Settle: skipped, Record: rest}
	}
	return plan, true
}

// parted parts steps that were skipped from the others.
func parted(steps []Step) (skipped, rest []Step) {
	for _, s := range steps {
		if s.Settled() {
			skipped = append(skipped, s)
		} else {
			rest = append(rest, s)
		}
	}
	return skipped, rest
}

// fanOut plans new steps as far as there is room for them; executed counts the
// tool calls with them.
func (p *planner) fanOut(fresh []Step, executed int) Plan {
	switch {
	case executed+p.NestedCalls > p.caps.ToolCalls:
		return overCap(fmt.Sprintf("The response reached its limit of %d tool calls.", p.caps.ToolCalls))
	case len(p.Steps)+p.NestedSteps+len(fresh) > p.caps.Steps:
		return overCap(fmt.Sprintf("The response reached its limit of %d steps.", p.caps.Steps))
	}
	width := min(p.caps.FanOut, len(fresh))
	return Plan{Action: Do, Run: fresh[:width], Record: fresh[width:]}
}

// direct plans the one call of a response without a model.
func (p *planner) direct() Plan {
	if p.has(0) {
		return Plan{Action: Complete}
	}
	s := p.toolCall(p.toolset(), *p.Direct, 0, 0)
	if s.Settled() {
		return Plan{Action: Do, Settle: []Step{s}}
	}
	return Plan{Action: Do, Run: []Step{s}}
}

func (p *planner) toolset() toolset {
	tools := make([]ServerTool, 0, len(p.Tools))
	for name, t := range p.Tools {
		t.Name = name
		tools = append(tools, t)
	}
	return newToolset(p.Request, tools)
}

// calls plans what follows a model call that called tools. Every call that does
// not end the response, as the client's functions and calls that wait for
// approval do, gets the ordinal after base that its place gives it, so that
// planning twice gives the same steps.
func (p *planner) calls(base int, calls []Call) Plan {
	set := p.toolset()
	toClient, ordinal, executed := false, base, p.executed()
	var fresh []Step
	for _, c := range calls {
		if set.origin(c.Name) == client || p.Scope == "" && set.asks(c.Name) {
			toClient = true
			continue
		}
		ordinal++
		if p.has(ordinal) {
			continue
		}
		s := p.toolCall(set, c, ordinal, executed)
		if s.State != Skipped {
			executed++
		}
		fresh = append(fresh, s)
	}
	switch {
	case len(fresh) == 0 && toClient:
		return Plan{Action: Complete}
	case len(fresh) == 0:
		return p.modelCall()
	}
	plan := p.fanOut(fresh, executed)
	if skipped, _ := parted(fresh); plan.Action == Do && len(skipped) > 0 {
		return Plan{Action: Do, Settle: skipped}
	}
	return plan
}

const (
	codeMaxToolCalls = "max_tool_calls"
	codeUnknownTool  = "unknown_tool"
	codeNotAllowed   = "tool_not_allowed"
	codeDepth        = "depth"
	unknownTool      = "There is no tool with this name."
)

// newCall returns the step of a call of tool that can be run.
func (p *planner) newCall(tool ServerTool, c Call, ordinal int) Step {
	s := Step{
		Scope: p.Scope, Ordinal: ordinal, Kind: ToolCall, State: Planned, CallID: c.ID,
		Tool: tool.Tool, Plugin: tool.Plugin, Effects: tool.Effects, Generation: tool.Generation,
		Input: []byte(c.Arguments), RetryAfter: -1,
	}
	if !s.harmless() {
		s.Effects = "once"
	}
	return s
}

// toolCall returns the step of one call, skipped if it cannot be run.
func (p *planner) toolCall(set toolset, c Call, ordinal, executed int) Step {
	tool, ok := set.tools[c.Name]
	s := p.newCall(tool, c, ordinal)
	switch {
	case !ok && !set.known(c.Name):
		s.Tool = c.Name
		return s.skip(codeUnknownTool, unknownTool)
	case set.origin(c.Name) == nobody || p.Scope != "" && tool.Approval:
		if !ok {
			s.Tool = c.Name
		}
		return s.skip(codeNotAllowed, "This tool must not be called here.")
	}
	return p.checked(s, tool, executed)
}

// approvedCall returns the step of a call that the client was asked for,
// skipped if it was denied or cannot be run. The choice of tools that the
// request leaves to its model does not bind the client's own.
func (p *planner) approvedCall(set toolset, a Approved, ordinal, executed int) Step {
	tool, ok := set.tools[a.Call.Name]
	if !ok {
		tool.Plugin, tool.Tool = a.Label, a.Tool
	}
	c := a.Call
	c.ID = a.RequestID
	s := p.newCall(tool, c, ordinal)
	switch {
	case !a.Approve && a.Reason != "":
		return s.skip(codeDenied, "denied by the user: "+a.Reason)
	case !a.Approve:
		return s.skip(codeDenied, "denied by the user")
	case !ok:
		return s.skip(codeUnknownTool, unknownTool)
	}
	return p.checked(s, tool, executed)
}

// checked returns the step, skipped if what it is asked for is too much.
func (p *planner) checked(s Step, tool ServerTool, executed int) Step {
	if s.Agent() && strings.Count(p.Scope, "/") >= MaxAgentDepth {
		return s.skip(codeDepth, "Agents cannot be called from here: too many of them wait for this one.")
	}
	if why := broken(p.Check, tool, s.Input); why != "" {
		return s.skip(codeInvalidArgs, why)
	}
	if limit := p.Request.MaxToolCalls; limit != nil && int64(executed) >= *limit {
		return s.skip(codeMaxToolCalls, "No more tools may be called. Answer with what you have.")
	}
	return s
}

func (s Step) skip(code, message string) Step {
	s.State, s.Verdict, s.Class, s.Code = Skipped, Final, queue.GuestError, code
	s.Output = ErrorOutput(code, message)
	return s
}

// broken says why the arguments cannot be given to the tool; "" if they can.
func broken(check func(ServerTool, []byte) error, tool ServerTool, args []byte) string {
	trimmed := bytes.TrimSpace(args)
	if !json.Valid(trimmed) || trimmed[0] != '{' {
		return fmt.Sprintf("The arguments are not a JSON object: %.200q.", trimmed)
	}
	if check == nil {
		return ""
	}
	if err := check(tool, trimmed); err != nil {
		return fmt.Sprintf("The arguments do not match the tool's schema: %.1000s", err)
	}
	return ""
}
