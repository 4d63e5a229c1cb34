package demo_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/demo"
)

func start(t *testing.T, s demo.Script) *demo.Server {
	t.Helper()
	srv, err := demo.Start(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	return srv
}

// post returns the status and the body, with the Retry-After header after it.
func post(t *testing.T, srv *demo.Server, path, body string) (status int, got string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b) + res.Header.Get("Retry-After"), err
}

type call struct {
	Index    int
	ID       string
	Function struct{ Name, Arguments string }
}

type completion struct {
	Choices []struct {
		Message, Delta struct {
			Content   string
			ToolCalls []call `json:"tool_calls"`
		}
		Finish string `json:"finish_reason"`
	}
	Usage *struct {
		Total int `json:"total_tokens"`
	}
}

func TestModel(t *testing.T) {
	const calc = `,"tools":[{"type":"function","function":{"name":"calculator"}}]`
	user := func(text, rest string) string {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		return `{"model":"demo","messages":[{"role":"user","content":` + string(quoted) + `}]` + rest + `}`
	}
	const results = `{"messages":[{"role":"user","content":"call a {}\ncall b {}"},{"role":"assistant"},` +
		`{"role":"tool","content":"one"},{"role":"tool","content":"two"}]`
	tests := []struct {
		name, body string
		text       string
		calls      []string // "name arguments"
		finish     string
	}{
		{"plain", user("hello", ""), "I am the demo model. You said: hello", nil, "stop"},
		{"nothing said", `{"messages":[]}`, "I am the demo model. Say something.", nil, "stop"},
		{"one line", user("Please:\n  call notes {\"op\":\"list\"}  \nthanks", ""), "", []string{`notes {"op":"list"}`}, "tool_calls"},
		{"several lines", user("call a {\"x\":1}\r\ncall b {}", ""), "", []string{`a {"x":1}`, `b {}`}, "tool_calls"},
		{"broken JSON", user("call a {\"x\":", ""), "", []string{`a {"x":`}, "tool_calls"},
		{"no JSON is no call", user("call mum", ""), "I am the demo model. You said: call mum", nil, "stop"},
		{"not allowed", user("call a {}", `,"tool_choice":"none"`), "I am the demo model. You said: call a {}", nil, "stop"},
		{"one at a time", user("call a {}\ncall b {}", `,"parallel_tool_calls":false`), "", []string{"a {}"}, "tool_calls"},
		{
			"the next one", strings.Replace(results, `,{"role":"tool","content":"two"}`, "", 1) + `,"parallel_tool_calls":false}`,
			"",
			[]string{"b {}"},
			"tool_calls",
		},
		{"results", results + `}`, "The tools answered: one; two.", nil, "stop"},
		{"results, one at a time", results + `,"parallel_tool_calls":false}`, "The tools answered: one; two.", nil, "stop"},
		{
			"parts", `{"messages":[{"role":"user","content":[{"type":"text","text":"call a {}"},{"type":"image_url"}]}]}`,
			"",
			[]string{"a {}"},
			"tool_calls",
		},
		{"arithmetic", user("What is 6*7?", calc), "", []string{`calculator {"expression":"6*7"}`}, "tool_calls"},
		{"arithmetic in words", user("what is 6 times 7, please", calc), "", []string{`calculator {"expression":"6 * 7"}`}, "tool_calls"},
		{"brackets", user("Compute (1.5 + 2) × -3.", calc), "", []string{`calculator {"expression":"(1.5 + 2) * -3"}`}, "tool_calls"},
		{"thousands", user("What is 1,000 * 3, or 7?", calc), "", []string{`calculator {"expression":"1000 * 3"}`}, "tool_calls"},
		{"prefixed", user("2+2?", strings.Replace(calc, "calculator", "math__calculator", 1)), "", []string{`math__calculator {"expression":"2+2"}`}, "tool_calls"},
		{"no calculator", user("What is 6*7?", ""), "I am the demo model. You said: What is 6*7?", nil, "stop"},
		{"a date", user("What happened on 2024-01-02?", calc), "I am the demo model. You said: What happened on 2024-01-02?", nil, "stop"},
		{"limit", user("hello", `,"max_tokens":3`), "I am the", nil, "length"},
	}
	srv := start(t, nil)
	for _, tt := range tests {
		for _, stream := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				body := tt.body
				if stream {
					body = body[:len(body)-1] + `,"stream":true,"stream_options":{"include_usage":true}}`
				}
				status, got, err := post(t, srv, "/chat/completions", body)
				if err != nil || status != http.StatusOK {
					t.Fatalf("got %d, %v: %s", status, err, got)
				}
				text, calls, finish := read(t, got, stream)
				if text != tt.text || strings.Join(calls, "|") != strings.Join(tt.calls, "|") || finish != tt.finish {
					t.Errorf("stream %v: got %q, %q, %q; want %q, %q, %q", stream, text, calls, finish, tt.text, tt.calls, tt.finish)
				}
			})
		}
	}
	if got := len(srv.Requests()); got != 0 {
		t.Errorf("requests kept without a script: got %d, want 0", got)
	}
}

