package upstream_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

var sse = map[string]string{"Content-Type": "text/event-stream"}

func TestLimits(t *testing.T) {
	const ev, done = "data: {\"choices\":[]}\n\n", "data: [DONE]\n\n"
	tests := []struct {
		name    string
		reply   reply
		body    string
		timeout time.Duration // of the call
		slow    time.Duration // OnData takes so long
		reason  string        // "": the call is good
		after   time.Duration
		begun   bool
	}{
		{name: "head late", reply: reply{delay: time.Hour}, body: streamBody, reason: "no first event", after: time.Minute},
		{name: "head at once, no event", reply: reply{header: sse, open: true, parts: []part{}}, body: streamBody, reason: "no first event", after: time.Minute},
		{
			name: "comments are no event", body: streamBody, reason: "no first event", after: time.Minute,
			reply: reply{header: sse, parts: []part{{0, ": a\n\n"}, {40 * time.Second, ": b\n\n"}, {40 * time.Second, ev}}},
		},
		{
			name: "first event in time", body: streamBody, after: 59 * time.Second,
			reply: reply{header: sse, parts: []part{{59 * time.Second, ev + done}}},
		},
		{
			name: "silence", body: streamBody, reason: "no next event", after: 61 * time.Second, begun: true,
			reply: reply{header: sse, open: true, parts: []part{{time.Second, ev}}},
		},
		{
			name: "comments keep it alive", body: streamBody, after: 100 * time.Second,
			reply: reply{header: sse, parts: []part{{0, ev}, {50 * time.Second, ": a\n\n"}, {50 * time.Second, ev + done}}},
		},
		{
			name: "the caller's time is no silence", body: streamBody, slow: 90 * time.Second, after: 280 * time.Second,
			reply: reply{header: sse, parts: []part{{0, ev}, {0, ev}, {100 * time.Second, ev + done}}},
		},
		{
			name: "too long in total", body: streamBody, reason: "took too long", after: 10 * time.Minute, begun: true,
			reply: reply{header: sse, parts: every(30*time.Second, ev, 100)},
		},
		{
			name: "the call's own limit", body: streamBody, timeout: 40 * time.Second, reason: "took too long", after: 40 * time.Second, begun: true,
			reply: reply{header: sse, parts: every(time.Second, ev, 100)},
		},
		{
			name: "the call's limit does not lengthen", body: plainBody, timeout: time.Hour, reason: "took too long", after: 10 * time.Minute,
			reply: reply{delay: time.Hour},
		},
		{name: "a plain answer may take long", reply: reply{delay: 5 * time.Minute, body: answer}, body: plainBody, after: 5 * time.Minute},
		{
			name: "also after its head", body: plainBody, after: 5 * time.Minute,
			reply: reply{parts: []part{{5 * time.Minute, answer}}},
		},
		{
			name: "but not stall in its middle", body: plainBody, reason: "no next event", after: time.Minute,
			reply: reply{open: true, parts: []part{{0, answer[:5]}}},
		},
		{name: "an error's body is not waited for", reply: reply{status: 503, open: true}, body: plainBody, reason: "503", after: 5 * time.Second},
		{
			name: "nothing is waited for after the end", body: streamBody, after: 100 * time.Millisecond,
			reply: reply{header: sse, open: true, parts: []part{{0, ev + done}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := config("http://host/v1")
				c.HTTP = fake(func(*call) reply { return tt.reply })
				cl := client(t, c)
				start := time.Now()
				_, err := cl.Do(t.Context(), upstream.Call{
					Target: "up/real", Path: "/chat/completions", Body: []byte(tt.body), Timeout: tt.timeout,
					OnData: func([]byte) error { time.Sleep(tt.slow); return nil },
				})
				if took := time.Since(start); took != tt.after {
					t.Errorf("took %v, want %v", took, tt.after)
				}
				e := typed(t, err)
				if (e != nil) != (tt.reason != "") {
					t.Fatalf("got %v, want %q", e, tt.reason)
				}
				if e != nil && (!strings.Contains(e.Error(), tt.reason) || e.Begun != tt.begun) {
					t.Errorf("got %v, begun %v; want %q, %v", e, e.Begun, tt.reason, tt.begun)
				}
				if e != nil && tt.reason != "503" && e.Class != queue.UpstreamTimeout {
					t.Errorf("class: got %s, want %s", e.Class, queue.UpstreamTimeout)
				}
				if n := cl.Candidates("m")[0].InFlight; n != 0 {
					t.Errorf("in flight: got %d, want 0", n)
				}
			})
		})
	}
}

