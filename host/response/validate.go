package response

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Validator holds a response's events, as they come, against the whole
// grammar: their types and members, their order, contiguous sequence numbers
// from 0, stable ids and indexes, deltas that add up to what is called done,
// items that are what their events made them, true snapshots of the response
// and one terminal event at the end. The zero Validator is ready for the first
// event; after an error it is of no use.
type Validator struct {
	// Canceled allows a stream without a terminal event, as that of a response
	// that was cancelled.
	Canceled bool
	// Heartbeats counts the events that repeated the last sequence number.
	Heartbeats int

	log log
}

// ErrUnfinished says that a stream has no terminal event, as that of a
// cancelled response has none.
var ErrUnfinished = errors.New("no terminal event")

// Event takes the data of the next event. One that repeats the last sequence
// number is a heartbeat: it must say where the response stands, truly, and is
// otherwise ignored.
func (v *Validator) Event(data []byte) error {
	if err := v.take(data); err != nil {
		return fmt.Errorf("response: validate: event %d: %w", v.log.seq, err)
	}
	return nil
}

// End reports whether the stream may end here. The error wraps ErrUnfinished.
func (v *Validator) End() error {
	if v.log.ended || v.Canceled && v.log.created {
		return nil
	}
	return fmt.Errorf("response: validate: %w", ErrUnfinished)
}

// Validate checks all events of a response with a Validator. A stream that has
// not ended breaks only the last rule; the error then wraps ErrUnfinished.
func Validate(events []Event) error {
	var v Validator
	for i, e := range events {
		if e.Seq != int64(i) {
			return fmt.Errorf("response: validate: event %d has the number %d", i, e.Seq)
		}
		if err := v.Event(e.Data); err != nil {
			return err
		}
	}
	if v.Heartbeats > 0 {
		return errors.New("response: validate: a heartbeat among the events of a log")
	}
	return v.End()
}

func (v *Validator) take(data []byte) error {
	l := &v.log
	w, err := readEvent(data)
	if err != nil {
		return err
	}
	switch {
	case bytes.ContainsAny(data, "\r\n"):
		return errors.New("not on one line")
	case !bytes.HasPrefix(data, []byte(`{"type":"`+w.Type+`"`)):
		return errors.New("does not begin with its type")
	}
	if err := members(data, w.Type); err != nil {
		return err
	}
	if l.created && !l.ended && *w.Seq == l.seq-1 && w.Response != nil {
		v.Heartbeats++
		return v.heartbeat(w)
	}
	if *w.Seq != l.seq {
		return fmt.Errorf("sequence number is %d, want %d", *w.Seq, l.seq)
	}
	e, err := w.event()
	if err != nil {
		return err
	}
	before := l.obj
	if err := l.step(e); err != nil {
		return err
	}
	l.seq++
	if e.obj != nil && e.kind != evCreated && !sameEcho(before, l.obj) {
		return fmt.Errorf("%s: another request's echo than before", e.kind)
	}
	return v.check(w, e)
}

// members checks that an event has the members that its type asks for, and no
// others.
func members(data []byte, kind string) error {
	want, ok := eventFields[kind]
	if !ok {
		return fmt.Errorf("unknown type %.64q", kind)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	got := slices.Sorted(maps.Keys(m))
	all := slices.Sorted(slices.Values(append([]string{"type", "sequence_number"}, want...)))
	if !slices.Equal(got, all) {
		return fmt.Errorf("%s has the members %q, want %q", kind, got, all)
	}
	return nil
}

// heartbeat checks an event that says nothing new.
func (v *Validator) heartbeat(w wire) error {
	kind := evInProgress
	if v.log.obj.Status == statusQueued {
		kind = evQueued
	}
	if w.Type != kind {
		return fmt.Errorf("heartbeat: %s, want %s", w.Type, kind)
	}
	if !sameJSON(w.Response, marshal(v.log.snapshot())) {
		return errors.New("heartbeat: the response is not a true snapshot")
	}
	return nil
}

// check holds what an event shows as a whole against the state that it led to.
func (v *Validator) check(w wire, e event) error {
	l := &v.log
	switch {
	case w.Response != nil:
		if !sameJSON(w.Response, marshal(l.snapshot())) {
			return fmt.Errorf("%s: the response is not a true snapshot", e.kind)
		}
		return l.obj.consistent()
	case w.Item != nil:
		it := l.items[len(l.items)-1]
		if !sameJSON(w.Item, it.encode()) {
			return fmt.Errorf("%s: the item is not what its events made it:\n%s\n%s", e.kind, w.Item, it.encode())
		}
		return it.wellFormed()
	case w.Part != nil:
		if part := marshal(l.part(e).content()); !sameJSON(w.Part, part) {
			return fmt.Errorf("%s: the part is not what its events made it", e.kind)
		}
	case e.kind == evTextDone:
		if !sameJSON(marshal(w.Logprobs), marshal(orEmpty(l.part(e).logprobs))) {
			return fmt.Errorf("%s: the logprobs are not the deltas'", e.kind)
		}
	case e.kind == evFuncArgsDone:
		if w.Name != l.items[e.output].name {
			return fmt.Errorf("%s: the name is not the item's", e.kind)
		}
	}
	return nil
}

// sameEcho reports whether two objects of a response repeat the same request.
func sameEcho(a, b object) bool {
	for _, o := range []*object{&a, &b} {
		o.Status, o.CompletedAt, o.Usage, o.Error, o.IncompleteDetails = "", nil, nil, nil, nil
	}
	return sameJSON(marshal(a), marshal(b))
}

// consistent checks that the response has what its status asks for.
func (o *object) consistent() error {
	running := o.Status == statusQueued || o.Status == statusInProgress
	switch {
	case running && (o.Usage != nil || o.CompletedAt != nil):
		return errors.New("a response that runs has usage or completed_at")
	case !running && o.Status != statusFailed && o.Usage == nil:
		return errors.New("the end has no usage")
	case (o.Status == statusFailed) != (o.Error != nil):
		return fmt.Errorf("status %q and error do not agree", o.Status)
	case o.Error != nil && (o.Error.Code == "" || o.Error.Message == ""):
		return errors.New("an error without code or message")
	case (o.Status == statusIncomplete) != (o.IncompleteDetails != nil):
		return fmt.Errorf("status %q and incomplete_details do not agree", o.Status)
	case o.IncompleteDetails != nil && o.IncompleteDetails.Reason != reasonTokens && o.IncompleteDetails.Reason != finishFilter:
		return fmt.Errorf("incomplete for %q", o.IncompleteDetails.Reason)
	}
	return nil
}

// wellFormed checks what the events of the item do not say.
func (it *outItem) wellFormed() error {
	switch it.kind {
	case itemFunction, itemApproval, itemCustomTool: // of an mcp_call it is the model's, whatever that wrote
		if it.name == "" {
			return fmt.Errorf("%s without a name", it.kind)
		}
	}
	switch {
	case (it.kind == itemMCPCall || it.kind == itemApproval) && it.label == "":
		return fmt.Errorf("%s without server_label", it.kind)
	case it.kind != itemMCPList || it.tools == nil:
		return nil
	}
	var tools []RemoteTool
	if err := json.Unmarshal(it.tools, &tools); err != nil {
		return fmt.Errorf("%s: tools: %w", it.kind, err)
	}
	for _, t := range tools {
		if t.Name == "" || len(t.InputSchema) == 0 || t.InputSchema[0] != '{' {
			return fmt.Errorf("%s: a tool without name or input_schema", it.kind)
		}
	}
	return nil
}

// sameJSON reports whether two texts are the same JSON value.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
