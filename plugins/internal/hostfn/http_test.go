package hostfn_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// web is a capability.HTTP that answers everything alike.
type web struct {
	body string
	raw  *text // in place of body
	err  error
	got  []capability.HTTPRequest
	open []*text
}

// text is the body of a response.
type text struct {
	io.Reader
	err    error // in place of the end
	closed bool
}

// Read implements io.Reader.
func (b *text) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) && b.err != nil {
		err = b.err
	}
	return n, err
}

// Close implements io.Closer.
func (b *text) Close() error { b.closed = true; return nil }

// Do implements capability.HTTP.
func (w *web) Do(_ context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	w.got = append(w.got, *r)
	if w.err != nil {
		return nil, w.err
	}
	body := w.raw
	if body == nil {
		body = &text{Reader: strings.NewReader(w.body)}
	}
	w.open = append(w.open, body)
	return &capability.HTTPResponse{Status: 404, Header: []capability.HTTPHeader{{Name: "x", Value: "1"}, {Name: "x", Value: "2"}}, Body: body}, nil
}

func TestFetch(t *testing.T) {
	w := &web{body: "nothing here"}
	s := newSession(t, capability.Env{HTTP: w})
	head, body := ask(t, s, abi.OpHTTPFetch, `{"method":"POST","url":"https://a.test/x","headers":[["A","b"],["A","c"]],"timeout_ms":1500}`, "q\x00")
	if want := `{"status":200,"http_status":404,"headers":[["x","1"],["x","2"]]}`; head != want || body != "nothing here" {
		t.Errorf("got %s, %q; want %s", head, body, want)
	}
	want := capability.HTTPRequest{
		Method: "POST", URL: "https://a.test/x", Header: []capability.HTTPHeader{{Name: "A", Value: "b"}, {Name: "A", Value: "c"}},
		Body: []byte("q\x00"), Timeout: 1500 * time.Millisecond, MaxBytes: 1 << 20,
	}
	if got := w.got[0]; fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	if !w.open[0].closed {
		t.Error("the body is still open")
	}
	for head, most := range map[string]int64{
		`{"url":"u","max_bytes":5}`:                        5,
		`{"url":"u","max_bytes":99999999}`:                 8 << 20,
		`{"url":"u","stream":true}`:                        0,
		`{"url":"u","stream":true,"max_bytes":1000000000}`: 1e9,
		`{"url":"u","timeout_ms":9007199254740991}`:        1 << 20,
	} {
		ask(t, s, abi.OpHTTPFetch, head, "")
		got := w.got[len(w.got)-1]
		if got.MaxBytes != most || got.Timeout < 0 {
			t.Errorf("%s: asked %+v, want at most %d bytes", head, got, most)
		}
	}
	for _, head := range []string{``, `[]`, `{"url":1}`, `{"url":"u","timeout_ms":-1}`, `{"url":"u","max_bytes":-1}`, `{"url":"u","headers":{"a":"b"}}`} {
		wantHead(t, s, abi.OpHTTPFetch, head, "", `{"status":400,"error":"invalid_request"}`)
	}
}

