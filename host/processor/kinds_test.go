package processor_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/upstream"
)

// endpoints answer by path and name of the upstream: "chat" or "own", which is of
// kind responses.
type endpoints struct {
	mu     sync.Mutex
	answer map[string]string // by "name path"; one that begins with "data:" is a stream
	asked  []string          // "name path body"
}

func (e *endpoints) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	key := req.URL.Host + " " + strings.TrimPrefix(req.URL.Path, "/v1")
	e.asked = append(e.asked, key+" "+string(body))
	text, ok := e.answer[key]
	res := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json; charset=utf-8"}}, Request: req}
	if strings.HasPrefix(text, "data:") {
		res.Header.Set("Content-Type", "text/event-stream")
	}
	if !ok {
		res.StatusCode = http.StatusServiceUnavailable
	}
	res.Body = io.NopCloser(strings.NewReader(text))
	return res, nil
}

// kindsRig has the targets of the alias m at the named upstreams.
func kindsRig(t *testing.T, e *endpoints, targets ...string) *rig {
	t.Helper()
	c := upstream.Config{
		HTTP: &http.Client{Transport: e},
		Upstreams: []upstream.Upstream{
			{Name: "chat", BaseURL: "http://chat/v1"}, {Name: "own", Kind: upstream.Responses, BaseURL: "http://own/v1"},
		},
		Models: []upstream.Model{{Name: "m"}},
	}
	for _, name := range targets {
		c.Models[0].Targets = append(c.Models[0].Targets, upstream.Target{Upstream: name, Model: "real"})
	}
	up, err := upstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return openRig(t, &loop.Caller{Policy: policy.New(nil), Upstream: up}, processor.Options{MaxFailures: 1}, claimer.Options{})
}

// streamed is an event stream of chunks.
func streamed(chunks ...string) string {
	return "data: " + strings.Join(append(chunks, "[DONE]"), "\n\ndata: ") + "\n\n"
}

const ownWhole = `{"id":"resp_1","object":"response","status":"completed","model":"up","output":[{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"hello","annotations":[]}]}],"usage":{"input_tokens":3,"output_tokens":2}}`

// A chat completion is served by an upstream that speaks Responses, whole and
// streamed, and is metered.
func TestChatOnResponses(t *testing.T) {
	events := streamed(
		`{"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}`,
		`{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"hel"}`,
		`{"type":"response.output_text.delta","item_id":"msg_1","output_index":0,"delta":"lo"}`,
		`{"type":"response.completed","response":`+ownWhole+`}`)
	for _, tt := range []struct {
		name, answer, extra string
		stream              bool
		usage               bool
	}{
		{"whole", ownWhole, "", false, false},
		{"a stream for a whole", events, "", false, false},
		{"stream", events, "", true, false},
		{"stream with usage", events, `,"stream_options":{"include_usage":true}`, true, true},
		{"a whole for a stream", ownWhole, "", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := &endpoints{answer: map[string]string{"own /responses": tt.answer}}
			r := kindsRig(t, e, "own")
			n := chat(tt.stream, tt.extra)
			o, chunks := r.run(n)
			if o.To != queue.Completed || text(t, string(o.Body)) != "hello" || !strings.Contains(string(o.Body), `"object":"chat.completion"`) {
				t.Fatalf("%s %s %s", o.To, o.Class, o.Body)
			}
			if o.ContentType != "application/json" || tt.stream != (len(chunks) > 0) {
				t.Errorf("%s, %d chunks", o.ContentType, len(chunks))
			}
			if tt.stream {
				last := chunks[len(chunks)-1]
				if text(t, chunks...) != "hello" || strings.Contains(last, `"usage":{`) != tt.usage {
					t.Errorf("chunks %q", chunks)
				}
			}
			if len(e.asked) != 1 || !strings.HasPrefix(e.asked[0], `own /responses {"model":"real","input":[{"type":"message","role":"user","content":"hello"}]`) {
				t.Errorf("asked %q", e.asked)
			}
			if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens != (response.Usage{Input: 3, Output: 2}) {
				t.Errorf("usage %+v", rec.Usage)
			}
		})
	}
}

