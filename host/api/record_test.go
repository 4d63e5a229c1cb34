package api_test

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// recording has m1 written as it says, and everything else before it begins.
func recording(mode string) func(*api.Options) {
	return func(o *api.Options) {
		o.Record = func(tenant, model string) string {
			if tenant == "acme" && model == "m1" {
				return mode
			}
			return api.RecordBefore
		}
	}
}

// rows returns how many requests have a row, and how those without were run.
func (h *host) rows() (n int, performed []bool) {
	h.store.mu.Lock()
	n = len(h.store.records)
	h.store.mu.Unlock()
	h.runner.mu.Lock()
	defer h.runner.mu.Unlock()
	return n, slices.Clone(h.runner.performed)
}

// What is written when is the operator's choice, by tenant and model; answers
// are the same.
func TestRecordModes(t *testing.T) {
	for _, tt := range []struct {
		mode string
		rows int
		want []bool
	}{{api.RecordBefore, 6, nil}, {api.RecordAfter, 3, []bool{true, true, true}}, {api.RecordOff, 3, []bool{false, false, false}}} {
		t.Run(tt.mode, func(t *testing.T) {
			h := newHost(t, recording(tt.mode))
			h.runner.script = func(r *fakeRun) {
				if r.Stream {
					r.emit(chunk(0))
				}
				r.end(queue.Outcome{To: queue.Completed, Status: 200, ContentType: "application/json", Body: []byte(`{"x":1}`)})
			}
			for _, model := range []string{"m1", "m2"} {
				for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
					if a := h.post(path, `{"model":"`+model+`"}`); a.status != 200 || string(a.body) != `{"x":1}` {
						t.Errorf("%s %s: got %d %s", model, path, a.status, a.body)
					}
				}
				a := h.post("/v1/chat/completions", `{"model":"`+model+`","stream":true}`)
				if list := frames(t, a.body); a.status != 200 || len(list) != 2 || list[1].data != "[DONE]" {
					t.Errorf("%s stream: got %d %s", model, a.status, a.body)
				}
			}
			if n, performed := h.rows(); n != tt.rows || !slices.Equal(performed, tt.want) {
				t.Errorf("%d have a row before they run, without one run %v; want %d, %v", n, performed, tt.rows, tt.want)
			}
			h.key = "key-beta" // another tenant
			h.post("/v1/embeddings", `{"model":"m1"}`)
			if n, _ := h.rows(); n != tt.rows+1 {
				t.Errorf("another tenant's: %d have a row, want %d", n, tt.rows+1)
			}
		})
	}
}

// A response is written before it begins, whatever is chosen for its model.
func TestResponsesAreRecordedBefore(t *testing.T) {
	h := newHost(t, recording(api.RecordOff))
	if a := h.post("/v1/responses", `{"model":"m1","input":"hi","store":false}`); a.status != 200 {
		t.Errorf("got %d %s", a.status, a.body)
	}
	if n, performed := h.rows(); n != 1 || len(performed) != 0 {
		t.Errorf("%d have a row, %d were run without one; want 1, 0", n, len(performed))
	}
}

func TestPerformedFails(t *testing.T) {
	h := newHost(t, recording(api.RecordAfter))
	h.runner.script = func(r *fakeRun) { r.end(queue.Outcome{To: queue.Failed, Class: queue.RateLimited}) }
	for _, body := range []string{`{"model":"m1"}`, `{"model":"m1","stream":true}`} {
		h.post("/v1/chat/completions", body).wantError(t, 429, "rate_limit_exceeded", "")
	}
	h.runner.script = func(r *fakeRun) {
		r.emit(chunk(0))
		r.end(queue.Outcome{To: queue.Failed, Class: queue.UpstreamNetwork})
	}
	list := frames(t, h.post("/v1/chat/completions", `{"model":"m1","stream":true}`).body)
	if len(list) != 2 || !strings.HasPrefix(list[1].data, `{"error":{"message":`) {
		t.Errorf("got %v, want a chunk and an error without [DONE]", list)
	}
	h.runner.err = &store.AtCap{Tenant: "acme", Model: "m1"}
	h.post("/v1/chat/completions", `{"model":"m1"}`).wantError(t, 429, "concurrency_limit_exceeded", "")
}

// A client that leaves stops what has no row, and nothing asks the store.
func TestPerformedClientGone(t *testing.T) {
	for _, body := range []string{`{"model":"m1"}`, `{"model":"m1","stream":true}`} {
		h := newHost(t, recording(api.RecordOff))
		began := make(chan *fakeRun, 1)
		h.runner.script = func(r *fakeRun) {
			r.emit(chunk(0))
			began <- r
			<-r.ctx.Done()
			r.end(queue.Outcome{To: queue.Canceled, Class: queue.ClassCanceled})
		}
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			req, err := http.NewRequestWithContext(ctx, "POST", h.url+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				gone <- err
				return
			}
			req.Header.Set("Authorization", "Bearer "+h.key)
			res, err := http.DefaultClient.Do(req)
			if err == nil {
				_, err = bufio.NewReader(res.Body).ReadString(0)
				res.Body.Close()
			}
			gone <- err
		}()
		r := wait(t, began, "run")
		leave()
		if err := wait(t, gone, "end of the call"); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", body, err)
		}
		if cause := wait(t, h.runner.stopped, "stop"); !errors.Is(cause, queue.ErrClientGone) {
			t.Errorf("%s: stopped by %v", body, cause)
		}
		<-r.done
		select {
		case id := <-h.store.canceled:
			t.Errorf("%s: the store was asked to cancel %s", body, id)
		default:
		}
	}
}
