package translate

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// errNoRequest: a Call whose brief is empty.
var errNoRequest = errors.New("translate: the brief has no request")

// ChatRequest returns the body of the call for an upstream that speaks Chat
// Completions. Its answer is always streamed. The error is an *Unsupported for
// what no such upstream takes.
func ChatRequest(c Call) ([]byte, error) {
	r := c.Brief.Request
	if r == nil {
		return nil, errNoRequest
	}
	offered := r.Offer(c.Tools, c.first())
	body := chatRequest{
		Model: r.Model, MaxTokens: c.left(), Temperature: r.Temperature, TopP: r.TopP,
		PresencePenalty: r.PresencePenalty, FrequencyPenalty: r.FrequencyPenalty,
		PromptCacheKey: r.PromptCacheKey, SafetyIdentifier: r.SafetyIdentifier, User: r.User,
		Stream: true, StreamOptions: &chatStreamOptions{IncludeUsage: true},
	}
	if n := r.TopLogprobs; n != nil && *n > 0 {
		body.Logprobs, body.TopLogprobs = true, *n
	}
	body.Logprobs = body.Logprobs || slices.Contains(r.Include, includeLogprobs)
	body.format(r)
	body.offer(offered)
	if len(body.Tools) > 0 {
		body.ParallelToolCalls = r.ParallelToolCalls
	}
	t := &transcript{}
	if r.Instructions != nil && *r.Instructions != "" {
		t.say(chatMessage{Role: "system", Content: &chatContent{Text: *r.Instructions}})
	}
	if err := walk(c, t); err != nil {
		return nil, err
	}
	body.Messages = t.done()
	return marshal(body), nil
}

// format translates text and reasoning.
func (b *chatRequest) format(r *response.Request) {
	t := readText(r.Text)
	if !isNull(t.Verbosity) {
		b.Verbosity = t.Verbosity
	}
	switch f := t.Format; {
	case f == nil:
	case f.Type == "json_object":
		b.ResponseFormat = &chatFormat{Type: f.Type}
	case f.Type == "json_schema":
		b.ResponseFormat = &chatFormat{Type: f.Type, JSONSchema: &chatSchema{
			Name: f.Name, Description: f.Description, Schema: f.Schema, Strict: f.Strict,
		}}
	}
	var reasoning responsesReasoning
	if json.Unmarshal(r.Reasoning, &reasoning) == nil && !isNull(reasoning.Effort) {
		b.ReasoningEffort = reasoning.Effort
	}
}

// offer sets the tools, sorted by name, and the choice.
func (b *chatRequest) offer(o response.Offered) {
	type named struct {
		name string
		tool chatTool
	}
	all := make([]named, 0, len(o.Functions)+len(o.Servers))
	for _, f := range o.Functions {
		all = append(all, named{f.Name, chatTool{"function", f.Raw}})
	}
	for _, t := range o.Servers {
		d := chatDeclaration{Name: t.Name, Description: t.Description}
		if !isNull(t.Parameters) {
			d.Parameters = t.Parameters
		}
		all = append(all, named{t.Name, chatTool{"function", marshal(d)}})
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	for _, n := range all {
		b.Tools = append(b.Tools, n.tool)
	}
	if o.Choice != "" {
		b.ToolChoice = &chatChoice{Mode: o.Choice, Function: o.Forced}
	}
}
