package response

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The errors of a Fold.
var (
	// ErrCut: the answer ended before its finish_reason.
	ErrCut = errors.New("the answer was cut")
	// ErrEnvelope: an error stands in place of a completion, under a status of
	// success.
	ErrEnvelope = errors.New("the answer holds an error")
	// ErrMalformed: the answer is not a chat completion. It holds nothing of it.
	ErrMalformed = errors.New("the answer is not a chat completion")
)

// The reasons for which a model ends that change the plan.
const (
	finishLength = "length"
	finishFilter = "content_filter"
	finishCalls  = "tool_calls"
)

// Fold gathers the output of one model call from chunks, or from one body. It
// reads the first choice only, and never more than it needs: unknown fields and
// odd types do no harm.
type Fold struct {
	// Key makes the ids of calls that the model left without one unique over a
	// response, for instance Step.IdempotencyKey. Optional.
	Key string

	id      string
	out     ModelOutput // without what the builders hold
	said    map[DeltaKind]*strings.Builder
	calls   []*foldCall // by first sight
	byIndex map[int]*foldCall
}

type foldCall struct {
	place int  // in calls
	index int  // upstream's
	call  Call // without its arguments
	args  strings.Builder
	sent  int // bytes of the arguments given out as deltas
	begun bool
}

// NewFold returns an empty fold.
func NewFold() *Fold {
	return &Fold{
		byIndex: map[int]*foldCall{},
		said:    map[DeltaKind]*strings.Builder{TextDelta: {}, RefusalDelta: {}, ReasoningDelta: {}},
	}
}

// chunk is a chat.completion.chunk or a chat.completion.
type chunk struct {
	ID      json.RawMessage `json:"id"`
	Model   json.RawMessage `json:"model"`
	Error   json.RawMessage `json:"error"`
	Usage   json.RawMessage `json:"usage"`
	Choices []struct {
		Index   json.RawMessage `json:"index"`
		Delta   json.RawMessage `json:"delta"`
		Message json.RawMessage `json:"message"`
		Finish  json.RawMessage `json:"finish_reason"`
	} `json:"choices"`
}

// Chunk adds the data of one SSE event and returns what it adds to the output.
// "[DONE]" and nothing are fine. The error wraps ErrEnvelope or ErrMalformed.
func (f *Fold) Chunk(data []byte) ([]Delta, error) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "[DONE]" {
		return nil, nil
	}
	return f.add(data, "")
}

// Body adds a whole chat.completion. The errors are Chunk's.
func (f *Fold) Body(data []byte) ([]Delta, error) { return f.add(data, "stop") }

// add folds one JSON object; unsaid is the reason of a message without one.
func (f *Fold) add(data []byte, unsaid string) ([]Delta, error) {
	var c chunk
	data = bytes.TrimSpace(data)
	if json.Unmarshal(data, &c) != nil || data[0] != '{' {
		return nil, fmt.Errorf("response: fold: %w", ErrMalformed)
	}
	if !isNull(c.Error) {
		return nil, fmt.Errorf("response: fold: %w", ErrEnvelope)
	}
	if f.id == "" {
		f.id = text(c.ID)
	}
	if f.out.Model == "" {
		f.out.Model = text(c.Model)
	}
	if !isNull(c.Usage) {
		f.out.Usage = readUsage(c.Usage)
	}
	var deltas []Delta
	for _, choice := range c.Choices {
		if count(choice.Index) != 0 {
			continue
		}
		part, finish := choice.Delta, text(choice.Finish)
		if isNull(part) {
			part = choice.Message
		}
		if !isNull(part) {
			deltas = append(deltas, f.part(part)...)
			if finish == "" && f.out.Finish == "" {
				finish = unsaid
			}
		}
		switch finish {
		case "":
		case "error":
			return deltas, fmt.Errorf("response: fold: %w", ErrEnvelope)
		case "function_call":
			f.out.Finish = finishCalls
		case "max_tokens":
			f.out.Finish = finishLength
		default:
			f.out.Finish = finish
		}
	}
	return deltas, nil
}

// part folds a delta or a message.
func (f *Fold) part(raw json.RawMessage) []Delta {
	var m map[string]json.RawMessage
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	var deltas []Delta
	say := func(kind DeltaKind, s string) {
		if s != "" {
			f.said[kind].WriteString(s)
			deltas = append(deltas, Delta{Kind: kind, Text: s})
		}
	}
	say(ReasoningDelta, reasoningText(m))
	say(TextDelta, plainText(nullIfAbsent(m["content"])))
	say(RefusalDelta, text(m["refusal"]))
	var calls []json.RawMessage
	if json.Unmarshal(m["tool_calls"], &calls) == nil {
		for i, c := range calls {
			deltas = append(deltas, f.call(c, i)...)
		}
	}
	if fn := m["function_call"]; !isNull(fn) && len(calls) == 0 { // the form before tool_calls
		deltas = append(deltas, f.call(marshal(map[string]any{"index": 0, "function": fn}), 0)...)
	}
	return deltas
}

