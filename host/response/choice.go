package response

import (
	"fmt"
	"slices"
	"strings"
)

// hosted are the beginnings of the types of tools that are not served here: a
// tool_choice of one is as good as none.
var hosted = []string{
	"web_search", "file_search", "computer", "code_interpreter", "image_generation", "shell", "local_shell",
	"apply_patch", "namespace", "tool_search", "programmatic_tool_calling",
}

// toolChoice reads tool_choice. types are those of the request's tools.
func (f *fields) toolChoice(r *Request, types []string) {
	raw := f.m["tool_choice"]
	if isNull(raw) {
		return
	}
	r.ToolChoice = compact(raw)
	if raw[0] == '"' {
		f.oneOf("tool_choice", "none", "auto", "required")
		return
	}
	c := f.inner("tool_choice")
	if c == nil {
		return
	}
	switch kind := c.required("type"); kind {
	case "function", "custom", "mcp":
		if c.reference(kind) {
			r.ToolChoice = marshal(c.m)
		}
	case "allowed_tools":
		c.allowed(r, types)
	default:
		c.hosted(kind, types)
	}
	f.adopt(c)
}

// allowed reads the tools of a choice among some.
func (f *fields) allowed(r *Request, types []string) {
	wrapped := isNull(f.m["tools"])
	f.unwrap("allowed_tools") // as Chat Completions has it
	f.oneOf("mode", "auto", "required")
	list := f.toolList("tools")
	if len(list) == 0 {
		f.fail("tools", "invalid_type", "tools must be an array of at least one tool.")
	}
	for i, raw := range list {
		t, bad := parseFields(f.param(fmt.Sprintf("tools[%d]", i)), raw)
		if bad != nil {
			f.adopt(&fields{err: bad})
			return
		}
		switch kind := t.required("type"); kind {
		case "function", "custom", "mcp":
			if t.reference(kind) {
				wrapped = true
			}
		default:
			t.hosted(kind, types)
		}
		f.adopt(t)
		list[i] = marshal(t.m)
	}
	if wrapped {
		f.m["tools"] = marshal(list)
		r.ToolChoice = marshal(f.m)
	}
}

// reference reads what names a tool, and reports whether that was wrapped as
// Chat Completions has it.
func (f *fields) reference(kind string) bool {
	if kind == "mcp" {
		f.required("server_label")
		f.name("name")
		return false
	}
	wrapped := isNull(f.m["name"]) && !isNull(f.m[kind])
	f.unwrap(kind)
	f.required("name")
	return wrapped
}

// hosted refuses types that are none.
func (f *fields) hosted(kind string, types []string) {
	known := slices.ContainsFunc(hosted, func(s string) bool { return strings.HasPrefix(kind, s) })
	if kind != "" && !known && !slices.Contains(types, kind) && !strings.Contains(kind, ":") {
		f.fail("type", "invalid_value", "type is no kind of tool.")
	}
}
