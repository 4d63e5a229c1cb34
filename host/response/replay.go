package response

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Restore returns the stream that emitted events, from the log alone: the
// created event holds the request's echo. It can say what the response is;
// Resume and Rebuild let it go on.
func Restore(events []Event) (*Stream, error) {
	s := &Stream{}
	if err := s.Observe(events); err != nil {
		return nil, err
	}
	if !s.created {
		return nil, errors.New("response: restore: no events")
	}
	return s, nil
}

// Observe takes the events that follow those that the stream emitted or
// observed; the zero Stream takes them from the first on. It is then what
// Restore makes of them all, and holds no more than the response's output.
// After an error the stream is of no use.
func (s *Stream) Observe(events []Event) error {
	for _, e := range events {
		if err := s.apply(e); err != nil {
			return fmt.Errorf("response: restore: event %d: %w", e.Seq, err)
		}
	}
	s.visible = s.open() != nil
	return nil
}

// wire is any event as sent.
type wire struct {
	Type         string          `json:"type"`
	Seq          *int64          `json:"sequence_number"`
	Response     json.RawMessage `json:"response"`
	OutputIndex  *int            `json:"output_index"`
	ContentIndex *int            `json:"content_index"`
	ItemID       string          `json:"item_id"`
	Item         json.RawMessage `json:"item"`
	Part         json.RawMessage `json:"part"`
	Delta        *string         `json:"delta"`
	Text         *string         `json:"text"`
	Refusal      *string         `json:"refusal"`
	Arguments    *string         `json:"arguments"`
	Error        json.RawMessage `json:"error"`
}

// apply takes one event into the state, or says what rule it breaks.
func (l *log) apply(e Event) error {
	var w wire
	if err := json.Unmarshal(e.Data, &w); err != nil {
		return fmt.Errorf("not an event: %w", err)
	}
	switch {
	case bytes.ContainsAny(e.Data, "\r\n"):
		return errors.New("not on one line")
	case !bytes.HasPrefix(e.Data, []byte(`{"type":"`+w.Type+`"`)):
		return errors.New("does not begin with its type")
	case w.Seq == nil || *w.Seq != l.seq || e.Seq != l.seq:
		return fmt.Errorf("sequence number is not %d", l.seq)
	case w.Error != nil:
		return errors.New("top-level error key")
	case l.ended:
		return fmt.Errorf("%s after the end", w.Type)
	case l.created == (w.Type == evCreated):
		return fmt.Errorf("%s out of place", w.Type)
	}
	l.seq++
	switch w.Type {
	case evCreated, evQueued, evInProgress, evCompleted, evIncomplete, evFailed:
		return l.applyLifecycle(w)
	case evItemAdded:
		return l.applyAdded(w)
	}
	it := l.open()
	if it == nil || w.OutputIndex == nil || *w.OutputIndex != len(l.items)-1 {
		return fmt.Errorf("%s of an item that is not open", w.Type)
	}
	if w.Type == evItemDone {
		return it.applyDone(w)
	}
	if w.ItemID != it.id {
		return fmt.Errorf("%s of item %q, want %q", w.Type, w.ItemID, it.id)
	}
	switch it.kind {
	case "message", "reasoning":
		return it.applyPart(w)
	}
	return it.applyCall(w)
}

func (l *log) applyLifecycle(w wire) error {
	var o object
	if err := json.Unmarshal(w.Response, &o); err != nil {
		return fmt.Errorf("%s: response: %w", w.Type, err)
	}
	if l.created && o.ID != l.obj.ID {
		return fmt.Errorf("%s: response id changed", w.Type)
	}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	want := w.Type[len("response."):]
	switch w.Type {
	case evCreated:
		if o.Status != statusQueued && o.Status != statusInProgress || len(o.Output) > 0 {
			return errors.New("created: neither queued nor in progress, or with output")
		}
		want, l.created = o.Status, true
	case evQueued:
		if l.seq != 2 || l.obj.Status != statusQueued {
			return errors.New("queued out of place")
		}
	case evInProgress:
		l.started = true
	default:
		if !l.started || l.open() != nil {
			return fmt.Errorf("%s before in_progress or with an open item", w.Type)
		}
		l.ended = true
	}
	if o.Status != want {
		return fmt.Errorf("%s: status is %q", w.Type, o.Status)
	}
	o.Output = nil
	l.obj = o
	return nil
}

// wireItem is any output item as sent.
type wireItem struct {
	ID        string            `json:"id"`
	Type      string            `json:"type"`
	Status    string            `json:"status"`
	CallID    string            `json:"call_id"`
	Name      string            `json:"name"`
	Label     string            `json:"server_label"`
	Arguments string            `json:"arguments"`
	Output    *string           `json:"output"`
	Error     json.RawMessage   `json:"error"`
	Content   []json.RawMessage `json:"content"`
}