func nullIfAbsent(raw json.RawMessage) json.RawMessage {
	if len(raw) > 0 && (raw[0] == '"' || raw[0] == '[') {
		return raw
	}
	return nil
}

// reasoningText reads the one of the three forms that is there; upstreams that
// send two send the same text twice.
func reasoningText(m map[string]json.RawMessage) string {
	for _, k := range []string{"reasoning_content", "reasoning"} {
		if s := text(m[k]); s != "" {
			return s
		}
	}
	var details []map[string]json.RawMessage
	var b strings.Builder
	if json.Unmarshal(m["reasoning_details"], &details) == nil {
		for _, d := range details {
			b.WriteString(text(d["text"]))
		}
	}
	return b.String()
}

// call folds a piece of a tool call; place stands in for a missing index.
func (f *Fold) call(raw json.RawMessage, place int) []Delta {
	var m struct {
		Index    json.RawMessage            `json:"index"`
		ID       json.RawMessage            `json:"id"`
		Function map[string]json.RawMessage `json:"function"`
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	c := f.callAt(m.Index, text(m.ID), place)
	if id := text(m.ID); c.call.ID == "" && !f.taken(id) {
		c.call.ID = id
	}
	if name := text(m.Function["name"]); c.call.Name == "" {
		c.call.Name = name
	}
	if args := m.Function["arguments"]; len(args) > 0 {
		if args[0] == '"' {
			c.args.WriteString(text(args))
		} else if !isNull(args) {
			c.args.Write(args)
		}
	}
	return f.callDelta(c)
}

// callAt finds the call that a piece belongs to. Without an index a new id
// begins a call, and no id goes on with the last.
func (f *Fold) callAt(rawIndex json.RawMessage, id string, place int) *foldCall {
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
		c = &foldCall{place: len(f.calls), index: index}
		f.byIndex[index] = c
		f.calls = append(f.calls, c)
	}
	return c
}

// taken reports whether id is empty or another call's.
func (f *Fold) taken(id string) bool {
	if id == "" {
		return true
	}
	for _, c := range f.calls {
		if c.call.ID == id {
			return true
		}
	}
	return false
}

// callDelta gives out what is new of a call, once its name is known and its
// arguments can no longer turn out to mean none.
func (f *Fold) callDelta(c *foldCall) []Delta {
	args := c.args.String()
	if c.call.Name == "" {
		return nil
	}
	if c.call.ID == "" {
		c.call.ID = f.madeID(c.place)
	}
	d := Delta{Kind: CallDelta, Index: c.place, CallID: c.call.ID, Name: c.call.Name}
	if c.sent > 0 || !mayBeNull(args) {
		d.Text = args[c.sent:]
		c.sent = len(args)
	}
	if c.begun && d.Text == "" {
		return nil
	}
	c.begun = true
	return []Delta{d}
}

// mayBeNull reports whether args is, or could become, a way to say none.
func mayBeNull(args string) bool {
	t := strings.TrimLeft(args, " \t\r\n")
	return strings.HasPrefix("null", strings.TrimRight(t, " \t\r\n")) || strings.HasPrefix(`""`, strings.TrimRight(t, " \t\r\n"))
}

// normalArguments returns args, or {} for a way to say none.
func normalArguments(args string) string {
	switch strings.TrimSpace(args) {
	case "", "null", `""`:
		return "{}"
	}
	return args
}

// madeID is the id of a call that came without one, or with another's: the
// same whenever the same answer is folded.
func (f *Fold) madeID(place int) string {
	sum := sha256.Sum256([]byte(f.Key + "\x00" + f.id + "\x00" + strconv.Itoa(place)))
	return "call_" + hex.EncodeToString(sum[:12])
}

// Output returns what was gathered. Without a finish_reason the error wraps
// ErrCut.
func (f *Fold) Output() (ModelOutput, error) {
	if f.out.Finish == "" {
		return ModelOutput{}, fmt.Errorf("response: fold: %w before its finish_reason", ErrCut)
	}
	out := f.out
	out.Text, out.Refusal = f.said[TextDelta].String(), f.said[RefusalDelta].String()
	out.Reasoning = f.said[ReasoningDelta].String()
	for _, c := range f.calls {
		call := c.call
		if call.ID == "" {
			call.ID = f.madeID(c.place)
		}
		call.Arguments = normalArguments(c.args.String())
		out.Calls = append(out.Calls, call)
	}
	return out, nil
}

// Usage returns the tokens counted so far, for a try that ends without Output.
func (f *Fold) Usage() Usage { return f.out.Usage }
