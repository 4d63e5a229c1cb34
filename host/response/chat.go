package response

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// chatBody is the body of POST /v1/chat/completions. metadata, store and the
// like are the host's business and not sent.
type chatBody struct {
	Model             string          `json:"model"`
	Messages          []chatMessage   `json:"messages"`
	Tools             []chatTool      `json:"tools,omitempty"`
	ToolChoice        any             `json:"tool_choice,omitempty"`
	ParallelToolCalls *bool           `json:"parallel_tool_calls,omitempty"`
	MaxTokens         *int64          `json:"max_tokens,omitempty"`
	Temperature       *float64        `json:"temperature,omitempty"`
	TopP              *float64        `json:"top_p,omitempty"`
	PresencePenalty   *float64        `json:"presence_penalty,omitempty"`
	FrequencyPenalty  *float64        `json:"frequency_penalty,omitempty"`
	Logprobs          bool            `json:"logprobs,omitempty"`
	TopLogprobs       int64           `json:"top_logprobs,omitempty"`
	ResponseFormat    any             `json:"response_format,omitempty"`
	Verbosity         json.RawMessage `json:"verbosity,omitempty"`
	ReasoningEffort   json.RawMessage `json:"reasoning_effort,omitempty"`
	PromptCacheKey    string          `json:"prompt_cache_key,omitempty"`
	SafetyIdentifier  string          `json:"safety_identifier,omitempty"`
	User              string          `json:"user,omitempty"`
	Stream            bool            `json:"stream"`
	StreamOptions     streamOptions   `json:"stream_options"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type chatMessage struct {
	Role       string     `json:"role"`
	Content    any        `json:"content"` // string, parts, or null beside tool calls
	Name       string     `json:"name,omitempty"`
	ToolCalls  []chatCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

type chatCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function chatFunction `json:"function"`
}

type chatFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type chatTool struct {
	Type     string `json:"type"`
	Function any    `json:"function"`
}

// ChatRequest returns the body of the next model call of a response: the one
// place where Responses becomes Chat Completions. steps is the chain so far,
// tools are the offered server tools. The answer is always streamed.
func ChatRequest(j Brief, steps []Step, tools []ServerTool) ([]byte, error) {
	r := j.Request
	if r == nil {
		return nil, fmt.Errorf("response: chat request: the brief has no request")
	}
	set := newToolset(r, tools)
	body := chatBody{
		Model: r.Model, Temperature: r.Temperature, TopP: r.TopP,
		PresencePenalty: r.PresencePenalty, FrequencyPenalty: r.FrequencyPenalty,
		PromptCacheKey: r.PromptCacheKey, SafetyIdentifier: r.SafetyIdentifier, User: r.User,
		Stream: true, StreamOptions: streamOptions{IncludeUsage: true},
	}
	if n := r.TopLogprobs; n != nil && *n > 0 {
		body.Logprobs, body.TopLogprobs = true, *n
	}
	if r.MaxOutputTokens != nil {
		left := max(1, *r.MaxOutputTokens-TotalUsage(steps).Output)
		body.MaxTokens = &left
	}
	body.format(r)
	first := !slices.ContainsFunc(steps, func(s Step) bool { return s.Kind == ModelCall && s.State == Completed })
	body.offer(set, first)
	if len(body.Tools) > 0 {
		body.ParallelToolCalls = r.ParallelToolCalls
	}
	t := transcript{set: set}
	if r.Instructions != nil && *r.Instructions != "" {
		t.say("system", *r.Instructions, "")
	}
	t.items(transcriptItems(j))
	if err := t.chain(steps); err != nil {
		return nil, err
	}
	body.Messages = t.messages
	if body.Messages == nil {
		body.Messages = []chatMessage{}
	}
	return marshal(body), nil
}

// format translates text and reasoning.
func (b *chatBody) format(r *Request) {
	var t struct {
		Verbosity json.RawMessage `json:"verbosity"`
		Format    struct {
			Type        string          `json:"type"`
			Name        string          `json:"name"`
			Description string          `json:"description"`
			Schema      json.RawMessage `json:"schema"`
			Strict      *bool           `json:"strict"`
		} `json:"format"`
	}
	if r.Text != nil && json.Unmarshal(r.Text, &t) == nil {
		if !isNull(t.Verbosity) {
			b.Verbosity = t.Verbosity
		}
		switch t.Format.Type {
		case "json_object":
			b.ResponseFormat = map[string]any{"type": "json_object"}
		case "json_schema":
			schema := map[string]any{"name": t.Format.Name, "schema": t.Format.Schema}
			if t.Format.Description != "" {
				schema["description"] = t.Format.Description
			}
			if t.Format.Strict != nil {
				schema["strict"] = *t.Format.Strict
			}
			b.ResponseFormat = map[string]any{"type": "json_schema", "json_schema": schema}
		}
	}
	var reasoning struct {
		Effort json.RawMessage `json:"effort"`
	}
	if r.Reasoning != nil && json.Unmarshal(r.Reasoning, &reasoning) == nil && !isNull(reasoning.Effort) {
		b.ReasoningEffort = reasoning.Effort
	}
}

// offer sets the tools, sorted by name, and the choice. What tool_choice does
// not allow is not offered in any model call; a forced choice holds for the
// first one only, since the loop would never end otherwise.
func (b *chatBody) offer(set toolset, first bool) {
	forced := set.choice.forced
	label := first && forced.Type == "mcp" && forced.Name == ""
	named := map[string]any{}
	for name, f := range set.functions {
		named[name] = f.Raw
	}
	for name, t := range set.tools {
		fn := map[string]any{"name": name}
		if t.Description != "" {
			fn["description"] = t.Description
		}
		if !isNull(t.Parameters) {
			fn["parameters"] = t.Parameters
		}
		named[name] = fn
	}
	names := make([]string, 0, len(named))
	for name := range named {
		allowed := set.choice.mode == "none" || set.allows(name)
		if allowed && (!label || set.named([]toolRef{forced}, name)) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		b.Tools = append(b.Tools, chatTool{"function", named[name]})
	}
	switch {
	case len(names) == 0 || set.choice.mode == "":
	case set.choice.mode != "required":
		b.ToolChoice = set.choice.mode
	case !first:
		b.ToolChoice = "auto"
	case forced.Type == "" || label:
		b.ToolChoice = "required"
	default:
		b.ToolChoice = "auto"
		for _, name := range names {
			if set.named([]toolRef{forced}, name) {
				b.ToolChoice = map[string]any{"type": "function", "function": map[string]any{"name": name}}
				break
			}
		}
	}
}

// transcript gathers messages. Tool calls that follow each other become one
// assistant message with the results right after it, whatever came between
// call and result.
type transcript struct {
	set      toolset
	messages []chatMessage
	calls    []chatCall
	results  []chatMessage
}

func (t *transcript) say(role string, content any, name string) {
	t.flush()
	t.messages = append(t.messages, chatMessage{Role: role, Content: content, Name: name})
}

// flush ends a run of calls. They join the assistant message before them.
func (t *transcript) flush() {
	if len(t.calls) == 0 {
		return
	}
	n := len(t.messages)
	if n > 0 && t.messages[n-1].Role == "assistant" && t.messages[n-1].ToolCalls == nil {
		t.messages[n-1].ToolCalls = t.calls
	} else {
		t.messages = append(t.messages, chatMessage{Role: "assistant", ToolCalls: t.calls})
	}
	t.messages = append(t.messages, t.results...)
	t.calls, t.results = nil, nil
}

func (t *transcript) call(id, name, arguments string, result any) {
	t.calls = append(t.calls, chatCall{id, "function", chatFunction{safeName(name), objectText(arguments)}})
	t.results = append(t.results, chatMessage{Role: "tool", Content: result, ToolCallID: id})
}

// objectText returns the arguments if they are a JSON object, else {}: templates
// of some upstreams fail on a transcript that holds what a model got wrong.
func objectText(arguments string) string {
	trimmed := strings.TrimSpace(arguments)
	if !strings.HasPrefix(trimmed, "{") || !json.Valid([]byte(trimmed)) {
		return "{}"
	}
	return trimmed
}

// items adds input and ancestors' items. Items that Chat Completions has no
// words for are left out.
func (t *transcript) items(items []Item) {
	outputs := pairOutputs(items)
	for i, it := range items {
		var m map[string]json.RawMessage
		if json.Unmarshal(it.Raw, &m) != nil {
			continue
		}
		switch it.Type {
		case "message":
			t.message(m)
		case "function_call":
			if o, ok := outputs[i]; ok {
				t.call(it.CallID, text(m["name"]), argumentsText(m["arguments"]), resultContent(items[o].Raw))
			}
		case "function_call_output":
			t.flush()
		case "mcp_call":
			t.receipt(it, m)
		}
	}
	t.flush()
}

func (t *transcript) message(m map[string]json.RawMessage) {
	role, content := text(m["role"]), chatContent(m["content"])
	switch role {
	case "developer":
		role = "system" // the name that every upstream knows
	case "assistant":
		content = plainText(m["content"])
	}
	t.say(role, content, text(m["name"]))
}

// receipt adds a server tool's call and its result, so that later responses
// know what was done.
func (t *transcript) receipt(it Item, m map[string]json.RawMessage) {
	result := text(m["output"])
	if !isNull(m["error"]) {
		result = receiptError(m["error"])
	} else if isNull(m["output"]) {
		return
	}
	label, name := text(m["server_label"]), text(m["name"])
	for offered, s := range t.set.tools {
		if s.Plugin == label && s.Tool == name {
			name = offered
		}
	}
	t.call(it.ID, name, argumentsText(m["arguments"]), result)
}

// receiptError is the text in the error of an mcp_call: an object, or a string.
func receiptError(raw json.RawMessage) string {
	var e struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &e) != nil || e.Message == "" {
		e.Code, e.Message = "", text(raw)
	}
	if e.Code == "" {
		e.Code = "error"
	}
	return string(ErrorOutput(e.Code, e.Message))
}

// argumentsText is the arguments of a call as JSON text; null-like ones are {}.
func argumentsText(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		return normalArguments(text(raw))
	}
	return normalArguments(string(raw))
}

// resultContent is the content of a tool message for a function_call_output.
func resultContent(raw json.RawMessage) any {
	var out struct {
		Output json.RawMessage `json:"output"`
	}
	if json.Unmarshal(raw, &out) != nil {
		return ""
	}
	return chatContent(out.Output)
}

// chain adds the steps of this response: each model call with the calls that
// have an answer, each answer under its exact call id.
func (t *transcript) chain(steps []Step) error {
	sorted := slices.Clone(steps)
	slices.SortFunc(sorted, func(a, b Step) int { return a.Ordinal - b.Ordinal })
	for i, s := range sorted {
		if s.Kind != ModelCall || s.State != Completed {
			continue
		}
		out, err := DecodeModelOutput(s.Output)
		if err != nil {
			return fmt.Errorf("response: chat request: step %s: %w", s.Key(), err)
		}
		results := map[string]Step{}
		for _, c := range sorted[i+1:] {
			if c.Kind == ModelCall {
				break
			}
			if c.Settled() {
				results[c.CallID] = c
			}
		}
		if said := out.Text + out.Refusal; said != "" {
			t.say("assistant", said, "")
		} else {
			t.flush()
		}
		for _, c := range out.Calls {
			if r, ok := results[c.ID]; ok {
				t.call(c.ID, c.Name, c.Arguments, Receipt(r).Output)
			}
		}
		t.flush()
	}
	return nil
}
