package response_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// canonical is the stream of a two-step loop that every official client was
// seen to accept, without the lifecycle events.
const canonical = `{"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"id":"mcp_1","type":"mcp_call","server_label":"wasm","name":"add","arguments":"","output":null,"error":null,"status":"in_progress","approval_request_id":null}}
{"type":"response.mcp_call.in_progress","sequence_number":3,"output_index":0,"item_id":"mcp_1"}
{"type":"response.mcp_call_arguments.delta","sequence_number":4,"output_index":0,"item_id":"mcp_1","delta":"{\"a\":1}"}
{"type":"response.mcp_call_arguments.done","sequence_number":5,"output_index":0,"item_id":"mcp_1","arguments":"{\"a\":1}"}
{"type":"response.mcp_call.completed","sequence_number":6,"output_index":0,"item_id":"mcp_1"}
{"type":"response.output_item.done","sequence_number":7,"output_index":0,"item":{"id":"mcp_1","type":"mcp_call","server_label":"wasm","name":"add","arguments":"{\"a\":1}","output":"2","error":null,"status":"completed","approval_request_id":null}}
{"type":"response.output_item.added","sequence_number":8,"output_index":1,"item":{"id":"msg_2","type":"message","status":"in_progress","role":"assistant","content":[]}}
{"type":"response.content_part.added","sequence_number":9,"item_id":"msg_2","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
{"type":"response.output_text.delta","sequence_number":10,"item_id":"msg_2","output_index":1,"content_index":0,"delta":"Hello ","logprobs":[]}
{"type":"response.output_text.delta","sequence_number":11,"item_id":"msg_2","output_index":1,"content_index":0,"delta":"there","logprobs":[]}
{"type":"response.output_text.done","sequence_number":12,"item_id":"msg_2","output_index":1,"content_index":0,"text":"Hello there","logprobs":[]}
{"type":"response.content_part.done","sequence_number":13,"item_id":"msg_2","output_index":1,"content_index":0,"part":{"type":"output_text","text":"Hello there","annotations":[],"logprobs":[]}}
{"type":"response.output_item.done","sequence_number":14,"output_index":1,"item":{"id":"msg_2","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello there","annotations":[],"logprobs":[]}]}}`

// canonicalResponse is the completed object that every client accepts.
const canonicalResponse = `{"id":"resp_1","object":"response","created_at":1795393943,"completed_at":1795393944,"status":"completed","incomplete_details":null,
 "model":"m","previous_response_id":null,"instructions":null,"error":null,"tools":[],"tool_choice":"auto","truncation":"disabled",
 "parallel_tool_calls":true,"text":{"format":{"type":"text"}},"top_p":1,"presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,
 "temperature":1,"reasoning":{"effort":null,"summary":null},"max_output_tokens":null,"max_tool_calls":null,"store":true,"background":false,
 "service_tier":"default","metadata":{},"safety_identifier":null,"prompt_cache_key":null,"user":null,
 "output":[{"id":"mcp_1","type":"mcp_call","server_label":"wasm","name":"add","arguments":"{\"a\":1}","output":"2","error":null,"status":"completed","approval_request_id":null},
  {"id":"msg_2","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello there","annotations":[],"logprobs":[]}]}],
 "usage":{"input_tokens":10,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":5,
   "output_tokens_details":{"reasoning_tokens":0},"total_tokens":15}}`

func canonicalFiles() map[string]string {
	return map[string]string{
		"request.json": `{"model":"m","stream":true,"input":"1+0?"}`, "tools": "add wasm add pure",
		"model/1": "call 0 call_1 add {\"a\":1}\nfinish tool_calls 5 2", "tool/call_1": "2",
		"model/2": "text \"Hello \"\ntext \"there\"\nfinish stop 5 3",
	}
}

// rename puts the short ids of the reference in place of real ones.
func rename(b []byte) []byte {
	id := simID.String()
	r := strings.NewReplacer("resp_"+id, "resp_1", "mcp_"+id+"_0", "mcp_1", "msg_"+id+"_1", "msg_2")
	return []byte(r.Replace(string(b)))
}

