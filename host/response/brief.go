package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Offer is a server tool that the model is offered.
type Offer struct {
	Name   string `json:"name"`   // as the model sees it
	Plugin string `json:"plugin"` // the server_label of its mcp_call items
	Tool   string `json:"tool"`   // bare
}

// ServerTool is an offer with what the host knows of the tool.
type ServerTool struct {
	Offer
	Description string
	Parameters  json.RawMessage // a JSON Schema
	Effects     string          // "pure", "idempotent" or "once"; anything else counts as "once"
	Generation  string
	Timeout     time.Duration
	// Opaque: the host does not see when the tool begins to change something
	// outside, so it takes each try for having begun to.
	Opaque bool
	// Remote: a tool of the MCP server with the label Plugin, which is in
	// Brief.Remotes.
	Remote bool
	// Approval: its calls wait for the client's approval.
	Approval bool
	Agent    *AgentBrief // not nil: the tool is an agent; Plugin is AgentLabel
}

// AgentLabel is the server_label of agents.
const AgentLabel = "agents"

// Agent is a tool that is a model with instructions and tools of its own: no
// guest code. Its input is the call's arguments, as a user message; its output
// is the text that its model ends with.
type Agent struct {
	Name          string
	Description   string
	Parameters    json.RawMessage // a JSON Schema; nil: {"input": string}
	Model         string          // an alias
	Instructions  string
	Tools         []string // "plugin", "plugin/tool" or "agents/name"; none: no tools
	MaxModelCalls int      // in one call of the agent; 0: Caps.ModelCalls
}

// AgentBrief is an agent as it was when its response was created.
type AgentBrief struct {
	Name          string          `json:"name"`
	Description   string          `json:"description,omitempty"`
	Parameters    json.RawMessage `json:"parameters,omitempty"`
	Model         string          `json:"model"`
	Instructions  string          `json:"instructions,omitempty"`
	Offers        []Offer         `json:"offers,omitempty"` // to its model
	MaxModelCalls int             `json:"max_model_calls,omitempty"`
}

// Remote is an MCP server of the client's choice. Its credentials are not here:
// they are in the request's secret.
type Remote struct {
	Label       string   `json:"label"`
	URL         string   `json:"url"`
	Allowed     []string `json:"allowed"` // bare names; nil: all
	Approval    Approval `json:"approval"`
	Description string   `json:"description,omitempty"`
}

// Approval says which tools of a server may run without the client's approval.
type Approval struct {
	Always bool     `json:"always"`          // all but those of Never
	Named  []string `json:"named,omitempty"` // need it where Always is not set
	Never  []string `json:"never,omitempty"` // do not where Always is set
}

// Needed reports whether a call of the tool waits for approval.
func (a Approval) Needed(tool string) bool {
	if a.Always {
		return !slices.Contains(a.Never, tool)
	}
	return slices.Contains(a.Named, tool)
}

// RemoteTool is a tool as its MCP server lists it.
type RemoteTool struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	InputSchema json.RawMessage `json:"input_schema"`
	Annotations json.RawMessage `json:"annotations,omitempty"`
}

// Credentials are what a client sent to be used for one Remote.
type Credentials struct {
	Authorization string            `json:"authorization,omitempty"` // a bearer token
	Headers       map[string]string `json:"headers,omitempty"`
}

// Secret is the request's secret as queue.New has it: credentials by label.
type Secret map[string]Credentials

// Brief is what the store keeps as the body of a request for a response.
type Brief struct {
	Request *Request
	Context []Item // ancestors' input and output, oldest first, resolved at creation
	Offers  []Offer
	Agents  []AgentBrief // those among Offers, and those that they may call in turn
	Remotes []Remote
	// Conversation is the one that input and output are appended to, its id
	// without its prefix; "": none.
	Conversation string
	// Direct is a tool call without a model: its result is the response. The
	// request is then empty but for its model.
	Direct *Call
}

// briefVersion is the version of the stored form.
const briefVersion = 1

type storedBrief struct {
	V            int          `json:"v"`
	Request      *Request     `json:"request"`
	Context      []Item       `json:"context,omitempty"`
	Offers       []Offer      `json:"offers,omitempty"`
	Agents       []AgentBrief `json:"agents,omitempty"`
	Remotes      []Remote     `json:"remotes,omitempty"`
	Conversation string       `json:"conversation,omitempty"`
	Direct       *Call        `json:"direct,omitempty"`
}

// Encode returns the brief as JSON with a version.
func (j Brief) Encode() ([]byte, error) {
	if j.Request == nil {
		return nil, errors.New("response: encode brief: it has no request")
	}
	b := marshal(storedBrief{briefVersion, j.Request, j.Context, j.Offers, j.Agents, j.Remotes, j.Conversation, j.Direct})
	if string(b) == "null" {
		return nil, errors.New("response: encode brief: it holds an item that is not JSON")
	}
	return b, nil
}

