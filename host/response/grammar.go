package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// log is what a sequence of events amounts to: the one state behind emitting,
// restoring and validating. step alone changes it.
type log struct {
	obj     object // without output
	items   []*outItem
	events  []Event // emitted and not yet handed out
	seq     int64   // of the next event
	created bool
	started bool
	ended   bool // a terminal event was sent, or the response was cancelled
}

// event is any event as the grammar takes it: one that is emitted is made as
// such, one that is observed is read into it. Each kind uses the fields that
// eventFields names.
type event struct {
	kind     string
	output   int // output_index
	index    int // content_index or summary_index
	nth      int // annotation_index
	id       string
	text     string // the piece, or all of it
	logprobs []json.RawMessage
	note     json.RawMessage // the annotation
	part     string          // the kind of part that is added
	item     *outItem        // that is added
	end      *itemEnd        // of the item that is done
	obj      *object         // of a lifecycle event, without output
}

// itemEnd is what an item is given with its last event.
type itemEnd struct {
	status    string
	output    *string
	err       json.RawMessage
	tools     json.RawMessage
	encrypted string
}

// The kinds of parts.
const (
	partText      = "output_text"
	partRefusal   = "refusal"
	partReasoning = "reasoning_text"
	partSummary   = "summary_text"
)

// partRule says which item a part belongs to, and its events in their order.
type partRule struct {
	item                         string
	added, delta, textDone, done string
	summary                      bool
}

var partRules = map[string]partRule{
	partText:      {itemMessage, evPartAdded, evTextDelta, evTextDone, evPartDone, false},
	partRefusal:   {itemMessage, evPartAdded, evRefusalDelta, evRefusalDone, evPartDone, false},
	partReasoning: {itemReasoning, evPartAdded, evReasonDelta, evReasonDone, evPartDone, false},
	partSummary:   {itemReasoning, evSummaryAdded, evSummaryDelta, evSummaryTextDone, evSummaryDone, true},
}

// callRules are the events of a call's arguments.
var callRules = map[string]struct{ delta, done string }{
	itemFunction:   {evFuncArgsDelta, evFuncArgsDone},
	itemCustomTool: {evCustomDelta, evCustomDone},
	itemMCPCall:    {evMCPArgsDelta, evMCPArgsDone},
}

// runRules are the events around what the host does for an item.
var runRules = map[string]struct{ begun, completed, failed string }{
	itemMCPCall: {evMCPInProgress, evMCPCompleted, evMCPFailed},
	itemMCPList: {evListInProgress, evListCompleted, evListFailed},
}

// statuses are those with which an item may be done; a kind without any has no
// status at all.
var statuses = map[string][]string{
	itemMessage:    {statusCompleted, statusIncomplete},
	itemReasoning:  {statusCompleted, statusIncomplete},
	itemFunction:   {statusCompleted, statusIncomplete},
	itemCustomTool: {statusCompleted, statusIncomplete},
	itemMCPCall:    {statusCompleted, statusIncomplete, statusFailed},
}

// open is the item that was added and not done, or nil.
func (l *log) open() *outItem {
	if n := len(l.items); n > 0 && !l.items[n-1].done {
		return l.items[n-1]
	}
	return nil
}

// list is the item's summary or content.
func (it *outItem) list(summary bool) *[]*outPart {
	if summary {
		return &it.summary
	}
	return &it.parts
}

// openPart is the part that was added and not done, and its index; nil if
// there is none.
func (it *outItem) openPart() (*outPart, int) {
	for _, list := range [][]*outPart{it.parts, it.summary} {
		if n := len(list) - 1; n >= 0 && !list[n].done {
			return list[n], n
		}
	}
	return nil, -1
}

// step takes one event into the state, or says what rule it breaks.
func (l *log) step(e event) error {
	switch {
	case eventFields[e.kind] == nil:
		return fmt.Errorf("unknown type %.64q", e.kind)
	case l.ended:
		return fmt.Errorf("%s after the end", e.kind)
	case l.created == (e.kind == evCreated):
		return fmt.Errorf("%s out of place", e.kind)
	case e.obj != nil:
		return l.stepLifecycle(e)
	case e.kind == evItemAdded:
		return l.stepAdded(e)
	}
	it := l.open()
	if it == nil || e.output != len(l.items)-1 {
		return fmt.Errorf("%s of an item that is not open", e.kind)
	}
	if e.kind == evItemDone {
		return it.stepDone(*e.end)
	}
	if e.id != it.id {
		return fmt.Errorf("%s of item %q, want %q", e.kind, e.id, it.id)
	}
	switch it.kind {
	case itemMessage, itemReasoning:
		return it.stepPart(e)
	}
	return it.stepCall(e)
}

func (l *log) stepLifecycle(e event) error {
	o := *e.obj
	if l.created && o.ID != l.obj.ID {
		return fmt.Errorf("%s: response id changed", e.kind)
	}
	want := e.kind[len("response."):]
	switch e.kind {
	case evCreated:
		if o.Status != statusQueued && o.Status != statusInProgress {
			return errors.New("created: neither queued nor in progress")
		}
		want = o.Status
	case evQueued:
		if l.seq != 1 || l.obj.Status != statusQueued {
			return errors.New("queued out of place")
		}
	case evInProgress:
	default:
		if !l.started || l.open() != nil {
			return fmt.Errorf("%s before in_progress or with an open item", e.kind)
		}
	}
	if o.Status != want {
		return fmt.Errorf("%s: status is %q", e.kind, o.Status)
	}
	l.created = true
	switch e.kind {
	case evCreated, evQueued:
	case evInProgress:
		l.started = true
	default:
		l.ended = true
	}
	o.Output = nil
	l.obj = o
	return nil
}

