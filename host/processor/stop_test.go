package processor_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
)

// held is a stage that is held at one place until its context ends.
type held struct {
	stage  processor.Processor
	client *upstream.Client
	place  string
	there  chan struct{} // closed when it is at the place
	open   atomic.Int32  // connections
	guest  error         // why the guest's context ended
}

// places are where a run may be when it is to end.
var places = []string{
	"in the head of a call", "in the body of a call", "in a stream", "waiting for a retry", "waiting for a slot", "in a tool", "in a write", "waiting to write",
}

func newHeld(t *testing.T, place string) *held {
	h := &held{place: place, there: make(chan struct{})}
	c := upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: "http://up/v1"}},
		Models:    []upstream.Model{{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}}},
		HTTP:      &http.Client{Transport: h},
	}
	if place == "waiting for a slot" {
		c.Slots = h
	}
	var err error
	if h.client, err = upstream.New(c); err != nil {
		t.Fatal(err)
	}
	hub := stream.NewHub(nil, stream.Options{})
	caller := &loop.Caller{Policy: policy.New(nil), Upstream: h.client, Budget: policy.NewBudget(policy.BudgetOptions{})}
	h.stage = processor.Processor{
		Responses: loop.New(h, caller, hangs{noTools{}, h}, hub, loop.Options{}),
		Default:   processor.NewDefault(caller, hub, processor.Options{}),
	}
	return h
}

// Acquire implements upstream.Slots: there is none.
func (h *held) Acquire(ctx context.Context, _ string, _ bool) (func(), error) {
	close(h.there)
	<-ctx.Done()
	return nil, ctx.Err()
}

