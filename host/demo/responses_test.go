package demo_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
)

// The model is the same on both paths.
func TestModelOnResponses(t *testing.T) {
	const tools = `,"tools":[{"type":"function","name":"calculator"},{"type":"custom","name":"free"}]`
	tests := []struct {
		name, body string
		want       []string // parts of the answer
	}{
		{"a string", `"input":"hello"`, []string{`"text":"I am the demo model. You said: hello"`, `"status":"completed"`, `"total_tokens":9`}},
		{"parts", `"input":[{"role":"user","content":[{"type":"input_text","text":"hello"}]}]`, []string{`You said: hello`}},
		{"a call", `"input":"6 times 7"` + tools, []string{`"type":"function_call"`, `"name":"calculator"`, `"arguments":"{\"expression\":\"6 * 7\"}"`}},
		{"a custom call", `"input":"call free {x"` + tools, []string{`"type":"custom_tool_call"`, `"name":"free"`, `"input":"{x"`}},
		{"results", `"input":[{"type":"message","role":"user","content":"call a {}"},{"type":"function_call","call_id":"c","name":"a","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"42"}]`, []string{`The tools answered: 42.`}},
		{"limited", `"input":"hello","max_output_tokens":3`, []string{`"text":"I am the"`, `"incomplete_details":{"reason":"max_output_tokens"}`, `"status":"incomplete"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, stream := range []string{"", `,"stream":true`} {
				status, got, err := post(t, start(t, nil), "/responses", `{"model":"demo",`+tt.body+stream+`}`)
				if err != nil || status != http.StatusOK {
					t.Fatalf("got %d %s, %v", status, got, err)
				}
				for _, w := range tt.want {
					if !strings.Contains(got, w) {
						t.Errorf("got %s, want %s in it", got, w)
					}
				}
				if strings.HasPrefix(got, "event: response.created\n") != (stream != "") {
					t.Errorf("got %s", got)
				}
			}
		})
	}
	for _, body := range []string{`{`, `{}`, `{"input":7}`, `[]`} {
		if status, _, _ := post(t, start(t, nil), "/responses", body); status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", body, status)
		}
	}
}

func TestScriptOfResponses(t *testing.T) {
	const ask, stream = `{"model":"m","input":"x"}`, `{"model":"m","input":"x","stream":true}`
	const encrypted = `{"model":"m","input":"x","stream":true,"include":["reasoning.encrypted_content"]}`
	tests := []struct {
		name string
		turn demo.Turn
		body string
		want string // part of the body
		not  string // not in it; "": anything may be
		cut  bool
	}{
		{"failed", demo.Turn{Text: "t", Failure: "server_error"}, ask, `"error":{"code":"server_error"`, `"status":"completed","b`, false},
		{"failed, in a stream", demo.Turn{Text: "t", Failure: "server_error"}, stream, "event: response.failed\n", "response.completed", false},
		{"an error", demo.Turn{Text: "t", Failure: "rate_limit_exceeded", ErrorEvent: true}, stream, `{"type":"error","sequence_number":8,"code":"rate_limit_exceeded"`, "response.failed", false},
		{"no end", demo.Turn{Text: "t", Finish: "-"}, stream, "response.output_item.done", "response.completed", false},
		{"no [DONE]", demo.Turn{Text: "t"}, stream, "response.completed", "[DONE]", false},
		{"filtered", demo.Turn{Text: "t", Finish: "content_filter"}, stream, `"incomplete_details":{"reason":"content_filter"}`, "response.completed", false},
		{"a summary", demo.Turn{Reasoning: "because"}, ask, `"summary":[{"type":"summary_text","text":"because"}]`, "encrypted_content", false},
		{"encrypted", demo.Turn{Encrypted: "secret"}, encrypted, `"encrypted_content":"secret"`, "", false},
		{"encrypted, not asked for", demo.Turn{Encrypted: "secret"}, stream, `response.completed`, "secret", false},
		{"usage", demo.Turn{Usage: &demo.Usage{Input: 5, Output: 6, Cached: 2, Reasoning: 3}}, ask, `"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2,`, "", false},
		{"refusal", demo.Turn{Refusal: "no"}, stream, `"refusal":"no"`, "output_text", false},
		{"CRLF", demo.Turn{CRLF: true}, stream, "event: response.created\r\ndata: {", "", false},
		{"cut after the first event", demo.Turn{Text: "t", CutAfter: 1}, stream, "response.created", "response.in_progress", true},
		{"cut in a body", demo.Turn{Text: "t", CutAfter: 1}, ask, `"object"`, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := start(t, func(int, demo.Request) demo.Turn { return tt.turn })
			status, got, err := post(t, srv, "/responses", tt.body)
			if (err != nil) != tt.cut || status != http.StatusOK {
				t.Fatalf("got %d, error %v; want one: %v", status, err, tt.cut)
			}
			if !strings.Contains(got, tt.want) || tt.not != "" && strings.Contains(got, tt.not) {
				t.Errorf("got %s; want %q in it, and not %q", got, tt.want, tt.not)
			}
		})
	}
}

// A chat completion can fail at its end, too.
func TestFailureOfChat(t *testing.T) {
	for _, body := range []string{`{"messages":[]}`, `{"messages":[],"stream":true}`} {
		_, got, err := post(t, start(t, func(int, demo.Request) demo.Turn { return demo.Turn{Text: "t", Failure: "server_error"} }), "/chat/completions", body)
		got = strings.TrimSpace(got)
		var e struct{ Error struct{ Code string } }
		if err != nil || json.Unmarshal([]byte(got[strings.LastIndex(got, `{"error"`):]), &e) != nil || e.Error.Code != "server_error" {
			t.Errorf("got %s, %v; want it to end with the error", got, err)
		}
	}
}
