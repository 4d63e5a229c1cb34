package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// TextPassage reads a legacy text completion that goes to the client as it is,
// to know how it ends, what it costs and what it amounts to. It is not safe for
// concurrent use.
type TextPassage struct {
	id, model string
	choices   []*textChoice // by index
	usage     response.Usage
}

type textChoice struct {
	index    int64
	text     strings.Builder
	finish   string
	logprobs map[string][]json.RawMessage // arrays, of which each chunk has a part
}

// textAnswer is a text_completion as it is read, whole or a chunk.
type textAnswer struct {
	ID      json.RawMessage `json:"id"`
	Model   json.RawMessage `json:"model"`
	Error   json.RawMessage `json:"error"`
	Usage   json.RawMessage `json:"usage"`
	Choices []struct {
		Index    json.RawMessage `json:"index"`
		Text     json.RawMessage `json:"text"`
		Logprobs json.RawMessage `json:"logprobs"`
		Finish   json.RawMessage `json:"finish_reason"`
	} `json:"choices"`
}

// Chunk reads the data of one event; usage: it holds nothing but the usage. The
// errors are Reader's.
func (p *TextPassage) Chunk(data []byte) (usage bool, err error) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "[DONE]" {
		return false, nil
	}
	var a textAnswer
	switch {
	case json.Unmarshal(data, &a) != nil || data[0] != '{':
		return false, fmt.Errorf("translate: text answer: %w", ErrMalformed)
	case !isNull(a.Error):
		return false, fmt.Errorf("translate: text answer: %w", ErrEnvelope)
	}
	if p.id == "" {
		p.id = text(a.ID)
	}
	if p.model == "" {
		p.model = text(a.Model)
	}
	if !isNull(a.Usage) {
		p.usage = readChatUsage(a.Usage)
	}
	for _, c := range a.Choices {
		to := p.choice(count(c.Index))
		to.text.WriteString(text(c.Text))
		to.add(c.Logprobs)
		if finish := text(c.Finish); finish != "" {
			to.finish = finish
		}
	}
	return len(a.Choices) == 0 && !isNull(a.Usage), nil
}

// choice returns the choice of an index.
func (p *TextPassage) choice(index int64) *textChoice {
	i, ok := slices.BinarySearchFunc(p.choices, index, func(c *textChoice, n int64) int { return int(c.index - n) })
	if !ok {
		p.choices = slices.Insert(p.choices, i, &textChoice{index: index, logprobs: map[string][]json.RawMessage{}})
	}
	return p.choices[i]
}

// add takes a part of the log probabilities.
func (c *textChoice) add(raw json.RawMessage) {
	var parts map[string]json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &parts) != nil {
		return
	}
	for name, part := range parts {
		var list []json.RawMessage
		if json.Unmarshal(part, &list) == nil {
			c.logprobs[name] = append(c.logprobs[name], list...)
		}
	}
}

// Usage returns the tokens counted so far.
func (p *TextPassage) Usage() response.Usage { return p.usage }

// Completion returns the text_completion that the chunks amount to. created is
// in seconds since 1970. The error wraps ErrCut.
func (p *TextPassage) Completion(id, model string, created int64) ([]byte, error) {
	type choice struct {
		Text     string                       `json:"text"`
		Index    int64                        `json:"index"`
		Logprobs map[string][]json.RawMessage `json:"logprobs"`
		Finish   string                       `json:"finish_reason"`
	}
	all := make([]choice, 0, len(p.choices))
	for _, c := range p.choices {
		if c.finish == "" {
			return nil, fmt.Errorf("translate: text answer: %w before its finish_reason", ErrCut)
		}
		o := choice{Text: c.text.String(), Index: c.index, Finish: c.finish}
		if len(c.logprobs) > 0 {
			o.Logprobs = c.logprobs
		}
		all = append(all, o)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("translate: text answer: %w before its first choice", ErrCut)
	}
	return marshal(struct {
		ID      string     `json:"id"`
		Object  string     `json:"object"`
		Created int64      `json:"created"`
		Model   string     `json:"model"`
		Choices []choice   `json:"choices"`
		Usage   *chatUsage `json:"usage"`
	}{id, "text_completion", created, model, all, usageObject(p.usage)}), nil
}
