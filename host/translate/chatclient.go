package translate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// chatAsked is a client's POST /v1/chat/completions as it is read. What has no
// field here cannot be said in Responses, or is the host's own business.
type chatAsked struct {
	Model               json.RawMessage   `json:"model"`
	Messages            []json.RawMessage `json:"messages"`
	Tools               []chatAskedTool   `json:"tools"`
	ToolChoice          json.RawMessage   `json:"tool_choice"`
	ParallelToolCalls   *bool             `json:"parallel_tool_calls"`
	MaxTokens           *int64            `json:"max_tokens"`
	MaxCompletionTokens *int64            `json:"max_completion_tokens"`
	Temperature         *float64          `json:"temperature"`
	TopP                *float64          `json:"top_p"`
	PresencePenalty     *float64          `json:"presence_penalty"`
	FrequencyPenalty    *float64          `json:"frequency_penalty"`
	Logprobs            bool              `json:"logprobs"`
	TopLogprobs         *int64            `json:"top_logprobs"`
	ResponseFormat      *chatFormat       `json:"response_format"`
	Verbosity           json.RawMessage   `json:"verbosity"`
	ReasoningEffort     json.RawMessage   `json:"reasoning_effort"`
	PromptCacheKey      string            `json:"prompt_cache_key"`
	SafetyIdentifier    string            `json:"safety_identifier"`
	User                string            `json:"user"`
	Stream              bool              `json:"stream"`
	N                   *int64            `json:"n"`
	Modalities          []string          `json:"modalities"`
}

type chatAskedTool struct {
	Type     string `json:"type"`
	Function *struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Strict      *bool           `json:"strict"`
	} `json:"function"`
	Custom *struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Format      json.RawMessage `json:"format"`
	} `json:"custom"`
}

// chatFields are the fields that ChatAsResponses takes. Those of the second
// line say what becomes of the request at this host, which answers for them.
var chatFields = []string{
	"model", "messages", "tools", "tool_choice", "parallel_tool_calls", "max_tokens", "max_completion_tokens", "temperature", "top_p",
	"presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "response_format", "verbosity", "reasoning_effort",
	"prompt_cache_key", "safety_identifier", "user", "stream", "n", "modalities",
	"stream_options", "metadata", "store", "service_tier", "prompt_cache_retention",
}

// ChatAsResponses returns the body of POST /responses that asks what a client's
// chat completion does. The error is an *Unsupported.
func ChatAsResponses(body []byte) ([]byte, error) {
	var a chatAsked
	if err := readAsked(body, &a); err != nil {
		return nil, err
	}
	r := responsesRequest{
		Model: text(a.Model), ParallelToolCalls: a.ParallelToolCalls, Temperature: a.Temperature, TopP: a.TopP,
		PresencePenalty: a.PresencePenalty, FrequencyPenalty: a.FrequencyPenalty,
		MaxOutputTokens: a.MaxCompletionTokens, Reasoning: nil,
		PromptCacheKey: a.PromptCacheKey, SafetyIdentifier: a.SafetyIdentifier, User: a.User, Stream: a.Stream,
	}
	if r.MaxOutputTokens == nil {
		r.MaxOutputTokens = a.MaxTokens
	}
	if n := r.MaxOutputTokens; n != nil {
		*n = max(*n, leastOutput)
	}
	if a.Logprobs {
		r.Include, r.TopLogprobs = []string{includeLogprobs}, a.TopLogprobs
	}
	if !isNull(a.ReasoningEffort) {
		r.Reasoning = marshal(responsesReasoning{Effort: a.ReasoningEffort})
	}
	if err := a.format(&r); err != nil {
		return nil, err
	}
	if err := a.tools(&r); err != nil {
		return nil, err
	}
	if len(r.Tools) == 0 {
		r.ParallelToolCalls, r.ToolChoice = nil, nil
	}
	var err error
	r.Input, err = asItems(a.Messages)
	return marshal(r), err
}

// readAsked reads the body, and refuses what Responses has no words for.
func readAsked(body []byte, a *chatAsked) error {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return &Unsupported{"", codeType, "The body must be a JSON object."}
	}
	for _, name := range sortedKeys(fields) {
		if !slices.Contains(chatFields, name) && !empty(fields[name]) {
			return unsupported(name)
		}
	}
	if err := readTyped("", body, a); err != nil {
		return err
	}
	switch {
	case len(a.Messages) == 0:
		return &Unsupported{"messages", codeMissing, "messages must be an array of at least one message."}
	case a.N != nil && *a.N != 1:
		return &Unsupported{"n", codeValue, "The upstream of this model makes one choice: n must be 1."}
	case slices.ContainsFunc(a.Modalities, func(m string) bool { return m != "text" }):
		return &Unsupported{"modalities", codeValue, "The upstream of this model answers in text only."}
	}
	return nil
}

func sortedKeys(m map[string]json.RawMessage) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// empty reports whether raw asks for nothing.
func empty(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "[]", "{}", `""`, "false":
		return true
	}
	return false
}

