package response

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

// Validate checks a response's events against the whole grammar: order,
// contiguous sequence numbers from 0, stable ids, output_index, deltas that add
// up to what is called done, true snapshots, and one terminal event at the end.
// A stream that has not ended breaks only the last rule; the error then wraps
// ErrUnfinished.
func Validate(events []Event) error {
	var l log
	for _, e := range events {
		if err := l.apply(e); err != nil {
			return fmt.Errorf("response: validate: event %d: %w", e.Seq, err)
		}
		if err := l.checkSnapshot(e); err != nil {
			return fmt.Errorf("response: validate: event %d: %w", e.Seq, err)
		}
	}
	if !l.ended {
		return fmt.Errorf("response: validate: %w", ErrUnfinished)
	}
	return nil
}

// ErrUnfinished says that a stream has no terminal event, as that of a
// cancelled response has none.
var ErrUnfinished = errors.New("no terminal event")

// checkSnapshot checks that a lifecycle event's response holds every key and
// the items so far.
func (l *log) checkSnapshot(e Event) error {
	var w struct {
		Response json.RawMessage `json:"response"`
	}
	if json.Unmarshal(e.Data, &w) != nil || w.Response == nil {
		return nil
	}
	if !sameJSON(w.Response, marshal(l.snapshot())) {
		return errors.New("the response is not a true snapshot")
	}
	if l.ended && l.obj.Status != statusFailed && l.obj.Usage == nil {
		return errors.New("the end has no usage")
	}
	return nil
}

// sameJSON reports whether two texts are the same JSON value.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