// What an upstream cannot be asked for makes it no candidate, and where there is
// no other is the client's to change.
func TestChatThatResponsesCannotSay(t *testing.T) {
	e := &endpoints{answer: map[string]string{
		"chat /chat/completions": `{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}`, "own /responses": ownWhole,
	}}
	for range 5 { // whatever the draw
		if o, _ := kindsRig(t, e, "own", "chat").run(chat(false, `,"stop":["x"]`)); o.To != queue.Completed || text(t, string(o.Body)) != "hello" {
			t.Fatalf("%s %s", o.To, o.Body)
		}
	}
	if slices.ContainsFunc(e.asked, func(s string) bool { return strings.HasPrefix(s, "own") }) {
		t.Errorf("asked %q", e.asked)
	}
	e.asked = nil
	r, n := kindsRig(t, e, "own"), chat(false, `,"stop":["x"]`)
	o, _ := r.run(n)
	if o.To != queue.Failed || o.Class != queue.UpstreamStatus || o.Status != 400 || o.Param != "stop" || o.Code != "unsupported_parameter" || o.Message == "" {
		t.Errorf("got %+v", o)
	}
	if len(e.asked) != 0 {
		t.Errorf("asked %q", e.asked)
	}
	for _, d := range r.record(n).Decisions {
		if d.Kind == "" {
			t.Errorf("a decision that nobody made: %+v", d)
		}
	}
}

// A target that fails before its first byte leaves the call to one of the other
// kind.
func TestFallbackBetweenKinds(t *testing.T) {
	for _, answer := range []string{"", streamed(`{"type":"response.created","response":{"id":"r"}}`, `{"type":"response.failed","response":{"error":{"code":"server_error"}}}`)} {
		e := &endpoints{answer: map[string]string{"chat /chat/completions": streamed(`{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}]}`)}}
		if answer != "" {
			e.answer["own /responses"] = answer
		}
		o, chunks := kindsRig(t, e, "own", "chat").run(chat(true, ""))
		if o.To != queue.Completed || text(t, chunks...) != "hello" {
			t.Errorf("%s %s, chunks %q after %q", o.To, o.Class, chunks, e.asked)
		}
	}
}

