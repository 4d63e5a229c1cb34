package translate

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// at finds the item that an event is about, by its id or else its index; an
// event that says neither is about the last one.
func (f *responsesReader) at(id, index string) *readOutput {
	if o := f.find(id, index, false); o != nil {
		return o
	}
	return f.begins(id, index)
}

// begins adds an item.
func (f *responsesReader) begins(id, index string) *readOutput {
	o := &readOutput{index: index, id: id, base: len(f.summary), summaries: map[int]*strings.Builder{}}
	f.items = append(f.items, o)
	return o
}

// find returns the item, or nil. An id that changed on the way does no harm
// where the index says which item is meant: one that has not ended yet, or at
// the end of the answer any that has that place.
func (f *responsesReader) find(id, index string, last bool) *readOutput {
	var byIndex, newest *readOutput
	for _, o := range f.items {
		switch {
		case o.final:
			continue
		case id != "" && o.id == id, id == "" && index != "" && o.index == index:
			return o
		case id != "" && index != "" && o.index == index && (last || !o.done):
			byIndex = o
		}
		newest = o
	}
	if id == "" && index == "" {
		return newest
	}
	return byIndex
}

// last reads an item of the response at the end of the answer.
func (f *responsesReader) last(deltas []response.Delta, i int, raw json.RawMessage) []response.Delta {
	var it responsesOutput
	if json.Unmarshal(raw, &it) != nil {
		return deltas
	}
	o := f.called(text(it.CallID))
	if o == nil {
		o = f.find(text(it.ID), strconv.Itoa(i), true)
	}
	if o == nil || (o.call == nil) != (text(it.CallID) == "") && o.done {
		o = f.begins(text(it.ID), strconv.Itoa(i))
	}
	deltas = f.read(deltas, o, it, true)
	o.final = true
	return deltas
}

// called returns the item of a call by its id, if the end of the answer did not
// have it yet.
func (f *responsesReader) called(id string) *readOutput {
	for _, o := range f.items {
		if id != "" && !o.final && o.call != nil && o.call.call.ID == id {
			return o
		}
	}
	return nil
}

// item reads output_item.added, or with whole output_item.done: then what was
// not said in deltas follows.
func (f *responsesReader) item(deltas []response.Delta, e responsesEvent, whole bool) []response.Delta {
	var it responsesOutput
	if json.Unmarshal(e.Item, &it) != nil {
		return deltas
	}
	return f.read(deltas, f.at(text(it.ID), string(e.OutputIndex)), it, whole)
}

func (f *responsesReader) read(deltas []response.Delta, o *readOutput, it responsesOutput, whole bool) []response.Delta {
	switch text(it.Type) {
	case "function_call":
		deltas = f.begun(deltas, o, it, false)
		if whole {
			deltas = f.wholeArguments(deltas, o, it.Arguments)
		}
	case "custom_tool_call":
		deltas = f.begun(deltas, o, it, true)
		if whole {
			deltas = f.wholeInput(deltas, o, text(it.Input))
		}
	case "message":
		if whole {
			deltas = f.content(deltas, o, it.Content)
		}
	case "reasoning":
		if whole {
			deltas = f.thought(deltas, o, it)
		}
	}
	o.done = o.done || whole
	return deltas
}

// begun takes id and name of a call.
func (f *responsesReader) begun(deltas []response.Delta, o *readOutput, it responsesOutput, custom bool) []response.Delta {
	if o.call == nil {
		o.call, o.custom = f.begin(len(f.calls)), custom
		o.call.plain = custom && f.plain
	}
	id := text(it.CallID)
	if id == "" {
		id = text(it.ID)
	}
	if !o.call.begun {
		f.named(o.call, id, text(it.Name))
	}
	return f.show(deltas, o.call)
}

// add takes a piece of what an item says.
func (f *responsesReader) add(deltas []response.Delta, o *readOutput, what int, s string) []response.Delta {
	o.said[what].WriteString(s)
	return f.say(deltas, saidKinds[what], s)
}

// rest takes the whole of it, of which a part may have come before.
func (f *responsesReader) rest(deltas []response.Delta, o *readOutput, what int, whole string) []response.Delta {
	rest, _ := strings.CutPrefix(whole, o.said[what].String())
	if len(rest) == len(whole) && o.said[what].Len() > 0 {
		return deltas // it says something else, or one part of several
	}
	return f.add(deltas, o, what, rest)
}

