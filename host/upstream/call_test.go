package upstream_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/upstream"
)

// serve starts a demo server whose every answer is turn.
func serve(t testing.TB, turn demo.Turn) *demo.Server {
	t.Helper()
	srv, err := demo.Start(func(int, demo.Request) demo.Turn { return turn })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	return srv
}

func TestDo(t *testing.T) {
	for _, asked := range []bool{false, true} {
		for _, streamed := range []bool{false, true} {
			t.Run(fmt.Sprintf("asked %v streamed %v", asked, streamed), func(t *testing.T) {
				turn := demo.Turn{Raw: []byte(answer), ContentType: "application/json; charset=utf-8"}
				if streamed {
					turn = demo.Turn{Raw: []byte("data: {\"n\":1}\n\ndata: {\"n\":\"世\"}\n\ndata: [DONE]\n\n"), ChunkRunes: 1}
				}
				srv := serve(t, turn)
				body := `{"model":"m","messages":[{"role":"user","content":"é"}],"stream":` + fmt.Sprint(asked) + `}`
				var got []string
				rep, err := client(t, config(srv.URL())).Do(t.Context(), upstream.Call{
					Target: "up/real", Model: "m", Path: "/chat/completions", Body: []byte(body), IdempotencyKey: "key/1",
					OnData: func(d []byte) error { got = append(got, string(d)); return nil },
				})
				if err != nil {
					t.Fatal(err)
				}
				if rep.Streamed != streamed || rep.Done != streamed || rep.Status != 200 || rep.FirstEvent <= 0 || rep.Total < rep.FirstEvent {
					t.Errorf("got %+v", rep)
				}
				if streamed && fmt.Sprint(got) != `[{"n":1} {"n":"世"}]` || !streamed && string(rep.Body) != answer {
					t.Errorf("got events %q, body %q", got, rep.Body)
				}
				req := srv.Requests()[0]
				if want := strings.Replace(body, `"m"`, `"real"`, 1); string(req.Body) != want {
					t.Errorf("body: got %s, want %s", req.Body, want)
				}
				h := req.Header
				if h.Get("Authorization") != "Bearer sk-secret" || h.Get("Idempotency-Key") != "key/1" || h.Get(queue.HopHeader) == "" ||
					h.Get("Content-Type") != "application/json" || h.Get("Accept-Encoding") != "identity" {
					t.Errorf("header: got %v", h)
				}
			})
		}
	}
}