// RoundTrip is the upstream.
func (h *held) RoundTrip(req *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, req.Body)
	h.open.Add(1)
	res := answered(http.StatusOK, "")
	body := &heldBody{h: h, ctx: req.Context()}
	res.Body = body
	switch h.place {
	case "in the head of a call":
		close(h.there)
		<-req.Context().Done()
		h.open.Add(-1)
		return nil, req.Context().Err()
	case "in the body of a call":
		body.text = `{"choices":[`
	case "in a stream":
		res.Header.Set("Content-Type", "text/event-stream")
		body.text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hel\"}}]}\n\n"
	case "waiting for a retry":
		h.open.Add(-1)
		time.AfterFunc(10*time.Millisecond, func() { close(h.there) })
		res = answered(http.StatusServiceUnavailable, "{}")
		res.Header.Set("Retry-After", "1")
	case "in a tool", "in a write", "waiting to write":
		h.open.Add(-1)
		res = answered(http.StatusOK, `{"choices":[{"index":0,"message":{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"hang","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
	}
	return res, nil
}

// heldBody sends its text and then nothing until its call ends.
type heldBody struct {
	h    *held
	ctx  context.Context
	text string
}

func (b *heldBody) Read(p []byte) (int, error) {
	if n := copy(p, b.text); n > 0 {
		b.text = b.text[n:]
		return n, nil
	}
	close(b.h.there)
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (b *heldBody) Close() error {
	b.h.open.Add(-1)
	return nil
}

// WriteAsync implements loop.Store. The write that begins the tool is the one
// that a database takes its time for, or that there is no room for.
func (h *held) WriteAsync(ctx context.Context, w store.Write, done func(error)) {
	tool := slices.ContainsFunc(w.Steps, func(s response.Step) bool { return s.Kind == response.ToolCall })
	switch {
	case tool && h.place == "in a write":
		close(h.there)
		time.AfterFunc(time.Hour, func() { done(nil) })
	case tool && h.place == "waiting to write":
		close(h.there)
		<-ctx.Done()
		done(context.Cause(ctx))
	default:
		done(nil)
	}
}

func (h *held) Get(context.Context, string, queue.ID, store.Parts) (store.Record, error) {
	return store.Record{}, queue.ErrNotFound
}

// hangs has one tool, which does not end by itself.
type hangs struct {
	noTools
	h *held
}

func (t hangs) Resolve(string, []response.Offer) loop.Toolset { return t }
func (t hangs) Tools() []response.ServerTool {
	return []response.ServerTool{{
		Offer: response.Offer{Name: "hang", Plugin: "p", Tool: "hang"}, Effects: "pure", Parameters: json.RawMessage(`{"type":"object"}`),
	}}
}

func (t hangs) Call(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
	close(t.h.there)
	<-ctx.Done()
	t.h.guest = context.Cause(ctx)
	return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
}

// claimed is a claim for the loop or for the default path.
func claimed(t *testing.T, path string, realtime, streamed bool) queue.Claim {
	c := queue.Claim{
		ID: queue.NewID(), Tenant: "t", Model: "m", Path: path, State: queue.Processing, Attempt: 1,
		Realtime: realtime, Stream: streamed, Created: time.Now(),
		Body: []byte(`{"model":"m","messages":[{"role":"user","content":"hello"}]}`),
	}
	if path == processor.ResponsesPath {
		req, err := response.ParseRequest([]byte(`{"model":"m","input":"hello","store":false}`))
		if err != nil {
			t.Fatal(err)
		}
		if c.Body, err = (response.Brief{Request: req, Offers: []response.Offer{{Name: "hang", Plugin: "p", Tool: "hang"}}}).Encode(); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestEveryCauseEndsEveryWait ends runs for each reason that there is, at each
// place where they may be. The run ends at once, with it the upstream's
// connection and the guest, and its ending fits the reason.
func TestEveryCauseEndsEveryWait(t *testing.T) {
	for _, cause := range []error{queue.ErrCanceled, queue.ErrClientGone, queue.ErrDeadline, queue.ErrShutdown, queue.ErrFenced, queue.ErrLeaseLost} {
		for _, path := range []string{processor.ResponsesPath, "/v1/chat/completions"} {
			for _, place := range places {
				if path != processor.ResponsesPath && slices.Contains([]string{"in a tool", "in a write", "waiting to write"}, place) {
					continue
				}
				for _, realtime := range []bool{false, true} {
					kind := " queued "
					if realtime {
						kind = " realtime "
					}
					t.Run(cause.Error()+kind+path[4:]+" "+place, func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							stopHeld(t, newHeld(t, place), cause, claimed(t, path, realtime, place == "in a stream"))
						})
					})
				}
			}
		}
	}
}

// stopHeld ends one run.
func stopHeld(t *testing.T, h *held, cause error, c queue.Claim) {
	base, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	ctx := base
	// As a claimer sets it; past it no retry is waited for.
	if errors.Is(cause, queue.ErrDeadline) && h.place != "waiting for a retry" {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(base, 300*time.Millisecond, queue.ErrDeadline)
		defer stop()
	}
	type answer struct {
		end store.Ending
		err error
	}
	got := make(chan answer, 1)
	go func() {
		end, err := h.stage.Process(ctx, c)
		got <- answer{end, err}
	}()
	<-h.there
	synctest.Wait()
	stopped, ok := ctx.Deadline()
	if !ok {
		stopped = time.Now()
		cancel(cause)
	}
	a := <-got
	took := time.Since(stopped)
	if a.err != nil {
		t.Fatal(a.err)
	}
	if a.end.Done != nil {
		a.end.Done(true)
	}
	// A commit under way is waited for a second: its outcome is worth knowing.
	if took > 0 && (h.place != "in a write" || took > time.Second) {
		t.Errorf("it ended after %v, want at once", took)
	}
	if n := h.open.Load(); n != 0 {
		t.Errorf("%d connections are open", n)
	}
	if n := h.client.Candidates("m")[0].InFlight; n != 0 {
		t.Errorf("%d calls are in flight", n)
	}
	if h.place == "in a tool" && !errors.Is(h.guest, cause) {
		t.Errorf("the guest was stopped by %v", h.guest)
	}
	checkEnding(t, a.end.Outcome, cause, c.Realtime)
}

// checkEnding compares an outcome with what a cause asks for.
func checkEnding(t *testing.T, o queue.Outcome, cause error, realtime bool) {
	t.Helper()
	want := queue.Outcome{To: queue.Pending, By: queue.ByHandBack}
	switch {
	case errors.Is(cause, queue.ErrCanceled), errors.Is(cause, queue.ErrClientGone):
		want = queue.Outcome{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled}
	case errors.Is(cause, queue.ErrDeadline):
		want = queue.Outcome{To: queue.Failed, By: queue.ByOutcome, Class: queue.ClassDeadline, Status: 504}
	case realtime:
		want = queue.Outcome{To: queue.Failed, By: queue.ByOutcome, Class: queue.WorkerLost, Status: 503}
	}
	if o.To != want.To || o.By != want.By || o.Class != want.Class || o.Status != want.Status || o.Failures != 0 {
		t.Errorf("got %s by %s, %s %d; want %s by %s, %s %d", o.To, o.By, o.Class, o.Status, want.To, want.By, want.Class, want.Status)
	}
	if strings.Contains(o.Message, "lease") {
		t.Errorf("the client is told %q", o.Message)
	}
}