func TestFetchFails(t *testing.T) {
	var audited []string
	audit := func(op, reason string) { audited = append(audited, op+" "+reason) }
	for code, status := range map[string]int{
		abi.HTTPInvalidURL: 400, abi.HTTPInvalidMethod: 400, abi.HTTPInvalidHeader: 400, abi.HTTPRequestTooLarge: 413,
		abi.HTTPDenied: 403, abi.HTTPSecretDenied: 403, abi.HTTPNetwork: 502, abi.HTTPTooManyRedirects: 502,
		abi.HTTPResponseTooLarge: 502, abi.HTTPTimeout: 504,
	} {
		s := newSession(t, capability.Env{HTTP: &web{err: fmt.Errorf("at 10.0.0.7: %w", &capability.HTTPError{Code: code})}, Audit: audit})
		wantHead(t, s, abi.OpHTTPFetch, `{"url":"u"}`, "", fmt.Sprintf(`{"status":%d,"error":%q}`, status, code))
		body := &text{Reader: strings.NewReader("half"), err: &capability.HTTPError{Code: code}}
		s = newSession(t, capability.Env{HTTP: &web{raw: body}, Audit: audit})
		wantHead(t, s, abi.OpHTTPFetch, `{"url":"u"}`, "", fmt.Sprintf(`{"status":%d,"error":%q}`, status, code))
		if !body.closed {
			t.Errorf("%s: the body is still open", code)
		}
	}
	if audited != nil {
		t.Errorf("audited %q without a reason", audited)
	}
	s := newSession(t, capability.Env{HTTP: &web{err: &capability.HTTPError{Code: abi.HTTPDenied, Audit: capability.AuditRule}}, Audit: audit})
	ask(t, s, abi.OpHTTPFetch, `{"url":"u"}`, "")
	if want := []string{"http.fetch/1 egress_rule"}; !slices.Equal(audited, want) {
		t.Errorf("audited %q, want %q", audited, want)
	}
	s = newSession(t, capability.Env{HTTP: &web{err: &capability.HTTPError{Code: "10.0.0.7 said no"}}})
	if _, err := s.Call(t.Context(), abi.OpHTTPFetch, abi.EncodeFrame([]byte(`{"url":"u"}`), nil)); err == nil {
		t.Error("a word that is not closed was passed on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	s = newSession(t, capability.Env{HTTP: &web{err: &capability.HTTPError{Code: abi.HTTPDenied, Audit: capability.AuditRule}}})
	cancel()
	if _, err := s.Call(ctx, abi.OpHTTPFetch, abi.EncodeFrame([]byte(`{"url":"u"}`), nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("at the end of the call: got %v, want its end", err)
	}
}

func TestFetchEffects(t *testing.T) {
	effects, lost := 0, error(nil)
	w := &web{}
	s := newSession(t, capability.Env{HTTP: w, Effect: func(context.Context) error { effects++; return lost }})
	for _, tt := range []struct {
		method string
		want   int
	}{{"", 0}, {"GET", 0}, {"HEAD", 0}, {"POST", 1}, {"get", 2}, {"DELETE", 3}, {"GET", 3}, {"POST", 4}} {
		ask(t, s, abi.OpHTTPFetch, `{"url":"u","method":"`+tt.method+`"}`, "")
		if effects != tt.want {
			t.Errorf("after %q: %d effects, want %d", tt.method, effects, tt.want)
		}
	}
	sent := len(w.got)
	lost = errors.New("lease lost")
	_, err := s.Call(t.Context(), abi.OpHTTPFetch, abi.EncodeFrame([]byte(`{"url":"u","method":"PUT"}`), nil))
	if !errors.Is(err, lost) || len(w.got) != sent {
		t.Errorf("got %v after %d requests; want %v and nothing sent", err, len(w.got)-sent, lost)
	}
}

// read reads a stream in parts of size bytes.
func read(t *testing.T, s *hostfn.Session, handle uint32, size int) (string, abi.Errno) {
	t.Helper()
	var all []byte
	part := make([]byte, size)
	for {
		n, errno, err := s.StreamRead(t.Context(), handle, part)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return string(all), errno
		}
		all = append(all, part[:n]...)
	}
}

func TestStreams(t *testing.T) {
	w := &web{body: "in many parts"}
	s := newSession(t, capability.Env{HTTP: w})
	fetch := func() string {
		head, body := ask(t, s, abi.OpHTTPFetch, `{"url":"u","stream":true}`, "")
		if body != "" {
			t.Errorf("the reply holds %q", body)
		}
		return head
	}
	if got, want := fetch(), `{"status":200,"http_status":404,"headers":[["x","1"],["x","2"]],"stream":1}`; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if got, errno := read(t, s, 1, 5); got != "in many parts" || errno != 0 {
		t.Errorf("got %q, %v", got, errno)
	}
	if n, errno, err := s.StreamRead(t.Context(), 1, make([]byte, 1)); n != 0 || errno != 0 || err != nil || !w.open[0].closed {
		t.Errorf("past the end: got %d, %v, %v, closed %v", n, errno, err, w.open[0].closed)
	}
	s.Close(1)
	for _, handle := range []uint32{0, 1, 2, 99, 1 << 31} { // 2 is a reply
		if _, errno := read(t, s, handle, 1); errno != abi.EBADF {
			t.Errorf("handle %d: got %v, want EBADF", handle, errno)
		}
	}
	for range abi.MaxStreams {
		fetch()
	}
	if got := fetch(); got != abi.EDQUOT.Error() {
		t.Errorf("stream %d: got %s, want EDQUOT", abi.MaxStreams+1, got)
	}
	if sent := len(w.got); sent != 1+abi.MaxStreams {
		t.Errorf("%d requests were sent for %d streams", sent, 1+abi.MaxStreams)
	}
	s.Close(3)
	if got := fetch(); got == abi.EDQUOT.Error() {
		t.Error("a closed stream still counts")
	}
	s.End()
	for i, body := range w.open {
		if !body.closed {
			t.Errorf("stream %d is still open", i)
		}
	}
}

func TestStreamBreaks(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want abi.Errno
	}{
		"too large": {&capability.HTTPError{Code: abi.HTTPResponseTooLarge}, abi.E2BIG},
		"too slow":  {&capability.HTTPError{Code: abi.HTTPTimeout}, abi.EIO},
		"cut":       {io.ErrUnexpectedEOF, abi.EIO},
	} {
		s := newSession(t, capability.Env{HTTP: &web{raw: &text{Reader: strings.NewReader("half"), err: tt.err}}})
		ask(t, s, abi.OpHTTPFetch, `{"url":"u","stream":true}`, "")
		for range 2 { // it stays broken
			if got, errno := read(t, s, 1, 100); errno != tt.want {
				t.Errorf("%s: got %q, %v; want %v", name, got, errno, tt.want)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := newSession(t, capability.Env{HTTP: &web{raw: &text{Reader: strings.NewReader(""), err: context.Canceled}}})
	ask(t, s, abi.OpHTTPFetch, `{"url":"u","stream":true}`, "")
	cancel()
	if _, _, err := s.StreamRead(ctx, 1, make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the call", err)
	}
}

// TestStreamParts: one read carries little, so that the call's end is noticed
// between two.
func TestStreamParts(t *testing.T) {
	s := newSession(t, capability.Env{HTTP: &web{body: strings.Repeat("x", 1<<20)}})
	var spent uint64
	ask(t, s, abi.OpHTTPFetch, `{"url":"u","stream":true}`, "")
	s.Spend = func(fuel uint64) { spent += fuel }
	n, errno, err := s.StreamRead(t.Context(), 1, make([]byte, 1<<20))
	if n != 64<<10 || errno != 0 || err != nil || spent != uint64(n/16) {
		t.Errorf("got %d bytes for %d fuel, %v, %v", n, spent, errno, err)
	}
}
