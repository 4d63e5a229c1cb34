package response

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// BadRequest is what a client did wrong: an HTTP 400.
type BadRequest struct {
	Param   string // "input[2].content", "" when it is the body as a whole
	Code    string // "invalid_type", "missing_required_parameter", …
	Message string
}

func (e *BadRequest) Error() string {
	if e.Param == "" {
		return "response: request: " + e.Message
	}
	return "response: request: " + e.Param + ": " + e.Message
}

// Request is a POST /v1/responses, as far as the host knows its fields. All of
// it is echoed in the response object. Raw fields are nil where not sent.
type Request struct {
	Model              string            `json:"model"`
	Input              []Item            `json:"input"`
	Instructions       *string           `json:"instructions,omitempty"`
	PreviousResponseID string            `json:"previous_response_id,omitempty"`
	Conversation       string            `json:"conversation,omitempty"` // with its prefix; "": none
	Include            []string          `json:"include,omitempty"`
	Stream             bool              `json:"stream,omitempty"`
	Background         bool              `json:"background,omitempty"`
	Store              bool              `json:"store,omitempty"`
	Functions          []FunctionTool    `json:"functions,omitempty"` // the client's own
	Servers            []ServerRef       `json:"servers,omitempty"`   // server tools asked for
	ToolsRaw           json.RawMessage   `json:"tools,omitempty"`     // as sent, without credentials
	ToolChoice         json.RawMessage   `json:"tool_choice,omitempty"`
	ParallelToolCalls  *bool             `json:"parallel_tool_calls,omitempty"`
	MaxToolCalls       *int64            `json:"max_tool_calls,omitempty"`    // of server tools, in the whole response
	MaxOutputTokens    *int64            `json:"max_output_tokens,omitempty"` // of all model calls together
	Temperature        *float64          `json:"temperature,omitempty"`
	TopP               *float64          `json:"top_p,omitempty"`
	PresencePenalty    *float64          `json:"presence_penalty,omitempty"`
	FrequencyPenalty   *float64          `json:"frequency_penalty,omitempty"`
	TopLogprobs        *int64            `json:"top_logprobs,omitempty"`
	Text               json.RawMessage   `json:"text,omitempty"`
	Reasoning          json.RawMessage   `json:"reasoning,omitempty"`
	Metadata           map[string]string `json:"metadata,omitempty"`
	ServiceTier        string            `json:"service_tier,omitempty"` // as asked for; "": not
	User               string            `json:"user,omitempty"`
	SafetyIdentifier   string            `json:"safety_identifier,omitempty"`
	PromptCacheKey     string            `json:"prompt_cache_key,omitempty"`
	Truncation         string            `json:"truncation,omitempty"`
}

// ParseRequest reads the body of POST /v1/responses. Unknown fields are
// ignored, null is as good as absent. The error is a *BadRequest whose message
// holds nothing of the body but names of fields.
func ParseRequest(body []byte) (*Request, error) {
	if !utf8.Valid(body) {
		return nil, &BadRequest{"", "invalid_json", "The body is not valid UTF-8."}
	}
	if !json.Valid(body) {
		return nil, &BadRequest{"", "invalid_json", "The body is not valid JSON."}
	}
	f, bad := parseFields("", body)
	if bad != nil {
		return nil, bad
	}
	r := &Request{
		Model: f.required("model"), Instructions: f.strPtr("instructions"),
		PreviousResponseID: f.name("previous_response_id"),
		Stream:             f.boolean("stream", false), Background: f.boolean("background", false), Store: f.boolean("store", true),
		MaxToolCalls: f.integer("max_tool_calls", 0, 1<<31), MaxOutputTokens: f.integer("max_output_tokens", 16, 1<<53),
		Temperature: f.number("temperature", 0, 2), TopP: f.number("top_p", 0, 1),
		PresencePenalty: f.number("presence_penalty", -2, 2), FrequencyPenalty: f.number("frequency_penalty", -2, 2),
		TopLogprobs: f.integer("top_logprobs", 0, 20),
		Reasoning:   f.object("reasoning"), Metadata: f.metadata(),
		ServiceTier: f.oneOf("service_tier", "auto", "default", "flex", "priority", "scale", "fast", "ultrafast"),
		Truncation:  f.oneOf("truncation", "auto", "disabled"),
		User:        f.name("user"), SafetyIdentifier: f.name("safety_identifier"), PromptCacheKey: f.name("prompt_cache_key"),
	}
	if p, ok := f.m["parallel_tool_calls"]; ok && !isNull(p) {
		b := f.boolean("parallel_tool_calls", true)
		r.ParallelToolCalls = &b
	}
	r.Text = f.textFormat()
	f.tools(r)
	f.combinations(r)
	if bad := f.failed(); bad != nil {
		return nil, bad
	}
	var err error
	if r.Input, err = parseInput(f.m["input"]); err != nil {
		return nil, err
	}
	return r, nil
}

// combinations checks what fields must not be sent together.
func (f *fields) combinations(r *Request) {
	conversation := !isNull(f.m["conversation"])
	switch {
	case conversation && r.PreviousResponseID != "":
		f.fail("conversation", "mutually_exclusive_parameters", "conversation and previous_response_id exclude each other.")
	case conversation:
		f.fail("conversation", "unsupported_parameter", "conversation is not supported: use previous_response_id.")
	case r.Background && !r.Store:
		f.fail("background", "invalid_value", "A background response needs store: true.")
	case len(r.SafetyIdentifier) > 64:
		f.fail("safety_identifier", "string_above_max_length", "safety_identifier may have 64 characters.")
	}
}

// textFormat checks text and its format.
func (f *fields) textFormat() json.RawMessage {
	raw := f.object("text")
	if raw == nil {
		return nil
	}
	t, _ := parseFields("text", raw)
	format := t.object("format")
	if format != nil {
		ff, _ := parseFields("text.format", format)
		switch kind := ff.required("type"); kind {
		case "text", "json_object", "":
		case "json_schema":
			ff.required("name")
			if ff.object("schema") == nil {
				ff.fail("schema", "missing_required_parameter", "A json_schema format needs a schema.")
			}
		default:
			ff.fail("type", "invalid_value", "type must be text, json_object or json_schema.")
		}
		t.adopt(ff)
	}
	f.adopt(t)
	return raw
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
