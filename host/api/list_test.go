package api_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

func TestInputItems(t *testing.T) {
	h := newHost(t)
	parent := h.post("/v1/responses", `{"model":"m1","input":"earlier"}`).object(t)
	o := h.post("/v1/responses", `{"model":"m1","previous_response_id":"`+parent.ID+`","input":[
		{"role":"user","content":"one","id":"msg_mine"},
		{"role":"assistant","content":"two"},
		{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
		{"type":"function_call_output","call_id":"c","output":"3"},
		{"role":"user","content":[{"type":"input_text","text":"four"}]}]}`).object(t)
	path := "/v1/responses/" + o.ID + "/input_items"
	all := h.get(path + "?order=asc").page(t)
	uuid := strings.TrimPrefix(o.ID, "resp_")
	want := fmt.Sprintf("msg_mine msg_%[1]s_i1 fc_%[1]s_i2 fco_%[1]s_i3 msg_%[1]s_i4", uuid)
	if got := all.ids(); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	for i, it := range all.Data {
		if it["type"] == nil || it["status"] != "completed" {
			t.Errorf("item %d: got %v, want a type and a status", i, it)
		}
	}
	if got := fmt.Sprint(all.Data[0]["content"], all.Data[1]["content"]); got !=
		"[map[text:one type:input_text]] [map[annotations:[] logprobs:[] text:two type:output_text]]" {
		t.Errorf("got contents %s", got)
	}
	ids := strings.Fields(want)
	newest := slices.Clone(ids)
	slices.Reverse(newest)
	for _, tt := range []struct {
		query string
		ids   []string
		more  bool
	}{
		{"", newest, false},
		{"?limit=0&include[]=message.input_image.image_url&include=x", newest, false},
		{"?limit=2", newest[:2], true},
		{"?limit=2&after=" + newest[1], newest[2:4], true},
		{"?limit=2&after=" + newest[3], newest[4:], false},
		{"?after=" + newest[4], nil, false},
		{"?limit=5&order=asc", ids, false},
		{"?limit=1&order=asc&after=" + ids[0], ids[1:2], true},
	} {
		p := h.get(path + tt.query).page(t)
		first, last := "", ""
		if n := len(tt.ids); n > 0 {
			first, last = tt.ids[0], tt.ids[n-1]
		}
		if p.ids() != strings.Join(tt.ids, " ") || p.HasMore != tt.more || p.FirstID != first || p.LastID != last || p.Object != "list" || p.Data == nil {
			t.Errorf("%s: got %+v, want %v, more %t", tt.query, p, tt.ids, tt.more)
		}
	}
	h.get(path+"?after=nobody").wantError(t, 400, "invalid_value", "after")
	h.get(path+"?limit=101").wantError(t, 400, "integer_above_max_value", "limit")
	h.get("/v1/responses/resp_x/input_items").wantError(t, 404, "not_found", "id")
	h.key = "key-beta"
	h.get(path).wantError(t, 404, "not_found", "id")
}

// A response that is kept without its events can be read, but not streamed: its
// client is told, at once.
func TestEventsThatAreGone(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	id, err := queue.ParseID(strings.TrimPrefix(o.ID, "resp_"))
	if err != nil {
		t.Fatal(err)
	}
	path := "/v1/responses/" + o.ID
	whole := frames(t, h.get(path+"?stream=true").body)
	h.store.change(id, func(r *store.Record) { r.Events = r.Events[3:] })
	h.get(path+"?stream=true").wantError(t, 400, "events_expired", "starting_after")
	h.get(path+"?stream=true&starting_after=1").wantError(t, 400, "events_expired", "starting_after")
	if got := frames(t, h.get(path+"?stream=true&starting_after=2").body); !slices.Equal(got, whole[3:]) {
		t.Errorf("got %v, want what is left", got)
	}
	h.store.change(id, func(r *store.Record) { r.Events = nil })
	for _, q := range []string{"", "&starting_after=2", "&starting_after=999"} {
		h.get(path+"?stream=true"+q).wantError(t, 400, "events_expired", "starting_after")
	}
	if got := h.get(path).object(t); got.text() != "Hello" {
		t.Errorf("got %+v, want the object", got)
	}
}

// A stream is the grammar's, whole or put together of parts.
func TestStreamsAreValid(t *testing.T) {
	h := newHost(t)
	a := h.post("/v1/responses", `{"model":"m1","input":"hi","stream":true}`)
	list := frames(t, a.body)
	var v response.Validator
	for _, f := range list[:len(list)-1] {
		if err := v.Event([]byte(f.data)); err != nil {
			t.Error(err)
		}
	}
	if err := v.End(); err != nil {
		t.Error(err)
	}
}

func TestInputTokens(t *testing.T) {
	h := newHost(t)
	count := func(body string) int {
		t.Helper()
		a := h.post("/v1/responses/input_tokens", body)
		var got struct {
			Object string
			Tokens int `json:"input_tokens"`
		}
		if err := json.Unmarshal(a.body, &got); a.status != 200 || err != nil || got.Object != "response.input_tokens" || members(t, a.body) != "input_tokens object" {
			t.Fatalf("got %d %s, want a count", a.status, a.body)
		}
		return got.Tokens
	}
	h.key = "key-beta" // which asks for its tools
	base := count(`{"model":"m1","input":"hello world"}`)
	if base != 3+4+2 {
		t.Errorf("got %d, want 9", base)
	}
	if got := count(`{"input":"hello world","stream":true,"background":true,"store":false}`); got != base {
		t.Errorf("without a model: got %d, want %d", got, base)
	}
	if got := count(`{}`); got != 3 {
		t.Errorf("nothing: got %d, want 3", got)
	}
	for name, more := range map[string]string{
		"instructions":   `"instructions":"be brief"`,
		"a function":     `"tools":[{"type":"function","name":"f","parameters":{"type":"object"}}]`,
		"a server's":     `"tools":[{"type":"mcp","server_label":"notes","require_approval":"never"}]`,
		"another answer": `"text":{"format":{"type":"json_schema","name":"a","schema":{"type":"object"}}}`,
	} {
		if got := count(`{"model":"m1","input":"hello world",` + more + `}`); got <= base {
			t.Errorf("%s: got %d, want more than %d", name, got, base)
		}
	}
	o := h.post("/v1/responses", `{"model":"m1","input":"hello world"}`).object(t)
	if got := count(`{"model":"m1","input":"hello world","previous_response_id":"` + o.ID + `"}`); got != base+6+5 {
		t.Errorf("with a context of two messages: got %d, want %d", got, base+11)
	}
	for _, c := range []struct {
		body, code, param string
		status            int
	}{
		{`{"model":"m2","input":"x"}`, "model_not_found", "model", 404},
		{`{"model":"m1","input":7}`, "invalid_type", "input", 400},
		{`[]`, "invalid_type", "", 400},
		{`{`, "invalid_json", "", 400},
		{`{"model":"m1","input":"x","previous_response_id":"resp_x"}`, "previous_response_not_found", "previous_response_id", 400},
	} {
		h.post("/v1/responses/input_tokens", c.body).wantError(t, c.status, c.code, c.param)
	}
}