// read folds an answer, streamed or not.
func read(t *testing.T, body string, stream bool) (text string, calls []string, finish string) {
	t.Helper()
	var all []call
	take := func(data string) {
		var c completion
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		for _, ch := range c.Choices {
			text += ch.Message.Content + ch.Delta.Content
			finish += ch.Finish
			all = append(all, ch.Message.ToolCalls...)
			for _, tc := range ch.Delta.ToolCalls {
				if tc.ID != "" {
					all = append(all, tc)
				} else {
					all[tc.Index].Function.Arguments += tc.Function.Arguments
				}
			}
		}
	}
	if stream {
		if !strings.HasSuffix(body, "data: [DONE]\n\n") {
			t.Errorf("got %q, want [DONE] at the end", body)
		}
		if !strings.Contains(body, `"choices":[],"usage":{`) {
			t.Error("no usage chunk")
		}
		for s := bufio.NewScanner(strings.NewReader(body)); s.Scan(); {
			if data, ok := strings.CutPrefix(s.Text(), "data: "); ok && data != "[DONE]" {
				take(data)
			}
		}
	} else {
		take(body)
	}
	ids := map[string]bool{}
	for _, c := range all {
		if c.ID == "" || ids[c.ID] {
			t.Errorf("call id %q is empty or repeated", c.ID)
		}
		ids[c.ID] = true
		calls = append(calls, c.Function.Name+" "+c.Function.Arguments)
	}
	return text, calls, finish
}

func TestSameRequestSameAnswer(t *testing.T) {
	const body = `{"model":"demo","messages":[{"role":"user","content":"call a {}"}]}`
	_, one, _ := post(t, start(t, nil), "/chat/completions", body)
	_, two, _ := post(t, start(t, nil), "/chat/completions", body)
	if one != two || one == "" {
		t.Errorf("got %s, then %s", one, two)
	}
	_, other, _ := post(t, start(t, nil), "/chat/completions", strings.Replace(body, `"messages":[`, `"messages":[{"role":"user","content":"x"},`, 1))
	var a, b completion
	if json.Unmarshal([]byte(one), &a) != nil || json.Unmarshal([]byte(other), &b) != nil {
		t.Fatal("no JSON")
	}
	if a.Choices[0].Message.ToolCalls[0].ID == b.Choices[0].Message.ToolCalls[0].ID {
		t.Error("two turns of a conversation have the same call id")
	}
}

