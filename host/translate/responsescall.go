package translate

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// ResponsesRequest returns the body of the call for an upstream that speaks
// Responses. Its answer is always streamed and not stored there. The error is an
// *Unsupported for what no such upstream takes.
func ResponsesRequest(c Call) ([]byte, error) {
	r := c.Brief.Request
	if r == nil {
		return nil, errNoRequest
	}
	body := responsesRequest{
		Model: r.Model, MaxOutputTokens: c.left(), Temperature: r.Temperature, TopP: r.TopP,
		PresencePenalty: r.PresencePenalty, FrequencyPenalty: r.FrequencyPenalty, TopLogprobs: r.TopLogprobs,
		Text: r.Text, Reasoning: r.Reasoning, Truncation: r.Truncation,
		PromptCacheKey: r.PromptCacheKey, SafetyIdentifier: r.SafetyIdentifier, User: r.User, Stream: true,
	}
	if n := body.MaxOutputTokens; n != nil {
		*n = max(*n, leastOutput)
	}
	if r.Instructions != nil {
		body.Instructions = *r.Instructions
	}
	body.offer(r.Offer(c.Tools, c.first()))
	if len(body.Tools) > 0 {
		body.ParallelToolCalls = r.ParallelToolCalls
	}
	w := &inputItems{}
	if err := walk(c, w); err != nil {
		return nil, err
	}
	body.Input = w.items
	if body.Input == nil {
		body.Input = []responsesItem{}
	}
	if w.thought || !isNull(r.Reasoning) || slices.Contains(r.Include, includeEncrypted) {
		// Models that do not reason refuse to be asked for it.
		body.Include = append(body.Include, includeEncrypted)
	}
	if slices.Contains(r.Include, includeLogprobs) || r.TopLogprobs != nil && *r.TopLogprobs > 0 {
		body.Include = append(body.Include, includeLogprobs)
	}
	return marshal(body), nil
}

// noParameters are those of a function that takes none.
var noParameters = json.RawMessage(`{"type":"object","properties":{}}`)

// offer sets the tools, sorted by name, and the choice.
func (b *responsesRequest) offer(o response.Offered) {
	custom := map[string]bool{}
	for _, f := range o.Functions {
		var t responsesTool
		_ = json.Unmarshal(f.Raw, &t) // it was written from what was checked
		t.Type, t.Name = "function", f.Name
		if f.Custom {
			t = responsesTool{Type: "custom", Name: f.Name, Description: t.Description, Format: f.Format}
			custom[f.Name] = true
		} else if isNull(t.Parameters) {
			t.Parameters = noParameters
		}
		b.Tools = append(b.Tools, t)
	}
	loose := false // their schemas are not written for strict mode, which is the default there
	for _, t := range o.Servers {
		d := responsesTool{Type: "function", Name: t.Name, Description: t.Description, Parameters: t.Parameters, Strict: &loose}
		if isNull(d.Parameters) {
			d.Parameters = noParameters
		}
		b.Tools = append(b.Tools, d)
	}
	slices.SortFunc(b.Tools, func(x, y responsesTool) int { return strings.Compare(x.Name, y.Name) })
	switch {
	case o.Forced != "" && custom[o.Forced]:
		b.ToolChoice = &responsesChoice{Type: "custom", Name: o.Forced}
	case o.Forced != "":
		b.ToolChoice = &responsesChoice{Type: "function", Name: o.Forced}
	case o.Choice != "":
		b.ToolChoice = &responsesChoice{Mode: o.Choice}
	}
}

// inputItems is the writer of Responses' input.
type inputItems struct {
	items   []responsesItem
	thought bool // encrypted reasoning is among them
}

func (w *inputItems) add(it responsesItem) { w.items = append(w.items, it) }

func (w *inputItems) message(_ string, m item) error {
	content := m.Content
	if isNull(content) {
		content = json.RawMessage(`""`)
	}
	w.add(responsesItem{Type: "message", Role: m.Role, Phase: present(m.Phase), Content: ownParts(m.Role, content)})
	return nil
}

// present returns raw, or nil for null: not every upstream takes null for
// absent.
func present(raw json.RawMessage) json.RawMessage {
	if isNull(raw) {
		return nil
	}
	return raw
}

