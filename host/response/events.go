package response

import (
	"encoding/json"
	"strconv"
)

// The event types that are emitted; no other is ever sent.
const (
	evCreated       = "response.created"
	evQueued        = "response.queued"
	evInProgress    = "response.in_progress"
	evCompleted     = "response.completed"
	evIncomplete    = "response.incomplete"
	evFailed        = "response.failed"
	evItemAdded     = "response.output_item.added"
	evItemDone      = "response.output_item.done"
	evPartAdded     = "response.content_part.added"
	evPartDone      = "response.content_part.done"
	evTextDelta     = "response.output_text.delta"
	evTextDone      = "response.output_text.done"
	evRefusalDelta  = "response.refusal.delta"
	evRefusalDone   = "response.refusal.done"
	evReasonDelta   = "response.reasoning_text.delta"
	evReasonDone    = "response.reasoning_text.done"
	evFuncArgsDelta = "response.function_call_arguments.delta"
	evFuncArgsDone  = "response.function_call_arguments.done"
	evMCPArgsDelta  = "response.mcp_call_arguments.delta"
	evMCPArgsDone   = "response.mcp_call_arguments.done"
	evMCPInProgress = "response.mcp_call.in_progress"
	evMCPCompleted  = "response.mcp_call.completed"
	evMCPFailed     = "response.mcp_call.failed"
)

// log is what a sequence of events amounts to: the one state behind emitting,
// restoring and validating.
type log struct {
	obj     object // without output
	items   []*outItem
	events  []Event // emitted and not yet handed out
	seq     int64   // of the next event
	created bool
	started bool
	ended   bool // a terminal event was emitted, or the response was cancelled
}

// emit appends an event; body is a struct, its members follow the type and
// the sequence number.
func (l *log) emit(kind string, body any) {
	data := []byte(`{"type":"` + kind + `","sequence_number":`)
	data = strconv.AppendInt(data, l.seq, 10)
	data = append(data, ',')
	data = append(data, marshal(body)[1:]...)
	l.events = append(l.events, Event{Seq: l.seq, Data: data})
	l.seq++
}

// take hands out what was emitted.
func (l *log) take() []Event {
	e := l.events
	l.events = nil
	return e
}

// snapshot is the Response object now.
func (l *log) snapshot() object {
	o := l.obj
	o.Output = make([]json.RawMessage, 0, len(l.items))
	for _, it := range l.items {
		o.Output = append(o.Output, it.encode())
	}
	return o
}

type lifecycleEvent struct {
	Response object `json:"response"`
}

func (l *log) lifecycle(kind string) { l.emit(kind, lifecycleEvent{l.snapshot()}) }

// open is the item that was added and not done, or nil.
func (l *log) open() *outItem {
	if n := len(l.items); n > 0 && !l.items[n-1].done {
		return l.items[n-1]
	}
	return nil
}

type itemEvent struct {
	OutputIndex int             `json:"output_index"`
	Item        json.RawMessage `json:"item"`
}

type callEvent struct {
	OutputIndex int     `json:"output_index"`
	ItemID      string  `json:"item_id"`
	Delta       *string `json:"delta,omitempty"`
	Arguments   *string `json:"arguments,omitempty"`
	Name        string  `json:"name,omitempty"` // of function_call_arguments.done
}

type partEvent struct {
	ItemID       string `json:"item_id"`
	OutputIndex  int    `json:"output_index"`
	ContentIndex int    `json:"content_index"`
	Part         any    `json:"part"`
}

type textEvent struct {
	ItemID       string      `json:"item_id"`
	OutputIndex  int         `json:"output_index"`
	ContentIndex int         `json:"content_index"`
	Delta        *string     `json:"delta,omitempty"`
	Text         *string     `json:"text,omitempty"`
	Refusal      *string     `json:"refusal,omitempty"`
	Logprobs     *[]struct{} `json:"logprobs,omitempty"` // of output_text events
}

// add opens an item.
func (l *log) add(it *outItem) *outItem {
	it.status = statusInProgress
	l.items = append(l.items, it)
	i := len(l.items) - 1
	l.emit(evItemAdded, itemEvent{i, it.encode()})
	l.beginCall(it)
	return it
}