func TestDemoModelThroughDo(t *testing.T) {
	srv, err := demo.Start(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	cl := client(t, config(srv.URL()))
	var text strings.Builder
	if e := do(t, cl, `{"messages":[{"role":"user","content":"call a {}"}],"stream":true}`, func(d []byte) error {
		text.Write(d)
		return nil
	}); e != nil || !strings.Contains(text.String(), `"tool_calls"`) {
		t.Errorf("got %v, %s", e, &text)
	}
	rep, err := cl.Do(t.Context(), upstream.Call{Target: "up/real", Path: "/embeddings", Body: []byte(`{"input":"x"}`)})
	if err != nil || !bytes.Contains(rep.Body, []byte(`"embedding"`)) {
		t.Errorf("embeddings: got %s, %v", rep.Body, err)
	}
}

// B14: a 202 is no answer. B24: nor is an error inside a 200. B25: an empty
// stream failed before its first event, so that it may be tried again. B18: no
// error holds words of the upstream.
func TestFailures(t *testing.T) {
	const ev = "data: {\"choices\":[]}\n\n"
	long := strings.Repeat("x", 5000)
	tests := []struct {
		name   string
		turn   demo.Turn
		class  queue.Class
		status int
		code   string
		wait   time.Duration // -1: not said
		begun  bool
	}{
		{"400 with a known code", demo.Turn{Status: 400, ErrorBody: `{"error":{"message":"secret","code":"context_length_exceeded"}}`}, queue.UpstreamStatus, 400, "context_length_exceeded", -1, false},
		{"400 with words", demo.Turn{Status: 400, ErrorBody: `{"error":{"message":"secret","code":"secret"}}`}, queue.UpstreamStatus, 400, "", -1, false},
		{"401", demo.Turn{Status: 401, ErrorBody: `{"error":{"code":"invalid_api_key"}}`}, queue.UpstreamStatus, 401, "invalid_api_key", -1, false},
		{"402 without envelope", demo.Turn{Status: 402, ErrorBody: `{"code":"insufficient_quota"}`}, queue.UpstreamStatus, 402, "insufficient_quota", -1, false},
		{"429", demo.Turn{Status: 429, RetryAfter: "3", ErrorBody: `secret`}, queue.RateLimited, 429, "", 3 * time.Second, false},
		{"503 with a fraction", demo.Turn{Status: 503, RetryAfter: "0.5"}, queue.UpstreamStatus, 503, "", 500 * time.Millisecond, false},
		{"very long wait", demo.Turn{Status: 503, RetryAfter: "1e300"}, queue.UpstreamStatus, 503, "", upstream.MaxRetryAfter, false},
		{"wait until a past date", demo.Turn{Status: 503, RetryAfter: "Mon, 02 Jan 2006 15:04:05 GMT"}, queue.UpstreamStatus, 503, "", 0, false},
		{"nonsense waits", demo.Turn{Status: 503, RetryAfter: "soon"}, queue.UpstreamStatus, 503, "", -1, false},
		{"error stream with a status", demo.Turn{Status: 500, Raw: []byte(ev)}, queue.UpstreamStatus, 500, "", -1, false},
		{"huge error", demo.Turn{Status: 500, ErrorBody: `{"error":{"code":"` + strings.Repeat("x", 200_000) + `"}}`}, queue.UpstreamStatus, 500, "", -1, false},
		{"202 stub", demo.Turn{Status: 202, Raw: []byte(answer), ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"204", demo.Turn{Status: 204, Raw: []byte{}}, queue.UpstreamInvalid, 0, "", -1, false},
		{"error in a 200", demo.Turn{ErrorBody: `{"error":{"message":"secret","type":"rate_limit_error"}}`, RetryAfter: "2"}, queue.RateLimited, 429, "rate_limit_error", 2 * time.Second, false},
		{"error as the first event", demo.Turn{Raw: []byte("data: {\"error\":{\"code\":503}}\n\n")}, queue.UpstreamStatus, 503, "", -1, false},
		{"error as a later event", demo.Turn{Raw: []byte(ev + "data: {\"error\":{\"message\":\"secret\"}}\n\n")}, queue.UpstreamStatus, 500, "", -1, true},
		{"event called error", demo.Turn{Raw: []byte("event: error\ndata: {\"type\":\"overloaded_error\",\"message\":\"secret\"}\n\n")}, queue.UpstreamStatus, 503, "overloaded_error", -1, false},
		{"empty body", demo.Turn{Raw: []byte{}, ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"empty stream", demo.Turn{Raw: []byte{}}, queue.UpstreamInvalid, 0, "", -1, false},
		{"stream of nothing", demo.Turn{Raw: []byte(": hi\n\ndata:\n\ndata: [DONE]\n\n")}, queue.UpstreamInvalid, 0, "", -1, false},
		{"a page", demo.Turn{Raw: []byte("<html>secret</html>"), ContentType: "text/html"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"a list", demo.Turn{Raw: []byte("[]"), ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"half an answer", demo.Turn{Raw: []byte(answer[:20]), ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"stream with the type of an answer", demo.Turn{Raw: []byte(ev), ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
		{"broken event", demo.Turn{Raw: []byte(ev + "data: {\"secret\n\n")}, queue.UpstreamInvalid, 0, "", -1, true},
		{"event cut by a clean end", demo.Turn{Raw: []byte(ev + "data: {\"secret")}, queue.UpstreamInvalid, 0, "", -1, true},
		{"no object", demo.Turn{Raw: []byte("data: 7\n\n")}, queue.UpstreamInvalid, 0, "", -1, false},
		{"cut before the head", demo.Turn{CutAfter: -1}, queue.UpstreamNetwork, 0, "", -1, false},
		{"cut stream", demo.Turn{Raw: []byte(ev + ev), ChunkRunes: len(ev), CutAfter: 1}, queue.UpstreamNetwork, 0, "", -1, true},
		{"cut body", demo.Turn{ErrorBody: answer, CutAfter: 1}, queue.UpstreamNetwork, 0, "", -1, false},
		{"event over the cap", demo.Turn{Raw: []byte(ev + "data: {\"a\":\"" + long + "\"}\n\n")}, queue.UpstreamInvalid, 0, "", -1, true},
		{"stream over the cap", demo.Turn{Raw: []byte(strings.Repeat(ev, 1000))}, queue.UpstreamInvalid, 0, "", -1, true},
		{"body over the cap", demo.Turn{Raw: []byte(`{"a":"` + long + long + `"}`), ContentType: "application/json"}, queue.UpstreamInvalid, 0, "", -1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(serve(t, tt.turn).URL())
			c.MaxEventBytes, c.MaxReplyBytes = 4000, 9000
			begun := false
			e := do(t, client(t, c), streamBody, func([]byte) error { begun = true; return nil })
			if e == nil {
				t.Fatal("got no error")
			}
			if e.Class != tt.class || e.Status != tt.status || e.Code != tt.code || e.Begun != tt.begun || begun != tt.begun {
				t.Errorf("got %s %d %q begun %v (%v); want %s %d %q begun %v", e.Class, e.Status, e.Code, e.Begun, e, tt.class, tt.status, tt.code, tt.begun)
			}
			if e.RetryAfter != tt.wait && (tt.wait >= 0 || e.RetryAfter >= 0) {
				t.Errorf("wait: got %v, want %v", e.RetryAfter, tt.wait)
			}
			if strings.Contains(e.Error(), "secret") {
				t.Errorf("the error holds the upstream's words: %v", e)
			}
		})
	}
}

func TestGoodAnswersOfAllKinds(t *testing.T) {
	const ev = "data: {\"choices\":[]}\n\n"
	tests := []struct {
		name   string
		turn   demo.Turn
		events int
		done   bool
	}{
		{"CRLF", demo.Turn{Raw: []byte("data: {\"a\":\r\ndata: 1}\r\n\r\ndata: [DONE]\r\n\r\n"), ChunkRunes: 1}, 1, true},
		{"demo with CRLF", demo.Turn{Text: "hello", CRLF: true}, 3, true},
		{"comments and empty data", demo.Turn{Raw: []byte(": x\n\ndata:\n\n" + ev)}, 1, false},
		{"no DONE", demo.Turn{Raw: []byte(ev + ev)}, 2, false},
		{"no last line end", demo.Turn{Raw: []byte(ev + "data: {}\n\ndata: [DONE]")}, 2, true},
		{"nothing counts after DONE", demo.Turn{Raw: []byte(ev + "data: [DONE]\n\n" + ev)}, 1, true},
		{"error that is none", demo.Turn{Raw: []byte("data: {\"error\":null}\n\n")}, 1, false},
		{"at the caps", demo.Turn{Raw: []byte("data: {\"a\":\"" + strings.Repeat("x", 100-15) + "\"}\n\n")}, 1, false},
		{"no type at all", demo.Turn{Raw: []byte(answer), ContentType: "nonsense"}, 0, false},
		{"201", demo.Turn{Status: 201, Raw: []byte(answer), ContentType: "application/json"}, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := config(serve(t, tt.turn).URL())
			n := 0
			rep, err := client(t, c).Do(t.Context(), upstream.Call{
				Target: "up/real", Path: "/chat/completions", Body: []byte(streamBody), OnData: func([]byte) error { n++; return nil },
			})
			if err != nil || n != tt.events || rep.Done != tt.done || rep.Streamed != (tt.events > 0) {
				t.Errorf("got %d events, %+v, %v; want %d, done %v", n, rep, err, tt.events, tt.done)
			}
		})
	}
}

func TestRefusedBeforeTheCall(t *testing.T) {
	srv := serve(t, demo.Turn{Text: "x"})
	cl := client(t, config(srv.URL()))
	for name, call := range map[string]upstream.Call{
		"unknown target":        {Target: "up/other", Path: "/x", Body: []byte(`{}`)},
		"target of no alias":    {Target: "up/real", Model: "other", Path: "/x", Body: []byte(`{}`)},
		"no object":             {Target: "up/real", Path: "/x", Body: []byte(`[1]`)},
		"nothing":               {Target: "up/real", Path: "/x"},
		"path":                  {Target: "up/real", Path: "@elsewhere/x", Body: []byte(`{}`)},
		"key with a line break": {Target: "up/real", Path: "/x", Body: []byte(`{}`), IdempotencyKey: "a\nb"},
	} {
		if _, err := cl.Do(t.Context(), call); err == nil || typed(t, err).Class != queue.HostError {
			t.Errorf("%s: got %v, want %s", name, err, queue.HostError)
		}
	}
	if n := len(srv.Requests()); n != 0 {
		t.Errorf("requests: got %d, want 0", n)
	}
	if a := cl.Candidates("m")[0]; a.InFlight != 0 || a.ErrorRate != 0 {
		t.Errorf("got %+v, want the target untouched", a)
	}
}

func TestStreamWithoutOnData(t *testing.T) {
	cl := client(t, config(serve(t, demo.Turn{Raw: []byte("data: {}\n\n")}).URL()))
	if e := do(t, cl, plainBody, nil); e == nil || e.Class != queue.UpstreamInvalid {
		t.Errorf("got %v, want %s", e, queue.UpstreamInvalid)
	}
}

func TestRedirectIsRefused(t *testing.T) {
	var hits atomic.Int64
	c := config("http://host/v1")
	c.HTTP = fake(func(*call) reply {
		hits.Add(1)
		return reply{status: 307, header: map[string]string{"Location": "http://elsewhere/v1"}}
	})
	e := do(t, client(t, c), plainBody, nil)
	if e == nil || e.Class != queue.UpstreamStatus || e.Status != 307 || hits.Load() != 1 {
		t.Errorf("got %v after %d calls, want a 307 after 1", e, hits.Load())
	}
	if c.HTTP.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

func TestCompression(t *testing.T) {
	pack := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := io.WriteString(z, s); err != nil || z.Close() != nil {
			t.Fatal("gzip")
		}
		return b.String()
	}
	packed := pack(answer)
	for _, tt := range []struct {
		name, encoding, body string
		class                queue.Class // "": good
	}{
		{"gzip", "gzip", packed, ""},
		{"identity", "identity", answer, ""},
		{"a bomb", "gzip", pack(`{"a":"` + strings.Repeat("x", 1<<20) + `"}`), queue.UpstreamInvalid},
		{"no gzip", "gzip", answer, queue.UpstreamInvalid},
		{"broken", "gzip", packed[:20] + "xxxx" + packed[24:], queue.UpstreamInvalid},
		{"cut", "gzip", packed[:len(packed)-4], queue.UpstreamNetwork},
		{"another", "br", answer, queue.UpstreamInvalid},
	} {
		c := config("http://host/v1")
		c.MaxReplyBytes = 1 << 16
		c.HTTP = fake(func(*call) reply {
			return reply{header: map[string]string{"Content-Encoding": tt.encoding}, body: tt.body}
		})
		e := do(t, client(t, c), plainBody, nil)
		if (e == nil) != (tt.class == "") || e != nil && e.Class != tt.class {
			t.Errorf("%s: got %v, want class %q", tt.name, e, tt.class)
		}
	}
}

func TestRetryAfterForms(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header map[string]string
		want   func(time.Duration) bool
	}{
		{"milliseconds win", map[string]string{"Retry-After-Ms": "1500", "Retry-After": "9"}, func(d time.Duration) bool { return d == 1500*time.Millisecond }},
		{"negative", map[string]string{"Retry-After": "-4"}, func(d time.Duration) bool { return d < 0 }},
		{"not a number", map[string]string{"Retry-After": "NaN"}, func(d time.Duration) bool { return d < 0 }},
		{
			"a date",
			map[string]string{"Retry-After": time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat)},
			func(d time.Duration) bool { return d > 15*time.Second && d <= 20*time.Second },
		},
		{
			"a date by a clock that is slow",
			map[string]string{"Date": "Mon, 02 Mar 2026 10:00:00 GMT", "Retry-After": "Mon, 02 Mar 2026 10:00:20 GMT"},
			func(d time.Duration) bool { return d == 20*time.Second },
		},
		{
			"a date by a clock that is fast",
			map[string]string{"Date": "Mon, 02 Mar 2099 10:00:00 GMT", "Retry-After": "Mon, 02 Mar 2099 10:00:20 GMT"},
			func(d time.Duration) bool { return d == 20*time.Second },
		},
		{
			"a date that is over",
			map[string]string{"Date": "Mon, 02 Mar 2026 10:00:00 GMT", "Retry-After": "Mon, 02 Mar 2026 09:00:00 GMT"},
			func(d time.Duration) bool { return d == 0 },
		},
		{"a year", map[string]string{"Retry-After": "31536000"}, func(d time.Duration) bool { return d == upstream.MaxRetryAfter }},
	} {
		c := config("http://host/v1")
		c.HTTP = fake(func(*call) reply { return reply{status: 429, header: tt.header} })
		if e := do(t, client(t, c), plainBody, nil); e == nil || !tt.want(e.RetryAfter) {
			t.Errorf("%s: got %v", tt.name, e.RetryAfter)
		}
	}
}

// A connection that breaks after the request was sent must not make net/http
// send it again: the call may have been served.
func TestNoHiddenRetry(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // the test is over
	var hits atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }() // the client sees it
				r := bufio.NewReader(conn)
				for i := 0; ; i++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body) // a broken request shows as a missing hit
					if hits.Add(1); i > 0 {
						return // the second request of a connection gets no answer
					}
					_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
				}
			}()
		}
	}()
	cl := client(t, config("http://"+l.Addr().String()))
	call := upstream.Call{Target: "up/real", Path: "/x", Body: []byte(plainBody), IdempotencyKey: "k"}
	if _, err := cl.Do(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Do(t.Context(), call); err == nil || typed(t, err).Class != queue.UpstreamNetwork {
		t.Errorf("got %v, want %s", err, queue.UpstreamNetwork)
	}
	if hits.Load() != 2 {
		t.Errorf("requests on the wire: got %d, want 2", hits.Load())
	}
}

