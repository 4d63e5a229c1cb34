package response

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// conversation reads the id of a conversation: a string or {id}.
func (f *fields) conversation() string {
	raw := f.m["conversation"]
	if isNull(raw) || raw[0] == '"' {
		return f.name("conversation")
	}
	c := f.inner("conversation")
	if c == nil {
		return ""
	}
	id := c.required("id")
	f.adopt(c)
	return id
}

// includable are the parts of a response that a client may ask for. Those of
// tools that are not here are never there.
var includable = []string{
	"file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
	"message.input_image.image_url", "computer_call_output.output.image_url",
	"code_interpreter_call.outputs", IncludeEncrypted, IncludeLogprobs,
}

func (f *fields) include() []string {
	var include []string
	for i, raw := range f.list("include") {
		var s string
		if json.Unmarshal(raw, &s) != nil || !slices.Contains(includable, s) {
			f.fail(fmt.Sprintf("include[%d]", i), "invalid_value", "include may hold "+strings.Join(includable, ", ")+".")
			return nil
		}
		if !slices.Contains(include, s) {
			include = append(include, s)
		}
	}
	return include
}

// text checks text, its format and its verbosity.
func (f *fields) text() json.RawMessage {
	t := f.inner("text")
	if t == nil {
		return nil
	}
	t.oneOf("verbosity", "low", "medium", "high")
	if format := t.inner("format"); format != nil {
		switch kind := format.required("type"); kind {
		case "text", "json_object", "":
		case "json_schema":
			if name := format.required("name"); name != "" && !legalName(name) {
				format.fail("name", "invalid_value", "A format's name must match ^[a-zA-Z0-9_-]{1,64}$.")
			}
			format.str("description")
			format.boolean("strict", false)
			if format.object("schema") == nil {
				format.fail("schema", "missing_required_parameter", "A json_schema format needs a schema.")
			}
		default:
			format.fail("type", "invalid_value", "type must be text, json_object or json_schema.")
		}
		t.adopt(format)
	}
	f.adopt(t)
	return f.object("text")
}

func (f *fields) reasoning() json.RawMessage {
	r := f.inner("reasoning")
	if r == nil {
		return nil
	}
	r.oneOf("effort", "none", "minimal", "low", "medium", "high", "xhigh", "max")
	r.oneOf("summary", "auto", "concise", "detailed")
	r.oneOf("generate_summary", "auto", "concise", "detailed")
	r.str("context")
	r.str("mode")
	f.adopt(r)
	return f.object("reasoning")
}

func (f *fields) prompt() json.RawMessage {
	p := f.inner("prompt")
	if p == nil {
		return nil
	}
	p.required("id")
	p.name("version")
	p.object("variables")
	f.adopt(p)
	return f.object("prompt")
}

func (f *fields) streamOptions() {
	if o := f.inner("stream_options"); o != nil {
		o.boolean("include_obfuscation", true)
		f.adopt(o)
	}
}

// contextManagement checks what is otherwise not looked at: nothing is
// compacted unasked.
func (f *fields) contextManagement() {
	for i, raw := range f.list("context_management") {
		c, bad := parseFields(fmt.Sprintf("context_management[%d]", i), raw)
		if bad != nil {
			f.adopt(&fields{err: bad})
			return
		}
		if kind := c.required("type"); kind != "" && kind != "compaction" {
			c.fail("type", "invalid_value", "type must be compaction.")
		}
		c.integer("compact_threshold", 1000, 1<<53)
		f.adopt(c)
	}
}

// metadata checks OpenAI's limits: 16 pairs, keys of 64 and values of 512
// characters.
func (f *fields) metadata() map[string]string {
	raw := f.object("metadata")
	if raw == nil {
		return nil
	}
	m := map[string]string{}
	if json.Unmarshal(raw, &m) != nil {
		f.fail("metadata", "invalid_type", "metadata values must be strings.")
		return nil
	}
	if len(m) > 16 {
		f.fail("metadata", "object_above_max_properties", "metadata may have 16 pairs.")
	}
	for k, v := range m {
		switch {
		case utf8.RuneCountInString(k) > 64 || utf8.RuneCountInString(v) > 512:
			f.fail("metadata", "string_above_max_length", "metadata keys may have 64 characters and values 512.")
		case strings.ContainsRune(k, 0) || strings.ContainsRune(v, 0):
			f.fail("metadata", "invalid_value", "metadata must not hold the character U+0000.")
		}
	}
	return m
}