// beginCall says that a call's run begins, unless that was said.
func (l *log) beginCall(it *outItem) {
	if it.kind == "mcp_call" && !it.begun {
		it.begun = true
		l.emit(evMCPInProgress, callEvent{OutputIndex: len(l.items) - 1, ItemID: it.id})
	}
}

// say adds text to the open item, in a part of the kind.
func (l *log) say(kind, text string) {
	i := len(l.items) - 1
	it := l.items[i]
	if n := len(it.parts); n == 0 || it.parts[n-1].kind != kind || it.parts[n-1].textDone {
		l.closePart()
		it.parts = append(it.parts, &outPart{kind: kind})
		l.emit(evPartAdded, partEvent{it.id, i, len(it.parts) - 1, it.parts[len(it.parts)-1].content()})
	}
	if text == "" {
		return
	}
	p := it.parts[len(it.parts)-1]
	p.text.WriteString(text)
	e := textEvent{ItemID: it.id, OutputIndex: i, ContentIndex: len(it.parts) - 1, Delta: &text}
	switch kind {
	case "refusal":
		l.emit(evRefusalDelta, e)
	case "reasoning_text":
		l.emit(evReasonDelta, e)
	default:
		e.Logprobs = &[]struct{}{}
		l.emit(evTextDelta, e)
	}
}

// closePart ends the open item's open part.
func (l *log) closePart() {
	i := len(l.items) - 1
	it := l.items[i]
	n := len(it.parts) - 1
	if n < 0 || it.parts[n].done {
		return
	}
	p := it.parts[n]
	if !p.textDone {
		text := p.text.String()
		e := textEvent{ItemID: it.id, OutputIndex: i, ContentIndex: n}
		switch p.kind {
		case "refusal":
			e.Refusal = &text
			l.emit(evRefusalDone, e)
		case "reasoning_text":
			e.Text = &text
			l.emit(evReasonDone, e)
		default:
			e.Text, e.Logprobs = &text, &[]struct{}{}
			l.emit(evTextDone, e)
		}
	}
	l.emit(evPartDone, partEvent{it.id, i, n, p.content()})
	p.textDone, p.done = true, true
}

// addArgs adds to the arguments of the open call.
func (l *log) addArgs(text string) {
	i := len(l.items) - 1
	it := l.items[i]
	if text == "" || it.argsDone {
		return
	}
	it.args.WriteString(text)
	kind := evMCPArgsDelta
	if it.kind == "function_call" {
		kind = evFuncArgsDelta
	}
	l.emit(kind, callEvent{OutputIndex: i, ItemID: it.id, Delta: &text})
}

// closeArgs ends the arguments of the open call.
func (l *log) closeArgs() {
	i := len(l.items) - 1
	it := l.items[i]
	if it.argsDone {
		return
	}
	it.argsDone = true
	args := it.args.String()
	if it.kind == "function_call" {
		l.emit(evFuncArgsDone, callEvent{OutputIndex: i, ItemID: it.id, Arguments: &args, Name: it.name})
		return
	}
	l.emit(evMCPArgsDone, callEvent{OutputIndex: i, ItemID: it.id, Arguments: &args})
}

// endCall ends the open mcp_call's run.
func (l *log) endCall(kind string) {
	i := len(l.items) - 1
	if it := l.items[i]; !it.ended {
		it.ended, it.succeeded = true, kind == evMCPCompleted
		l.emit(kind, callEvent{OutputIndex: i, ItemID: it.id})
	}
}

// closeItem ends the open item, if there is one, with all that it holds.
func (l *log) closeItem(status string) {
	it := l.open()
	if it == nil {
		return
	}
	switch it.kind {
	case "message", "reasoning":
		l.closePart()
	case "function_call":
		l.closeArgs()
	case "mcp_call":
		l.beginCall(it)
		l.closeArgs()
		if status == statusCompleted {
			l.endCall(evMCPCompleted)
		} else {
			l.endCall(evMCPFailed)
		}
	}
	it.status, it.done = status, true
	l.emit(evItemDone, itemEvent{len(l.items) - 1, it.encode()})
}
