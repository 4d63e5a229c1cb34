package api_test

import (
	"bufio"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// A cap's refusal says which cap it was, and when to come again.
func TestAtCap(t *testing.T) {
	tests := []struct {
		name      string
		cap       store.AtCap
		after, ms string
		message   string
	}{
		{"lane", store.AtCap{Tenant: "secret", Model: "m1"}, "1", "1000", "As many requests for this model are running as this key may have."},
		{"gate", store.AtCap{Tenant: "secret", Gate: true}, "1", "1000", "As many requests are running as this key may have."},
		{"parked", store.AtCap{Tenant: "secret", Model: "m1", Wait: 61500 * time.Millisecond}, "62", "61500", "The model is rate limited now."},
	}
	for _, tt := range tests {
		for _, path := range []string{"/v1/responses", "/v1/chat/completions"} {
			t.Run(tt.name+path, func(t *testing.T) {
				h := newHost(t)
				h.runner.err = fmt.Errorf("claimer: %w", &tt.cap)
				a := h.post(path, `{"model":"m1","input":"hi","messages":[]}`)
				a.wantError(t, http.StatusTooManyRequests, "concurrency_limit_exceeded", "")
				if got := a.header.Get("Retry-After"); got != tt.after || a.header.Get("Retry-After-Ms") != tt.ms {
					t.Errorf("got Retry-After %q, %q ms; want %q, %q", got, a.header.Get("Retry-After-Ms"), tt.after, tt.ms)
				}
				if e := a.object(t).Error; e.Message != tt.message || e.Type != "rate_limit_error" {
					t.Errorf("got %+v; want %q", e, tt.message)
				}
				if a.header.Get("X-Should-Retry") != "" {
					t.Error("the client is told not to retry")
				}
			})
		}
	}
}

// An answer that says to come again says when, whatever the failure itself said.
func TestEveryRefusalSaysWhen(t *testing.T) {
	for _, tt := range []struct {
		o     queue.Outcome
		after string
	}{
		{queue.Outcome{Class: queue.RateLimited, Status: 429}, "1"},
		{queue.Outcome{Class: queue.RateLimited, Status: 429, RetryAfter: time.Millisecond}, "1"},
		{queue.Outcome{Class: queue.RateLimited, Status: 429, RetryAfter: 61 * time.Second}, "61"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 503}, "1"},
		{queue.Outcome{Class: queue.PluginUnavailable}, "1"},
		{queue.Outcome{Class: queue.WorkerLost}, "1"},
		{queue.Outcome{Class: queue.UpstreamNetwork}, ""},
		{queue.Outcome{Class: queue.UpstreamNetwork, RetryAfter: 12 * time.Second}, "12"},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 429, Rejected: true}, ""},
		{queue.Outcome{Class: queue.UpstreamStatus, Status: 503, Final: true}, ""},
	} {
		h := newHost(t)
		h.runner.script = func(r *fakeRun) {
			o := tt.o
			o.To = queue.Failed
			r.end(o)
		}
		a := h.post("/v1/chat/completions", `{"model":"m1","messages":[]}`)
		if got := a.header.Get("Retry-After"); got != tt.after {
			t.Errorf("%+v: got %d with Retry-After %q, want %q", tt.o, a.status, got, tt.after)
		}
	}
}

// expire ends a request as the sweeper does.
func (h *host) expire(id queue.ID) {
	h.store.change(id, func(r *store.Record) {
		r.State, r.Class, r.Code, r.Finished = queue.Expired, queue.ClassDeadline, "expired", time.Now()
	})
}

// L45: a request that no host ever ran ends for everybody who looks: on the
// stream that listens, on one that is resumed, on GET, for a client that waits.
func TestExpiredInTheQueue(t *testing.T) {
	for _, kind := range []string{`"background":true`, `"service_tier":"flex"`} {
		t.Run(kind, func(t *testing.T) {
			h := newHost(t)
			res := h.open(t.Context(), "POST", "/v1/responses", `{"model":"m1","input":"hi","stream":true,`+kind+`}`)
			defer res.Body.Close()
			n := wait(t, h.runner.queued, "enqueued request")
			rd := bufio.NewReader(res.Body)
			whole := []frame{nextFrame(t, rd), nextFrame(t, rd)}
			if whole[0].kind != "response.created" || whole[1].kind != "response.queued" {
				t.Fatalf("got %v, want created and queued", whole)
			}
			h.expire(n.ID)
			list := readFrames(t, rd)
			checkStream(t, list, "response.failed", whole...)
			whole = append(whole, list...)
			told := list[len(list)-2]
			if !strings.Contains(told.data, `"error":{"code":"request_expired","message":"The request expired`) {
				t.Errorf("got %s, want the code request_expired", told.data)
			}
			h.awaitLog(`"state":"expired"`)
			path := "/v1/responses/resp_" + n.ID.String()
			a := h.get(path)
			if o := a.object(t); a.status != 200 || o.Status != "failed" || o.Error == nil || *o.Error.Code != "request_expired" {
				t.Errorf("GET: got %d %s, want the failed object", a.status, a.body)
			}
			for after := range int64(4) {
				got := frames(t, h.get(fmt.Sprintf("%s?stream=true&starting_after=%d", path, after)).body)
				if !slices.Equal(got, whole[after+1:]) {
					t.Errorf("resumed after %d: got %v, want %v", after, got, whole[after+1:])
				}
			}
			if kind == `"background":true` {
				if o := h.post(path+"/cancel", "").object(t); o.Status != "failed" {
					t.Errorf("cancel: got %q, want it as it ended", o.Status)
				}
			}
			h.post("/v1/responses", `{"model":"m1","input":"hi","previous_response_id":"resp_`+n.ID.String()+`"}`).
				wantError(t, 400, "previous_response_not_found", "previous_response_id")
			if a := h.do("DELETE", path, ""); a.status != 200 {
				t.Errorf("DELETE: got %d, want 200", a.status)
			}
		})
	}
}

func TestExpiredWhileItsClientWaits(t *testing.T) {
	h := newHost(t)
	got := make(chan answer, 1)
	go func() { got <- h.post("/v1/responses", `{"model":"m1","input":"hi","service_tier":"flex"}`) }()
	h.expire(wait(t, h.runner.queued, "enqueued request").ID)
	wait(t, got, "answer").wantError(t, http.StatusGatewayTimeout, "request_expired", "")
}

// A request that is canceled before any host ran it ends its streams at once.
// There is no event for that: GET says it.
func TestCanceledInTheQueue(t *testing.T) {
	h := newHost(t)
	res := h.open(t.Context(), "POST", "/v1/responses", `{"model":"m1","input":"hi","stream":true,"background":true}`)
	defer res.Body.Close()
	n := wait(t, h.runner.queued, "enqueued request")
	path := "/v1/responses/resp_" + n.ID.String()
	if o := h.post(path+"/cancel", "").object(t); o.Status != "cancelled" {
		t.Errorf("cancel: got %q, want cancelled", o.Status)
	}
	list := readFrames(t, res.Body)
	if len(list) != 3 || list[0].kind != "response.created" || list[1].kind != "response.queued" || list[2].data != "[DONE]" {
		t.Errorf("got %v; want created, queued and the end", list)
	}
	h.awaitLog(`"state":"canceled"`)
	if got := frames(t, h.get(path+"?stream=true&starting_after=0").body); !slices.Equal(got, list[1:]) {
		t.Errorf("resumed: got %v, want %v", got, list[1:])
	}
	if o := h.get(path).object(t); o.Status != "cancelled" || o.Error != nil {
		t.Errorf("GET: got %+v, want cancelled", o)
	}
}
