package response

import (
	"strconv"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Stream is the one state machine behind a response's events and its Response
// object. Items are strictly sequential: what cannot come out yet is held back
// for its turn. A Stream is not safe for concurrent use.
type Stream struct {
	log
	set     toolset
	visible bool
	try     tried
	queue   []*turn // calls of the last model call that are not done, in order
}

// tried is what the current model try has emitted.
type tried struct {
	text, refusal, reasoning int // bytes
	call                     *outItem
}

// turn is an item that waits for its turn, or for its tool.
type turn struct {
	call    Call
	late    string // text that the model wrote after its calls began; call is zero
	item    *outItem
	receipt *ToolReceipt
}

// ToolReceipt is how a tool call ended.
type ToolReceipt struct {
	Output string // what the model is given, errors included
	Error  string // code; with Failed
	Failed bool
}

// End is how a response ended.
type End struct {
	Status    string    // "completed", "incomplete", "failed" or "cancelled"
	Reason    string    // of incomplete
	Failure   *Failure  // of failed
	Usage     Usage     // of the whole response
	Completed time.Time // zero: not said
	// NoUsage: the usage is not known, so null is sent; of failed and cancelled.
	NoUsage bool
}

// unknownServer is the server_label of calls of tools that there are not: the
// model was told, and the client sees that it was.
const unknownServer = "unknown"

// NewStream returns the stream of a new response; tools are the server tools
// that its model is offered.
func NewStream(id queue.ID, created time.Time, req *Request, tools []ServerTool) *Stream {
	s := &Stream{set: newToolset(req, tools)}
	s.obj = newObject(id, created, req)
	return s
}

// Resume lets a restored stream go on emitting. Rebuild must follow.
func (s *Stream) Resume(req *Request, tools []ServerTool) { s.set = newToolset(req, tools) }

// Created emits created and, for a queued response, queued.
func (s *Stream) Created(queued bool) []Event {
	if s.created {
		return nil
	}
	s.created = true
	if queued {
		s.obj.Status = statusQueued
	}
	s.lifecycle(evCreated)
	if queued {
		s.lifecycle(evQueued)
	}
	return s.take()
}

// Started emits in_progress, once.
func (s *Stream) Started() []Event {
	s.start()
	return s.take()
}

func (s *Stream) start() {
	if s.started || s.ended {
		return
	}
	s.started = true
	s.obj.Status = statusInProgress
	s.lifecycle(evInProgress)
}

// Delta emits a piece of the model call's output, or nothing if it must wait:
// what follows the first call of a model call comes out with ModelDone.
func (s *Stream) Delta(d Delta) []Event {
	if s.ended {
		return nil
	}
	s.start()
	s.pump()
	if len(s.queue) > 0 {
		return s.take()
	}
	switch {
	case d.Kind == CallDelta && s.try.call == nil:
		s.closeItem(statusCompleted)
		s.try.call = s.addCall(Call{ID: d.CallID, Name: d.Name})
		s.addArgs(d.Text)
	case d.Kind == CallDelta && s.try.call.callID == d.CallID:
		s.addArgs(d.Text)
	case s.try.call != nil || d.Text == "":
		return s.take()
	case d.Kind == TextDelta:
		s.text(d.Text)
	case d.Kind == RefusalDelta:
		s.refusal(d.Text)
	case d.Kind == ReasoningDelta:
		s.reasoning(d.Text)
	default:
		return s.take()
	}
	s.visible = true
	return s.take()
}

func (s *Stream) text(text string) {
	s.item("message", "msg")
	s.say("output_text", text)
	s.try.text += len(text)
}

func (s *Stream) refusal(text string) {
	s.item("message", "msg")
	s.say("refusal", text)
	s.try.refusal += len(text)
}

func (s *Stream) reasoning(text string) {
	s.item("reasoning", "rs")
	s.say("reasoning_text", text)
	s.try.reasoning += len(text)
}

// item opens an item of the kind unless one is open.
func (s *Stream) item(kind, prefix string) {
	if it := s.open(); it != nil && it.kind == kind {
		return
	}
	s.closeItem(statusCompleted)
	s.add(&outItem{kind: kind, id: s.itemID(prefix)})
}

// itemID is the id of the next item: unique over all responses, and at most 40
// bytes up to 999 items, which is what a tool call's id may have upstream.
func (s *Stream) itemID(prefix string) string {
	return prefix + "_" + strings.TrimPrefix(s.obj.ID, responsePrefix) + "_" + strconv.Itoa(len(s.items))
}

// addCall opens the item of a call; its type follows from the name alone.
func (s *Stream) addCall(c Call) *outItem {
	if s.set.origin(c.Name) == client {
		return s.add(&outItem{kind: "function_call", id: s.itemID("fc"), callID: c.ID, name: c.Name})
	}
	it := &outItem{kind: "mcp_call", id: s.itemID("mcp"), callID: c.ID, name: c.Name, label: unknownServer}
	if t, ok := s.set.tools[c.Name]; ok {
		it.name, it.label = t.Tool, t.Plugin
	}
	return s.add(it)
}

// truncated reports whether the model was stopped: its calls are not run.
func (o ModelOutput) truncated() bool { return o.Finish == finishLength || o.Finish == finishFilter }

// ModelDone emits what is still missing of a model call's output and closes its
// items. Calls of server tools stay open until ToolDone. Of an output that was
// cut by length or filter, the last item is incomplete, and calls that were not
// shown yet are not shown.
func (s *Stream) ModelDone(out ModelOutput) []Event {
	if s.ended {
		return nil
	}
	s.start()
	s.pump()
	t := s.try
	defer func() { s.try, s.visible = tried{}, false }()
	text, refusal, reasoning := rest(out.Text, t.text), rest(out.Refusal, t.refusal), rest(out.Reasoning, t.reasoning)
	if t.call == nil {
		s.finishText(out, text, refusal, reasoning)
		for _, c := range out.Calls {
			s.queue = append(s.queue, &turn{call: c})
		}
		text = ""
	}
	if out.truncated() {
		s.queue = nil
		s.closeItem(statusIncomplete)
		return s.take()
	}
	s.closeText()
	if t.call != nil {
		s.enqueue(out.Calls, t.call, late(text, refusal))
	}
	s.pump()
	return s.take()
}

// rest is what follows the first n bytes.
func rest(s string, n int) string { return s[min(n, len(s)):] }

// late is what a model wrote after its calls began, as it comes out behind the
// first of them; "" if that is only white space.
func late(text, refusal string) string {
	if strings.TrimSpace(text+refusal) == "" {
		return ""
	}
	return text + refusal
}

// finishText emits the text that no delta brought. A model call that brought
// nothing at all leaves an empty message.
func (s *Stream) finishText(out ModelOutput, text, refusal, reasoning string) {
	if reasoning != "" {
		s.reasoning(reasoning)
	}
	if text != "" || out.Text+out.Refusal == "" && len(out.Calls) == 0 && !out.truncated() {
		s.text(text)
	}
	if refusal != "" {
		s.refusal(refusal)
	}
}

// closeText closes an open message or reasoning item.
func (s *Stream) closeText() {
	if it := s.open(); it != nil && (it.kind == "message" || it.kind == "reasoning") {
		s.closeItem(statusCompleted)
	}
}

// enqueue lines up the calls of a model call whose first one is open.
func (s *Stream) enqueue(calls []Call, open *outItem, late string) {
	var others []*turn
	for _, c := range calls {
		if c.ID == open.callID {
			s.queue = append(s.queue, &turn{call: c, item: open})
		} else {
			others = append(others, &turn{call: c})
		}
	}
	if late != "" {
		s.queue = append(s.queue, &turn{late: late})
	}
	s.queue = append(s.queue, others...)
}

// pump brings out what has its turn.
func (s *Stream) pump() {
	for len(s.queue) > 0 && s.turn(s.queue[0]) {
		s.queue = s.queue[1:]
	}
}

// turn brings out one item as far as it goes; false while its tool runs.
func (s *Stream) turn(t *turn) bool {
	if t.late != "" {
		s.text(t.late)
		s.closeItem(statusCompleted)
		s.try = tried{}
		return true
	}
	if t.item == nil {
		t.item = s.addCall(t.call)
	}
	if shown := t.item.args.String(); strings.HasPrefix(t.call.Arguments, shown) {
		s.addArgs(t.call.Arguments[len(shown):])
	}
	s.closeArgs()
	switch {
	case t.item.kind == "function_call":
		s.closeItem(statusCompleted)
		return true
	case t.receipt == nil:
		return false
	case t.receipt.Failed:
		t.item.err = marshal(toolExecutionError{"tool_execution_error", t.receipt.Error, errorMessage(t.receipt.Output)})
		s.closeItem(statusFailed)
	default:
		t.item.output = &t.receipt.Output
		s.closeItem(statusCompleted)
	}
	return true
}

// ToolDone emits the end of a server tool's call and of what waited for it, or
// nothing while calls before it run. Unknown ids and second receipts are ignored.
func (s *Stream) ToolDone(callID string, r ToolReceipt) []Event {
	if s.ended {
		return nil
	}
	for _, t := range s.queue {
		if t.call.ID == callID && t.late == "" && t.receipt == nil {
			t.receipt = &r
			break
		}
	}
	s.pump()
	return s.take()
}

// Interrupted closes what a model try left open when its worker died: the text
// so far stays, as an incomplete item. Items of settled steps are not touched.
func (s *Stream) Interrupted() []Event {
	if s.ended {
		return nil
	}
	if it := s.open(); it != nil && (len(s.queue) == 0 || s.queue[0].item != it) {
		s.closeItem(statusIncomplete)
	}
	s.try, s.visible = tried{}, false
	return s.take()
}

// Visible reports whether the current model try has emitted anything.
func (s *Stream) Visible() bool { return s.visible }

// Finish closes what is open and emits the one terminal event; a cancelled
// response has none. Later calls emit nothing.
func (s *Stream) Finish(e End) []Event {
	if s.ended {
		return nil
	}
	if e.Status != statusCancelled {
		s.start()
	}
	s.pump()
	s.queue = nil
	s.closeItem(statusIncomplete)
	s.ended, s.visible = true, false
	s.obj.Status = e.Status
	if !e.NoUsage {
		s.obj.Usage = newObjectUsage(e.Usage)
	}
	if !e.Completed.IsZero() {
		at := e.Completed.Unix()
		s.obj.CompletedAt = &at
	}
	switch e.Status {
	case statusCompleted:
		s.lifecycle(evCompleted)
	case statusIncomplete:
		s.obj.IncompleteDetails = &incompleteDetails{e.Reason}
		s.lifecycle(evIncomplete)
	case statusCancelled:
	default:
		f := e.Failure
		if f == nil {
			f = FailureOf(Step{Class: queue.HostError})
		}
		s.obj.Status, s.obj.Error = statusFailed, &objectError{f.Code, f.Message}
		s.lifecycle(evFailed)
	}
	return s.take()
}

// Response returns the Response object as it is now.
func (s *Stream) Response() []byte { return marshal(s.snapshot()) }

// Heartbeat returns the data of an event that says nothing new: in_progress (or
// queued) again, with a true snapshot and the last sequence number. nil before
// created and after the end.
func (s *Stream) Heartbeat() []byte {
	if s.seq == 0 || s.ended {
		return nil
	}
	kind := evInProgress
	if s.obj.Status == statusQueued {
		kind = evQueued
	}
	again := log{obj: s.obj, items: s.items, seq: s.seq - 1}
	again.lifecycle(kind)
	return again.events[0].Data
}

// NextSeq returns the sequence number of the next event.
func (s *Stream) NextSeq() int64 { return s.seq }