func (w *inputItems) reasoning(m item) {
	if e := text(m.Encrypted); e != "" {
		w.think(m.Summary, e)
	}
}

func (w *inputItems) think(summary json.RawMessage, encrypted string) {
	if isNull(summary) || summary[0] != '[' {
		summary = json.RawMessage("[]")
	}
	w.add(responsesItem{Type: "reasoning", Summary: summary, Encrypted: encrypted})
	w.thought = true
}

func (w *inputItems) called(_ string, m, _ item) error {
	it := responsesItem{Type: m.Type, CallID: m.CallID, Name: response.SafeName(text(m.Name)), Namespace: present(m.Namespace)}
	if m.Type == "custom_tool_call" {
		input := text(m.Input)
		it.Input = &input
	} else {
		arguments := objectText(argumentsText(m.Arguments))
		it.Arguments = &arguments
	}
	w.add(it)
	return nil
}

func (w *inputItems) answer(_ string, output item) error {
	w.add(responsesItem{Type: output.Type, CallID: output.CallID, Output: outputOf(output.Output)})
	return nil
}

// outputOf is an output as Responses takes it: a string, or a list of parts.
func outputOf(raw json.RawMessage) json.RawMessage {
	switch {
	case isNull(raw):
		return json.RawMessage(`""`)
	case raw[0] == '"':
		return raw
	case raw[0] == '[':
		return ownParts("user", raw)
	}
	return marshal(string(raw))
}

func (w *inputItems) server(id, name, arguments, result string) {
	w.call(id, name, arguments)
	w.result(id, result)
}

func (w *inputItems) call(id, name, arguments string) {
	arguments = objectText(arguments)
	w.add(responsesItem{Type: "function_call", CallID: id, Name: response.SafeName(name), Arguments: &arguments})
}

func (w *inputItems) result(id, result string) {
	w.add(responsesItem{Type: "function_call_output", CallID: id, Output: marshal(result)})
}

func (w *inputItems) turn(out response.ModelOutput, results map[string]string) {
	if out.Encrypted != "" {
		w.think(summaryParts(out.Summary), out.Encrypted)
	}
	var parts []responsesPart
	if out.Text != "" {
		parts = append(parts, responsesPart{Type: "output_text", Text: &out.Text, Annotations: append([]json.RawMessage{}, out.Annotations...)})
	}
	if out.Refusal != "" {
		parts = append(parts, responsesPart{Type: "refusal", Refusal: &out.Refusal})
	}
	if parts != nil {
		w.add(responsesItem{Type: "message", Role: "assistant", Content: marshal(parts)})
	}
	for _, c := range out.Calls {
		if _, ok := results[c.ID]; ok {
			w.call(c.ID, c.Name, c.Arguments)
		}
	}
	for _, c := range out.Calls {
		if r, ok := results[c.ID]; ok {
			w.result(c.ID, r)
		}
	}
}

// summaryParts is a summary as a reasoning item has it.
func summaryParts(summary []string) json.RawMessage {
	parts := make([]responsesPart, len(summary))
	for i := range summary {
		parts[i] = responsesPart{Type: "summary_text", Text: &summary[i]}
	}
	return marshal(parts)
}

// ownParts returns content with the parts that are written as Chat Completions
// has them, which the host accepts as well, in the words of Responses. All
// others stay as they are, whatever fields they have.
func ownParts(role string, content json.RawMessage) json.RawMessage {
	list, ok := readParts(content)
	if !ok {
		return content
	}
	var raws []json.RawMessage
	_ = json.Unmarshal(content, &raws) // a list: that was just read
	for i, p := range list {
		switch p.Type {
		case "text":
			s, kind := text(p.Text), "input_text"
			if role == "assistant" {
				kind = "output_text"
			}
			raws[i] = marshal(responsesPart{Type: kind, Text: &s})
		case "image_url":
			var image chatImage
			if json.Unmarshal(p.ImageURL, &image) != nil {
				image.URL = text(p.ImageURL)
			}
			raws[i] = marshal(responsesPart{Type: "input_image", ImageURL: image.URL, Detail: image.Detail})
		}
	}
	return marshal(raws)
}