func decode(t *testing.T, b []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// L27: every event has its type and item id, and the last one a Response.
func TestCanonicalStream(t *testing.T) {
	s := newSim(t, canonicalFiles()).run()
	if got, want := len(s.events), 16; got != want {
		t.Fatalf("got %d events, want %d", got, want)
	}
	for i, line := range strings.Split(canonical, "\n") {
		if got := string(rename(s.events[i+2].Data)); got != line {
			t.Errorf("event %d:\n got %s\nwant %s", i+2, got, line)
		}
	}
	for i, kind := range map[int]string{0: "created", 1: "in_progress", 15: "completed"} {
		if got, want := string(s.events[i].Data), fmt.Sprintf(`{"type":"response.%s","sequence_number":%d,"response":{`, kind, i); !strings.HasPrefix(got, want) {
			t.Errorf("event %d: got %s, want %s…", i, got, want)
		}
	}
	if got, want := decode(t, rename(s.final)), decode(t, []byte(canonicalResponse)); !reflect.DeepEqual(got, want) {
		t.Errorf("response:\n got %v\nwant %v", got, want)
	}
}

// Each mutation of a valid stream breaks one rule, and Validate says so.
func TestValidateFinds(t *testing.T) {
	good := newSim(t, canonicalFiles()).run().events
	edit := func(i int, old, with string) func([]response.Event) []response.Event {
		return func(e []response.Event) []response.Event {
			if !bytes.Contains(e[i].Data, []byte(old)) {
				t.Fatalf("event %d does not hold %s", i, old)
			}
			e[i].Data = bytes.Replace(e[i].Data, []byte(old), []byte(with), 1)
			return e
		}
	}
	// without drops an event and closes the gap in the numbers.
	without := func(i int) func([]response.Event) []response.Event {
		return func(e []response.Event) []response.Event {
			e = slices.Delete(e, i, i+1)
			for k := i; k < len(e); k++ {
				old, now := fmt.Sprintf(`"sequence_number":%d`, e[k].Seq), fmt.Sprintf(`"sequence_number":%d`, k)
				e[k] = response.Event{Seq: int64(k), Data: bytes.Replace(e[k].Data, []byte(old), []byte(now), 1)}
			}
			return e
		}
	}
	for _, tc := range []struct {
		name string
		do   func([]response.Event) []response.Event
	}{
		{"gap", func(e []response.Event) []response.Event { return slices.Delete(e, 4, 5) }},
		{"no created", without(0)},
		{"no in_progress", without(1)},
		{"delta before added", without(2)},
		{"no mcp_call.in_progress", without(3)},
		{"no arguments.done", without(5)},
		{"no mcp_call.completed", without(6)},
		{"no item done", without(7)},
		{"no content_part.added", without(9)},
		{"lost delta", without(11)},
		{"no output_text.done", without(12)},
		{"no content_part.done", without(13)},
		{"no terminal event", without(15)},
		{"event after the end", func(e []response.Event) []response.Event {
			return append(e, response.Event{Seq: 16, Data: []byte(`{"type":"response.in_progress","sequence_number":16,"response":{}}`)})
		}},
		{"two lines", edit(3, `,"output_index"`, ",\n\"output_index\"")},
		{"type not first", edit(3, `{"type":"response.mcp_call.in_progress",`, `{"z":1,"type":"response.mcp_call.in_progress",`)},
		{"top-level error key", edit(3, `,"output_index"`, `,"error":null,"output_index"`)},
		{"wrong output_index", edit(8, `"output_index":1`, `"output_index":2`)},
		{"changed item id", edit(10, `"item_id":"msg_`, `"item_id":"msx_`)},
		{"id of another item", edit(8, "msg_"+simID.String()+"_1", "mcp_"+simID.String()+"_0")},
		{"changed response id", edit(15, `"id":"resp_0`, `"id":"resp_1`)},
		{"text is not the deltas'", edit(12, `"text":"Hello there"`, `"text":"Hello"`)},
		{"item done is not its events", edit(14, `Hello there`, `Hello`)},
		{"failed item after completed", edit(7, `"status":"completed"`, `"status":"failed"`)},
		{"output is not the items", edit(15, `"text":"Hello there"`, `"text":"Hello"`)},
		{"stale snapshot", edit(15, `"output":"2"`, `"output":"3"`)},
		{"status of another end", edit(15, `"status":"completed"`, `"status":"failed"`)},
		{"missing key", edit(0, `"top_logprobs":0,`, ``)},
		{"unknown event", edit(3, `response.mcp_call.in_progress`, `acme:trace`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := tc.do(slices.Clone(good))
			for i := range e {
				e[i].Data = slices.Clone(e[i].Data)
			}
			if err := response.Validate(e); err == nil {
				t.Error("got no error")
			}
		})
	}
	if err := response.Validate(good[:15]); !errors.Is(err, response.ErrUnfinished) {
		t.Errorf("unfinished: got %v, want ErrUnfinished", err)
	}
}

func newStream(t *testing.T, body string) *response.Stream {
	t.Helper()
	r, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return response.NewStream(simID, time.Unix(1, 0), r, nil)
}

// A cancelled response has no event of its own; its open item is closed.
func TestCancelled(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x","background":true}`)
	events := s.Created(true)
	events = append(events, s.Started()...)
	events = append(events, s.Delta(response.Delta{Kind: response.TextDelta, Text: "so f"})...)
	end := s.Finish(response.End{Status: "cancelled"})
	if got := string(end[len(end)-1].Data); !strings.HasPrefix(got, `{"type":"response.output_item.done"`) {
		t.Errorf("last event: got %s, want output_item.done", got)
	}
	if err := response.Validate(append(events, end...)); !errors.Is(err, response.ErrUnfinished) {
		t.Errorf("got %v, want ErrUnfinished", err)
	}
	if got := string(s.Response()); !strings.Contains(got, `"status":"cancelled"`) || !strings.Contains(got, `"status":"incomplete"`) {
		t.Errorf("response: got %s, want it cancelled with an incomplete item", got)
	}
	late := slices.Concat(s.Started(), s.Delta(response.Delta{Kind: response.TextDelta, Text: "x"}),
		s.ModelDone(response.ModelOutput{Text: "x", Finish: "stop"}), s.ToolDone("x", response.ToolReceipt{}),
		s.Interrupted(), s.Finish(response.End{Status: "completed"}))
	if len(late) > 0 {
		t.Errorf("after the end: got %d events, want none", len(late))
	}
}

// A queued response that is cancelled was never in progress.
func TestCancelledWhileQueued(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x","background":true}`)
	s.Created(true)
	if got := s.Finish(response.End{Status: "cancelled"}); len(got) > 0 {
		t.Errorf("got %d events, want none", len(got))
	}
}

func TestVisible(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x"}`)
	s.Created(false)
	s.Started()
	if s.Visible() {
		t.Error("before the first delta: got visible")
	}
	s.Delta(response.Delta{Kind: response.TextDelta, Text: "a"})
	if !s.Visible() {
		t.Error("after a delta: got not visible")
	}
	s.ModelDone(response.ModelOutput{Text: "ab", Finish: "stop"})
	if s.Visible() {
		t.Error("after the model call: got visible")
	}
}

// A heartbeat repeats the last number and tells the truth, open item included.
func TestHeartbeat(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x"}`)
	if got := s.Heartbeat(); got != nil {
		t.Errorf("before created: got %s", got)
	}
	s.Created(true)
	if got := string(s.Heartbeat()); !strings.HasPrefix(got, `{"type":"response.queued","sequence_number":1,`) {
		t.Errorf("queued: got %s", got)
	}
	s.Started()
	s.Delta(response.Delta{Kind: response.TextDelta, Text: "half a"})
	next := s.NextSeq()
	got := string(s.Heartbeat())
	if !strings.HasPrefix(got, fmt.Sprintf(`{"type":"response.in_progress","sequence_number":%d,`, next-1)) || !strings.Contains(got, `"half a"`) {
		t.Errorf("got %s, want a true snapshot", got)
	}
	if s.NextSeq() != next {
		t.Error("a heartbeat takes a number")
	}
}

// Ids are unique over responses, and short enough to be a call id upstream.
func TestItemIDs(t *testing.T) {
	s := newStream(t, `{"model":"m","input":"x"}`)
	s.Created(false)
	for range 120 {
		s.ModelDone(response.ModelOutput{Finish: "tool_calls", Calls: []response.Call{{ID: "c", Name: "n", Arguments: "{}"}}})
		s.ToolDone("c", response.ToolReceipt{Output: "o"})
	}
	var obj struct{ Output []struct{ ID string } }
	if err := json.Unmarshal(s.Response(), &obj); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, it := range obj.Output {
		if seen[it.ID] || len(it.ID) > 40 || !strings.Contains(it.ID, simID.String()) {
			t.Errorf("id %q: repeated, too long or without the response's id", it.ID)
		}
		seen[it.ID] = true
	}
	if len(seen) != 120 {
		t.Errorf("got %d items, want 120", len(seen))
	}
}

// Usage that is not known is null, not zeros.
func TestUnknownUsage(t *testing.T) {
	for _, noUsage := range []bool{true, false} {
		s := newStream(t, `{"model":"m","input":"x"}`)
		events := slices.Concat(s.Created(false), s.Started(), s.Finish(response.End{Status: "failed", NoUsage: noUsage}))
		if err := response.Validate(events); err != nil {
			t.Error(err)
		}
		if got := strings.Contains(string(s.Response()), `"usage":null`); got != noUsage {
			t.Errorf("NoUsage %v: got %s", noUsage, s.Response())
		}
	}
}

// A stream that observes the events one by one is what Restore makes of them.
func TestObserve(t *testing.T) {
	events := newSim(t, canonicalFiles()).run().events
	var s response.Stream
	if got := s.Heartbeat(); got != nil {
		t.Errorf("zero Stream: got heartbeat %s", got)
	}
	for i, e := range events {
		if err := s.Observe([]response.Event{e}); err != nil {
			t.Fatal(err)
		}
		want, err := response.Restore(events[:i+1])
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Response()) != string(want.Response()) || string(s.Heartbeat()) != string(want.Heartbeat()) || s.NextSeq() != want.NextSeq() {
			t.Errorf("event %d: got %s, want %s", i, s.Response(), want.Response())
		}
	}
	if err := s.Observe(events[:1]); err == nil {
		t.Error("an event out of order: got no error")
	}
}

