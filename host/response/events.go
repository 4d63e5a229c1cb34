package response

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The event types that are emitted; no other is ever sent.
const (
	evCreated         = "response.created"
	evQueued          = "response.queued"
	evInProgress      = "response.in_progress"
	evCompleted       = "response.completed"
	evIncomplete      = "response.incomplete"
	evFailed          = "response.failed"
	evItemAdded       = "response.output_item.added"
	evItemDone        = "response.output_item.done"
	evPartAdded       = "response.content_part.added"
	evPartDone        = "response.content_part.done"
	evTextDelta       = "response.output_text.delta"
	evTextDone        = "response.output_text.done"
	evAnnotation      = "response.output_text.annotation.added"
	evRefusalDelta    = "response.refusal.delta"
	evRefusalDone     = "response.refusal.done"
	evReasonDelta     = "response.reasoning_text.delta"
	evReasonDone      = "response.reasoning_text.done"
	evSummaryAdded    = "response.reasoning_summary_part.added"
	evSummaryDone     = "response.reasoning_summary_part.done"
	evSummaryDelta    = "response.reasoning_summary_text.delta"
	evSummaryTextDone = "response.reasoning_summary_text.done"
	evFuncArgsDelta   = "response.function_call_arguments.delta"
	evFuncArgsDone    = "response.function_call_arguments.done"
	evCustomDelta     = "response.custom_tool_call_input.delta"
	evCustomDone      = "response.custom_tool_call_input.done"
	evMCPArgsDelta    = "response.mcp_call_arguments.delta"
	evMCPArgsDone     = "response.mcp_call_arguments.done"
	evMCPInProgress   = "response.mcp_call.in_progress"
	evMCPCompleted    = "response.mcp_call.completed"
	evMCPFailed       = "response.mcp_call.failed"
	evListInProgress  = "response.mcp_list_tools.in_progress"
	evListCompleted   = "response.mcp_list_tools.completed"
	evListFailed      = "response.mcp_list_tools.failed"
)

// eventFields are the members of each type of event, in the order in which
// they are sent, behind its type and its sequence number. All are required,
// and there are no others.
var eventFields = map[string][]string{
	evCreated:         {"response"},
	evQueued:          {"response"},
	evInProgress:      {"response"},
	evCompleted:       {"response"},
	evIncomplete:      {"response"},
	evFailed:          {"response"},
	evItemAdded:       {"output_index", "item"},
	evItemDone:        {"output_index", "item"},
	evPartAdded:       {"item_id", "output_index", "content_index", "part"},
	evPartDone:        {"item_id", "output_index", "content_index", "part"},
	evTextDelta:       {"item_id", "output_index", "content_index", "delta", "logprobs"},
	evTextDone:        {"item_id", "output_index", "content_index", "text", "logprobs"},
	evAnnotation:      {"item_id", "output_index", "content_index", "annotation_index", "annotation"},
	evRefusalDelta:    {"item_id", "output_index", "content_index", "delta"},
	evRefusalDone:     {"item_id", "output_index", "content_index", "refusal"},
	evReasonDelta:     {"item_id", "output_index", "content_index", "delta"},
	evReasonDone:      {"item_id", "output_index", "content_index", "text"},
	evSummaryAdded:    {"item_id", "output_index", "summary_index", "part"},
	evSummaryDone:     {"item_id", "output_index", "summary_index", "part"},
	evSummaryDelta:    {"item_id", "output_index", "summary_index", "delta"},
	evSummaryTextDone: {"item_id", "output_index", "summary_index", "text"},
	evFuncArgsDelta:   {"output_index", "item_id", "delta"},
	evFuncArgsDone:    {"output_index", "item_id", "arguments", "name"},
	evCustomDelta:     {"output_index", "item_id", "delta"},
	evCustomDone:      {"output_index", "item_id", "input"},
	evMCPArgsDelta:    {"output_index", "item_id", "delta"},
	evMCPArgsDone:     {"output_index", "item_id", "arguments"},
	evMCPInProgress:   {"output_index", "item_id"},
	evMCPCompleted:    {"output_index", "item_id"},
	evMCPFailed:       {"output_index", "item_id"},
	evListInProgress:  {"output_index", "item_id"},
	evListCompleted:   {"output_index", "item_id"},
	evListFailed:      {"output_index", "item_id"},
}

// eventRoom is enough for most events beside their text.
const eventRoom = 240

// render returns an event as it is sent, with the state that it led to.
func (l *log) render(seq int64, e event) []byte {
	b := make([]byte, 0, eventRoom+len(e.text))
	b = append(b, `{"type":"`...)
	b = append(b, e.kind...)
	b = append(b, `","sequence_number":`...)
	b = strconv.AppendInt(b, seq, 10)
	for _, name := range eventFields[e.kind] {
		b = append(b, `,"`...)
		b = append(b, name...)
		b = append(b, `":`...)
		b = l.appendField(b, e, name)
	}
	return append(b, '}')
}

