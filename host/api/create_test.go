package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// B22: GET knows the id that POST answered.
func TestBlocking(t *testing.T) {
	h := newHost(t)
	a := h.post("/v1/responses", `{"model":"m1","input":"private-text"}`)
	o := a.object(t)
	if a.status != 200 || o.Status != "completed" || o.text() != "Hello" || !strings.HasPrefix(o.ID, "resp_") {
		t.Fatalf("got %d %s, want a completed response", a.status, a.body)
	}
	if a.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") {
		t.Errorf("got headers %v", a.header)
	}
	if got := h.get("/v1/responses/" + o.ID); got.status != 200 || string(got.body) != string(a.body) {
		t.Errorf("GET: got %d %s, want what POST answered", got.status, got.body)
	}
	id := strings.TrimPrefix(o.ID, "resp_")
	h.awaitLog(`"request":"` + id + `"`)
	log := h.logged()
	for _, want := range []string{`"request":"` + id + `"`, `"state":"completed"`, `"attempt":1`, `"tenant":"acme"`, `"status":200`, `"route":"/v1/responses"`, `"ms":`} {
		if !strings.Contains(log, want) {
			t.Errorf("log %s: want %s", log, want)
		}
	}
	if strings.Contains(log, "private-text") || strings.Contains(log, "key-acme") {
		t.Errorf("log %s: holds a body or a key", log)
	}
}

func TestNotStored(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi","store":false}`).object(t)
	if o.Status != "completed" {
		t.Fatalf("got %+v, want completed", o)
	}
	h.get("/v1/responses/"+o.ID).wantError(t, 404, "not_found", "id")
	h.get("/v1/responses/"+o.ID+"?stream=true").wantError(t, 404, "not_found", "id")
	h.do("DELETE", "/v1/responses/"+o.ID, "").wantError(t, 404, "not_found", "id")
	h.post("/v1/responses/"+o.ID+"/cancel", "").wantError(t, 404, "not_found", "id")
	h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"`+o.ID+`"}`).
		wantError(t, 400, "previous_response_not_found", "previous_response_id")
}

// A lost lease is no end: the answer comes from the host that goes on.
func TestBlockingGoesOnElsewhere(t *testing.T) {
	lost := make(chan *fakeRun, 1)
	h := newHost(t)
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.producer.Close(false)
		r.err = fmt.Errorf("claimer: %w", queue.ErrLeaseLost)
		lost <- &fakeRun{New: r.New, store: r.store, stream: r.stream}
	}
	go func() {
		r := <-lost
		r.producer = h.runner.hub.Open(queue.NewID(), true) // a run elsewhere publishes nothing here
		r.store.change(r.ID, func(rec *store.Record) { rec.Attempt = 2 })
		r.delta("Hello")
		r.complete()
	}()
	a := h.post("/v1/responses", `{"model":"m1","input":"hi"}`)
	if o := a.object(t); a.status != 200 || o.text() != "Hello" {
		t.Fatalf("got %d %s, want the stored response", a.status, a.body)
	}
	h.awaitLog(`"attempt":2`)
	for _, body := range []string{`{"model":"m1","input":"hi","store":false}`, `{"model":"m1","input":"hi","store":false,"stream":true}`} {
		h.runner.script = func(r *fakeRun) {
			r.producer.Close(false)
			r.err = fmt.Errorf("claimer: %w", queue.ErrLeaseLost)
		}
		h.post("/v1/responses", body).wantError(t, 503, "server_error", "") // nobody can go on with it
	}
	h.runner.script = func(r *fakeRun) { // reaped for the last time
		r.producer.Close(false)
		r.store.change(r.ID, func(rec *store.Record) { rec.State, rec.Class = queue.Failed, queue.WorkerLost })
		r.err = fmt.Errorf("claimer: %w", queue.ErrLeaseLost)
	}
	h.post("/v1/responses", `{"model":"m1","input":"hi"}`).wantError(t, 503, "server_error", "")
}

// B9: a client that leaves is a cancel, also before the head of the answer.
func TestClientGoneCancels(t *testing.T) {
	tests := []struct {
		name, path, body string
	}{
		{"blocking", "/v1/responses", `{"model":"m1","input":"hi"}`},
		{"stream", "/v1/responses", `{"model":"m1","input":"hi","stream":true}`},
		{"unstored stream", "/v1/responses", `{"model":"m1","input":"hi","stream":true,"store":false}`},
		{"chat", "/v1/chat/completions", `{"model":"m1","messages":[]}`},
		{"chat stream", "/v1/chat/completions", `{"model":"m1","messages":[],"stream":true}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			began := make(chan struct{})
			h.runner.script = func(r *fakeRun) {
				if r.Path == "/v1/responses" {
					r.begin()
				}
				close(began)
				<-r.ctx.Done()
				r.end(queue.Outcome{To: queue.Canceled, Class: queue.ClassCanceled})
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				req, _ := http.NewRequestWithContext(ctx, "POST", h.url+tt.path, strings.NewReader(tt.body))
				req.Header.Set("Authorization", "Bearer key-acme")
				if res, err := http.DefaultClient.Do(req); err == nil {
					<-ctx.Done()
					res.Body.Close()
				}
			}()
			wait(t, began, "run")
			cancel()
			wait(t, h.store.canceled, "cancel")
			if cause := wait(t, h.runner.stopped, "stop"); !errors.Is(cause, queue.ErrClientGone) {
				t.Errorf("got cause %v, want ErrClientGone", cause)
			}
			wait(t, done, "end of the client")
		})
	}
}

