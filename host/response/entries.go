package response

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// tools reads tools and tool_choice into r. Entries of types that this host
// does not serve are echoed and otherwise dropped.
func (f *fields) tools(r *Request) {
	var types []string
	if raw := f.m["tools"]; !isNull(raw) {
		list := f.toolList("tools")
		echo := make([]json.RawMessage, 0, len(list))
		for i, entry := range list {
			t, bad := parseFields(fmt.Sprintf("tools[%d]", i), entry)
			if bad != nil {
				f.adopt(&fields{err: bad})
				return
			}
			kind := t.required("type")
			switch kind {
			case "function":
				t.function(r)
			case "custom":
				t.custom(r)
			case "mcp":
				t.server(r)
			}
			f.adopt(t)
			types = append(types, kind)
			echo = append(echo, marshal(t.m))
		}
		r.ToolsRaw = marshal(echo)
	}
	f.toolChoice(r, types)
}

// responsesOnly are keys of a function tool that Chat Completions does not know.
var responsesOnly = []string{"type", "defer_loading", "allowed_callers", "output_schema", "async"}

// function reads a function tool, flat as Responses has it or wrapped as Chat
// Completions has it.
func (f *fields) function(r *Request) {
	f.unwrap("function")
	name := f.toolName(r)
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

// unwrap moves the members of an inner object to where they belong here.
func (f *fields) unwrap(key string) {
	if !isNull(f.m["name"]) {
		return
	}
	inner := f.inner(key)
	if inner == nil {
		return
	}
	for k, v := range inner.m {
		if k != "type" {
			f.m[k] = v
		}
	}
	delete(f.m, key)
}

// toolName reads the name of a tool of the client, which no other has.
func (f *fields) toolName(r *Request) string {
	name := f.required("name")
	if name != "" && !legalName(name) {
		f.fail("name", "invalid_value", "A tool's name must match ^[a-zA-Z0-9_-]{1,64}$.")
	}
	if slices.ContainsFunc(r.Functions, func(t FunctionTool) bool { return t.Name == name }) {
		f.fail("name", "duplicate_tool_name", "Two tools have the same name.")
	}
	return name
}

// textInput is the schema of a custom tool where it is a function.
const textInput = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`

// custom reads a tool whose input is a text.
func (f *fields) custom(r *Request) {
	f.unwrap("custom")
	name := f.toolName(r)
	description := f.str("description")
	t := FunctionTool{Name: name, Custom: true, Format: f.object("format")}
	if format := f.inner("format"); format != nil {
		switch kind := format.required("type"); kind {
		case "text", "":
		case "grammar":
			format.oneOf("syntax", "lark", "regex")
			format.required("syntax")
			format.required("definition")
			description = strings.TrimSpace(description + "\n\nThe input must match this " + format.str("syntax") + " grammar:\n" + format.str("definition"))
		default:
			format.fail("type", "invalid_value", "type must be text or grammar.")
		}
		f.adopt(format)
	}
	chat := map[string]any{"name": name, "parameters": json.RawMessage(textInput)}
	if description != "" {
		chat["description"] = description
	}
	t.Raw = marshal(chat)
	r.Functions = append(r.Functions, t)
}

// credentialKeys are the members of an mcp tool that are kept nowhere but in a
// request's secret: not in what is stored of a request, and not in its echo.
var credentialKeys = []string{"authorization", "headers"}

// server reads an mcp tool: tools of this host, or with an address those of
// another server. One that only a connector of another host leads to is
// dropped.
func (f *fields) server(r *Request) {
	ref := ServerRef{
		Label: f.required("server_label"), URL: f.serverURL(), Description: f.str("server_description"),
		Credentials: Credentials{Authorization: f.headerValue("authorization"), Headers: f.headers()},
	}
	for _, k := range credentialKeys {
		delete(f.m, k)
	}
	if ref.URL == "" && (!isNull(f.m["connector_id"]) || !isNull(f.m["tunnel_id"])) {
		return
	}
	same := func(s ServerRef) bool { return s.Label == ref.Label && (s.URL != "" || ref.URL != "") }
	switch {
	case ref.URL != "" && ref.Label != "" && !legalName(ref.Label):
		f.fail("server_label", "invalid_value", "A server's label must match ^[a-zA-Z0-9_-]{1,64}$.")
	case slices.ContainsFunc(r.Servers, same):
		f.fail("server_label", "duplicate_server_label", "Two servers have the same label.")
	case ref.URL == "" && (ref.Credentials.Authorization != "" || ref.Credentials.Headers != nil):
		f.fail("server_label", "invalid_value", "Credentials are for a server_url: the tools of this host take none.")
	}
	ref.Allowed = f.filter("allowed_tools")
	ref.Approval = f.approval()
	r.Servers = append(r.Servers, ref)
}

// ServerParam returns the parameter that the mcp tool with a label stands at.
func (r *Request) ServerParam(label string) string {
	var list []struct {
		Type  string `json:"type"`
		Label string `json:"server_label"`
	}
	_ = json.Unmarshal(r.ToolsRaw, &list) // it was made here
	for i, t := range list {
		if t.Type == "mcp" && t.Label == label {
			return fmt.Sprintf("tools[%d]", i)
		}
	}
	return "tools"
}

// serverURL reads the address of a server. Credentials in it would be echoed.
func (f *fields) serverURL() string {
	s := f.name("server_url")
	if s == "" {
		return ""
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		f.fail("server_url", "invalid_value", "server_url must be an address that begins with https:// or http://.")
	case u.User != nil:
		f.fail("server_url", "invalid_value", "server_url must not hold a user or password: use authorization or headers.")
	}
	return s
}

// headerValue reads a string that goes into a header.
func (f *fields) headerValue(name string) string {
	s := f.str(name)
	if !legalHeaderValue(s) {
		f.fail(name, "invalid_value", name+" must not hold control characters.")
	}
	return s
}

func legalHeaderValue(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// maxHeaders is how many headers a client may set for a server.
const maxHeaders = 64

// headers reads the headers for a server.
func (f *fields) headers() map[string]string {
	raw := f.object("headers")
	if raw == nil {
		return nil
	}
	m := map[string]string{}
	if json.Unmarshal(raw, &m) != nil {
		f.fail("headers", "invalid_type", "headers must be an object of strings.")
		return nil
	}
	if len(m) > maxHeaders {
		f.fail("headers", "object_above_max_properties", fmt.Sprintf("headers may have %d entries.", maxHeaders))
	}
	for k, v := range m {
		if k == "" || !legalHeaderName(k) || !legalHeaderValue(v) {
			f.fail("headers", "invalid_value", "headers must be names and values of HTTP headers.")
			return nil
		}
	}
	return m
}

const headerChars = nameChars + "!#$%&'*+.^`|~"

func legalHeaderName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strings.ContainsRune(headerChars, r) })
}

