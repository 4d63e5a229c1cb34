package response_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/response"
)

// richStreams are streams that hold every type of event between them.
func richStreams(t *testing.T) [][]response.Event {
	t.Helper()
	var all [][]response.Event
	missing := map[string]bool{}
	for _, kind := range []string{
		"response.queued", "response.failed", "response.output_text.annotation.added", "response.refusal.done",
		"response.reasoning_text.done", "response.reasoning_summary_text.done", "response.function_call_arguments.done",
		"response.custom_tool_call_input.done", "response.mcp_call.failed", "response.mcp_call.completed",
		"response.mcp_list_tools.completed", "response.mcp_list_tools.failed", `"mcp_approval_request"`, `"encrypted_content"`,
	} {
		missing[kind] = true
	}
	for seed := uint64(0); len(missing) > 0 && seed < 1000; seed++ {
		w := newWorld(t, seed, worldBody(seed, true)).play()
		if len(w.events) > 70 { // the test's time grows with its square
			continue
		}
		news := false
		for kind := range maps.Clone(missing) {
			if slices.ContainsFunc(w.events, func(e response.Event) bool { return bytes.Contains(e.Data, []byte(kind)) }) {
				delete(missing, kind)
				news = true
			}
		}
		if news {
			all = append(all, w.events)
		}
	}
	if len(missing) > 0 {
		t.Fatalf("no stream has %v", slices.Sorted(maps.Keys(missing)))
	}
	return all
}

// member is one of an event's, in order.
type member struct {
	name  string
	value any
}

// membersOf takes an event apart; the first two are its type and number.
func membersOf(t *testing.T, data []byte) []member {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if _, err := d.Token(); err != nil {
		t.Fatal(err)
	}
	var all []member
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		all = append(all, member{name.(string), value})
	}
	return all
}