// A shutdown breaks connections; that must not cancel what is handed back.
func TestClientGoneWhileDraining(t *testing.T) {
	h := newHost(t)
	h.runner.script = untilStopped
	ctx, cancel := context.WithCancel(t.Context())
	res := h.open(ctx, "POST", "/v1/responses", `{"model":"m1","input":"hi","stream":true}`)
	h.api.Drain()
	cancel()
	res.Body.Close()
	h.awaitLog(`"status":499`)
	select {
	case <-h.store.canceled:
		t.Error("the request was canceled")
	case cause := <-h.runner.stopped:
		t.Errorf("the run was stopped: %v", cause)
	default:
	}
	for _, r := range h.runner.runs {
		r.cancel(queue.ErrShutdown)
	}
}

func TestBackground(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
	if o.Status != "queued" || !o.Background || len(o.Output) != 0 {
		t.Fatalf("got %+v, want queued", o)
	}
	n := wait(t, h.runner.queued, "enqueued request")
	if n.DeadlineIn != 24*time.Hour || !n.Background || !n.Store || n.Path != "/v1/responses" || n.Tenant != "acme" {
		t.Errorf("got %+v, want a stored background request with a deadline", n)
	}
	if got := h.get("/v1/responses/" + o.ID).object(t); got.Status != "queued" {
		t.Errorf("GET: got %q, want queued", got.Status)
	}
	begun, goOn := make(chan struct{}), make(chan struct{})
	h.runner.script = func(r *fakeRun) {
		r.begin()
		r.delta("Hel")
		close(begun)
		<-goOn
		r.complete()
	}
	run := h.runner.start(n)
	wait(t, begun, "run")
	if got := h.get("/v1/responses/" + o.ID).object(t); got.Status != "in_progress" || got.text() != "Hel" {
		t.Errorf("GET while it runs: got %+v, want the output so far", got)
	}
	h.do("DELETE", "/v1/responses/"+o.ID, "").wantError(t, 409, "response_in_progress", "")
	if a := h.do("DELETE", "/v1/responses/"+o.ID, ""); a.header.Get("X-Should-Retry") != "false" {
		t.Errorf("got headers %v, want x-should-retry: false", a.header)
	}
	h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"`+o.ID+`"}`).
		wantError(t, 400, "previous_response_in_progress", "previous_response_id")
	close(goOn)
	wait(t, run.done, "end")
	if got := h.get("/v1/responses/" + o.ID).object(t); got.Status != "completed" || got.text() != "Hello" {
		t.Errorf("GET: got %+v, want completed", got)
	}
}

func TestCancel(t *testing.T) {
	h := newHost(t)
	h.post("/v1/responses/resp_nothing/cancel", "").wantError(t, 404, "not_found", "id")
	fg := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	h.post("/v1/responses/"+fg.ID+"/cancel", "").wantError(t, 400, "not_cancellable", "id")

	h.runner.script = untilStopped
	bg := h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
	run := h.runner.start(wait(t, h.runner.queued, "enqueued request"))
	res := h.open(t.Context(), "GET", "/v1/responses/"+bg.ID+"?stream=true", "")
	defer res.Body.Close()
	for range 2 { // the second time it is over already
		a := h.post("/v1/responses/"+bg.ID+"/cancel", "")
		if o := a.object(t); a.status != 200 || o.Status != "cancelled" {
			t.Errorf("got %d %s, want cancelled", a.status, a.body)
		}
	}
	if cause := wait(t, h.runner.stopped, "stop"); !errors.Is(cause, queue.ErrCanceled) {
		t.Errorf("got cause %v, want ErrCanceled", cause)
	}
	wait(t, run.done, "end")
	list := readFrames(t, res.Body)
	checkStream(t, list, "")
	h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"`+bg.ID+`"}`).
		wantError(t, 400, "previous_response_not_found", "previous_response_id")

	// A completed one is answered as it ended.
	h.runner.script = hello
	bg = h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
	wait(t, h.runner.start(wait(t, h.runner.queued, "enqueued request")).done, "end")
	if o := h.post("/v1/responses/"+bg.ID+"/cancel", "").object(t); o.Status != "completed" {
		t.Errorf("got %q, want completed", o.Status)
	}
	// One that never began, too, can be canceled.
	bg = h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
	if o := h.post("/v1/responses/"+bg.ID+"/cancel", "").object(t); o.Status != "cancelled" {
		t.Errorf("got %q, want cancelled", o.Status)
	}
}

