package response

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// View is what Next looks at.
type View struct {
	Request *Request
	Scope   string                // of new steps
	Steps   []Step                // of one scope
	Attempt int                   // the request's
	Tools   map[string]ServerTool // by Offer.Name
	// Check holds arguments against a tool's schema; the text of its error is
	// shown to the model. nil: not checked.
	Check func(ServerTool, []byte) error
	Caps  Caps
	// NestedSteps and NestedCalls count the steps in the scopes of Steps, and of
	// them those that were not skipped. They count toward Caps, but not toward
	// the request's max_tool_calls, which is about the calls that the client sees.
	NestedSteps, NestedCalls int
	Age                      time.Duration

	// Before the first model call come, in this order: a ListTools step for each
	// label of Lists, and a call for each of Approved.
	Lists    []string
	Approved []Approved
	Direct   *Call // the one call of a response without a model
}

// Approved is a call that waited for the client's approval, and what it said.
type Approved struct {
	RequestID string // of the mcp_approval_request
	Call      Call   // Name is the offered one; ID is the request's
	Approve   bool
	Reason    string
}

// Action says how to read a Plan.
type Action string

// The actions. With Do, exactly one of Settle, Ask, or Run with Record and Wait is set.
const (
	Do         Action = "do"
	Complete   Action = "complete"
	Incomplete Action = "incomplete"
	Fail       Action = "fail"
)

// Plan is what comes next.
type Plan struct {
	Action Action
	// Settle: settled steps, some of them new. Set them, then ask Next again.
	Settle []Step
	// Ask: failed tries. Ask the retry policy, set Verdict (Retry: State Planned
	// too), then ask Next again.
	Ask []Step
	// Run: record as running and run; some of them are new.
	Run []Step
	// Record: new steps for which there is no room yet. Record them as planned
	// with Run, so that a fan-out is recorded before any of it runs.
	Record  []Step
	Wait    bool     // steps of this attempt still run
	Reason  string   // of Incomplete: "max_output_tokens" or "content_filter"
	Failure *Failure // of Fail
}

// Next plans what follows a chain. It is pure, and looks at the frontier, every
// step that is not settled, before it looks at anything that is: the order in
// which siblings end changes nothing.
func Next(v View) Plan {
	p := planner{v, v.Caps.withDefaults(), slices.Clone(v.Steps)}
	slices.SortFunc(p.Steps, func(a, b Step) int { return a.Ordinal - b.Ordinal })
	if plan, open := p.frontier(); open {
		return plan
	}
	last := p.lastModelCall()
	if last == nil {
		return p.modelCall()
	}
	if last.State != Completed {
		return Plan{Action: Fail, Failure: FailureOf(*last)}
	}
	out, err := DecodeModelOutput(last.Output)
	if err != nil {
		return Plan{Action: Fail, Failure: FailureOf(Step{Class: queue.HostError})}
	}
	switch {
	case out.Finish == finishLength:
		return Plan{Action: Incomplete, Reason: reasonTokens}
	case out.Finish == finishFilter:
		return Plan{Action: Incomplete, Reason: finishFilter}
	case len(out.Calls) == 0:
		return Plan{Action: Complete}
	}
	return p.calls(last.Ordinal, out.Calls)
}

const reasonTokens = "max_output_tokens"

// planner is one question to Next.
type planner struct {
	View
	caps  Caps
	Steps []Step // a copy, by ordinal
}

// frontier plans for the steps that are not settled; false when there are none.
func (p *planner) frontier() (Plan, bool) {
	var settle, ask, run []Step
	running, late := 0, p.caps.Wall > 0 && p.Age >= p.caps.Wall
	for _, s := range p.Steps {
		if s.Settled() {
			continue
		}
		begun := s.State == Running && s.Attempt < p.Attempt
		switch {
		case s.State == Running && !begun:
			running++
		case begun && !s.Repeatable():
			settle = append(settle, s.end(Abandoned, queue.StepAbandoned, "step_abandoned"))
		case late:
			settle = append(settle, s.end(lateState(s), queue.ClassDeadline, "timeout"))
		case s.State == Failed && s.Verdict == Unasked && !s.told():
			ask = append(ask, s)
		case s.State == Failed && s.Verdict == Unasked, s.Began() && !begun && !s.Repeatable():
			settle = append(settle, s.end(Failed, s.Class, s.Code))
		default:
			run = append(run, s.Again())
		}
	}
	switch {
	case len(settle) > 0:
		return Plan{Action: Do, Settle: settle}, true
	case len(ask) > 0:
		return Plan{Action: Do, Ask: ask}, true
	case len(run) > 0 || running > 0:
		room := max(0, p.caps.FanOut-running)
		return Plan{Action: Do, Run: run[:min(room, len(run))], Wait: running > 0}, true
	}
	return Plan{}, false
}

// lateState is how a step that was not run in time ends: a model call fails
// the response, a tool call is told to nobody but recorded.
func lateState(s Step) StepState {
	if s.Kind == ModelCall || s.Tries > 0 {
		return Failed
	}
	return Skipped
}

// Again is the step before its next try: nothing is left of the last one but
// what it used and whether it began an effect.
func (s Step) Again() Step {
	s.State, s.Verdict, s.Output = Planned, Unasked, nil
	s.Class, s.Status, s.Code, s.RetryAfter = "", 0, "", -1
	s.Detail, s.Log = "", ""
	return s
}

