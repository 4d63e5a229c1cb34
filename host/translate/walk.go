package translate

import (
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/response"
)

// writer writes a conversation down in one API.
type writer interface {
	// message adds a message of any role.
	message(param string, m item) error
	// reasoning adds what a model thought.
	reasoning(m item)
	// called adds a call of the client's; output answers it, later in the items.
	called(param string, m, output item) error
	// answer adds an output where it stands in the items.
	answer(param string, output item) error
	// server adds a call of a tool of the host's with its result.
	server(id, name, arguments, result string)
	// turn adds what the model said in this response, with the results of its
	// tool calls by call id.
	turn(out response.ModelOutput, results map[string]string)
}

// unapproved is what the model is told of a call that waits for the client.
const unapproved = "The call was not approved yet, and was not made."

// walk writes down the context, the input and the steps of c. Items that no
// model is shown are left out.
func walk(c Call, w writer) error {
	items := c.Brief.Items()
	v := view{c: c, w: w, outputs: response.PairOutputs(items), approved: map[string]bool{}}
	for _, it := range items {
		if m, ok := readItem(it); ok && it.Type == "mcp_call" {
			v.approved[text(m.ApprovalID)] = true
		}
	}
	for _, s := range c.Steps {
		v.approved[s.CallID] = true
	}
	v.answered = map[int]bool{}
	for _, o := range v.outputs {
		v.answered[o] = true
	}
	for i, it := range items {
		if err := v.item(items, i, it); err != nil {
			return err
		}
	}
	return v.chain()
}

// view is a walk under way.
type view struct {
	c        Call
	w        writer
	outputs  map[int]int     // the output of each call of the client's
	answered map[int]bool    // the outputs that are one's
	approved map[string]bool // approval requests whose calls were made
}

func (v *view) item(items []response.Item, i int, it response.Item) error {
	m, ok := readItem(it)
	if !ok {
		return nil
	}
	param := fmt.Sprintf("input[%d]", max(i-len(v.c.Brief.Context), 0))
	switch it.Type {
	case "message":
		return v.w.message(param, m)
	case "reasoning":
		v.w.reasoning(m)
	case "compaction":
		if s, ok := response.CompactionSummary(it.Raw); ok {
			return v.w.message(param, item{Type: "message", Role: "developer", Content: marshal(s)})
		}
	case "function_call", "custom_tool_call":
		if o, ok := v.outputs[i]; ok {
			out, _ := readItem(items[o])
			return v.w.called(param, m, out)
		}
	case "function_call_output", "custom_tool_call_output":
		if v.answered[i] {
			return v.w.answer(param, m)
		}
	case "mcp_call":
		if result, ok := m.result(); ok {
			v.w.server(it.ID, v.offered(m), argumentsText(m.Arguments), result)
		}
	case "mcp_approval_request":
		if !v.approved[it.ID] {
			v.w.server(it.ID, v.offered(m), argumentsText(m.Arguments), unapproved)
		}
	}
	return nil
}

// offered is the name by which the model knows the tool of an mcp_call.
func (v *view) offered(m item) string { return v.name(text(m.ServerLabel), text(m.Name)) }

func (v *view) name(label, tool string) string {
	for _, s := range v.c.Tools {
		if s.Plugin == label && s.Tool == tool {
			return s.Name
		}
	}
	return tool
}

// chain adds the steps: calls that the client approved, then each model call
// that ended well with the calls that have an answer, each under its exact id.
func (v *view) chain() error {
	sorted := slices.Clone(v.c.Steps)
	slices.SortFunc(sorted, func(a, b response.Step) int { return a.Ordinal - b.Ordinal })
	first := slices.IndexFunc(sorted, func(s response.Step) bool { return s.Kind == response.ModelCall })
	if first < 0 {
		first = len(sorted)
	}
	for _, s := range sorted[:first] {
		if s.Kind == response.ToolCall && s.Settled() {
			v.w.server(s.CallID, v.name(s.Plugin, s.Tool), normalArguments(string(s.Input)), response.Receipt(s).Output)
		}
	}
	for i, s := range sorted[first:] {
		if s.Kind != response.ModelCall || s.State != response.Completed {
			continue
		}
		out, err := response.DecodeModelOutput(s.Output)
		if err != nil {
			return fmt.Errorf("translate: step %s: %w", s.Key(), err)
		}
		v.w.turn(out, resultsOf(sorted[first+i+1:]))
	}
	return nil
}

// resultsOf returns the outputs of the settled tool calls up to the next model
// call, by call id.
func resultsOf(steps []response.Step) map[string]string {
	results := map[string]string{}
	for _, s := range steps {
		if s.Kind == response.ModelCall {
			break
		}
		if s.Kind == response.ToolCall && s.Settled() {
			results[s.CallID] = response.Receipt(s).Output
		}
	}
	return results
}
