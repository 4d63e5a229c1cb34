package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/stream"
)

// At the end of a drain a client that still waits is told to come again, and
// what it waits for goes on elsewhere.
func TestShutdownAnswersWhoWaits(t *testing.T) {
	handBack := func(r *fakeRun) {
		r.begin()
		r.producer.Close(false)
		r.outcome = queue.Outcome{To: queue.Pending, By: queue.ByHandBack}
	}
	for _, tt := range []struct {
		name, body string
		script     func(*fakeRun)
	}{
		{"handed back", `{"model":"m1","input":"hi"}`, handBack},
		{"still running", `{"model":"m1","input":"hi"}`, untilStopped},
		{"in the queue", `{"model":"m1","input":"hi","service_tier":"flex"}`, nil},
	} {
		for _, drain := range []bool{true, false} {
			t.Run(fmt.Sprint(tt.name, " drain ", drain), func(t *testing.T) {
				h := newHost(t)
				began := make(chan *fakeRun, 1)
				h.runner.script = func(r *fakeRun) {
					began <- r
					tt.script(r)
				}
				answers := make(chan answer)
				go func() { answers <- h.post("/v1/responses", tt.body) }()
				if tt.script != nil {
					r := wait(t, began, "run")
					defer r.cancel(queue.ErrShutdown)
				} else {
					wait(t, h.runner.queued, "enqueued request")
				}
				if drain {
					h.api.Drain()
				}
				h.endConns(queue.ErrShutdown)
				a := wait(t, answers, "answer")
				a.wantError(t, 503, "service_unavailable", "")
				if got := a.header.Get("Retry-After"); got != "1" {
					t.Errorf("got Retry-After %q, want 1", got)
				}
				h.wantNotCanceled()
			})
		}
	}
}

// wantNotCanceled checks that no request was canceled and no run stopped.
func (h *host) wantNotCanceled() {
	h.t.Helper()
	select {
	case <-h.store.canceled:
		h.t.Error("the request was canceled")
	case cause := <-h.runner.stopped:
		h.t.Errorf("the run was stopped: %v", cause)
	default:
	}
}

// untilOutput reads a stream up to the first output of its run.
func untilOutput(t *testing.T, rd *bufio.Reader) {
	t.Helper()
	var v response.Validator
	for {
		f := nextFrame(t, rd)
		if f.kind == "" { // of a chat completion
			return
		}
		if err := v.Event([]byte(f.data)); err != nil {
			t.Fatal(err)
		}
		if f.kind == "response.output_text.delta" {
			return
		}
	}
}

func (h *host) stopRuns(cause error) {
	h.runner.mu.Lock()
	defer h.runner.mu.Unlock()
	for _, r := range h.runner.runs {
		r.cancel(cause)
	}
}

// A stream that this host cuts does not look like a whole one.
func TestShutdownCutsStreams(t *testing.T) {
	for _, tt := range []struct{ path, body string }{
		{"/v1/responses", `{"model":"m1","input":"hi","stream":true}`},
		{"/v1/responses", `{"model":"m1","input":"hi","stream":true,"store":false}`},
		{"/v1/responses", `{"model":"m1","input":"hi","stream":true,"background":true}`},
		{"/v1/chat/completions", `{"model":"m1","messages":[],"stream":true}`},
	} {
		t.Run(tt.path+tt.body, func(t *testing.T) {
			h := newHost(t)
			h.runner.script = func(r *fakeRun) {
				if r.Path == "/v1/responses" {
					untilStopped(r)
					return
				}
				r.emit(chunk(0))
				<-r.ctx.Done()
			}
			if strings.Contains(tt.body, "background") {
				go func() { h.runner.start(<-h.runner.queued) }()
			}
			res := h.open(t.Context(), "POST", tt.path, tt.body)
			defer res.Body.Close()
			rd := bufio.NewReader(res.Body)
			untilOutput(t, rd)
			h.api.Drain()
			h.endConns(queue.ErrShutdown)
			if b, err := io.ReadAll(rd); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %q, %v, want a connection that breaks", b, err)
			}
			h.awaitLog("the host shuts down")
			h.wantNotCanceled()
			h.stopRuns(queue.ErrShutdown)
		})
	}
}

// So does one whose end cannot be read.
func TestBrokenStreamIsCut(t *testing.T) {
	h := newHost(t)
	h.runner.script = untilStopped
	go func() { h.runner.start(<-h.runner.queued) }()
	res := h.open(t.Context(), "POST", "/v1/responses", `{"model":"m1","input":"hi","stream":true,"background":true}`)
	defer res.Body.Close()
	rd := bufio.NewReader(res.Body)
	untilOutput(t, rd)
	h.store.mu.Lock()
	h.store.err = stream.ErrGap
	h.store.mu.Unlock()
	h.stopRuns(queue.ErrCanceled)
	if b, err := io.ReadAll(rd); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v, want a connection that breaks", b, err)
	}
	h.awaitLog("events are gone")
}

// raw sends text on a connection of its own and returns the connection.
func (h *host) raw(text string) *net.TCPConn {
	h.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.WriteString(c, text); err != nil {
		h.t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

const rawHead = "POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key-acme\r\n"

// A body that breaks the protocol is a mistake, not a client that left.
func TestMalformedChunks(t *testing.T) {
	for _, body := range []string{"zz\r\n{}\r\n0\r\n\r\n", "2\r\n{}XX0\r\n\r\n"} {
		h := newHost(t)
		c := h.raw(rawHead + "Transfer-Encoding: chunked\r\n\r\n" + body)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		answer{res.StatusCode, res.Header, b}.wantError(t, 400, "invalid_body", "")
	}
}

// A client that leaves amid its body gets no answer, and none of status 200.
func TestBodyThatEndsTooEarly(t *testing.T) {
	for _, rest := range []string{"Content-Length: 100\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n20\r\n{"} {
		h := newHost(t)
		c := h.raw(rawHead + rest)
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 {
			t.Errorf("got %q, %v, want nothing", b, err)
		}
		h.awaitLog(`"status":499`)
	}
}

// A query that ends with its client is no fault of this host.
func TestClientGoneAmidAQuery(t *testing.T) {
	h := newHost(t)
	h.store.hang = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-h.store.hang
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, "GET", h.url+"/v1/responses/resp_"+queue.NewID().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer key-acme")
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
		t.Fatalf("got %d, want no answer", res.StatusCode)
	}
	h.awaitLog(`"route":"/v1/responses/{id}"`)
	if !strings.Contains(h.logged(), `"status":499`) {
		t.Errorf("got log %s, want 499", h.logged())
	}
}