func TestConnectionIsUsedAgain(t *testing.T) {
	srv := serve(t, demo.Turn{Text: "some text"})
	dials := 0
	c := config(srv.URL())
	c.HTTP = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}}
	cl := client(t, c)
	for range 5 {
		if e := do(t, cl, streamBody, func([]byte) error { return nil }); e != nil {
			t.Fatal(e)
		}
	}
	if dials != 1 {
		t.Errorf("connections: got %d, want 1", dials)
	}
}

// BenchmarkStream is what one streamed event costs between the socket's bytes
// and OnData.
func BenchmarkStream(b *testing.B) {
	const events = 1000
	const ev = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",` +
		`"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}` + "\n\n"
	c := config("http://host/v1")
	body := strings.Repeat(ev, events) + "data: [DONE]\n\n"
	c.HTTP = &http.Client{Transport: canned(body)}
	cl := client(b, c)
	n := 0
	call := upstream.Call{Target: "up/real", Path: "/x", Body: []byte(streamBody), OnData: func([]byte) error { n++; return nil }}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cl.Do(b.Context(), call); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
}

// canned answers every request with the same event stream.
type canned string

func (s canned) RoundTrip(req *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}},
		Body: io.NopCloser(strings.NewReader(string(s))), Request: req, ContentLength: -1,
	}, nil
}
