package response

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// FunctionTool is a function of the client: the host never runs it.
type FunctionTool struct {
	Name string          `json:"name"`
	Raw  json.RawMessage `json:"raw"` // as Chat Completions wants it: name, description, parameters, …
}

// ServerRef is a {"type":"mcp"} entry: tools of this host, or with a URL those
// of another server.
type ServerRef struct {
	Label       string    `json:"server_label"`
	Allowed     []string  `json:"allowed_tools"` // bare names; nil: all
	URL         string    `json:"server_url,omitempty"`
	Description string    `json:"server_description,omitempty"`
	Approval    *Approval `json:"approval,omitempty"` // nil: not said
	// Credentials are not encoded: what is kept of a request does not hold them.
	Credentials Credentials `json:"-"`
}

// legalName reports whether s matches ^[a-zA-Z0-9_-]{1,64}$.
func legalName(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, nameChars) == "" && s == safeName(s)
}

const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// safeName makes s a legal name: strict upstreams refuse a transcript that
// holds a name that a model made up.
func safeName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if !strings.ContainsRune(nameChars, rune(c)) {
			b[i] = '_'
		}
	}
	switch {
	case len(b) == 0:
		return "unnamed"
	case len(b) > 64:
		b = b[:64]
	}
	return string(b)
}

// tools reads tools and tool_choice into r. Entries of types that this host
// does not serve are echoed and otherwise dropped.
func (f *fields) tools(r *Request) {
	if raw := f.m["tools"]; !isNull(raw) {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			f.fail("tools", "invalid_type", "tools must be an array.")
			return
		}
		echo := make([]json.RawMessage, 0, len(list))
		for i, entry := range list {
			t, bad := parseFields(fmt.Sprintf("tools[%d]", i), entry)
			if bad != nil {
				f.adopt(&fields{err: bad})
				return
			}
			switch t.required("type") {
			case "function":
				t.function(r)
			case "mcp":
				t.server(r)
			}
			f.adopt(t)
			echo = append(echo, marshal(t.m))
		}
		r.ToolsRaw = marshal(echo)
	}
	f.toolChoice(r)
}

// responsesOnly are keys of a function tool that Chat Completions does not know.
var responsesOnly = []string{"type", "defer_loading", "allowed_callers", "output_schema", "async"}

// function reads a function tool, flat as Responses has it or wrapped as Chat
// Completions has it.
func (f *fields) function(r *Request) {
	if inner := f.object("function"); inner != nil && isNull(f.m["name"]) {
		wrapped, _ := parseFields(f.param("function"), inner)
		for k, v := range wrapped.m {
			f.m[k] = v
		}
		delete(f.m, "function")
	}
	name := f.required("name")
	if name != "" && !legalName(name) {
		f.fail("name", "invalid_value", "A tool's name must match ^[a-zA-Z0-9_-]{1,64}$.")
	}
	if slices.ContainsFunc(r.Functions, func(t FunctionTool) bool { return t.Name == name }) {
		f.fail("name", "duplicate_tool_name", "Two functions have the same name.")
	}
	f.str("description")
	f.object("parameters")
	f.boolean("strict", true)
	chat := map[string]json.RawMessage{}
	for k, v := range f.m {
		if !slices.Contains(responsesOnly, k) && !isNull(v) {
			chat[k] = v
		}
	}
	r.Functions = append(r.Functions, FunctionTool{Name: name, Raw: marshal(chat)})
	for _, k := range []string{"description", "parameters", "strict"} {
		if isNull(f.m[k]) {
			f.m[k] = json.RawMessage("null") // clients want the key
		}
	}
}

// server reads an mcp tool. Only tools of this host can be asked for: an entry
// with an address is dropped. Its credentials are not kept, not even to echo.
func (f *fields) server(r *Request) {
	delete(f.m, "authorization")
	delete(f.m, "headers")
	ref := ServerRef{Label: f.required("server_label")}
	for _, k := range []string{"server_url", "connector_id", "tunnel_id"} {
		if !isNull(f.m[k]) {
			return
		}
	}
	if raw := f.m["require_approval"]; !isNull(raw) && string(raw) != `"never"` {
		f.fail("require_approval", "unsupported_value", "Tools run without approval here: require_approval must be never.")
	}
	if raw := f.m["allowed_tools"]; !isNull(raw) {
		var filter struct {
			Names []string `json:"tool_names"`
		}
		if raw[0] == '{' && json.Unmarshal(raw, &filter) == nil {
			ref.Allowed = filter.Names
		} else if json.Unmarshal(raw, &ref.Allowed) != nil {
			f.fail("allowed_tools", "invalid_type", "allowed_tools must be an array of names or {tool_names}.")
		}
		if slices.ContainsFunc(ref.Allowed, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			f.fail("allowed_tools", "invalid_value", "allowed_tools must not hold the character U+0000.")
		}
	}
	r.Servers = append(r.Servers, ref)
}

func (f *fields) toolChoice(r *Request) {
	raw := f.m["tool_choice"]
	if isNull(raw) {
		return
	}
	r.ToolChoice = compact(raw)
	if raw[0] == '"' {
		f.oneOf("tool_choice", "none", "auto", "required")
		return
	}
	if f.object("tool_choice") == nil {
		return
	}
	c, _ := parseFields("tool_choice", raw)
	switch c.required("type") {
	case "function":
		c.required("name")
	case "mcp":
		c.required("server_label")
		c.name("name")
	case "allowed_tools":
		c.oneOf("mode", "auto", "required")
		var list []map[string]any
		if json.Unmarshal(c.m["tools"], &list) != nil || len(list) == 0 {
			c.fail("tools", "invalid_type", "tools must be an array of at least one tool.")
		}
		for _, t := range list {
			for _, k := range []string{"name", "server_label"} {
				if s, ok := t[k].(string); ok && strings.ContainsRune(s, 0) {
					c.fail("tools", "invalid_value", k+" must not hold the character U+0000.")
				}
			}
		}
	}
	f.adopt(c)
}

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
	case "function", "mcp":
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