func eventOf(all []member) []byte {
	var b bytes.Buffer
	for i, m := range all {
		value, _ := json.Marshal(m.value)
		fmt.Fprintf(&b, "%c%q:%s", "{,"[min(i, 1)], m.name, value)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// number writes an event with another sequence number.
func number(t *testing.T, data []byte, n int) []byte {
	t.Helper()
	head := data[:min(len(data), 120)]
	if bytes.Contains(head, fmt.Appendf(nil, `"sequence_number":%d,`, n)) {
		return data
	}
	all := membersOf(t, data)
	all[1].value = n
	return eventOf(all)
}

// check runs events, renumbered, through a Validator.
func check(t *testing.T, events [][]byte) error {
	t.Helper()
	var v response.Validator
	for i, data := range events {
		if err := v.Event(number(t, data, i)); err != nil {
			return err
		}
	}
	if v.Heartbeats > 0 {
		return errors.New("heartbeat")
	}
	return v.End()
}

// leaves calls f with each scalar in v in turn changed to something else. What
// no rule can know, since it is said once, is left alone.
func leaves(v any, f func()) any {
	switch x := v.(type) {
	case map[string]any:
		for k, inner := range x {
			if slices.Contains([]string{"usage", "completed_at", "error", "incomplete_details"}, k) && x["object"] == "response" {
				continue
			}
			x[k] = leaves(inner, func() { f() })
			change(inner, func(other any) { x[k] = other }, f)
			x[k] = inner
		}
	case []any:
		for i, inner := range x {
			x[i] = leaves(inner, f)
			change(inner, func(other any) { x[i] = other }, f)
			x[i] = inner
		}
	}
	return v
}

// change sets what is not v, if v is a scalar, and calls f.
func change(v any, set func(any), f func()) {
	switch x := v.(type) {
	case string:
		set(x + "x")
	case json.Number:
		if set(json.Number("7")); x == "7" {
			set(json.Number("8"))
		}
	case bool:
		set(!x)
	case nil:
		set("x")
	default:
		return
	}
	f()
}

// Whatever is changed in a stream, the validator finds it: an event that is
// left out, repeated or moved, a member that is missing, added or another.
func TestValidatorFindsEveryChange(t *testing.T) {
	streams, seen := richStreams(t), map[string]int{}
	for _, events := range streams {
		good := make([][]byte, len(events))
		for i, e := range events {
			good[i] = e.Data
		}
		if err := check(t, good); err != nil {
			t.Fatal(err)
		}
		for i := range good {
			kind := membersOf(t, good[i])[0].value.(string)
			if seen[kind]++; seen[kind] > 2 {
				continue
			}
			t.Run(fmt.Sprintf("%d %s", i, kind), func(t *testing.T) { findsChanges(t, good, i, kind) })
		}
	}
}

func findsChanges(t *testing.T, good [][]byte, i int, kind string) {
	t.Helper()
	find := func(what string, events [][]byte) {
		t.Helper()
		if check(t, events) == nil {
			t.Errorf("%s: got no error\n%s", what, good[i])
		}
	}
	with := func(data ...[]byte) [][]byte {
		return slices.Concat(good[:i], data, good[i+1:])
	}
	if kind != "response.queued" {
		find("left out", with())
	}
	if kind != "response.in_progress" {
		find("repeated", with(good[i], good[i]))
	}
	if i+1 < len(good) {
		swapped := slices.Clone(good)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		same := bytes.Equal(number(t, good[i], 0), number(t, good[i+1], 0))
		if delta := strings.HasSuffix(kind, ".delta"); !same && !delta {
			find("moved", swapped)
		}
	}
	find("extra member", with(append(bytes.TrimSuffix(slices.Clone(good[i]), []byte("}")), `,"x":1}`...)))
	all := membersOf(t, good[i])
	for end, other := range map[string]string{".completed": ".failed", ".failed": ".completed"} {
		if strings.HasSuffix(kind, end) {
			find("as "+other, with(bytes.Replace(good[i], []byte(kind), []byte(strings.TrimSuffix(kind, end)+other), 1)))
		}
	}
	for m := range all {
		if m != 1 {
			renamed := slices.Clone(all)
			renamed[m].name = "other_" + renamed[m].name
			find("without "+all[m].name, with(eventOf(renamed)))
		}
		if kind == "response.created" || m < 2 {
			continue
		}
		name := all[m].name
		all[m].value = leaves(all[m].value, func() { find("another "+name+": "+string(eventOf(all)), with(eventOf(all))) })
		was := all[m].value
		change(was, func(other any) { all[m].value = other }, func() { find("another "+name, with(eventOf(all))) })
		all[m].value = was
	}
}

// A reasoning item's summary comes before its content.
func TestValidatorSummaryFirst(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x"}`)
	events := slices.Concat(s.Created(false), s.Started(), s.ModelDone(response.ModelOutput{Summary: []string{"s"}, Reasoning: "r", Text: "t", Finish: "stop"}),
		s.Finish(response.End{Status: "completed"}))
	var good [][]byte
	for _, e := range events {
		good = append(good, e.Data)
	}
	if err := check(t, good); err != nil {
		t.Fatal(err)
	}
	if err := check(t, slices.Concat(good[:3], good[7:11], good[3:7], good[11:])); err == nil || !strings.Contains(err.Error(), "behind the content") {
		t.Errorf("content first: got %v, want that the summary is late", err)
	}
}

// A heartbeat is known by its number, and must be true; it may come anywhere
// between created and the end.
func TestValidatorHeartbeats(t *testing.T) {
	events := newSim(t, canonicalFiles()).run().events
	for at := range events {
		var v response.Validator
		s := &response.Stream{}
		for _, e := range events[:at+1] {
			if err := v.Event(e.Data); err != nil {
				t.Fatal(err)
			}
			if err := s.Observe([]response.Event{e}); err != nil {
				t.Fatal(err)
			}
		}
		beat := s.Heartbeat()
		if ended := at == len(events)-1; ended != (beat == nil) {
			t.Fatalf("after event %d: heartbeat %s", at, beat)
		} else if ended {
			if err := v.Event(number(t, events[1].Data, at)); err == nil {
				t.Error("heartbeat after the end: got no error")
			}
			continue
		}
		for range 2 {
			if err := v.Event(beat); err != nil {
				t.Errorf("after event %d: %v", at, err)
			}
		}
		if v.Heartbeats != 2 {
			t.Errorf("counted %d heartbeats, want 2", v.Heartbeats)
		}
		for what, lie := range map[string][]byte{
			"another status": bytes.ReplaceAll(beat, []byte("in_progress\""), []byte("queued\"")),
			"another model":  bytes.Replace(beat, []byte(`"model":"m"`), []byte(`"model":"n"`), 1),
			"an older one":   number(t, beat, at-1),
		} {
			again := v
			if err := again.Event(lie); err == nil {
				t.Errorf("after event %d: %s: got no error", at, what)
			}
		}
	}
}

// A stream may only end without a terminal event if its response was canceled.
func TestValidatorEnd(t *testing.T) {
	events := newSim(t, canonicalFiles()).run().events
	var v response.Validator
	if err := v.End(); !errors.Is(err, response.ErrUnfinished) {
		t.Errorf("before created: got %v", err)
	}
	v.Canceled = true
	if err := v.End(); !errors.Is(err, response.ErrUnfinished) {
		t.Errorf("canceled before created: got %v", err)
	}
	for _, e := range events[:5] {
		if err := v.Event(e.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.End(); err != nil {
		t.Errorf("canceled: got %v", err)
	}
	if v.Canceled = false; !errors.Is(v.End(), response.ErrUnfinished) {
		t.Errorf("cut: got %v", v.End())
	}
}

// Encrypted reasoning is shown to a client that asked for it, and to no other.
func TestEncryptedReasoning(t *testing.T) {
	out := response.ModelOutput{Summary: []string{"s"}, Encrypted: "SEALED", Text: "t", Finish: "stop"}
	for _, asked := range []bool{true, false} {
		for _, streamed := range []bool{true, false} {
			body := `{"model":"m","input":"x"}`
			if asked {
				body = `{"model":"m","input":"x","include":["reasoning.encrypted_content"]}`
			}
			s := newStream(t, body)
			events := slices.Concat(s.Created(false), s.Started())
			if streamed {
				for _, d := range []response.Delta{
					{Kind: response.SummaryDelta, Text: "s"}, {Kind: response.EncryptedDelta, Text: "SEALED"}, {Kind: response.TextDelta, Text: "t"},
				} {
					events = append(events, s.Delta(d)...)
				}
			}
			events = slices.Concat(events, s.ModelDone(out), s.Finish(response.End{Status: "completed"}))
			if err := response.Validate(events); err != nil {
				t.Error(err)
			}
			if got := strings.Count(string(s.Response()), "SEALED"); got > 1 || got == 1 != asked {
				t.Errorf("asked %t, streamed %t: shown %d times", asked, streamed, got)
			}
			if got := strings.Count(string(s.Response()), `"type":"reasoning"`); got != 1 {
				t.Errorf("asked %t, streamed %t: %d reasoning items, want 1", asked, streamed, got)
			}
		}
	}
}
