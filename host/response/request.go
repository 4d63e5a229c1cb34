package response

import (
	"encoding/json"
	"slices"
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
	// Echoed, and otherwise nothing: there are no stored prompts, and what is
	// cached is the upstream's business.
	Prompt               json.RawMessage `json:"prompt,omitempty"`
	PromptCacheRetention string          `json:"prompt_cache_retention,omitempty"`
}

// The values of include that change what the host does.
const (
	IncludeEncrypted = "reasoning.encrypted_content"
	IncludeLogprobs  = "message.output_text.logprobs"
)

// Includes reports whether the request asks for an optional part of its
// response.
func (r *Request) Includes(what string) bool { return slices.Contains(r.Include, what) }

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
		PreviousResponseID: f.name("previous_response_id"), Conversation: f.conversation(), Include: f.include(),
		Stream: f.boolean("stream", false), Background: f.boolean("background", false), Store: f.boolean("store", true),
		MaxToolCalls: f.integer("max_tool_calls", 0, 1<<31), MaxOutputTokens: f.integer("max_output_tokens", 16, 1<<53),
		Temperature: f.number("temperature", 0, 2), TopP: f.number("top_p", 0, 1),
		PresencePenalty: f.number("presence_penalty", -2, 2), FrequencyPenalty: f.number("frequency_penalty", -2, 2),
		TopLogprobs: f.integer("top_logprobs", 0, 20),
		Text:        f.text(), Reasoning: f.reasoning(), Metadata: f.metadata(), Prompt: f.prompt(),
		ServiceTier: f.oneOf("service_tier", "auto", "default", "flex", "priority", "scale", "fast", "ultrafast"),
		Truncation:  f.oneOf("truncation", "auto", "disabled"),
		User:        f.name("user"), SafetyIdentifier: f.short("safety_identifier", 64), PromptCacheKey: f.short("prompt_cache_key", 64),
		PromptCacheRetention: f.oneOf("prompt_cache_retention", "in_memory", "in-memory", "24h"),
	}
	if !isNull(f.m["parallel_tool_calls"]) {
		b := f.boolean("parallel_tool_calls", true)
		r.ParallelToolCalls = &b
	}
	f.streamOptions()
	f.contextManagement()
	f.object("moderation")
	f.tools(r)
	f.combinations(r)
	if bad := f.failed(); bad != nil {
		return nil, bad
	}
	var err error
	if r.Input, err = parseInput(f.m["input"], r.PreviousResponseID != "" || r.Conversation != ""); err != nil {
		return nil, err
	}
	return r, nil
}

// combinations checks what fields must not be sent together.
func (f *fields) combinations(r *Request) {
	switch {
	case r.Conversation != "" && r.PreviousResponseID != "":
		f.fail("conversation", "mutually_exclusive_parameters", "conversation and previous_response_id exclude each other.")
	case r.Background && !r.Store:
		f.fail("background", "invalid_value", "A background response needs store: true.")
	}
}
