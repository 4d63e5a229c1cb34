package upstream

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/casemate/casemate/host/object"
)

func TestWithModel(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"replaced", `{"a":1,"model":"old","b":2}`, `{"a":1,"model":"ne\"w","b":2}`},
		{"bytes stay", "{ \"b\" : [ 1.0, 2e5 ,\"\\u00e9\\\"\" ],\n \"model\" : \"x\" , \"a\" : 12345678901234567890 }", "{ \"b\" : [ 1.0, 2e5 ,\"\\u00e9\\\"\" ],\n \"model\" : \"ne\\\"w\" , \"a\" : 12345678901234567890 }"},
		{"only the top level", `{"x":{"model":"in"},"y":["model"],"model":null}`, `{"x":{"model":"in"},"y":["model"],"model":"ne\"w"}`},
		{"every one", `{"model":"a","model":{"b":[]}}`, `{"model":"ne\"w","model":"ne\"w"}`},
		{"escaped key", `{"mod\u0065l":"a"}`, `{"mod\u0065l":"ne\"w"}`},
		{"missing", `{"a":1}`, `{"model":"ne\"w","a":1}`},
		{"missing, empty", ` { } `, ` {"model":"ne\"w" } `},
		{"strings that look like JSON", `{"a":"\\\",\"model\":\"x\"","model":"y"}`, `{"a":"\\\",\"model\":\"x\"","model":"ne\"w"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := withModel([]byte(tt.in), `ne"w`)
			if err != nil || string(got) != tt.want {
				t.Errorf("got %s, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func FuzzWithModel(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1,"}"]},"model":"x","c":-1e5,"d":true}`))
	f.Add([]byte(`{"mod\u0065l" : [ ] , "\ud800":"\\"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if !object.Valid(in) {
			return
		}
		out, err := withModel(in, "new")
		if err != nil {
			t.Fatal(err)
		}
		var want, got map[string]any
		if json.Unmarshal(in, &want) != nil { // a number out of range
			return
		}
		want["model"] = "new"
		if err := json.Unmarshal(out, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s: got %s, %v", in, out, err)
		}
	})
}

func TestEmbedded(t *testing.T) {
	tests := []struct {
		in, code string
		status   int // 0: no error
	}{
		{`{"choices":[]}`, "", 0},
		{`{"error":null}`, "", 0},
		{`{"error":{}}`, "", 0},
		{`{"error":""}`, "", 0},
		{`{"error":false}`, "", 0},
		{`{"choices":[{"error":{"code":500}}]}`, "", 0},
		{`{"error":{"message":"secret"}}`, "", 500},
		{`{"error":"secret"}`, "", 500},
		{`{"error":["secret"]}`, "", 500},
		{`{"error":{"code":429}}`, "", 429},
		{`{"error":{"code":"503"}}`, "", 503},
		{`{"error":{"code":200}}`, "", 500},
		{`{"error":{"code":99999999999999999999}}`, "", 500},
		{`{"error":{"code":null,"status":403}}`, "", 403},
		{`{"error":{"code":"rate_limit_exceeded"}}`, "rate_limit_exceeded", 429},
		{`{"error":{"code":"their_own_words","type":"rate_limit_error"}}`, "rate_limit_error", 429},
		{`{"error":{"code":400,"type":"context_length_exceeded"}}`, "context_length_exceeded", 400},
		{`{"error":{"code":"insufficient_quota"}}`, "insufficient_quota", 429},
		{`{"error":{"type":"overloaded_error","message":"x"}}`, "overloaded_error", 503},
		{`{"err\u006fr":{"code":400}}`, "", 400},
	}
	for _, tt := range tests {
		e := embedded([]byte(tt.in))
		switch {
		case tt.status == 0 && e != nil:
			t.Errorf("%s: got %v, want no error", tt.in, e)
		case tt.status != 0 && e == nil:
			t.Errorf("%s: got no error, want %d", tt.in, tt.status)
		case e != nil && (e.Status != tt.status || e.Code != tt.code || e.Class != classOf(tt.status)):
			t.Errorf("%s: got %d %q %s, want %d %q", tt.in, e.Status, e.Code, e.Class, tt.status, tt.code)
		}
	}
}