func terminalKind(kind string) bool {
	return kind == "response.completed" || kind == "response.failed" || kind == "response.incomplete"
}

// B17: a deletion answers with the documented object.
func TestDelete(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi"}`).object(t)
	a := h.do("DELETE", "/v1/responses/"+o.ID, "")
	if want := `{"id":"` + o.ID + `","object":"response","deleted":true}`; a.status != 200 || string(a.body) != want {
		t.Errorf("got %d %s, want %s", a.status, a.body, want)
	}
	for _, a := range []answer{h.get("/v1/responses/" + o.ID), h.do("DELETE", "/v1/responses/"+o.ID, "")} {
		a.wantError(t, 404, "not_found", "id")
	}
	h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"`+o.ID+`"}`).
		wantError(t, 400, "previous_response_not_found", "previous_response_id")
}

// L13: a foreign id is one that does not exist, also as what to go on from.
func TestOtherTenantsDoNotExist(t *testing.T) {
	h := newHost(t)
	o := h.post("/v1/responses", `{"model":"m1","input":"hi","background":true}`).object(t)
	h.key = "key-beta"
	h.get("/v1/responses/"+o.ID).wantError(t, 404, "not_found", "id")
	h.get("/v1/responses/"+o.ID+"?stream=true").wantError(t, 404, "not_found", "id")
	h.post("/v1/responses/"+o.ID+"/cancel", "").wantError(t, 404, "not_found", "id")
	h.do("DELETE", "/v1/responses/"+o.ID, "").wantError(t, 404, "not_found", "id")
	h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"`+o.ID+`"}`).
		wantError(t, 400, "previous_response_not_found", "previous_response_id")
}