// What a chat upstream says reaches the client byte for byte, and so does what
// the client says reach the upstream but for the model and the usage.
func TestChatPassesThrough(t *testing.T) {
	chunks := []string{
		`{"id":"x", "unknown":{"a":[1,  2]},"choices":[{"index":0,"delta":{"content":"h\u00e9"},"extra":true}],"usage":null}`,
		`{"choices":[{"index":1,"delta":{"content":"other"}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"nul"}}]}}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
	}
	e := &endpoints{answer: map[string]string{"chat /chat/completions": streamed(append(chunks, `{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5}}`)...)}}
	r := kindsRig(t, e, "chat")
	n := chat(true, `, "top_k" : 3,"logit_bias":{"5":1.50}`)
	if o, got := r.run(n); o.To != queue.Completed || !slices.Equal(got, chunks) {
		t.Errorf("%s, chunks\n got %q\nwant %q", o.To, got, chunks)
	}
	want := `chat /chat/completions {"stream_options":{"include_usage":true},` + strings.Replace(string(n.Body), `"m"`, `"real"`, 1)[1:]
	if e.asked[0] != want {
		t.Errorf("asked\n got %s\nwant %s", e.asked[0], want)
	}
	if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens.Input != 4 {
		t.Errorf("usage %+v", rec.Usage)
	}
	whole := `{ "choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],"new":[1.0] }`
	e.answer["chat /chat/completions"] = whole
	if o, _ := r.run(chat(false, "")); string(o.Body) != whole {
		t.Errorf("got %s, want %s", o.Body, whole)
	}
}

// Legacy completions, streamed and not, from upstreams of either kind.
func TestCompletions(t *testing.T) {
	chunks := []string{
		`{"id":"x","object":"text_completion","choices":[{"index":0,"text":"he","logprobs":{"tokens":["he"],"token_logprobs":[-1]},"finish_reason":null}]}`,
		`{"id":"x","choices":[{"index":1,"text":"other","finish_reason":"stop"},{"index":0,"text":"llo","logprobs":{"tokens":["llo"],"token_logprobs":[-2]},"finish_reason":"length"}]}`,
	}
	usage := `{"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5}}`
	whole := `{"id":"x","choices":[{"index":0,"text":"hello","finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":5},"new":1}`
	for _, name := range []string{"chat", "own"} {
		e := &endpoints{answer: map[string]string{name + " /completions": streamed(append(slices.Clone(chunks), usage)...)}}
		r := kindsRig(t, e, name)
		n := queue.New{Tenant: "t", Model: "m", Path: "/v1/completions", Stream: true, Body: []byte(`{"model":"m","prompt":"x","stream":true}`)}
		n.ID = queue.NewID()
		o, got := r.run(n)
		if o.To != queue.Completed || !slices.Equal(got, chunks) {
			t.Errorf("%s, chunks %q", o.To, got)
		}
		var c struct {
			Object  string
			Choices []struct {
				Text     string
				Logprobs struct{ Tokens []string }
				Finish   string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal(o.Body, &c); err != nil || c.Object != "text_completion" || len(c.Choices) != 2 ||
			c.Choices[0].Text != "hello" || c.Choices[0].Finish != "length" || len(c.Choices[0].Logprobs.Tokens) != 2 || c.Choices[1].Text != "other" {
			t.Errorf("kept %s, %v", o.Body, err)
		}
		if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens != (response.Usage{Input: 4, Output: 5}) {
			t.Errorf("usage %+v", rec.Usage)
		}
		e.answer[name+" /completions"] = streamed(chunks[0])
		n.ID = queue.NewID()
		if o, _ := r.run(n); o.To != queue.Failed || o.Class != queue.UpstreamInvalid {
			t.Errorf("a stream that was cut: %s %s", o.To, o.Class)
		}
		e.answer[name+" /completions"] = whole
		n.ID, n.Stream, n.Body = queue.NewID(), false, []byte(`{"model":"m","prompt":"x"}`)
		if o, _ := r.run(n); string(o.Body) != whole {
			t.Errorf("got %s, want %s", o.Body, whole)
		}
	}
}

// Embeddings are never encoded again, in numbers or in base64.
func TestEmbeddingsPassThrough(t *testing.T) {
	for _, vector := range []string{`[1.0,-2.50e-3, 0.1234567890123456789]`, `"AACAPwAAAMA="`} {
		whole := `{"object":"list", "data":[{"object":"embedding","index":0,"embedding":` + vector + `}],"model":"up","usage":{"prompt_tokens":3,"total_tokens":3}}`
		e := &endpoints{answer: map[string]string{"own /embeddings": whole}}
		r := kindsRig(t, e, "own")
		n := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/embeddings", Body: []byte(`{"model":"m","input":["x"],"encoding_format":"base64"}`)}
		if o, _ := r.run(n); string(o.Body) != whole || o.ContentType != "application/json" {
			t.Errorf("got %s %s, want %s", o.ContentType, o.Body, whole)
		}
		if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens.Input != 3 {
			t.Errorf("usage %+v", rec.Usage)
		}
	}
}

// A code of the upstream's closed list passes, its words do not.
func TestCodesPass(t *testing.T) {
	for _, tt := range []struct {
		name, path, answer string
		stream             bool
		class              queue.Class
		status             int
		code               string
	}{
		{"chat", "chat /chat/completions", `{"error":{"code":"context_length_exceeded","message":"secret"}}`, false, queue.UpstreamStatus, 400, "context_length_exceeded"},
		{"chat, filtered", "chat /chat/completions", streamed(`{"error":{"code":"content_filter","message":"secret"}}`), true, queue.UpstreamStatus, 400, "content_filter"},
		{"responses", "own /responses", streamed(`{"type":"response.failed","response":{"error":{"code":"context_length_exceeded","message":"secret"}}}`), true, queue.UpstreamStatus, 400, "context_length_exceeded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name, _, _ := strings.Cut(tt.path, " ")
			o, chunks := kindsRig(t, &endpoints{answer: map[string]string{tt.path: tt.answer}}, name).run(chat(tt.stream, ""))
			if o.To != queue.Failed || o.Class != tt.class || o.Status != tt.status || o.Code != tt.code || len(chunks) != 0 {
				t.Errorf("got %+v, chunks %q", o, chunks)
			}
			if strings.Contains(string(o.Body)+o.Message, "secret") {
				t.Error("the upstream's words went through")
			}
		})
	}
}

// A response that failed may have cost tokens.
func TestFailedResponseIsMetered(t *testing.T) {
	e := &endpoints{answer: map[string]string{"own /responses": streamed(
		`{"type":"response.failed","response":{"status":"failed","error":{"code":"invalid_prompt"},"usage":{"input_tokens":6,"output_tokens":1}}}`)}}
	r, n := kindsRig(t, e, "own"), chat(true, "")
	o, chunks := r.run(n)
	if o.To != queue.Failed || o.Code != "invalid_prompt" || len(chunks) != 0 {
		t.Errorf("%+v, chunks %q", o, chunks)
	}
	if rec := r.record(n); len(rec.Usage) != 1 || rec.Usage[0].Tokens != (response.Usage{Input: 6, Output: 1}) {
		t.Errorf("usage %+v", rec.Usage)
	}
}