// DecodeBrief reads what Encode wrote, in this and every earlier version.
func DecodeBrief(b []byte) (Brief, error) {
	var s storedBrief
	if err := json.Unmarshal(b, &s); err != nil {
		return Brief{}, fmt.Errorf("response: decode brief: %w", err)
	}
	if s.V != briefVersion || s.Request == nil {
		return Brief{}, fmt.Errorf("response: decode brief: version %d, want %d with a request", s.V, briefVersion)
	}
	return Brief{s.Request, s.Context, s.Offers, s.Agents, s.Remotes, s.Conversation, s.Direct}, nil
}

// Ancestor returns the context of a child of a response in a final state: the
// parent's own context, its input and its output, in order. Reasoning is left
// out, and so is what an interrupted model call left behind; a message that
// the parent's end cut short stays. response is the parent's Response object.
func Ancestor(j Brief, response []byte) ([]Item, error) {
	var parent struct {
		Status string `json:"status"`
		Output []Item `json:"output"`
	}
	if err := json.Unmarshal(response, &parent); err != nil {
		return nil, fmt.Errorf("response: ancestor: %w", err)
	}
	if j.Request == nil {
		return nil, errors.New("response: ancestor: its brief has no request")
	}
	items := make([]Item, 0, len(j.Context)+len(j.Request.Input)+len(parent.Output))
	items = append(items, j.Context...)
	items = append(items, j.Request.Input...)
	for i, it := range parent.Output {
		last := it.Type == "message" && parent.Status == statusIncomplete && i == len(parent.Output)-1
		if it.Type == "reasoning" || it.Status == statusIncomplete && !last {
			continue
		}
		items = append(items, it)
	}
	return items, nil
}

// CheckOutputs refuses a function_call_output that no function_call in the
// input or context precedes, and a call that no output follows: no model can
// be shown either. The error is a *BadRequest.
func CheckOutputs(j Brief) error {
	items := transcriptItems(j)
	outputs := pairOutputs(items)
	answered := map[int]bool{}
	for _, o := range outputs {
		answered[o] = true
	}
	for i, it := range items {
		_, called := outputs[i]
		switch {
		case it.Type == "function_call_output" && !answered[i]:
			return &BadRequest{"input", "invalid_value", fmt.Sprintf("No tool call found for function call output with call_id %.64q.", it.CallID)}
		case it.Type == "function_call" && it.Status != statusIncomplete && !called:
			return &BadRequest{"input", "invalid_value", fmt.Sprintf("No tool output found for function call %.64q.", it.CallID)}
		}
	}
	return nil
}

func transcriptItems(j Brief) []Item {
	items := append([]Item(nil), j.Context...)
	if j.Request != nil {
		items = append(items, j.Request.Input...)
	}
	return items
}

// pairOutputs maps the index of each function_call to the index of the first
// output with its call id that follows it and is not another call's. Ids may
// repeat over the turns of a long context.
func pairOutputs(items []Item) map[int]int {
	open := map[string][]int{} // calls by id, oldest first
	pairs := map[int]int{}
	for i, it := range items {
		switch it.Type {
		case "function_call":
			open[it.CallID] = append(open[it.CallID], i)
		case "function_call_output":
			if calls := open[it.CallID]; len(calls) > 0 {
				pairs[calls[0]] = i
				open[it.CallID] = calls[1:]
			}
		}
	}
	return pairs
}

// CheckTools refuses a client function with the name of an offer, and a
// tool_choice that forces or allows a tool that there is not. The error is a
// *BadRequest.
func CheckTools(j Brief) error {
	offered := make([]ServerTool, 0, len(j.Offers))
	for _, o := range j.Offers {
		offered = append(offered, ServerTool{Offer: o})
	}
	t := newToolset(j.Request, offered)
	for _, o := range j.Offers {
		if _, clash := t.functions[o.Name]; clash {
			return &BadRequest{"tools", "duplicate_tool_name", "The function " + o.Name + " has the name of a tool of this host: rename it."}
		}
	}
	if f := t.choice.forced; f.Type != "" && !t.any(f) {
		return &BadRequest{"tool_choice", "invalid_value", "tool_choice names a tool that is not in tools."}
	}
	if t.choice.mode == "required" && len(t.functions)+len(t.tools) == 0 {
		return &BadRequest{"tool_choice", "invalid_value", "tool_choice is required and there is no tool."}
	}
	return nil
}

// any reports whether ref names a tool of the set.
func (t toolset) any(ref toolRef) bool {
	for name := range t.functions {
		if t.named([]toolRef{ref}, name) {
			return true
		}
	}
	for name := range t.tools {
		if t.named([]toolRef{ref}, name) {
			return true
		}
	}
	return false
}