func every(d time.Duration, text string, n int) []part {
	all := make([]part, n)
	for i := range all {
		all[i] = part{d, text}
	}
	return all
}

func TestCallerEnds(t *testing.T) {
	cause := errors.New("lease lost")
	for name, tt := range map[string]struct {
		end   func(context.Context) (context.Context, context.CancelFunc)
		class queue.Class
		cause error
	}{
		"canceled": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancelCause(ctx)
			t := time.AfterFunc(time.Second, func() { cancel(cause) })
			return ctx, func() { t.Stop() }
		}, queue.ClassCanceled, cause},
		"deadline": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Second)
		}, queue.ClassDeadline, context.DeadlineExceeded},
	} {
		for where, r := range map[string]reply{
			"head":   {delay: time.Hour},
			"stream": {header: sse, open: true, parts: []part{{0, "data: {}\n\n"}}},
			"error":  {status: 500, open: true},
		} {
			t.Run(name+" in "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := config("http://host/v1")
					c.HTTP = fake(func(*call) reply { return r })
					ctx, stop := tt.end(t.Context())
					defer stop()
					_, err := client(t, c).Do(ctx, upstream.Call{
						Target: "up/real", Path: "/x", Body: []byte(streamBody), OnData: func([]byte) error { return nil },
					})
					e := typed(t, err)
					if e == nil || e.Class != tt.class || !errors.Is(err, tt.cause) {
						t.Errorf("got %v, cause %v; want %s, %v", err, errors.Unwrap(err), tt.class, tt.cause)
					}
				})
			})
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := config("http://host/v1")
	c.HTTP = fake(func(*call) reply { t.Error("a call was made"); return reply{} })
	if _, err := client(t, c).Do(ctx, upstream.Call{Target: "up/real", Path: "/x", Body: []byte(`{}`)}); typed(t, err).Class != queue.ClassCanceled {
		t.Errorf("before the start: got %v, want %s", err, queue.ClassCanceled)
	}
}

func TestOnDataEnds(t *testing.T) {
	own := errors.New("store is gone")
	for _, tt := range []struct {
		err   error
		class queue.Class
	}{{own, queue.HostError}, {upstream.ErrInvalid, queue.UpstreamInvalid}} {
		c := config("http://host/v1")
		c.HTTP = fake(func(*call) reply { return reply{header: sse, body: strings.Repeat("data: {}\n\n", 10)} })
		n := 0
		e := do(t, client(t, c), streamBody, func([]byte) error { n++; return tt.err })
		if n != 1 || e == nil || e.Class != tt.class || !errors.Is(e, tt.err) || !e.Begun {
			t.Errorf("got %v after %d events, want %s after 1", e, n, tt.class)
		}
	}
}

func TestOnDataPanics(t *testing.T) {
	c := config("http://host/v1")
	c.HTTP = fake(func(*call) reply { return reply{header: sse, body: "data: {}\n\n"} })
	cl := client(t, c)
	func() {
		defer func() { _ = recover() }()
		_ = do(t, cl, streamBody, func([]byte) error { panic("bug") }) // never returns
	}()
	if n := cl.Candidates("m")[0].InFlight; n != 0 {
		t.Errorf("in flight: got %d, want 0", n)
	}
}

func TestInFlightUntilTheEndOfTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config("http://host/v1")
		c.HTTP = fake(func(*call) reply {
			return reply{header: sse, parts: []part{{0, "data: {}\n\n"}, {time.Second, "data: {}\n\n"}}, end: io.EOF}
		})
		cl := client(t, c)
		n := 0
		if e := do(t, cl, streamBody, func([]byte) error { n += cl.Candidates("m")[0].InFlight; return nil }); e != nil {
			t.Fatal(e)
		}
		if n != 2 || cl.Candidates("m")[0].InFlight != 0 {
			t.Errorf("in flight: got %d at two events, %d after; want 2, 0", n, cl.Candidates("m")[0].InFlight)
		}
	})
}