// told reports whether a failed tool call goes to the model without a question
// to the retry policy: the tool itself said that another try is of no use.
func (s Step) told() bool {
	if s.Kind != ToolCall || s.Class != queue.GuestError {
		return false
	}
	switch s.Code {
	case codeInvalidArgs, "not_found", "denied", "permanent":
		return true
	}
	return false
}

const codeInvalidArgs = "invalid_args"

// end settles the step, with an error output where it needs one and has none.
func (s Step) end(state StepState, class queue.Class, code string) Step {
	s.State, s.Verdict, s.Class, s.Code = state, Final, class, code
	if s.Kind == ToolCall && (len(s.Output) == 0 || state == Abandoned) {
		s.Output = ErrorOutput(toolFailure(s))
	}
	return s
}

func (p *planner) lastModelCall() *Step {
	for i := len(p.Steps) - 1; i >= 0; i-- {
		if p.Steps[i].Kind == ModelCall {
			return &p.Steps[i]
		}
	}
	return nil
}

// modelCall plans the next model call, if no cap is in its way.
func (p *planner) modelCall() Plan {
	used, calls, ordinal := TotalUsage(p.Steps), 0, 0
	for _, s := range p.Steps {
		if s.Kind == ModelCall {
			calls++
		}
		ordinal = max(ordinal, s.Ordinal+1)
	}
	limit := p.Request.MaxOutputTokens
	switch {
	case limit != nil && used.Output >= *limit, p.caps.Tokens > 0 && used.Input+used.Output >= p.caps.Tokens:
		return Plan{Action: Incomplete, Reason: reasonTokens}
	case calls >= p.caps.ModelCalls:
		return overCap(fmt.Sprintf("The response reached its limit of %d model calls.", p.caps.ModelCalls))
	case len(p.Steps)+p.NestedSteps >= p.caps.Steps:
		return overCap(fmt.Sprintf("The response reached its limit of %d steps.", p.caps.Steps))
	case p.caps.Wall > 0 && p.Age >= p.caps.Wall:
		return Plan{Action: Fail, Failure: FailureOf(Step{Class: queue.ClassDeadline})}
	}
	return Plan{Action: Do, Run: []Step{{Scope: p.Scope, Ordinal: ordinal, Kind: ModelCall, State: Planned, RetryAfter: -1}}}
}

func overCap(message string) Plan {
	return Plan{Action: Fail, Failure: &Failure{Code: "server_error", Message: message, Status: 500, Class: queue.HostError, Final: true}}
}

// calls plans what follows a model call that called tools. Every call that is
// not a client function's gets the ordinal after base that its place gives it,
// so that planning twice gives the same steps.
func (p *planner) calls(base int, calls []Call) Plan {
	tools := make([]ServerTool, 0, len(p.Tools))
	for name, t := range p.Tools {
		t.Name = name
		tools = append(tools, t)
	}
	set := newToolset(p.Request, tools)
	toClient, ordinal, executed := false, base, 0
	for _, s := range p.Steps {
		if s.Kind == ToolCall && s.State != Skipped {
			executed++
		}
	}
	var fresh []Step
	for _, c := range calls {
		if set.origin(c.Name) == client {
			toClient = true
			continue
		}
		ordinal++
		if slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Ordinal == ordinal }) {
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
	case executed+p.NestedCalls > p.caps.ToolCalls:
		return overCap(fmt.Sprintf("The response reached its limit of %d tool calls.", p.caps.ToolCalls))
	case len(p.Steps)+p.NestedSteps+len(fresh) > p.caps.Steps:
		return overCap(fmt.Sprintf("The response reached its limit of %d steps.", p.caps.Steps))
	}
	if skipped := slices.DeleteFunc(slices.Clone(fresh), func(s Step) bool { return !s.Settled() }); len(skipped) > 0 {
		return Plan{Action: Do, Settle: skipped}
	}
	width := min(p.caps.FanOut, len(fresh))
	return Plan{Action: Do, Run: fresh[:width], Record: fresh[width:]}
}

const (
	codeMaxToolCalls = "max_tool_calls"
	codeUnknownTool  = "unknown_tool"
	unknownTool      = "There is no tool with this name."
)

// toolCall returns the step of one call, skipped if it cannot be run.
func (p *planner) toolCall(set toolset, c Call, ordinal, executed int) Step {
	tool, ok := set.tools[c.Name]
	s := Step{
		Scope: p.Scope, Ordinal: ordinal, Kind: ToolCall, State: Planned, CallID: c.ID,
		Tool: tool.Tool, Plugin: tool.Plugin, Effects: tool.Effects, Generation: tool.Generation,
		Input: []byte(c.Arguments), RetryAfter: -1,
	}
	if !s.harmless() {
		s.Effects = "once"
	}
	switch {
	case !ok && !set.known(c.Name):
		s.Tool = c.Name
		return s.skip(codeUnknownTool, unknownTool)
	case set.origin(c.Name) == nobody:
		if !ok {
			s.Tool = c.Name
		}
		return s.skip("tool_not_allowed", "This tool must not be called here.")
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