func unsupported(param string) error {
	return &Unsupported{param, codeParameter, "The upstream of this model does not support " + param + "."}
}

// readTyped reads raw into v. The error names the field whose type is wrong.
func readTyped(param string, raw []byte, v any) error {
	err := json.Unmarshal(raw, v)
	if err == nil {
		return nil
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		param = join(param, wrong.Field)
	}
	what := param
	if what == "" {
		what = "The body"
	}
	return &Unsupported{param, codeType, what + " is of the wrong type."}
}

func join(param, field string) string {
	if param == "" || field == "" {
		return param + field
	}
	return param + "." + field
}

// format translates response_format and verbosity.
func (a *chatAsked) format(r *responsesRequest) error {
	t := responsesText{Verbosity: present(a.Verbosity)}
	if f := a.ResponseFormat; f != nil {
		t.Format = &responsesFormat{Type: f.Type}
		switch {
		case f.Type == "text", f.Type == "json_object":
		case f.Type != "json_schema":
			return &Unsupported{"response_format.type", codeValue, "response_format.type must be text, json_object or json_schema."}
		case f.JSONSchema == nil || f.JSONSchema.Name == "":
			return &Unsupported{"response_format.json_schema", codeMissing, "A json_schema format needs a json_schema with a name."}
		default:
			s := f.JSONSchema
			t.Format = &responsesFormat{f.Type, s.Name, s.Description, present(s.Schema), s.Strict}
			if t.Format.Strict == nil {
				t.Format.Strict = new(bool) // the default of Chat Completions
			}
		}
	}
	if t.Format != nil || t.Verbosity != nil {
		r.Text = marshal(t)
	}
	return nil
}

// tools translates tools and tool_choice.
func (a *chatAsked) tools(r *responsesRequest) error {
	for i, t := range a.Tools {
		param := fmt.Sprintf("tools[%d]", i)
		switch {
		case t.Type == "function" && t.Function != nil && t.Function.Name != "":
			f := t.Function
			d := responsesTool{Type: "function", Name: f.Name, Description: f.Description, Parameters: f.Parameters, Strict: f.Strict}
			if isNull(d.Parameters) {
				d.Parameters = noParameters
			}
			if d.Strict == nil {
				d.Strict = new(bool) // the default of Chat Completions
			}
			r.Tools = append(r.Tools, d)
		case t.Type == "custom" && t.Custom != nil && t.Custom.Name != "":
			c := t.Custom
			r.Tools = append(r.Tools, responsesTool{Type: "custom", Name: c.Name, Description: c.Description, Format: flatFormat(c.Format)})
		case t.Type == "function" || t.Type == "custom":
			return &Unsupported{param + "." + t.Type + ".name", codeMissing, "A tool needs a name."}
		default:
			return &Unsupported{param + ".type", codeValue, "A tool's type must be function or custom."}
		}
	}
	return a.choice(r)
}

// flatFormat translates the format of a custom tool: in Chat Completions a
// grammar has an object of its own.
func flatFormat(raw json.RawMessage) json.RawMessage {
	var f map[string]json.RawMessage
	var grammar map[string]json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &f) != nil {
		return nil
	}
	if json.Unmarshal(f["grammar"], &grammar) != nil || grammar == nil {
		return raw
	}
	grammar["type"] = f["type"]
	return marshal(grammar)
}

// chatNamed is an object of tool_choice.
type chatNamed struct {
	Type     string `json:"type"`
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
	Custom struct {
		Name string `json:"name"`
	} `json:"custom"`
	Allowed struct {
		Mode  string      `json:"mode"`
		Tools []chatNamed `json:"tools"`
	} `json:"allowed_tools"`
}

// to is the tool that c names.
func (c chatNamed) to() responsesTo {
	if c.Type == "custom" {
		return responsesTo{c.Type, c.Custom.Name}
	}
	return responsesTo{"function", c.Function.Name}
}

func (a *chatAsked) choice(r *responsesRequest) error {
	if isNull(a.ToolChoice) {
		return nil
	}
	if a.ToolChoice[0] == '"' {
		r.ToolChoice = &responsesChoice{Mode: text(a.ToolChoice)}
		return nil
	}
	var c chatNamed
	if err := readTyped("tool_choice", a.ToolChoice, &c); err != nil {
		return err
	}
	switch c.Type {
	case "function", "custom":
		r.ToolChoice = &responsesChoice{Type: c.Type, Name: c.to().Name}
	case "allowed_tools":
		r.ToolChoice = &responsesChoice{Type: c.Type, Mode: c.Allowed.Mode, Tools: []responsesTo{}}
		for _, t := range c.Allowed.Tools {
			r.ToolChoice.Tools = append(r.ToolChoice.Tools, t.to())
		}
	default:
		return &Unsupported{"tool_choice.type", codeValue, "tool_choice.type must be function, custom or allowed_tools."}
	}
	return nil
}
