package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// responsesReader reads the answer of an upstream that speaks Responses. What an
// item says in its deltas counts; what only the whole item says, or the response
// at the end, is added to it: some upstreams do not stream all of it.
type responsesReader struct {
	gathered
	// plain: the input of a custom tool stays what it is. Else it becomes the
	// arguments of a function, which is what the host takes every tool for.
	plain bool
	items []*readOutput
}

// readOutput is an output item that is being read.
type readOutput struct {
	index, id string          // as upstream has them; "": not said
	call      *gatheredCall   // of a function_call or custom_tool_call
	custom    bool            // of a custom_tool_call: its input becomes arguments
	input     strings.Builder // of a custom_tool_call, as it came
	said      [3]strings.Builder
	base      int // of its summary, in the response's
	summaries map[int]*strings.Builder
	notes     int  // annotations
	encrypted bool // given out
	done      bool
	final     bool // found again in the response at the end
}

// What an item may say, as indexes of readOutput.said.
const (
	saidText = iota
	saidRefusal
	saidReasoning
)

var saidKinds = [3]response.DeltaKind{response.TextDelta, response.RefusalDelta, response.ReasoningDelta}

// NewResponsesReader returns a Reader of one answer of an upstream that speaks
// Responses. key makes the ids of calls that the model left without one unique
// over a response, for instance Step.IdempotencyKey.
func NewResponsesReader(key string) Reader {
	return &responsesReader{gathered: gathered{key: key}}
}

// Usage is Reader.Usage.
func (f *responsesReader) Usage() response.Usage { return f.out.Usage }

// Output is Reader.Output. What ends an answer is its terminal event.
func (f *responsesReader) Output() (response.ModelOutput, error) {
	if f.out.Finish == "" {
		return response.ModelOutput{}, fmt.Errorf("translate: responses answer: %w before its last event", ErrCut)
	}
	return f.output(), nil
}

// Chunk is Reader.Chunk.
func (f *responsesReader) Chunk(data []byte) ([]response.Delta, error) {
	data = bytes.TrimSpace(data)
	if len(data) == 0 || string(data) == "[DONE]" {
		return nil, nil
	}
	if e, ok := quickEvent(data); ok {
		return f.event(e)
	}
	var e responsesEvent
	if data[0] != '{' || json.Unmarshal(data, &e) != nil {
		return nil, fmt.Errorf("translate: responses answer: %w", ErrMalformed)
	}
	if e.Type == "error" || e.Type == "response.failed" || !isNull(e.Error) {
		_, err := f.end(e.Response, "")
		if err == nil {
			err = fmt.Errorf("translate: responses answer: %w", ErrEnvelope)
		}
		return nil, err
	}
	return f.event(e)
}

// event reads an event that is no error. Those that it does not know add
// nothing.
func (f *responsesReader) event(e responsesEvent) ([]response.Delta, error) {
	switch e.Type {
	case "response.created", "response.in_progress", "response.queued":
		var r responsesAnswer
		if json.Unmarshal(e.Response, &r) == nil {
			f.known(r)
		}
		return nil, nil
	case "response.completed":
		return f.end(e.Response, "completed")
	case "response.incomplete":
		return f.end(e.Response, "incomplete")
	case "response.output_item.added":
		return f.item(nil, e, false), nil
	case "response.output_item.done":
		return f.item(nil, e, true), nil
	}
	return f.piece(e), nil
}

// piece reads an event about a part of an item.
func (f *responsesReader) piece(e responsesEvent) []response.Delta {
	o := func() *readOutput { return f.at(text(e.ItemID), string(e.OutputIndex)) }
	switch e.Type {
	case "response.output_text.delta":
		f.probable(e.Logprobs)
		return f.add(nil, o(), saidText, text(e.Delta))
	case "response.output_text.done":
		return f.rest(nil, o(), saidText, text(e.Text))
	case "response.refusal.delta":
		return f.add(nil, o(), saidRefusal, text(e.Delta))
	case "response.refusal.done":
		return f.rest(nil, o(), saidRefusal, text(e.Refusal))
	case "response.reasoning_text.delta", "response.reasoning.delta":
		return f.add(nil, o(), saidReasoning, text(e.Delta))
	case "response.reasoning_text.done", "response.reasoning.done":
		return f.rest(nil, o(), saidReasoning, text(e.Text))
	case "response.reasoning_summary_text.delta":
		return f.summarized(nil, o(), int(count(e.SummaryIndex)), text(e.Delta))
	case "response.function_call_arguments.delta":
		return f.arguments(nil, o(), text(e.Delta))
	case "response.function_call_arguments.done":
		return f.wholeArguments(nil, o(), e.Arguments)
	case "response.custom_tool_call_input.delta":
		return f.arguments(nil, o(), text(e.Delta))
	case "response.custom_tool_call_input.done":
		return f.wholeInput(nil, o(), text(e.Input))
	case "response.output_text.annotation.added":
		if len(e.Annotation) > 0 && e.Annotation[0] == '{' {
			o().notes++
			return f.annotate(nil, compact(e.Annotation))
		}
	}
	return nil
}

// Body is Reader.Body.
func (f *responsesReader) Body(data []byte) ([]response.Delta, error) {
	var r responsesAnswer
	if json.Unmarshal(data, &r) != nil || isNull(r.Output) && isNull(r.Error) && text(r.Object) != "response" {
		return nil, fmt.Errorf("translate: responses answer: %w", ErrMalformed)
	}
	return f.end(bytes.TrimSpace(data), "completed")
}

// end reads the whole response; unsaid is the status of one that does not say.
func (f *responsesReader) end(raw []byte, unsaid string) ([]response.Delta, error) {
	var r responsesAnswer
	if len(raw) > 0 && (raw[0] != '{' || json.Unmarshal(raw, &r) != nil) {
		return nil, fmt.Errorf("translate: responses answer: %w", ErrMalformed)
	}
	f.known(r)
	status := text(r.Status)
	if status == "" {
		status = unsaid
	}
	if !isNull(r.Error) || status == "failed" {
		return nil, fmt.Errorf("translate: responses answer: %w", ErrEnvelope)
	}
	var output []json.RawMessage
	if !isNull(r.Output) && json.Unmarshal(r.Output, &output) != nil {
		return nil, fmt.Errorf("translate: responses answer: %w", ErrMalformed)
	}
	var deltas []response.Delta
	for i, it := range output {
		deltas = f.last(deltas, i, it)
	}
	switch status {
	case "completed":
		f.out.Finish = finishStop
		if len(f.calls) > 0 {
			f.out.Finish = finishCalls
		}
	case "incomplete":
		var why struct {
			Reason json.RawMessage `json:"reason"`
		}
		_ = json.Unmarshal(r.Incomplete, &why)
		f.out.Finish = finishLength
		if text(why.Reason) == finishFilter {
			f.out.Finish = finishFilter
		}
	}
	return deltas, nil
}

// known takes what a response object says of the whole.
func (f *responsesReader) known(r responsesAnswer) {
	if f.id == "" {
		f.id = text(r.ID)
	}
	if f.out.Model == "" {
		f.out.Model = text(r.Model)
	}
	if !isNull(r.Usage) {
		f.out.Usage = readResponsesUsage(r.Usage)
	}
}
