package demo

import (
	"encoding/json"
	"slices"
	"strings"
)

// A request is what the server reads of a request of either kind, in the words
// of Chat Completions.
type request struct {
	Model             string          `json:"model"`
	Messages          []message       `json:"messages"`
	Tools             []toolOffer     `json:"tools"`
	ToolChoice        json.RawMessage `json:"tool_choice"`
	ParallelToolCalls *bool           `json:"parallel_tool_calls"`
	Stream            bool            `json:"stream"`
	StreamOptions     streamOptions   `json:"stream_options"`
	MaxTokens         int             `json:"max_tokens"`
	MaxOutputTokens   int             `json:"max_completion_tokens"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type toolOffer struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

// text returns the text of a message: its string, or its text parts.
func (m message) text() string {
	var s string
	if json.Unmarshal(m.Content, &s) == nil {
		return s
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if json.Unmarshal(m.Content, &parts) != nil {
		return ""
	}
	var texts []string
	for _, p := range parts {
		if slices.Contains([]string{"text", "input_text", "output_text"}, p.Type) {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}

// responsesRequest is what the server reads of a Responses request.
type responsesRequest struct {
	Model             string            `json:"model"`
	Instructions      *string           `json:"instructions"`
	Input             json.RawMessage   `json:"input"`
	Tools             []json.RawMessage `json:"tools"`
	ToolChoice        json.RawMessage   `json:"tool_choice"`
	ParallelToolCalls *bool             `json:"parallel_tool_calls"`
	MaxOutputTokens   *int              `json:"max_output_tokens"`
	Include           []string          `json:"include"`
	Store             *bool             `json:"store"`
	Stream            bool              `json:"stream"`
}

// inputItem is what the server reads of an item of the input.
type inputItem struct {
	Type    string          `json:"type"`
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
	Output  json.RawMessage `json:"output"`
}

// namedTool is what the server reads of a tool on offer.
type namedTool struct {
	Type string `json:"type"`
	Name string `json:"name"`
}

// items returns the input's items; a string is a message of the user.
func (q responsesRequest) items() (items []inputItem, ok bool) {
	if json.Unmarshal(q.Input, &items) == nil && items != nil {
		return items, true
	}
	var s string
	if json.Unmarshal(q.Input, &s) != nil {
		return nil, false
	}
	return []inputItem{{Type: "message", Role: "user", Content: q.Input}}, true
}

// named returns the tools on offer.
func (q responsesRequest) named() []namedTool {
	tools := make([]namedTool, len(q.Tools))
	for i, raw := range q.Tools {
		_ = json.Unmarshal(raw, &tools[i]) // no name is that of no tool
	}
	return tools
}

// general returns the request in the words of Chat Completions; false: it is none.
func (q responsesRequest) general() (request, bool) {
	g := request{Model: q.Model, ToolChoice: q.ToolChoice, ParallelToolCalls: q.ParallelToolCalls, Stream: q.Stream}
	if q.MaxOutputTokens != nil {
		g.MaxOutputTokens = *q.MaxOutputTokens
	}
	items, ok := q.items()
	for _, it := range items {
		switch it.Type {
		case "", "message":
			g.Messages = append(g.Messages, message{Role: it.Role, Content: it.Content})
		case "function_call_output", "custom_tool_call_output":
			g.Messages = append(g.Messages, message{Role: "tool", Content: it.Output})
		}
	}
	for _, t := range q.named() {
		var o toolOffer
		o.Function.Name = t.Name
		g.Tools = append(g.Tools, o)
	}
	return g, ok
}

// read reads a request of either kind; false: the server refuses it.
func (r Request) read() (request, bool) {
	if strings.HasSuffix(r.Path, responsesPath) {
		var q responsesRequest
		if json.Unmarshal(r.Body, &q) != nil {
			return request{}, false
		}
		return q.general()
	}
	var q request
	return q, json.Unmarshal(r.Body, &q) == nil
}
