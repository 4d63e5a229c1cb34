package response

import (
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
	// NestedSteps counts the steps of all scopes but Scope, NestedCalls of them
	// the tool calls that were not skipped, NestedModels the model calls, and
	// NestedUsage is what those used. They count toward Caps and the request's
	// max_output_tokens, but not toward its max_tool_calls, which is about the
	// calls that the client sees.
	NestedSteps, NestedCalls, NestedModels int
	NestedUsage                            Usage
	MaxModelCalls                          int // in Scope alone, that of an agent; 0: no cap but Caps
	Age                                    time.Duration

	// Before the first model call come, in this order: a ListTools step for each
	// label of Lists, and a call for each of Approved.
	Lists    []string
	Approved []Approved
	Direct   *Call // the one call of a response without a model
}

// Approved is a call that waited for the client's approval, and what it said.
type Approved struct {
	RequestID   string // of the mcp_approval_request
	Label, Tool string // as the client was asked
	Call        Call   // Name is the offered one, "" if the tool is gone; ID is the request's
	Approve     bool
	Reason      string
}

// Action says how to read a Plan.
type Action string

// The actions. With Do, exactly one of Settle, Ask and Run is set, or Wait.
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
	// Record: new steps that do not run yet. Record them as planned with Run or
	// Settle, so that a fan-out is recorded before any of it runs.
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
	switch {
	case last == nil && p.Direct != nil:
		return p.direct()
	case last == nil:
		if plan, more := p.before(); more {
			return plan
		}
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

// told reports whether a failed step is told without a question to the retry
// policy: the tool or server itself said that another try is of no use, or the
// policy was asked of what an agent did.
func (s Step) told() bool {
	switch {
	case s.Agent():
		return true
	case s.Kind == ListTools:
		return slices.Contains([]string{"denied", "unauthorized", "invalid", "not_found"}, s.Code)
	case s.Kind != ToolCall || s.Class != queue.GuestError:
		return false
	}
	switch s.Code {
	case codeInvalidArgs, "not_found", codeDenied, "permanent":
		return true
	}
	return false
}

const (
	codeInvalidArgs = "invalid_args"
	codeDenied      = "denied"
)

// end settles the step, with an error output where it needs one and has none.
func (s Step) end(state StepState, class queue.Class, code string) Step {
	s.State, s.Verdict, s.Class, s.Code = state, Final, class, code
	if s.Kind != ModelCall && (len(s.Output) == 0 || state == Abandoned) {
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
	used, calls, ordinal := TotalUsage(p.Steps).Add(p.NestedUsage), 0, 0
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
	case p.MaxModelCalls > 0 && calls >= p.MaxModelCalls:
		return overCap(fmt.Sprintf("It reached its limit of %d model calls.", p.MaxModelCalls))
	case calls+p.NestedModels >= p.caps.ModelCalls:
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
