package response

import (
	"encoding/json"
	"slices"
)

// choice is what a tool_choice means.
type choice struct {
	mode    string // "", "none", "auto", "required"
	forced  toolRef
	allowed []toolRef // nil: all
}

// toolRef names a client function, or with a label a server's tool or tools.
type toolRef struct {
	Type  string `json:"type"`
	Name  string `json:"name"`
	Label string `json:"server_label"`
}

func (t toolRef) matches(name string, server *ServerTool) bool {
	if t.Type != "mcp" {
		return t.Name == name
	}
	return server != nil && t.Label == server.Plugin && (t.Name == "" || t.Name == server.Tool || t.Name == name)
}

func readChoice(raw json.RawMessage) choice {
	if isNull(raw) {
		return choice{}
	}
	if raw[0] == '"' {
		return choice{mode: text(raw)}
	}
	var c struct {
		toolRef
		Mode  string    `json:"mode"`
		Tools []toolRef `json:"tools"`
	}
	if json.Unmarshal(raw, &c) != nil {
		return choice{mode: "auto"}
	}
	switch c.Type {
	case "function", "custom", "mcp":
		return choice{mode: "required", forced: c.toolRef}
	case "allowed_tools":
		if c.Mode == "" {
			c.Mode = "auto"
		}
		return choice{mode: c.Mode, allowed: c.Tools}
	}
	return choice{mode: "auto"} // a hosted tool that is not served here
}

// origin says who runs a tool.
type origin int

const (
	nobody  origin = iota // not a tool, or one that tool_choice rules out
	client                // the call is handed to the client
	servers               // a plugin of this host
)

// toolset is what a response's model calls may use.
type toolset struct {
	functions map[string]FunctionTool
	tools     map[string]ServerTool
	choice    choice
}

func newToolset(r *Request, tools []ServerTool) toolset {
	t := toolset{
		functions: map[string]FunctionTool{}, tools: map[string]ServerTool{},
		choice: readChoice(r.ToolChoice),
	}
	for _, f := range r.Functions {
		t.functions[f.Name] = f
	}
	for _, s := range tools {
		t.tools[s.Name] = s
	}
	return t
}

// origin follows from the name alone, so that an item's type is known before
// its arguments are.
func (t toolset) origin(name string) origin {
	if !t.allows(name) {
		return nobody
	}
	if _, ok := t.functions[name]; ok {
		return client
	}
	if _, ok := t.tools[name]; ok {
		return servers
	}
	return nobody
}

// asks reports whether a call of the tool waits for the client's approval.
func (t toolset) asks(name string) bool {
	return t.origin(name) == servers && t.tools[name].Approval
}

func (t toolset) allows(name string) bool {
	if t.choice.mode == "none" {
		return false
	}
	return t.choice.allowed == nil || t.named(t.choice.allowed, name)
}

func (t toolset) named(refs []toolRef, name string) bool {
	var server *ServerTool
	if s, ok := t.tools[name]; ok {
		server = &s
	}
	return slices.ContainsFunc(refs, func(r toolRef) bool { return r.matches(name, server) })
}

// known reports whether the name is a tool at all.
func (t toolset) known(name string) bool {
	_, fn := t.functions[name]
	_, srv := t.tools[name]
	return fn || srv
}
