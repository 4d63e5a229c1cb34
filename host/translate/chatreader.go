package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// chatReader reads a chat completion. It reads the first choice only, and never
// more than it needs.
type chatReader struct {
	gathered
	byIndex map[int]*gatheredCall
	begun   bool // a chunk was read
	counted bool // the last chunk held the usage and no choice
}

// NewChatReader returns a Reader of one answer of an upstream that speaks Chat
// Completions. key makes the ids of calls that the model left without one unique
// over a response, for instance Step.IdempotencyKey.
func NewChatReader(key string) Reader {
	return &chatReader{gathered: gathered{key: key}, byIndex: map[int]*gatheredCall{}}
}

// Chunk is Reader.Chunk.
func (f *chatReader) Chunk(data []byte) ([]response.Delta, error) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "[DONE]" {
		return nil, nil
	}
	if f.begun { // the first one says which answer it is
		if s, ok := quickText(data); ok {
			f.counted = false
			return f.say(nil, response.TextDelta, s), nil
		}
	}
	return f.add(data, "")
}

// Body is Reader.Body.
func (f *chatReader) Body(data []byte) ([]response.Delta, error) { return f.add(data, finishStop) }

// Usage is Reader.Usage.
func (f *chatReader) Usage() response.Usage { return f.out.Usage }

// Output is Reader.Output. What ends an answer is its finish_reason.
func (f *chatReader) Output() (response.ModelOutput, error) {
	if f.out.Finish == "" {
		return response.ModelOutput{}, fmt.Errorf("translate: chat answer: %w before its finish_reason", ErrCut)
	}
	return f.output(), nil
}

// add reads one JSON object; unsaid is the reason of a message without one.
func (f *chatReader) add(data []byte, unsaid string) ([]response.Delta, error) {
	var c chatAnswer
	data = bytes.TrimSpace(data)
	if json.Unmarshal(data, &c) != nil || data[0] != '{' {
		return nil, fmt.Errorf("translate: chat answer: %w", ErrMalformed)
	}
	if !isNull(c.Error) {
		return nil, fmt.Errorf("translate: chat answer: %w", ErrEnvelope)
	}
	f.begun, f.counted = true, len(c.Choices) == 0 && !isNull(c.Usage)
	if f.id == "" {
		f.id = text(c.ID)
	}
	if f.out.Model == "" {
		f.out.Model = text(c.Model)
	}
	if !isNull(c.Usage) {
		f.out.Usage = readChatUsage(c.Usage)
	}
	var deltas []response.Delta
	for _, choice := range c.Choices {
		if len(choice.Index) > 0 && string(choice.Index) != "0" && count(choice.Index) != 0 {
			continue
		}
		part, finish := choice.Delta, text(choice.Finish)
		if isNull(part) {
			part = choice.Message
		}
		if !isNull(part) {
			f.logprobsOf(choice.Logprobs)
			deltas = f.part(deltas, part)
			if finish == "" && f.out.Finish == "" {
				finish = unsaid
			}
		}
		if finish == "error" {
			return deltas, fmt.Errorf("translate: chat answer: %w", ErrEnvelope)
		}
		f.finish(finish)
	}
	return deltas, nil
}

// finish takes a finish_reason, in one of the ways in which upstreams write it.
func (f *chatReader) finish(reason string) {
	switch reason {
	case "":
	case "function_call":
		f.out.Finish = finishCalls
	case "max_tokens":
		f.out.Finish = finishLength
	default:
		f.out.Finish = reason
	}
}

// logprobsOf takes the log probabilities of a choice: those of its text.
func (f *chatReader) logprobsOf(raw json.RawMessage) {
	var l struct {
		Content json.RawMessage `json:"content"`
	}
	if !isNull(raw) && json.Unmarshal(raw, &l) == nil {
		f.probable(l.Content)
	}
}

// part reads a delta or a message.
func (f *chatReader) part(deltas []response.Delta, raw json.RawMessage) []response.Delta {
	var m chatPiece
	if json.Unmarshal(raw, &m) != nil {
		return deltas
	}
	deltas = f.say(deltas, response.ReasoningDelta, m.reasoning())
	deltas = f.say(deltas, response.TextDelta, plainText(m.Content))
	deltas = f.say(deltas, response.RefusalDelta, text(m.Refusal))
	deltas = f.annotations(deltas, m.Annotations)
	var calls []json.RawMessage
	if !isNull(m.ToolCalls) && json.Unmarshal(m.ToolCalls, &calls) == nil {
		for i, c := range calls {
			deltas = f.call(deltas, c, i)
		}
	}
	if !isNull(m.FunctionCall) && len(calls) == 0 {
		deltas = f.call(deltas, marshal(map[string]any{"index": 0, "function": m.FunctionCall}), 0)
	}
	return deltas
}

// reasoning reads the one of the three forms that is there; upstreams that
// send two send the same text twice.
func (m chatPiece) reasoning() string {
	if s := text(m.ReasoningContent); s != "" {
		return s
	}
	if s := text(m.Reasoning); s != "" {
		return s
	}
	if isNull(m.ReasoningDetails) {
		return ""
	}
	var details []struct {
		Text json.RawMessage `json:"text"`
	}
	var b strings.Builder
	if json.Unmarshal(m.ReasoningDetails, &details) == nil {
		for _, d := range details {
			b.WriteString(text(d.Text))
		}
	}
	return b.String()
}

// annotations reads citations. In Chat Completions their fields are in an
// object of their own.
func (f *chatReader) annotations(deltas []response.Delta, raw json.RawMessage) []response.Delta {
	var list []json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &list) != nil {
		return deltas
	}
	for _, a := range list {
		if flat, ok := citation(a); ok {
			deltas = f.annotate(deltas, flat)
		}
	}
	return deltas
}

// call reads a piece of a tool call; place stands in for a missing index.
func (f *chatReader) call(deltas []response.Delta, raw json.RawMessage, place int) []response.Delta {
	var m struct {
		Index    json.RawMessage `json:"index"`
		ID       json.RawMessage `json:"id"`
		Function json.RawMessage `json:"function"`
	}
	var fn struct {
		Name      json.RawMessage `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	}
	if json.Unmarshal(raw, &m) != nil || !isNull(m.Function) && json.Unmarshal(m.Function, &fn) != nil {
		return deltas
	}
	id := text(m.ID)
	c := f.callAt(m.Index, id, place)
	f.named(c, id, text(fn.Name))
	if args := fn.Arguments; len(args) > 0 {
		if args[0] == '"' {
			c.args.WriteString(text(args))
		} else if !isNull(args) {
			c.args.Write(args)
		}
	}
	return f.show(deltas, c)
}

// callAt finds the call that a piece belongs to. Without an index a new id
// begins a call, and no id goes on with the last.
func (f *chatReader) callAt(rawIndex json.RawMessage, id string, place int) *gatheredCall {
	index, err := strconv.Atoi(string(rawIndex))
	if err != nil {
		index = place
		if n := len(f.calls); n > 0 {
			last := f.calls[n-1]
			index = last.index
			if id != "" && last.call.ID != id || place >= n {
				index = max(index+1, place)
			}
		}
	}
	c, ok := f.byIndex[index]
	if !ok {
		c = f.begin(index)
		f.byIndex[index] = c
	}
	return c
}