// B10, B11: an upstream's status stays what it is, but for those that speak of
// the host's own account.
func TestFailureOfStatuses(t *testing.T) {
	for _, tc := range []struct{ upstream, want int }{
		{0, 502},
		{99, 502},
		{200, 502},
		{302, 502},
		{400, 400},
		{401, 502},
		{402, 502},
		{403, 502},
		{404, 502},
		{409, 409},
		{422, 422},
		{429, 429},
		{408, 504},
		{407, 502},
		{405, 502},
		{499, 499},
		{500, 502},
		{501, 502},
		{503, 503},
		{504, 504},
		{529, 503},
		{599, 502},
		{600, 502},
		{700, 502},
	} {
		f := response.FailureOf(response.Step{Class: queue.UpstreamStatus, Status: tc.upstream})
		if f.Status != tc.want {
			t.Errorf("upstream %d: got %d, want %d", tc.upstream, f.Status, tc.want)
		}
		if again := response.UpstreamStatus(f.Status); again != f.Status {
			t.Errorf("upstream %d: got %d for the status that was told, %d", tc.upstream, again, f.Status)
		}
	}
	f := response.FailureOf(response.Step{Class: queue.RateLimited, RetryAfter: 2500})
	if want := "try again in 3s"; !strings.Contains(f.Message, want) || f.Code != "rate_limit_exceeded" {
		t.Errorf("rate limited: got %q %q, want %q", f.Code, f.Message, want)
	}
	for _, c := range queue.Classes() {
		f := response.FailureOf(response.Step{Class: c})
		legal := slices.Contains([]string{"server_error", "rate_limit_exceeded", "invalid_prompt"}, f.Code)
		if !legal || f.Message == "" || f.Status < 400 || f.Class != c {
			t.Errorf("class %s: got %+v", c, f)
		}
	}
}
