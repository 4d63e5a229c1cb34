package response

import (
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

// apply takes one event into the state, or says what rule it breaks. It asks
// of an event what the state needs: a log may be of an earlier version, whose
// items lacked a member.
func (l *log) apply(e Event) error {
	w, err := readEvent(e.Data)
	if err != nil {
		return err
	}
	if *w.Seq != l.seq || e.Seq != l.seq {
		return fmt.Errorf("sequence number is not %d", l.seq)
	}
	ev, err := w.event()
	if err != nil {
		return err
	}
	if err := l.step(ev); err != nil {
		return err
	}
	l.seq++
	return nil
}

// wire is any event as sent.
type wire struct {
	Type         string            `json:"type"`
	Seq          *int64            `json:"sequence_number"`
	Response     json.RawMessage   `json:"response"`
	OutputIndex  *int              `json:"output_index"`
	ContentIndex *int              `json:"content_index"`
	SummaryIndex *int              `json:"summary_index"`
	Nth          *int              `json:"annotation_index"`
	ItemID       string            `json:"item_id"`
	Item         json.RawMessage   `json:"item"`
	Part         json.RawMessage   `json:"part"`
	Annotation   json.RawMessage   `json:"annotation"`
	Logprobs     []json.RawMessage `json:"logprobs"`
	Delta        *string           `json:"delta"`
	Text         *string           `json:"text"`
	Refusal      *string           `json:"refusal"`
	Arguments    *string           `json:"arguments"`
	Input        *string           `json:"input"`
	Name         string            `json:"name"`
}

func readEvent(data []byte) (wire, error) {
	var w wire
	if err := json.Unmarshal(data, &w); err != nil {
		return w, fmt.Errorf("not an event: %w", err)
	}
	if w.Seq == nil {
		return w, errors.New("no sequence number")
	}
	return w, nil
}

// event reads the fields that the type of the event names.
func (w *wire) event() (event, error) {
	e := event{kind: w.Type, id: w.ItemID, note: w.Annotation, logprobs: w.Logprobs}
	fields := eventFields[w.Type]
	for _, f := range []struct {
		name string
		from *int
		to   *int
	}{
		{"output_index", w.OutputIndex, &e.output},
		{"content_index", w.ContentIndex, &e.index},
		{"summary_index", w.SummaryIndex, &e.index},
		{"annotation_index", w.Nth, &e.nth},
	} {
		if f.from != nil {
			*f.to = *f.from
		} else if slices.Contains(fields, f.name) {
			return e, fmt.Errorf("%s: no %s", w.Type, f.name)
		}
	}
	for _, f := range []struct {
		name string
		from *string
	}{{"delta", w.Delta}, {"text", w.Text}, {"refusal", w.Refusal}, {"arguments", w.Arguments}, {"input", w.Input}} {
		switch {
		case !slices.Contains(fields, f.name):
		case f.from == nil:
			return e, fmt.Errorf("%s: no %s", w.Type, f.name)
		default:
			e.text = *f.from
		}
	}
	return e, w.parts(&e, fields)
}

// parts reads what the event holds as a whole: a response, an item or a part.
func (w *wire) parts(e *event, fields []string) error {
	switch {
	case slices.Contains(fields, "response"):
		o, err := readObject(w.Response)
		if err != nil {
			return fmt.Errorf("%s: response: %w", w.Type, err)
		}
		if w.Type == evCreated && len(o.Output) > 0 {
			return errors.New("created: with output")
		}
		e.obj = &o
	case slices.Contains(fields, "item"):
		var i wireItem
		if err := json.Unmarshal(w.Item, &i); err != nil {
			return fmt.Errorf("%s: item: %w", w.Type, err)
		}
		if w.Type == evItemAdded {
			e.item = i.begin()
			return i.empty()
		}
		e.end = &itemEnd{i.Status, i.Output, i.Error, i.Tools, i.Encrypted}
	case slices.Contains(fields, "part"):
		var p struct{ Type, Text, Refusal string }
		if err := json.Unmarshal(w.Part, &p); err != nil {
			return fmt.Errorf("%s: part: %w", w.Type, err)
		}
		if e.part = p.Type; (w.Type == evPartAdded || w.Type == evSummaryAdded) && p.Text+p.Refusal != "" {
			return errors.New("part added that is not empty")
		}
	case slices.Contains(fields, "annotation") && isNull(w.Annotation):
		return fmt.Errorf("%s: no annotation", w.Type)
	}
	return nil
}

func readObject(raw json.RawMessage) (object, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return o, err
	}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	return o, nil
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
	Input     string            `json:"input"`
	Output    *string           `json:"output"`
	Error     json.RawMessage   `json:"error"`
	Tools     json.RawMessage   `json:"tools"`
	Approval  string            `json:"approval_request_id"`
	Encrypted string            `json:"encrypted_content"`
	Content   []json.RawMessage `json:"content"`
	Summary   []json.RawMessage `json:"summary"`
}

// begin is the item that is added.
func (i *wireItem) begin() *outItem {
	it := &outItem{
		kind: i.Type, id: i.ID, status: i.Status, callID: i.CallID, name: i.Name, label: i.Label, approval: i.Approval,
	}
	it.args.WriteString(i.Arguments + i.Input)
	return it
}

// empty says what the item that is added holds that it cannot hold yet.
func (i *wireItem) empty() error {
	if len(i.Content)+len(i.Summary) > 0 || i.Output != nil || !isNull(i.Error) || i.Encrypted != "" || !isNull(i.Tools) && string(compact(i.Tools)) != "[]" {
		return errors.New("added: not empty")
	}
	return nil
}
