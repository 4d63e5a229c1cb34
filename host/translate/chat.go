package translate

import "encoding/json"

// The types of Chat Completions, as far as the host reads and writes them.

// chatRequest is the body of POST /chat/completions. metadata, store and the
// like are the host's business and not sent.
type chatRequest struct {
	Model             string             `json:"model"`
	Messages          []chatMessage      `json:"messages"`
	Tools             []chatTool         `json:"tools,omitempty"`
	ToolChoice        *chatChoice        `json:"tool_choice,omitempty"`
	ParallelToolCalls *bool              `json:"parallel_tool_calls,omitempty"`
	MaxTokens         *int64             `json:"max_tokens,omitempty"`
	Temperature       *float64           `json:"temperature,omitempty"`
	TopP              *float64           `json:"top_p,omitempty"`
	PresencePenalty   *float64           `json:"presence_penalty,omitempty"`
	FrequencyPenalty  *float64           `json:"frequency_penalty,omitempty"`
	Logprobs          bool               `json:"logprobs,omitempty"`
	TopLogprobs       int64              `json:"top_logprobs,omitempty"`
	ResponseFormat    *chatFormat        `json:"response_format,omitempty"`
	Verbosity         json.RawMessage    `json:"verbosity,omitempty"`
	ReasoningEffort   json.RawMessage    `json:"reasoning_effort,omitempty"`
	PromptCacheKey    string             `json:"prompt_cache_key,omitempty"`
	SafetyIdentifier  string             `json:"safety_identifier,omitempty"`
	User              string             `json:"user,omitempty"`
	Stream            bool               `json:"stream"`
	StreamOptions     *chatStreamOptions `json:"stream_options,omitempty"`
}

type chatStreamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type chatMessage struct {
	Role       string       `json:"role"`
	Content    *chatContent `json:"content"` // null beside tool calls
	Name       string       `json:"name,omitempty"`
	ToolCalls  []chatCall   `json:"tool_calls,omitempty"`
	ToolCallID string       `json:"tool_call_id,omitempty"`
}

// chatContent is a string, or with Parts a list of them.
type chatContent struct {
	Text  string
	Parts []chatPart
}

// MarshalJSON returns a string or an array.
func (c chatContent) MarshalJSON() ([]byte, error) {
	if c.Parts != nil {
		return marshal(c.Parts), nil
	}
	return marshal(c.Text), nil
}

// chatPart is one part of a message's content; one of the fields after Type.
type chatPart struct {
	Type     string          `json:"type"` // "text", "image_url", "input_audio", "file"
	Text     *string         `json:"text,omitempty"`
	ImageURL json.RawMessage `json:"image_url,omitempty"` // {"url", "detail"}
	Audio    json.RawMessage `json:"input_audio,omitempty"`
	File     *chatFile       `json:"file,omitempty"`
}

type chatImage struct {
	URL    string `json:"url"`
	Detail string `json:"detail,omitempty"`
}

type chatFile struct {
	FileData string `json:"file_data,omitempty"`
	Filename string `json:"filename,omitempty"`
}

// chatCall is a call of a function, or of a custom tool.
type chatCall struct {
	ID       string        `json:"id"`
	Type     string        `json:"type"` // "function", "custom"
	Function *chatFunction `json:"function,omitempty"`
	Custom   *chatCustom   `json:"custom,omitempty"`
}

type chatCustom struct {
	Name  string `json:"name"`
	Input string `json:"input"`
}

func functionCall(id, name, arguments string) chatCall {
	return chatCall{ID: id, Type: "function", Function: &chatFunction{name, arguments}}
}

type chatFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type chatTool struct {
	Type     string          `json:"type"`
	Function json.RawMessage `json:"function"` // chatDeclaration, or as the client has it
}

// chatDeclaration declares a function.
type chatDeclaration struct {
	Description string          `json:"description,omitempty"`
	Name        string          `json:"name"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// chatChoice is a mode, or with Function the name of the one to call.
type chatChoice struct {
	Mode     string
	Function string
}

// MarshalJSON returns a string or {"type":"function","function":{"name"}}.
func (c chatChoice) MarshalJSON() ([]byte, error) {
	if c.Function == "" {
		return marshal(c.Mode), nil
	}
	var o struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
		Type string `json:"type"`
	}
	o.Type, o.Function.Name = "function", c.Function
	return marshal(o), nil
}

type chatFormat struct {
	JSONSchema *chatSchema `json:"json_schema,omitempty"`
	Type       string      `json:"type"` // "text", "json_object", "json_schema"
}

type chatSchema struct {
	Description string          `json:"description,omitempty"`
	Name        string          `json:"name"`
	Schema      json.RawMessage `json:"schema"`
	Strict      *bool           `json:"strict,omitempty"`
}

// chatAnswer is a chat.completion or a chat.completion.chunk as it is read:
// upstreams differ in the types of what matters little.
type chatAnswer struct {
	ID      json.RawMessage `json:"id"`
	Model   json.RawMessage `json:"model"`
	Error   json.RawMessage `json:"error"`
	Usage   json.RawMessage `json:"usage"`
	Choices []struct {
		Index    json.RawMessage `json:"index"`
		Delta    json.RawMessage `json:"delta"`
		Message  json.RawMessage `json:"message"`
		Logprobs json.RawMessage `json:"logprobs"`
		Finish   json.RawMessage `json:"finish_reason"`
	} `json:"choices"`
}

// chatPiece is a delta or a message as it is read.
type chatPiece struct {
	Content          json.RawMessage `json:"content"`
	Refusal          json.RawMessage `json:"refusal"`
	ReasoningContent json.RawMessage `json:"reasoning_content"`
	Reasoning        json.RawMessage `json:"reasoning"`
	ReasoningDetails json.RawMessage `json:"reasoning_details"`
	Annotations      json.RawMessage `json:"annotations"`
	ToolCalls        json.RawMessage `json:"tool_calls"`
	FunctionCall     json.RawMessage `json:"function_call"` // the form before tool_calls
}
