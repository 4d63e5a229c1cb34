package response

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/queue"
)

// MaxNesting is how deep tools may call tools. The model's own calls are at
// depth 0.
const MaxNesting = 4

// NestedCall is what a tool that runs asks another tool for.
type NestedCall struct {
	Parent    Step
	N         int    // its place among the calls of the parent's try, from 0
	Tool      string // as the model would name it
	Arguments []byte // as the tool wrote them
}

// NestedView is what NextNested looks at.
type NestedView struct {
	NestedCall
	Steps []Step                // of the parent's scope
	Tools map[string]ServerTool // by Offer.Name
	Check func(ServerTool, []byte) error
}

// NestedPlan says what becomes of a nested call: one of Answer and Run is set.
type NestedPlan struct {
	Answer *Step  // settled: its receipt is the answer
	Run    *Step  // to be begun
	Settle []Step // to be written, the answer among them unless it is stored
	New    bool   // Answer or Run is a step that was not there
}

// NestedID names a nested call among those of its parent: by its place, and by
// the digest of what is asked for, so that a new try of the parent is only given
// the result of what it asks for again.
func NestedID(n int, tool string, arguments []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "tool.call/1\n%d\n%s", len(tool), tool)
	h.Write(arguments)
	return strconv.Itoa(n) + ":" + hex.EncodeToString(h.Sum(nil))
}

// NextNested plans one nested call. What a try of the parent asked for, and is
// asked for again in the same place by a later try, is answered from what is
// stored, unless it failed in a way that may pass. A call that differs takes
// the place of the stored one and of all that came after it: those stay as they
// are, a new step is added behind them, and nothing is answered from them any
// more. So each thing that was done once has a step, and a key, of its own.
func NextNested(v NestedView) NestedPlan {
	id := NestedID(v.N, v.Tool, v.Arguments)
	valid := validNested(v.Steps)
	at := slices.IndexFunc(valid, func(s Step) bool { return s.CallID == id })
	if at < 0 {
		return v.fresh(id, valid)
	}
	s := valid[at]
	if s.State == Running && !s.Repeatable() {
		s = s.end(Abandoned, queue.StepAbandoned, "step_abandoned")
		return NestedPlan{Answer: &s, Settle: []Step{s}}
	}
	if s.Settled() {
		return NestedPlan{Answer: &s}
	}
	s = s.Again()
	return NestedPlan{Run: &s}
}

// validNested returns the steps that calls may be answered from: each takes the
// place of every earlier one whose call had its place or a later one.
func validNested(steps []Step) []Step {
	sorted := slices.Clone(steps)
	slices.SortFunc(sorted, func(a, b Step) int { return a.Ordinal - b.Ordinal })
	var valid []Step
	for _, s := range sorted {
		n := s.place()
		valid = slices.DeleteFunc(valid, func(earlier Step) bool { return earlier.place() >= n })
		valid = append(valid, s)
	}
	return valid
}

// place is a nested call's place among those of its parent.
func (s Step) place() int {
	place, _, _ := strings.Cut(s.CallID, ":")
	n, _ := strconv.Atoi(place)
	return n
}

// fresh adds a step for a call that no valid one answers.
func (v *NestedView) fresh(id string, valid []Step) NestedPlan {
	p := NestedPlan{New: true}
	for _, s := range valid {
		if s.place() >= v.N && !s.Settled() {
			p.Settle = append(p.Settle, s.close())
		}
	}
	s := v.step(id)
	if s.Settled() {
		p.Answer, p.Settle = &s, append(p.Settle, s)
		return p
	}
	p.Run = &s
	return p
}

// step returns the new step of the call, skipped if it cannot be run.
func (v *NestedView) step(id string) Step {
	tool, ok := v.Tools[v.Tool]
	s := Step{
		Scope: v.Parent.Key(), Kind: ToolCall, State: Planned, CallID: id,
		Tool: tool.Tool, Plugin: tool.Plugin, Effects: tool.Effects, Generation: tool.Generation,
		Input: v.Arguments, RetryAfter: -1,
	}
	for _, o := range v.Steps {
		s.Ordinal = max(s.Ordinal, o.Ordinal+1)
	}
	if !s.harmless() {
		s.Effects = "once"
	}
	if !ok {
		s.Tool = v.Tool
		return s.skip(codeUnknownTool, unknownTool)
	}
	if tool.Approval {
		return s.skip(codeNotAllowed, "This tool waits for the user's approval: only the model can ask for it.")
	}
	if why := broken(v.Check, tool, s.Input); why != "" {
		return s.skip(codeInvalidArgs, why)
	}
	return s
}

// EndNested settles a nested call that was run, as far as it is. One that
// failed stays open where a new try of its parent may try it again, under the
// same key; no retry policy is asked, since the parent decides what its failure
// means.
func EndNested(s Step) Step {
	if s.State == Failed && (s.told() || !s.Repeatable()) {
		s.Verdict = Final
	}
	return s
}

// CloseNested returns the open steps of a settled tool call, at whatever depth,
// settled: nobody will ask for them any more.
func CloseNested(parent Step, nested []Step) []Step {
	var closed []Step
	for _, s := range nested {
		if !s.Settled() && (s.Scope == parent.Key() || strings.HasPrefix(s.Scope, parent.Key()+"/")) {
			closed = append(closed, s.close())
		}
	}
	return closed
}

// close settles a step that is left behind.
func (s Step) close() Step {
	switch s.State {
	case Running:
		if s.Kind != ToolCall {
			return s.end(Failed, queue.StepAbandoned, "step_abandoned")
		}
		return s.end(Abandoned, queue.StepAbandoned, "step_abandoned")
	case Planned:
		return s.end(Skipped, queue.StepAbandoned, "step_abandoned")
	case Failed, Completed, Skipped, Abandoned:
	}
	return s.end(Failed, s.Class, s.Code)
}