// filter reads a list of tools: an array of names, or {tool_names}; nil where
// it names none.
func (f *fields) filter(name string) []string {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	var names []string
	if raw[0] == '{' {
		inner := f.inner(name)
		if inner == nil {
			return nil
		}
		if inner.boolean("read_only", false) {
			inner.fail("read_only", "unsupported_value", "Tools are picked by their names here: use tool_names.")
		}
		f.adopt(inner)
		if raw = inner.m["tool_names"]; isNull(raw) {
			return nil
		}
	}
	if json.Unmarshal(raw, &names) != nil {
		f.fail(name, "invalid_type", name+" must be an array of names or {tool_names}.")
		return nil
	}
	if len(names) > maxTools {
		f.fail(name, "array_above_max_length", fmt.Sprintf("%s may have %d entries.", name, maxTools))
		return nil
	}
	if slices.ContainsFunc(names, func(s string) bool { return strings.ContainsRune(s, 0) }) {
		f.fail(name, "invalid_value", name+" must not hold the character U+0000.")
	}
	return names
}

// approval reads require_approval; nil where it is not said. What is named under
// neither always nor never needs approval, unless only always is there.
func (f *fields) approval() *Approval {
	raw := f.m["require_approval"]
	if isNull(raw) {
		return nil
	}
	if raw[0] == '"' {
		return &Approval{Always: f.oneOf("require_approval", "always", "never") == "always"}
	}
	inner := f.inner("require_approval")
	if inner == nil {
		return nil
	}
	always, never := inner.filter("always"), inner.filter("never")
	f.adopt(inner)
	if always != nil && never == nil {
		return &Approval{Named: always}
	}
	never = slices.DeleteFunc(never, func(s string) bool { return slices.Contains(always, s) })
	return &Approval{Always: true, Never: never}
}
