package translate

import "encoding/json"

// The types of Responses, as far as the host speaks it with an upstream.

// What include may ask for.
const (
	includeEncrypted = "reasoning.encrypted_content"
	includeLogprobs  = "message.output_text.logprobs"
)

// responsesRequest is the body of POST /responses. Nothing of it is kept there:
// the host has the state, runs the tools and counts them.
type responsesRequest struct {
	Model             string           `json:"model"`
	Instructions      string           `json:"instructions,omitempty"`
	Input             []responsesItem  `json:"input"`
	Tools             []responsesTool  `json:"tools,omitempty"`
	ToolChoice        *responsesChoice `json:"tool_choice,omitempty"`
	ParallelToolCalls *bool            `json:"parallel_tool_calls,omitempty"`
	MaxOutputTokens   *int64           `json:"max_output_tokens,omitempty"`
	Temperature       *float64         `json:"temperature,omitempty"`
	TopP              *float64         `json:"top_p,omitempty"`
	PresencePenalty   *float64         `json:"presence_penalty,omitempty"`
	FrequencyPenalty  *float64         `json:"frequency_penalty,omitempty"`
	TopLogprobs       *int64           `json:"top_logprobs,omitempty"`
	Text              json.RawMessage  `json:"text,omitempty"`
	Reasoning         json.RawMessage  `json:"reasoning,omitempty"`
	Include           []string         `json:"include,omitempty"`
	Truncation        string           `json:"truncation,omitempty"`
	PromptCacheKey    string           `json:"prompt_cache_key,omitempty"`
	SafetyIdentifier  string           `json:"safety_identifier,omitempty"`
	User              string           `json:"user,omitempty"`
	Store             bool             `json:"store"`
	Stream            bool             `json:"stream"`
}

// leastOutput is the least max_output_tokens that Responses knows.
const leastOutput = 16

// responsesItem is an input item; which fields are there follows from Type.
// Without an id: the upstream kept none of what the host's ids name.
type responsesItem struct {
	Type      string          `json:"type"`
	Role      string          `json:"role,omitempty"`
	Phase     json.RawMessage `json:"phase,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	CallID    string          `json:"call_id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Namespace json.RawMessage `json:"namespace,omitempty"`
	Arguments *string         `json:"arguments,omitempty"`
	Input     *string         `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
	Summary   json.RawMessage `json:"summary,omitempty"`
	Encrypted string          `json:"encrypted_content,omitempty"`
}

// responsesPart is a content part that the host itself writes.
type responsesPart struct {
	Type        string            `json:"type"`
	Text        *string           `json:"text,omitempty"`
	Refusal     *string           `json:"refusal,omitempty"`
	ImageURL    string            `json:"image_url,omitempty"`
	Detail      string            `json:"detail,omitempty"`
	FileData    string            `json:"file_data,omitempty"`
	FileID      string            `json:"file_id,omitempty"`
	Filename    string            `json:"filename,omitempty"`
	Audio       json.RawMessage   `json:"input_audio,omitempty"`
	Annotations []json.RawMessage `json:"annotations,omitzero"`
}

// responsesTool is a function, or a custom tool with its format.
type responsesTool struct {
	Type        string          `json:"type"`
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
	Format      json.RawMessage `json:"format,omitempty"`
}

// responsesChoice is a mode, or the one tool to call, or the tools to choose
// from.
type responsesChoice struct {
	Mode  string
	Type  string        // "function", "custom"; "allowed_tools" with Tools
	Name  string        // of the tool
	Tools []responsesTo // for "allowed_tools": of which Mode says how to choose
}

type responsesTo struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// MarshalJSON returns a string or an object.
func (c responsesChoice) MarshalJSON() ([]byte, error) {
	switch c.Type {
	case "":
		return marshal(c.Mode), nil
	case "allowed_tools":
		return marshal(struct {
			Type  string        `json:"type"`
			Mode  string        `json:"mode"`
			Tools []responsesTo `json:"tools"`
		}{c.Type, c.Mode, c.Tools}), nil
	}
	return marshal(responsesTo{c.Type, c.Name}), nil
}

// responsesText is the field text.
type responsesText struct {
	Format    *responsesFormat `json:"format,omitempty"`
	Verbosity json.RawMessage  `json:"verbosity,omitempty"`
}

type responsesFormat struct {
	Type        string          `json:"type"` // "text", "json_object", "json_schema"
	Name        string          `json:"name,omitempty"`
	Description string          `json:"description,omitempty"`
	Schema      json.RawMessage `json:"schema,omitempty"`
	Strict      *bool           `json:"strict,omitempty"`
}

// readText reads a field text that was checked before.
func readText(raw json.RawMessage) responsesText {
	var t responsesText
	if len(raw) == 0 || json.Unmarshal(raw, &t) != nil {
		return responsesText{}
	}
	return t
}

type responsesReasoning struct {
	Effort  json.RawMessage `json:"effort,omitempty"`
	Summary json.RawMessage `json:"summary,omitempty"`
}

// responsesEvent is an event of a stream as it is read: upstreams differ in the
// types of what matters little.
type responsesEvent struct {
	Type         string          `json:"type"`
	Response     json.RawMessage `json:"response"`
	Item         json.RawMessage `json:"item"`
	ItemID       json.RawMessage `json:"item_id"`
	OutputIndex  json.RawMessage `json:"output_index"`
	SummaryIndex json.RawMessage `json:"summary_index"`
	Delta        json.RawMessage `json:"delta"`
	Text         json.RawMessage `json:"text"`
	Refusal      json.RawMessage `json:"refusal"`
	Arguments    json.RawMessage `json:"arguments"`
	Input        json.RawMessage `json:"input"`
	Logprobs     json.RawMessage `json:"logprobs"`
	Annotation   json.RawMessage `json:"annotation"`
	Error        json.RawMessage `json:"error"`
}

// responsesAnswer is a response object as it is read.
type responsesAnswer struct {
	ID         json.RawMessage `json:"id"`
	Object     json.RawMessage `json:"object"`
	Status     json.RawMessage `json:"status"`
	Model      json.RawMessage `json:"model"`
	Error      json.RawMessage `json:"error"`
	Incomplete json.RawMessage `json:"incomplete_details"`
	Output     json.RawMessage `json:"output"`
	Usage      json.RawMessage `json:"usage"`
}

// responsesOutput is an output item as it is read.
type responsesOutput struct {
	Type      json.RawMessage `json:"type"`
	ID        json.RawMessage `json:"id"`
	CallID    json.RawMessage `json:"call_id"`
	Name      json.RawMessage `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
	Input     json.RawMessage `json:"input"`
	Content   json.RawMessage `json:"content"`
	Summary   json.RawMessage `json:"summary"`
	Encrypted json.RawMessage `json:"encrypted_content"`
}

// responsesContent is a part of an output item's content or summary as it is
// read.
type responsesContent struct {
	Type        json.RawMessage   `json:"type"`
	Text        json.RawMessage   `json:"text"`
	Refusal     json.RawMessage   `json:"refusal"`
	Annotations []json.RawMessage `json:"annotations"`
	Logprobs    json.RawMessage   `json:"logprobs"`
}