func TestEmbeddings(t *testing.T) {
	srv := start(t, nil)
	type reply struct {
		Data []struct{ Embedding json.RawMessage }
	}
	get := func(body string) reply {
		status, got, err := post(t, srv, "/embeddings", body)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: got %d, %v", body, status, err)
		}
		var r reply
		if err := json.Unmarshal([]byte(got), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	floats := get(`{"model":"m","input":["one","two","one"],"dimensions":8}`)
	var v []float32
	if err := json.Unmarshal(floats.Data[0].Embedding, &v); err != nil || len(v) != 8 {
		t.Fatalf("got %d numbers, %v; want 8", len(v), err)
	}
	var sum float64
	for _, f := range v {
		sum += float64(f) * float64(f)
	}
	if math.Abs(sum-1) > 1e-5 {
		t.Errorf("length: got %v, want 1", sum)
	}
	if !bytes.Equal(floats.Data[0].Embedding, floats.Data[2].Embedding) || bytes.Equal(floats.Data[0].Embedding, floats.Data[1].Embedding) {
		t.Error("equal inputs need equal vectors, others differ")
	}
	var text string
	if err := json.Unmarshal(get(`{"input":"one","dimensions":8,"encoding_format":"base64"}`).Data[0].Embedding, &text); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != 32 || math.Float32frombits(binary.LittleEndian.Uint32(raw)) != v[0] {
		t.Errorf("base64: got %x, %v; want the same vector", raw, err)
	}
	for _, in := range []string{`"x"`, `[1,2]`, `[[1],[2,3]]`} {
		if n := len(get(`{"input":` + in + `}`).Data); n == 0 {
			t.Errorf("%s: no vector", in)
		}
	}
	for _, body := range []string{`{`, `{}`, `{"input":[]}`, `{"input":7}`, `{"input":"x","dimensions":5000}`} {
		if status, _, _ := post(t, srv, "/embeddings", body); status != http.StatusBadRequest {
			t.Errorf("%s: got %d, want 400", body, status)
		}
	}
}

func TestModels(t *testing.T) {
	srv := start(t, nil)
	res, err := http.Get(srv.URL() + "/models")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || !strings.Contains(string(b), `"id":"demo"`) {
		t.Errorf("got %s, %v; want the model demo", b, err)
	}
}

func TestScript(t *testing.T) {
	const ask, stream = `{"model":"m","messages":[]}`, `{"model":"m","messages":[],"stream":true}`
	tests := []struct {
		name   string
		turn   demo.Turn
		body   string
		status int
		want   string // part of the body
		cut    bool
	}{
		{"status", demo.Turn{Status: 429, ErrorBody: `{"error":{}}`, RetryAfter: "3"}, ask, 429, `{"error":{}}`, false},
		{"error in a 200", demo.Turn{ErrorBody: `{"error":{"code":500}}`}, stream, 200, `{"error":{"code":500}}`, false},
		{"raw", demo.Turn{Raw: []byte("data: x\n\n"), ChunkRunes: 2, ContentType: "text/plain"}, stream, 200, "data: x\n\n", false},
		{"CRLF", demo.Turn{Text: "t", CRLF: true}, stream, 200, "data: [DONE]\r\n\r\n", false},
		{"no DONE", demo.Turn{Text: "t", NoDone: true}, stream, 200, `"finish_reason":"stop"`, false},
		{"no finish", demo.Turn{Text: "t", Finish: "-"}, ask, 200, `"finish_reason":null`, false},
		{"reasoning", demo.Turn{Text: "t", Reasoning: "because"}, stream, 200, `"reasoning_content":"because"`, false},
		{"usage", demo.Turn{Usage: &demo.Usage{Input: 5, Output: 6}}, ask, 200, `"total_tokens":11`, false},
		{"cut before the head", demo.Turn{CutAfter: -1}, ask, 0, "", true},
		{"cut in a stream", demo.Turn{Text: "some text to cut", CutAfter: 2}, stream, 200, "some tex", true},
		{"cut in a body", demo.Turn{Text: "some text to cut", CutAfter: 1}, ask, 200, `"object"`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ended := make(chan bool, 1)
			srv := start(t, func(int, demo.Request) demo.Turn {
				turn := tt.turn
				turn.Ended = func(whole bool) { ended <- whole }
				return turn
			})
			status, got, err := post(t, srv, "/chat/completions", tt.body)
			if (err != nil) != tt.cut {
				t.Fatalf("got error %v, want one: %v", err, tt.cut)
			}
			if status != tt.status || !strings.Contains(got, tt.want) || !strings.HasSuffix(got, tt.turn.RetryAfter) {
				t.Errorf("got %d %s, want %d with %q and Retry-After %q", status, got, tt.status, tt.want, tt.turn.RetryAfter)
			}
			select {
			case whole := <-ended:
				if whole == tt.cut {
					t.Errorf("the answer was whole: %v; want %v", whole, !tt.cut)
				}
			default:
				t.Error("the client saw the end of the answer before Ended was called")
			}
			reqs := srv.Requests()
			if len(reqs) != 1 || reqs[0].Path != "/v1/chat/completions" || string(reqs[0].Body) != tt.body {
				t.Errorf("requests: got %+v, want the one", reqs)
			}
		})
	}
}

func TestGateAndClose(t *testing.T) {
	gate := make(chan struct{})
	srv := start(t, func(n int, _ demo.Request) demo.Turn {
		if n == 0 {
			return demo.Turn{Text: "free", Gate: gate}
		}
		return demo.Turn{Text: "held forever", Gate: make(chan struct{}), GateAfter: 1}
	})
	go func() { gate <- struct{}{} }()
	if _, got, err := post(t, srv, "/chat/completions", `{"messages":[]}`); err != nil || !strings.Contains(got, "free") {
		t.Fatalf("got %s, %v", got, err)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodPost,
		srv.URL()+"/chat/completions", strings.NewReader(`{"messages":[],"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	one := bufio.NewReader(res.Body)
	if line, err := one.ReadString('\n'); err != nil || !strings.Contains(line, "assistant") {
		t.Fatalf("first chunk: got %q, %v", line, err)
	}
	srv.Close() // must not wait for the gate
	if _, err := io.ReadAll(one); err == nil {
		t.Error("the stream ended in good order, want it cut")
	}
}
