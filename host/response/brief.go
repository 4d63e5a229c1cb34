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
	// Dropped are indexes into context and input taken together, ascending: what
	// the model is not shown, since it would be too much.
	Dropped []int
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

// The versions of the stored form. A host of the first would lose what the
// second adds, so what needs none of that is stored in the first.
const (
	briefFirst   = 1
	briefVersion = 2 // agents, remotes, conversation, direct call, dropped items, custom tools
)

// version is the first version that holds all of the brief.
func (j Brief) version() int {
	custom := slices.ContainsFunc(j.Request.Functions, func(t FunctionTool) bool { return t.Custom })
	approval := slices.ContainsFunc(j.Request.Servers, func(s ServerRef) bool { return s.Approval != nil && (s.Approval.Always || s.Approval.Named != nil) })
	if custom || approval || j.Agents != nil || j.Remotes != nil || j.Conversation != "" || j.Direct != nil || j.Dropped != nil {
		return briefVersion
	}
	return briefFirst
}

type storedBrief struct {
	V            int          `json:"v"`
	Request      *Request     `json:"request"`
	Context      []Item       `json:"context,omitempty"`
	Dropped      []int        `json:"dropped,omitempty"`
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
	b := marshal(storedBrief{j.version(), j.Request, j.Context, j.Dropped, j.Offers, j.Agents, j.Remotes, j.Conversation, j.Direct})
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
	if s.V < briefFirst || s.V > briefVersion || s.Request == nil {
		return Brief{}, fmt.Errorf("response: decode brief: version %d, want %d to %d with a request", s.V, briefFirst, briefVersion)
	}
	return Brief{s.Request, s.Context, s.Dropped, s.Offers, s.Agents, s.Remotes, s.Conversation, s.Direct}, nil
}

// Ancestor returns the context of a child of a response in a final state: the
// parent's own context, its input and its output, in order. Reasoning that no
// model can be given back is left out. response is the parent's Response object.
func Ancestor(j Brief, response []byte) ([]Item, error) {
	output, err := LastingOutput(response)
	if err != nil {
		return nil, err
	}
	if j.Request == nil {
		return nil, errors.New("response: ancestor: its brief has no request")
	}
	items := make([]Item, 0, len(j.Context)+len(j.Request.Input)+len(output))
	items = append(items, j.Context...)
	items = append(items, j.Request.Input...)
	for _, it := range output {
		if it.Type != itemReasoning || encrypted(it) {
			items = append(items, it)
		}
	}
	return items, nil
}

// LastingOutput returns the output of a Response object as what comes after it
// sees it: without what an interrupted model call left behind. A message that
// the response's end cut short stays.
func LastingOutput(response []byte) ([]Item, error) {
	var o struct {
		Status string `json:"status"`
		Output []Item `json:"output"`
	}
	if err := json.Unmarshal(response, &o); err != nil {
		return nil, fmt.Errorf("response: output: %w", err)
	}
	lasting := make([]Item, 0, len(o.Output))
	for i, it := range o.Output {
		last := it.Type == itemMessage && o.Status == statusIncomplete && i == len(o.Output)-1
		if it.Status != statusIncomplete || last {
			lasting = append(lasting, it)
		}
	}
	return lasting, nil
}

// encrypted reports whether a reasoning item holds what its model wants back.
func encrypted(it Item) bool {
	var r struct {
		Content string `json:"encrypted_content"`
	}
	return json.Unmarshal(it.Raw, &r) == nil && r.Content != ""
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
	known := func(ref toolRef) bool {
		remote := func(r Remote) bool { return ref.Type == "mcp" && r.Label == ref.Label }
		return t.any(ref) || slices.ContainsFunc(j.Remotes, remote)
	}
	if f := t.choice.forced; f.Type != "" && !known(f) {
		return &BadRequest{"tool_choice", "invalid_value", "tool_choice names a tool that is not in tools."}
	}
	for i, ref := range t.choice.allowed {
		named := ref.Type == "function" || ref.Type == "custom" || ref.Type == "mcp"
		if named && !known(ref) {
			return &BadRequest{fmt.Sprintf("tool_choice.tools[%d]", i), "invalid_value", "tool_choice allows a tool that is not in tools."}
		}
	}
	if t.choice.mode == "required" && len(t.functions)+len(t.tools)+len(j.Remotes) == 0 {
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
