package response

import (
	"encoding/json"
	"slices"
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
	set       toolset
	encrypted bool // the client asked for the reasoning in its encrypted form
	visible   bool
	modeled   bool // a model call was planned
	before    int  // steps before the first model call that were lined up
	try       tried
	queue     []*turn // what waits for its turn, in order
}

// tried is what the current model try has emitted.
type tried struct {
	text, refusal, reasoning int // bytes
	parts, summary           int // parts of the summary, and bytes of the last one
	annotations, logprobs    int
	sealed                   bool // the reasoning was closed with its encrypted form
	call                     *outItem
	input                    inputReader // of call, where it is a custom tool's
	held                     bool        // the calls began with one that comes out as a whole, at the end
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

// includeEncrypted asks for reasoning in its encrypted form.
const includeEncrypted = "reasoning.encrypted_content"

// NewStream returns the stream of a new response; tools are the server tools
// that its model is offered.
func NewStream(id queue.ID, created time.Time, req *Request, tools []ServerTool) *Stream {
	s := &Stream{}
	s.obj = newObject(id, created, req)
	s.Resume(req, tools)
	return s
}

// Resume lets a restored stream go on emitting. Rebuild must follow.
func (s *Stream) Resume(req *Request, tools []ServerTool) {
	s.set = newToolset(req, tools)
	s.encrypted = slices.Contains(req.Include, includeEncrypted)
}

// Offer replaces the server tools that the model is offered, before any model
// call that is offered them.
func (s *Stream) Offer(tools []ServerTool) {
	s.set.tools = map[string]ServerTool{}
	for _, t := range tools {
		s.set.tools[t.Name] = t
	}
}

// Created emits created and, for a queued response, queued.
func (s *Stream) Created(queued bool) []Event {
	if s.created {
		return nil
	}
	o := s.obj
	if queued {
		o.Status = statusQueued
	}
	s.lifecycle(evCreated, o)
	if queued {
		s.lifecycle(evQueued, o)
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
	o := s.obj
	o.Status = statusInProgress
	s.lifecycle(evInProgress, o)
}

// Delta emits a piece of the model call's output, or nothing if it must wait:
// what follows the first call of a model call comes out with ModelDone.
func (s *Stream) Delta(d Delta) []Event {
	if s.ended {
		return nil
	}
	s.start()
	s.modeled = true
	s.pump()
	if len(s.queue) == 0 && s.show(d) {
		s.visible = true
	}
	return s.take()
}

// show brings out a piece; false if it shows nothing now.
func (s *Stream) show(d Delta) bool {
	switch {
	case d.Kind == CallDelta:
		return s.showCall(d)
	case s.try.call != nil:
		return false
	case d.Kind == AnnotationDelta:
		return s.annotation(d.Raw)
	case d.Kind == EncryptedDelta:
		return d.Text != "" && s.seal(d.Text)
	case d.Text == "":
		return false
	case d.Kind == TextDelta:
		s.text(d.Text, logprobsOf(d.Logprobs))
	case d.Kind == RefusalDelta:
		s.refusal(d.Text)
	case d.Kind == ReasoningDelta:
		s.reasoning(d.Text)
	case d.Kind == SummaryDelta:
		return s.summary(d.Index, d.Text)
	default:
		return false
	}
	return true
}

// showCall brings out a piece of the first call. One that waits for approval
// comes out as a whole, and the calls that follow it behind it.
func (s *Stream) showCall(d Delta) bool {
	switch {
	case s.try.held:
		return false
	case s.try.call == nil && s.set.asks(d.Name):
		s.try.held = true
		return false
	case s.try.call == nil:
		s.closeItem(itemEnd{status: statusCompleted})
		s.try.call = s.addCall(Call{ID: d.CallID, Name: d.Name})
	case s.try.call.callID != d.CallID:
		return false
	}
	text := d.Text
	if s.try.call.kind == itemCustomTool {
		text = s.try.input.read(d.Text)
	}
	s.addArgs(text)
	return true
}

func logprobsOf(raw json.RawMessage) []json.RawMessage {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	for i := range list {
		list[i] = compact(list[i])
	}
	return list
}

func (s *Stream) text(text string, logprobs []json.RawMessage) {
	s.item(itemMessage, "msg")
	s.say(partText, text, logprobs, false)
	s.try.text += len(text)
	s.try.logprobs += len(logprobs)
}

func (s *Stream) refusal(text string) {
	s.item(itemMessage, "msg")
	s.say(partRefusal, text, nil, false)
	s.try.refusal += len(text)
}

func (s *Stream) reasoning(text string) {
	s.item(itemReasoning, "rs")
	s.say(partReasoning, text, nil, false)
	s.try.reasoning += len(text)
}

// summary adds to the part of the reasoning's summary with index i. Parts come
// in order: what belongs to one that another follows is not shown.
func (s *Stream) summary(i int, text string) bool {
	if i < s.try.parts-1 || i < 0 {
		return false
	}
	if it := s.open(); it != nil && it.kind == itemReasoning && len(it.parts) > 0 {
		s.closeItem(itemEnd{status: statusCompleted})
	}
	s.item(itemReasoning, "rs")
	fresh := i >= s.try.parts
	s.say(partSummary, text, nil, fresh)
	if fresh {
		s.try.parts, s.try.summary = i+1, 0
	}
	s.try.summary += len(text)
	return true
}

// annotation adds to the text that is open.
func (s *Stream) annotation(raw json.RawMessage) bool {
	s.try.annotations++
	return !isNull(raw) && s.annotate(raw)
}

// seal ends the reasoning with its encrypted form, if the client asked for it.
func (s *Stream) seal(encrypted string) bool {
	s.try.sealed = true
	if !s.encrypted {
		return false
	}
	s.item(itemReasoning, "rs")
	s.closeItem(itemEnd{status: statusCompleted, encrypted: encrypted})
	return true
}

// item opens an item of the kind unless one is open.
func (s *Stream) item(kind, prefix string) {
	if it := s.open(); it != nil && it.kind == kind {
		return
	}
	s.closeItem(itemEnd{status: statusCompleted})
	s.add(&outItem{kind: kind, id: s.itemID(prefix)})
}

// itemID is the id of the next item: unique over all responses, and at most 40
// bytes up to 999 items, which is what a tool call's id may have upstream.
func (s *Stream) itemID(prefix string) string {
	return prefix + "_" + strings.TrimPrefix(s.obj.ID, responsePrefix) + "_" + strconv.Itoa(len(s.items))
}

// ModelDone emits what is still missing of a model call's output and closes its
// items. Calls of server tools stay open until ToolDone. Of an output that was
// cut by length or filter, the last item is incomplete, and calls that were not
// shown yet are not shown.
func (s *Stream) ModelDone(out ModelOutput) []Event {
	if s.ended {
		return nil
	}
	s.start()
	s.modeled = true
	s.pump()
	t := s.try
	defer func() { s.try, s.visible = tried{}, false }()
	text, refusal := rest(out.Text, t.text), rest(out.Refusal, t.refusal)
	if t.call == nil {
		s.finishText(out, text, refusal)
		for _, c := range out.Calls {
			s.queue = append(s.queue, &turn{call: c})
		}
		text, refusal = "", ""
	}
	if out.truncated() {
		s.queue = nil
		s.closeItem(itemEnd{status: statusIncomplete})
		return s.take()
	}
	s.closeText()
	if t.call != nil {
		s.enqueue(out.Calls, t.call, late(text, refusal))
	}
	s.pump()
	return s.take()
}

// truncated reports whether the model was stopped: its calls are not run.
func (o ModelOutput) truncated() bool { return o.Finish == finishLength || o.Finish == finishFilter }

// rest is what follows the first n bytes.
func rest(s string, n int) string { return s[min(n, len(s)):] }

// restOf is what follows the first n.
func restOf(list []json.RawMessage, n int) []json.RawMessage { return list[min(n, len(list)):] }

// late is what a model wrote after its calls began, as it comes out behind the
// first of them; "" if that is only white space.
func late(text, refusal string) string {
	if strings.TrimSpace(text+refusal) == "" {
		return ""
	}
	return text + refusal
}

// finishText emits what no delta brought of all but the calls. A model call
// that brought nothing at all leaves an empty message.
func (s *Stream) finishText(out ModelOutput, text, refusal string) {
	s.finishReasoning(out)
	if text != "" || out.Text+out.Refusal == "" && len(out.Calls) == 0 && !out.truncated() {
		logprobs := slices.Clone(restOf(out.Logprobs, s.try.logprobs))
		for i := range logprobs {
			logprobs[i] = compact(logprobs[i])
		}
		s.text(text, logprobs)
	}
	for _, a := range restOf(out.Annotations, s.try.annotations) {
		s.annotation(a)
	}
	if refusal != "" {
		s.refusal(refusal)
	}
}

// finishReasoning emits what no delta brought of the reasoning. Its encrypted
// form is of no use behind the text that it led to.
func (s *Stream) finishReasoning(out ModelOutput) {
	t := s.try
	for i, part := range out.Summary {
		switch {
		case i == t.parts-1:
			part = rest(part, t.summary)
		case i < t.parts:
			part = ""
		}
		if part != "" {
			s.summary(i, part)
		}
	}
	if r := rest(out.Reasoning, t.reasoning); r != "" {
		s.reasoning(r)
	}
	if out.Encrypted != "" && !t.sealed && t.text+t.refusal == 0 {
		s.seal(out.Encrypted)
	}
}

// closeText closes an open message or reasoning item.
func (s *Stream) closeText() {
	if it := s.open(); it != nil && (it.kind == itemMessage || it.kind == itemReasoning) {
		s.closeItem(itemEnd{status: statusCompleted})
	}
}

// Interrupted ends a model try that another follows. What it left open, as when
// its worker died, is closed: the text so far stays, as an incomplete item. Items of settled steps are not touched.
func (s *Stream) Interrupted() []Event {
	if s.ended {
		return nil
	}
	if it := s.open(); it != nil && (len(s.queue) == 0 || s.queue[0].item != it) {
		s.closeItem(itemEnd{status: statusIncomplete})
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
	s.closeItem(itemEnd{status: statusIncomplete})
	s.visible = false
	o := s.obj
	o.Status = e.Status
	if !e.NoUsage {
		o.Usage = newObjectUsage(e.Usage)
	}
	if !e.Completed.IsZero() {
		at := e.Completed.Unix()
		o.CompletedAt = &at
	}
	switch e.Status {
	case statusCompleted:
		s.lifecycle(evCompleted, o)
	case statusIncomplete:
		o.IncompleteDetails = &incompleteDetails{e.Reason}
		s.lifecycle(evIncomplete, o)
	case statusCancelled:
		s.obj = o
	default:
		f := e.Failure
		if f == nil {
			f = FailureOf(Step{Class: queue.HostError})
		}
		o.Status, o.Error = statusFailed, &objectError{f.Code, f.Message}
		s.lifecycle(evFailed, o)
	}
	s.ended = true
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
	return s.render(s.seq-1, event{kind: kind})
}

// NextSeq returns the sequence number of the next event.
func (s *Stream) NextSeq() int64 { return s.seq }