func (l *log) applyAdded(w wire) error {
	var i wireItem
	if err := json.Unmarshal(w.Item, &i); err != nil {
		return fmt.Errorf("added: item: %w", err)
	}
	switch {
	case !l.started:
		return errors.New("added before in_progress")
	case l.open() != nil:
		return errors.New("added while an item is open")
	case w.OutputIndex == nil || *w.OutputIndex != len(l.items):
		return fmt.Errorf("added: output_index is not %d", len(l.items))
	case i.ID == "" || slices.ContainsFunc(l.items, func(it *outItem) bool { return it.id == i.ID }):
		return errors.New("added: no id, or another item's")
	case i.Status != statusInProgress || len(i.Content) > 0 || i.Arguments != "" || i.Output != nil || !isNull(i.Error):
		return errors.New("added: not empty and in progress")
	case !slices.Contains([]string{"message", "reasoning", "function_call", "mcp_call"}, i.Type):
		return errors.New("added: unknown type of item")
	case i.Type == "function_call" && i.CallID == "":
		return errors.New("added: function_call without call_id")
	}
	l.items = append(l.items, &outItem{kind: i.Type, id: i.ID, status: i.Status, callID: i.CallID, name: i.Name, label: i.Label})
	return nil
}

// partRules says which events belong to which part.
var partRules = map[string]struct{ kind, delta, done string }{
	"output_text":    {"message", evTextDelta, evTextDone},
	"refusal":        {"message", evRefusalDelta, evRefusalDone},
	"reasoning_text": {"reasoning", evReasonDelta, evReasonDone},
}

// applyPart takes an event inside a message or reasoning item.
func (it *outItem) applyPart(w wire) error {
	n := len(it.parts)
	if w.Type == evPartAdded {
		var p struct{ Type, Text, Refusal string }
		if err := json.Unmarshal(w.Part, &p); err != nil {
			return fmt.Errorf("part: %w", err)
		}
		if w.ContentIndex == nil || *w.ContentIndex != n || n > 0 && !it.parts[n-1].done {
			return errors.New("part added out of order")
		}
		if partRules[p.Type].kind != it.kind || p.Text+p.Refusal != "" {
			return errors.New("part added that is not empty or not of this item")
		}
		it.parts = append(it.parts, &outPart{kind: p.Type})
		return nil
	}
	if n == 0 || w.ContentIndex == nil || *w.ContentIndex != n-1 || it.parts[n-1].done {
		return fmt.Errorf("%s of a part that is not open", w.Type)
	}
	p := it.parts[n-1]
	rule := partRules[p.kind]
	switch {
	case w.Type == rule.delta && !p.textDone && w.Delta != nil:
		p.text.WriteString(*w.Delta)
	case w.Type == rule.done && !p.textDone:
		full := w.Text
		if p.kind == "refusal" {
			full = w.Refusal
		}
		if full == nil || *full != p.text.String() {
			return fmt.Errorf("%s: not the deltas' text", w.Type)
		}
		p.textDone = true
	case w.Type == evPartDone && p.textDone:
		if !sameJSON(w.Part, marshal(p.content())) {
			return errors.New("part done: not the part")
		}
		p.done = true
	default:
		return fmt.Errorf("%s out of place", w.Type)
	}
	return nil
}

// applyCall takes an event inside a call.
func (it *outItem) applyCall(w wire) error {
	delta, done := evFuncArgsDelta, evFuncArgsDone
	mcp := it.kind == "mcp_call"
	if mcp {
		delta, done = evMCPArgsDelta, evMCPArgsDone
	}
	switch {
	case mcp && w.Type == evMCPInProgress && !it.begun:
		it.begun = true
	case mcp && !it.begun:
		return fmt.Errorf("%s before the call's in_progress", w.Type)
	case w.Type == delta && !it.argsDone && w.Delta != nil:
		it.args.WriteString(*w.Delta)
	case w.Type == done && !it.argsDone:
		if w.Arguments == nil || *w.Arguments != it.args.String() {
			return fmt.Errorf("%s: not the deltas' text", w.Type)
		}
		it.argsDone = true
	case mcp && it.argsDone && !it.ended && (w.Type == evMCPCompleted || w.Type == evMCPFailed):
		it.ended, it.succeeded = true, w.Type == evMCPCompleted
	default:
		return fmt.Errorf("%s out of place", w.Type)
	}
	return nil
}

// applyDone takes output_item.done: the item must be what its events made it.
func (it *outItem) applyDone(w wire) error {
	var i wireItem
	if err := json.Unmarshal(w.Item, &i); err != nil {
		return fmt.Errorf("done: item: %w", err)
	}
	if n := len(it.parts); n > 0 && !it.parts[n-1].done {
		return errors.New("done: a part is open")
	}
	switch it.kind {
	case "function_call":
		if !it.argsDone {
			return errors.New("done: arguments are open")
		}
	case "mcp_call":
		if !it.ended || i.Status != statusIncomplete && it.succeeded != (i.Status == statusCompleted) {
			return errors.New("done: status is not how the call ended")
		}
	}
	if i.Status != statusCompleted && i.Status != statusIncomplete && (i.Status != statusFailed || it.kind != "mcp_call") {
		return fmt.Errorf("done: status %q", i.Status)
	}
	it.status, it.output = i.Status, i.Output
	if !isNull(i.Error) {
		it.err = compact(i.Error)
	}
	if !sameJSON(w.Item, it.encode()) {
		return errors.New("done: not what the item's events made it")
	}
	it.done = true
	return nil
}