// What a response goes on from counts as the request's own: it has a bound.
//
// L14: inlining stops at a bound.
func TestContextIsBounded(t *testing.T) {
	h := newHost(t, func(o *api.Options) { o.MaxBodyBytes = 4000 })
	input := strings.Repeat("x", 600)
	previous := h.post("/v1/responses", `{"model":"m1","input":"`+input+`"}`).object(t).ID
	var a answer
	for range 10 {
		if a = h.post("/v1/responses", `{"model":"m1","input":"`+input+`","previous_response_id":"`+previous+`"}`); a.status != 200 {
			break
		}
		previous = a.object(t).ID
	}
	a.wantError(t, 400, "context_length_exceeded", "previous_response_id")
	for id, r := range h.store.records {
		if len(r.Body) > 4000 {
			t.Errorf("%s: got a body of %d bytes, want at most 4000", id, len(r.Body))
		}
	}
}

// A rejection that is stored keeps its status and message.
func TestStoredRejection(t *testing.T) {
	h := newHost(t)
	for _, status := range []int{403, 501} {
		h.runner.script = func(r *fakeRun) {
			r.begin()
			r.emit(r.stream.Finish(response.End{Status: "failed", Failure: &response.Failure{Code: "no_budget", Message: "Your budget is spent."}}))
			r.end(queue.Outcome{To: queue.Failed, Class: queue.UpstreamStatus, Status: status, Code: "no_budget", Body: r.stream.Response()})
			r.outcome, r.err = queue.Outcome{}, fmt.Errorf("claimer: %w", queue.ErrLeaseLost) // it ended elsewhere
		}
		a := h.post("/v1/responses", `{"model":"m1","input":"hi"}`)
		a.wantError(t, status, "no_budget", "")
		if got := a.object(t).Error.Message; got != "Your budget is spent." {
			t.Errorf("got message %q, want the policy's", got)
		}
	}
}

// A request of another path is no response.
func TestChatIsNoResponse(t *testing.T) {
	h := newHost(t)
	n := queue.New{ID: queue.NewID(), Tenant: "acme", Path: "/v1/chat/completions", Store: true}
	h.store.insert(n, nil, queue.Completed)
	h.get("/v1/responses/resp_"+n.ID.String()).wantError(t, 404, "not_found", "id")
}

// L12: what is stored can be gone on from.
func TestPreviousResponse(t *testing.T) {
	h := newHost(t)
	first := h.post("/v1/responses", `{"model":"m1","input":"first question"}`).object(t)
	bodies := make(chan []byte, 1)
	h.runner.script = func(r *fakeRun) {
		bodies <- r.Body
		hello(r)
	}
	if a := h.post("/v1/responses", `{"model":"m1","input":"second","previous_response_id":"`+first.ID+`"}`); a.status != 200 {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	brief, err := response.DecodeBrief(wait(t, bodies, "body"))
	if err != nil {
		t.Fatal(err)
	}
	context, err := json.Marshal(brief.Context)
	if err != nil {
		t.Fatal(err)
	}
	if len(brief.Context) != 2 || !strings.Contains(string(context), "first question") || !strings.Contains(string(context), "Hello") {
		t.Errorf("got context %s, want the first response's input and output", context)
	}
}

// A stored flex request waits in the queue with its client on the line.
func TestFlex(t *testing.T) {
	for _, stream := range []bool{false, true} {
		t.Run(fmt.Sprint("stream ", stream), func(t *testing.T) {
			h := newHost(t)
			go func() {
				n := <-h.runner.queued
				n.Background = true // its first events say queued
				h.runner.start(n)
			}()
			a := h.post("/v1/responses", fmt.Sprintf(`{"model":"m1","input":"hi","service_tier":"flex","stream":%v}`, stream))
			if a.status != 200 || !strings.Contains(string(a.body), `"completed"`) {
				t.Errorf("got %d %s, want a completed response", a.status, a.body)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	got := make(chan time.Duration, 1)
	h := newHost(t, func(o *api.Options) { o.Deadline = time.Minute })
	h.runner.script = func(r *fakeRun) {
		got <- r.DeadlineIn
		hello(r)
	}
	h.post("/v1/responses", `{"model":"m1","input":"hi"}`)
	if d := wait(t, got, "request"); d != time.Minute {
		t.Errorf("got deadline %v, want 1m", d)
	}
}