// summarized takes a piece of one part of a reasoning item's summary.
func (f *responsesReader) summarized(deltas []response.Delta, o *readOutput, part int, s string) []response.Delta {
	b := o.summaries[part]
	if b == nil {
		b = &strings.Builder{}
		o.summaries[part] = b
	}
	b.WriteString(s)
	return f.summarize(deltas, o.base+part, s)
}

// content takes the content of a whole message.
func (f *responsesReader) content(deltas []response.Delta, o *readOutput, raw json.RawMessage) []response.Delta {
	var said, refused strings.Builder
	var notes []json.RawMessage
	for _, p := range contents(raw) {
		said.WriteString(text(p.Text))
		refused.WriteString(text(p.Refusal))
		notes = append(notes, p.Annotations...)
		if o.said[saidText].Len() == 0 {
			f.probable(p.Logprobs)
		}
	}
	deltas = f.rest(deltas, o, saidText, said.String())
	for ; o.notes < len(notes); o.notes++ {
		if a := notes[o.notes]; len(a) > 0 && a[0] == '{' {
			deltas = f.annotate(deltas, compact(a))
		}
	}
	return f.rest(deltas, o, saidRefusal, refused.String())
}

// thought takes a whole reasoning item.
func (f *responsesReader) thought(deltas []response.Delta, o *readOutput, it responsesOutput) []response.Delta {
	for i, p := range contents(it.Summary) {
		if o.summaries[i] == nil {
			deltas = f.summarized(deltas, o, i, text(p.Text))
		}
	}
	var said strings.Builder
	for _, p := range contents(it.Content) {
		said.WriteString(text(p.Text))
	}
	deltas = f.rest(deltas, o, saidReasoning, said.String())
	if e := text(it.Encrypted); e != "" && !o.encrypted {
		o.encrypted = true
		f.out.Encrypted = e
		deltas = append(deltas, response.Delta{Kind: response.EncryptedDelta, Text: e})
	}
	return deltas
}

// contents reads a list of parts; one that is odd counts as empty.
func contents(raw json.RawMessage) []responsesContent {
	var list []json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &list) != nil {
		return nil
	}
	parts := make([]responsesContent, len(list))
	for i, r := range list {
		if json.Unmarshal(r, &parts[i]) != nil {
			parts[i] = responsesContent{}
		}
	}
	return parts
}

// arguments takes a piece of a call's arguments, or of a custom tool's input.
func (f *responsesReader) arguments(deltas []response.Delta, o *readOutput, s string) []response.Delta {
	if o.call == nil || o.done || s == "" {
		return deltas // a call that never began has no name either
	}
	if !o.custom {
		o.call.args.WriteString(s)
		return f.show(deltas, o.call)
	}
	if o.call.plain {
		o.input.WriteString(s)
		o.call.args.WriteString(s)
		return f.show(deltas, o.call)
	}
	if o.input.Len() == 0 {
		o.call.args.WriteString(inputOpens)
	}
	o.input.WriteString(s)
	quoted := marshal(s)
	o.call.args.Write(quoted[1 : len(quoted)-1])
	return f.show(deltas, o.call)
}

// The arguments of a custom tool: what stands around its input.
const (
	inputOpens  = `{"input":"`
	inputCloses = `"}`
)

// wholeArguments takes the arguments as a whole.
func (f *responsesReader) wholeArguments(deltas []response.Delta, o *readOutput, raw json.RawMessage) []response.Delta {
	if o.call == nil || o.done || o.custom {
		return deltas
	}
	whole := text(raw)
	if !isNull(raw) && raw[0] != '"' {
		whole = string(raw)
	}
	if rest, ok := strings.CutPrefix(whole, o.call.args.String()); ok {
		deltas = f.arguments(deltas, o, rest)
	}
	return deltas
}

// wholeInput takes a custom tool's input as a whole, and ends it.
func (f *responsesReader) wholeInput(deltas []response.Delta, o *readOutput, whole string) []response.Delta {
	if o.call == nil || o.done || !o.custom {
		return deltas
	}
	if rest, ok := strings.CutPrefix(whole, o.input.String()); ok {
		deltas = f.arguments(deltas, o, rest)
	}
	o.done = true
	if o.call.plain {
		return deltas
	}
	if o.call.args.Len() == 0 {
		o.call.args.WriteString(inputOpens)
	}
	o.call.args.WriteString(inputCloses)
	return f.show(deltas, o.call)
}