func (l *log) stepAdded(e event) error {
	it := e.item
	_, called := callRules[it.kind]
	_, runs := runRules[it.kind]
	status := ""
	if statuses[it.kind] != nil {
		status = statusInProgress
	}
	switch {
	case !l.started:
		return errors.New("added before in_progress")
	case l.open() != nil:
		return errors.New("added while an item is open")
	case e.output != len(l.items):
		return fmt.Errorf("added: output_index is not %d", len(l.items))
	case statuses[it.kind] == nil && !called && !runs && it.kind != itemApproval:
		return errors.New("added: unknown type of item")
	case it.id == "" || slices.ContainsFunc(l.items, func(o *outItem) bool { return o.id == it.id }):
		return errors.New("added: no id, or another item's")
	case it.status != status:
		return fmt.Errorf("added: status %q", it.status)
	case it.kind != itemApproval && it.args.Len() > 0:
		return errors.New("added: not empty")
	case (it.kind == itemFunction || it.kind == itemCustomTool) && it.callID == "":
		return errors.New("added: a call of the client's without call_id")
	case it.kind == itemMCPList && it.label == "":
		return errors.New("added: a server's tools without server_label")
	}
	l.items = append(l.items, it)
	return nil
}

// stepPart takes an event inside a message or reasoning item.
func (it *outItem) stepPart(e event) error {
	summary := e.ofSummary()
	list := it.list(summary)
	if e.kind == evPartAdded || e.kind == evSummaryAdded {
		rule := partRules[e.part]
		switch p, _ := it.openPart(); {
		case rule.item != it.kind || rule.added != e.kind:
			return errors.New("part added that is not of this item")
		case p != nil || e.index != len(*list):
			return errors.New("part added out of order")
		case summary && len(it.parts) > 0:
			return errors.New("summary part added behind the content")
		}
		*list = append(*list, &outPart{kind: e.part})
		return nil
	}
	n := len(*list) - 1
	if n < 0 || e.index != n || (*list)[n].done {
		return fmt.Errorf("%s of a part that is not open", e.kind)
	}
	return (*list)[n].step(e)
}

// step takes an event inside a part.
func (p *outPart) step(e event) error {
	rule := partRules[p.kind]
	switch {
	case e.kind == rule.delta && !p.textDone:
		p.text.WriteString(e.text)
		p.logprobs = append(p.logprobs, e.logprobs...)
	case e.kind == evAnnotation && p.kind == partText && !p.textDone:
		if e.nth != len(p.annotations) {
			return fmt.Errorf("annotation_index is not %d", len(p.annotations))
		}
		p.annotations = append(p.annotations, e.note)
	case e.kind == rule.textDone && !p.textDone:
		if e.text != p.text.String() || len(e.logprobs) != len(p.logprobs) {
			return fmt.Errorf("%s: not what the deltas said", e.kind)
		}
		p.textDone = true
	case e.kind == rule.done && p.textDone:
		p.done = true
	default:
		return fmt.Errorf("%s out of place", e.kind)
	}
	return nil
}

// stepCall takes an event inside an item of another kind.
func (it *outItem) stepCall(e event) error {
	call, called := callRules[it.kind]
	run, runs := runRules[it.kind]
	switch {
	case runs && !it.begun:
		if e.kind != run.begun {
			return fmt.Errorf("%s before %s", e.kind, run.begun)
		}
		it.begun = true
	case called && e.kind == call.delta && !it.argsDone:
		it.args.WriteString(e.text)
	case called && e.kind == call.done && !it.argsDone:
		if e.text != it.args.String() {
			return fmt.Errorf("%s: not what the deltas said", e.kind)
		}
		it.argsDone = true
	case runs && (it.argsDone || !called) && !it.ended && (e.kind == run.completed || e.kind == run.failed):
		it.ended, it.succeeded = true, e.kind == run.completed
	default:
		return fmt.Errorf("%s out of place", e.kind)
	}
	return nil
}

// stepDone ends the item.
func (it *outItem) stepDone(end itemEnd) error {
	_, called := callRules[it.kind]
	_, runs := runRules[it.kind]
	allowed := statuses[it.kind]
	switch p, _ := it.openPart(); {
	case p != nil:
		return errors.New("done: a part is open")
	case called && !it.argsDone:
		return errors.New("done: arguments are open")
	case runs && !it.ended:
		return errors.New("done: it was neither completed nor failed")
	case allowed == nil && end.status != "", allowed != nil && !slices.Contains(allowed, end.status):
		return fmt.Errorf("done: status %q", end.status)
	case it.kind == itemMCPCall && end.status != statusIncomplete && it.succeeded != (end.status == statusCompleted):
		return errors.New("done: status is not how the call ended")
	case it.kind == itemMCPList && it.succeeded != isNull(end.err), (end.status == statusFailed) == isNull(end.err) && it.kind == itemMCPCall:
		return errors.New("done: error is not how it ended")
	case it.kind == itemMCPCall && (end.status == statusCompleted) != (end.output != nil):
		return errors.New("done: output is not how the call ended")
	}
	it.status, it.output, it.encrypted, it.done = end.status, end.output, end.encrypted, true
	if !isNull(end.err) {
		it.err = compact(end.err)
	}
	if !isNull(end.tools) {
		it.tools = compact(end.tools)
	}
	return nil
}