func (l *log) appendField(b []byte, e event, name string) []byte {
	switch name {
	case "response":
		return append(b, marshal(l.snapshot())...)
	case "item":
		return append(b, l.items[e.output].encode()...)
	case "part":
		return append(b, marshal(l.part(e).content())...)
	case "output_index":
		return strconv.AppendInt(b, int64(e.output), 10)
	case "content_index", "summary_index":
		return strconv.AppendInt(b, int64(e.index), 10)
	case "annotation_index":
		return strconv.AppendInt(b, int64(e.nth), 10)
	case "annotation":
		return append(b, marshal(e.note)...)
	case "logprobs":
		if len(e.logprobs) == 0 {
			return append(b, "[]"...)
		}
		return append(b, marshal(e.logprobs)...)
	case "item_id":
		return appendText(b, e.id)
	case "name":
		return appendText(b, l.items[e.output].name)
	}
	return appendText(b, e.text)
}

// appendText appends s as JSON, as marshal writes it: most of what is streamed
// is plain.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return append(b, marshal(s)...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// part is the one that a part's event is about.
func (l *log) part(e event) *outPart {
	it := l.items[e.output]
	if e.ofSummary() {
		return it.summary[e.index]
	}
	return it.parts[e.index]
}

// ofSummary reports whether the event is about a part of a summary.
func (e event) ofSummary() bool { return strings.HasPrefix(e.kind, "response.reasoning_summary_") }

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

// emit takes the next event into the state and keeps it to be handed out. One
// that the grammar refuses is not sent: whatever mistake led to it, the stream
// stays one that clients can read.
func (l *log) emit(e event) {
	if it := l.open(); it != nil {
		e.output, e.id = len(l.items)-1, it.id
	}
	if l.step(e) != nil {
		return
	}
	l.events = append(l.events, Event{Seq: l.seq, Data: l.render(l.seq, e)})
	l.seq++
}

// lifecycle emits an event with the whole response, which is o but for its output.
func (l *log) lifecycle(kind string, o object) { l.emit(event{kind: kind, obj: &o}) }

// add opens an item.
func (l *log) add(it *outItem) *outItem {
	if statuses[it.kind] != nil {
		it.status = statusInProgress
	}
	l.emit(event{kind: evItemAdded, output: len(l.items), id: it.id, item: it})
	if run, ok := runRules[it.kind]; ok && !it.begun {
		l.emit(event{kind: run.begun})
	}
	return it
}

// say adds text to the open item, in a part of the kind. It opens one unless
// the last one is of that kind; fresh asks for one of its own.
func (l *log) say(kind, text string, logprobs []json.RawMessage, fresh bool) {
	it, rule := l.items[len(l.items)-1], partRules[kind]
	if p, _ := it.openPart(); p == nil || p.kind != kind || p.textDone || fresh {
		l.closePart()
		l.emit(event{kind: rule.added, index: len(*it.list(rule.summary)), part: kind})
	}
	if text == "" && len(logprobs) == 0 {
		return
	}
	_, n := it.openPart()
	l.emit(event{kind: rule.delta, index: n, text: text, logprobs: logprobs})
}

// annotate adds an annotation to the text that is open; false if none is.
func (l *log) annotate(note json.RawMessage) bool {
	it := l.open()
	if it == nil {
		return false
	}
	p, n := it.openPart()
	if p == nil || p.kind != partText || p.textDone {
		return false
	}
	l.emit(event{kind: evAnnotation, index: n, nth: len(p.annotations), note: compact(note)})
	return true
}

// closePart ends the open item's open part.
func (l *log) closePart() {
	p, n := l.items[len(l.items)-1].openPart()
	if p == nil {
		return
	}
	rule := partRules[p.kind]
	if !p.textDone {
		l.emit(event{kind: rule.textDone, index: n, text: p.text.String(), logprobs: p.logprobs})
	}
	l.emit(event{kind: rule.done, index: n})
}

// addArgs adds to the arguments of the open call.
func (l *log) addArgs(text string) {
	it := l.items[len(l.items)-1]
	if text != "" && !it.argsDone {
		l.emit(event{kind: callRules[it.kind].delta, text: text})
	}
}

// closeArgs ends the arguments of the open call.
func (l *log) closeArgs() {
	it := l.items[len(l.items)-1]
	if !it.argsDone {
		l.emit(event{kind: callRules[it.kind].done, text: it.args.String()})
	}
}

// closeItem ends the open item, if there is one, with all that it holds.
func (l *log) closeItem(end itemEnd) {
	it := l.open()
	if it == nil {
		return
	}
	if it.kind == itemMCPList {
		end = it.listEnd(end)
	}
	if statuses[it.kind] == nil {
		end.status = ""
	}
	l.closePart()
	if run, runs := runRules[it.kind]; runs && !it.begun {
		l.emit(event{kind: run.begun})
	}
	if _, called := callRules[it.kind]; called {
		l.closeArgs()
	}
	if run, runs := runRules[it.kind]; runs && !it.ended {
		kind := run.failed
		if end.status == statusCompleted || it.kind == itemMCPList && isNull(end.err) {
			kind = run.completed
		}
		l.emit(event{kind: kind})
	}
	if it.kind == itemMCPCall && it.succeeded != (end.status == statusCompleted) {
		end = itemEnd{status: statusIncomplete} // it was said how the call ended, and not stored
	}
	l.emit(event{kind: evItemDone, end: &end})
}

// listEnd is how a list of tools may still end, which agrees with what was said
// of it.
func (it *outItem) listEnd(end itemEnd) itemEnd {
	failed := end.status == statusIncomplete || !isNull(end.err)
	switch {
	case it.ended && it.succeeded:
		end.err = nil
	case isNull(end.err) && (failed || it.ended):
		end.err, end.tools = marshal("The response ended before the server's tools were known."), nil
	}
	return end
}
