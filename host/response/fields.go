package response

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// fields reads the members of one JSON object and keeps the first mistake.
type fields struct {
	prefix string
	m      map[string]json.RawMessage
	err    *BadRequest
}

func parseFields(prefix string, raw json.RawMessage) (*fields, *BadRequest) {
	f := &fields{prefix: prefix}
	if json.Unmarshal(raw, &f.m) != nil || f.m == nil {
		return nil, invalidType(prefix, "an object")
	}
	for k, v := range f.m {
		f.m[k] = bytes.TrimSpace(v)
	}
	return f, nil
}

func invalidType(param, want string) *BadRequest {
	name := param
	if name == "" {
		name = "The body"
	}
	return &BadRequest{param, "invalid_type", name + " must be " + want + "."}
}

func (f *fields) param(name string) string {
	switch {
	case f.prefix == "":
		return name
	case name == "":
		return f.prefix
	}
	return f.prefix + "." + name
}

func (f *fields) fail(name, code, message string) {
	if f.err == nil {
		f.err = &BadRequest{f.param(name), code, message}
	}
}

// failed returns the first mistake as an error that is nil when there is none.
func (f *fields) failed() error {
	if f.err == nil {
		return nil
	}
	return f.err
}

// adopt takes over the mistake of an inner object.
func (f *fields) adopt(inner *fields) {
	if f.err == nil {
		f.err = inner.err
	}
}

func (f *fields) strPtr(name string) *string {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		f.fail(name, "invalid_type", name+" must be a string.")
		return nil
	}
	return &s
}

func (f *fields) str(name string) string {
	if s := f.strPtr(name); s != nil {
		return *s
	}
	return ""
}

// name reads a string that is an id or a name: U+0000 is refused.
func (f *fields) name(name string) string {
	s := f.str(name)
	if strings.ContainsRune(s, 0) {
		f.fail(name, "invalid_value", name+" must not hold the character U+0000.")
	}
	return s
}

// short is name with at most limit characters.
func (f *fields) short(name string, limit int) string {
	s := f.name(name)
	if utf8.RuneCountInString(s) > limit {
		f.fail(name, "string_above_max_length", fmt.Sprintf("%s may have %d characters.", name, limit))
	}
	return s
}

func (f *fields) required(name string) string {
	s := f.name(name)
	if s == "" {
		f.fail(name, "missing_required_parameter", name+" is required.")
	}
	return s
}

func (f *fields) oneOf(name string, values ...string) string {
	s := f.strPtr(name)
	if s == nil {
		return ""
	}
	if !slices.Contains(values, *s) {
		f.fail(name, "invalid_value", name+" must be one of "+strings.Join(values, ", ")+".")
	}
	return *s
}

func (f *fields) boolean(name string, unset bool) bool {
	raw := f.m[name]
	if isNull(raw) {
		return unset
	}
	b := unset
	if json.Unmarshal(raw, &b) != nil {
		f.fail(name, "invalid_type", name+" must be a boolean.")
	}
	return b
}

func (f *fields) number(name string, low, high float64) *float64 {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	var n float64
	if json.Unmarshal(raw, &n) != nil {
		f.fail(name, "invalid_type", name+" must be a number.")
		return nil
	}
	if n < low || n > high {
		f.fail(name, "invalid_value", fmt.Sprintf("%s must be from %g to %g.", name, low, high))
	}
	return &n
}

func (f *fields) integer(name string, low, high int64) *int64 {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	var n float64
	if json.Unmarshal(raw, &n) != nil || n != float64(int64(n)) {
		f.fail(name, "invalid_type", name+" must be an integer.")
		return nil
	}
	if n < float64(low) || n > float64(high) {
		code := "integer_above_max_value"
		if n < float64(low) {
			code = "integer_below_min_value"
		}
		f.fail(name, code, fmt.Sprintf("%s must be from %d to %d.", name, low, high))
	}
	i := int64(n)
	return &i
}

// list reads an array; nil where it is not sent.
func (f *fields) list(name string) []json.RawMessage {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	list := []json.RawMessage{}
	if json.Unmarshal(raw, &list) != nil {
		f.fail(name, "invalid_type", name+" must be an array.")
	}
	return list
}

// maxTools is how many tools a list may have. Each is held against the others.
const maxTools = 1024

// toolList is list for tools.
func (f *fields) toolList(name string) []json.RawMessage {
	list := f.list(name)
	if len(list) > maxTools {
		f.fail(name, "array_above_max_length", fmt.Sprintf("%s may have %d entries.", name, maxTools))
		return nil
	}
	return list
}

// inner reads the members of an object; nil where it is not sent, or none.
func (f *fields) inner(name string) *fields {
	raw := f.object(name)
	if raw == nil {
		return nil
	}
	inner, bad := parseFields(f.param(name), raw)
	if bad != nil {
		f.adopt(&fields{err: bad})
		return nil
	}
	return inner
}

func (f *fields) object(name string) json.RawMessage {
	raw := f.m[name]
	if isNull(raw) {
		return nil
	}
	if raw[0] != '{' {
		f.fail(name, "invalid_type", name+" must be an object.")
		return nil
	}
	return compact(raw)
}

// compact returns raw without insignificant space, in memory of its own.
func compact(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return json.RawMessage("null")
	}
	return b.Bytes()
}

// marshal encodes v without escaping <, > and &. Everything that it is given
// can be encoded: its types hold no channels or functions, its raw messages
// were checked when they were read, its numbers came from JSON.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return []byte("null")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
