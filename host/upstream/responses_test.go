package upstream_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

// responsesClient has one target of an upstream of kind responses, which answers
// every call with r.
func responsesClient(t *testing.T, r reply) *upstream.Client {
	t.Helper()
	c := config("http://host/v1")
	c.Upstreams[0].Kind = upstream.Responses
	c.HTTP = fake(func(*call) reply { return r })
	return client(t, c)
}

// events is a stream of events, each with its event line.
func events(list ...string) reply {
	var b strings.Builder
	for _, e := range list {
		kind, _, _ := strings.Cut(strings.TrimPrefix(e, `{"type":"`), `"`)
		b.WriteString("event: " + kind + "\ndata: " + e + "\n\n")
	}
	return reply{header: map[string]string{"Content-Type": "text/event-stream"}, body: b.String()}
}

const (
	evCreated   = `{"type":"response.created","sequence_number":0,"response":{"id":"r","error":null,"status":"in_progress"}}`
	evDelta     = `{"type":"response.output_text.delta","item_id":"m","delta":"say \"response.completed\""}`
	evCompleted = `{"type":"response.completed","response":{"id":"r","error":null,"status":"completed","output":[]}}`
)

// A stream of Responses ends with its terminal event: what may follow is not
// waited for, and it counts as whole.
func TestResponsesEnds(t *testing.T) {
	for _, tt := range []struct {
		name   string
		events []string
		open   bool
		seen   int
		done   bool
	}{
		{"completed", []string{evCreated, evDelta, evCompleted}, false, 3, true},
		{"completed, then silence", []string{evCreated, evCompleted}, true, 2, true},
		{"incomplete", []string{evCreated, strings.Replace(evCompleted, "response.completed", "response.incomplete", 1)}, true, 2, true},
		{"nothing counts after it", []string{evCompleted, evDelta}, false, 1, true},
		{"no end", []string{evCreated, evDelta}, false, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := events(tt.events...)
				r.open = tt.open
				n := 0
				rep, err := responsesClient(t, r).Do(t.Context(), upstream.Call{
					Target: "up/real", Model: "m", Path: upstream.ResponsesPath, Body: []byte(streamBody),
					OnData: func([]byte) error { n++; return nil },
				})
				if err != nil || n != tt.seen || rep.Done != tt.done || !rep.Streamed {
					t.Errorf("got %d events, %+v, %v; want %d, done %v", n, rep, err, tt.seen, tt.done)
				}
			})
		})
	}
}

// A failure inside an answer of Responses is typed by its code.
func TestResponsesFailures(t *testing.T) {
	failed := func(code string) string {
		return `{"type":"response.failed","response":{"id":"r","status":"failed","error":{"code":"` + code + `","message":"secret"}}}`
	}
	for _, tt := range []struct {
		name   string
		reply  reply
		class  queue.Class
		status int
		code   string
		begun  bool
	}{
		{"rate limit", events(failed("rate_limit_exceeded")), queue.RateLimited, 429, "rate_limit_exceeded", false},
		{"server error, only announced", events(evCreated, failed("server_error")), queue.UpstreamStatus, 500, "server_error", false},
		{"server error after words", events(evCreated, evDelta, failed("server_error")), queue.UpstreamStatus, 500, "server_error", true},
		{"context", events(failed("context_length_exceeded")), queue.UpstreamStatus, 400, "context_length_exceeded", false},
		{"prompt", events(failed("invalid_prompt")), queue.UpstreamStatus, 400, "invalid_prompt", false},
		{"unknown code", events(failed("secret")), queue.UpstreamStatus, 500, "", false},
		{"failed without an error", events(`{"type":"response.failed","response":{"error":null}}`), queue.UpstreamStatus, 500, "", false},
		{"flat error", events(`{"type":"error","code":"rate_limit_exceeded","message":"secret","param":null}`), queue.RateLimited, 429, "rate_limit_exceeded", false},
		{"flat error without its line", reply{
			header: map[string]string{"Content-Type": "text/event-stream"},
			body:   "data: " + `{"type":"error","code":"slow_down","message":"secret"}` + "\n\n",
		}, queue.UpstreamStatus, 503, "slow_down", false},
		{"nested error", events(`{"type":"error","error":{"type":"server_error","message":"secret"}}`), queue.UpstreamStatus, 500, "server_error", false},
		{"only announced", events(evCreated), queue.UpstreamInvalid, 0, "", false},
		{"failed body", reply{body: `{"object":"response","status":"failed","error":{"code":"insufficient_quota","message":"secret"}}`}, queue.RateLimited, 429, "insufficient_quota", false},
		{"refused", reply{status: 400, body: `{"error":{"code":"unsupported_parameter","message":"secret"}}`}, queue.UpstreamStatus, 400, "unsupported_parameter", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := responsesClient(t, tt.reply).Do(t.Context(), upstream.Call{
				Target: "up/real", Model: "m", Path: upstream.ResponsesPath, Body: []byte(streamBody), OnData: func([]byte) error { return nil },
			})
			e := typed(t, err)
			if e == nil || e.Class != tt.class || e.Status != tt.status || e.Code != tt.code || e.Begun != tt.begun {
				t.Fatalf("got %v (%+v); want %s %d %q begun %v", err, e, tt.class, tt.status, tt.code, tt.begun)
			}
			if strings.Contains(e.Error(), "secret") {
				t.Errorf("the error holds the upstream's words: %v", e)
			}
		})
	}
}

// The last event of Responses repeats the whole answer: the cap of an event is
// not its cap.
func TestResponsesLastEventMayBeLong(t *testing.T) {
	long := strings.Replace(evCompleted, `"output":[]`, `"output":[{"text":"`+strings.Repeat("x", 5000)+`"}]`, 1)
	c := config("http://host/v1")
	c.MaxEventBytes, c.MaxReplyBytes = 1000, 9000
	c.HTTP = fake(func(*call) reply { return events(evDelta, long) })
	call := upstream.Call{Target: "up/real", Path: upstream.ResponsesPath, Body: []byte(streamBody), OnData: func([]byte) error { return nil }}
	if rep, err := client(t, c).Do(t.Context(), call); err != nil || !rep.Done {
		t.Errorf("got %+v, %v", rep, err)
	}
	call.Path = "/chat/completions"
	if _, err := client(t, c).Do(t.Context(), call); typed(t, err) == nil {
		t.Error("an event of a chat over the cap was taken")
	}
}

// What a chat streams may look like an event of Responses.
func TestChatMaySayWhatResponsesDo(t *testing.T) {
	n := 0
	rep, err := responsesClient(t, events(evCompleted, `{"type":"response.failed","choices":[{"error":1}]}`)).Do(t.Context(), upstream.Call{
		Target: "up/real", Path: "/chat/completions", Body: []byte(streamBody), OnData: func([]byte) error { n++; return nil },
	})
	if err != nil || n != 2 || rep.Done {
		t.Errorf("got %d events, %+v, %v", n, rep, err)
	}
}
