package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// maxRequests is how many requests a session may make: a server can ask for
// some by what it sends.
const maxRequests = 192

// wire is the http.RoundTripper of one session. It adds the client's
// credentials, counts, and remembers how the last exchange went: the errors of
// the protocol's library are texts that hold addresses.
type wire struct {
	ctx    context.Context // the session's
	abort  func()          // ends it
	next   egress.Transport
	server *url.URL
	header http.Header // credentials
	told   chan struct{}

	mu       sync.Mutex
	asking   context.Context // the operation's; once it ended, only closing sends
	closing  bool
	requests int
	left     int64 // bytes of answers
	status   int   // of the last answer; 0: none yet
	session  bool  // the server has named one
	fault    error // of the last exchange
	once     sync.Once
}

// newWire returns the wire of a session with a server.
func newWire(session context.Context, abort func(), asking context.Context, c *egress.Client, server *url.URL, with response.Credentials, most int64) *wire {
	w := &wire{ctx: session, abort: abort, asking: asking, server: server, header: http.Header{}, told: make(chan struct{}), left: most}
	for name, value := range with.Headers {
		w.header.Set(name, value)
	}
	if a := with.Authorization; a != "" {
		if scheme, _, ok := strings.Cut(a, " "); !ok || !strings.EqualFold(scheme, "Bearer") {
			a = "Bearer " + a
		}
		w.header.Set("Authorization", a)
	}
	own := map[string]bool{}
	for name := range w.header {
		own[strings.ToLower(name)] = true
	}
	w.next = egress.Transport{Client: c, Own: func(field string) bool { return own[field] }}
	return w
}

// errTooMany: the session made as many requests as it may.
var errTooMany = errors.New("mcp: too many requests in one session")

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := w.begin(r); err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	cancels := w.cancels(r)
	ctx, cancel := context.WithCancel(r.Context())
	unlink := context.AfterFunc(w.ctx, cancel)
	end := func() { unlink(); cancel() }
	r = r.Clone(ctx)
	r.Header.Set(queue.HopHeader, "1")
	r.Header.Set("User-Agent", "casemate")
	if sameOrigin(r.URL, w.server) {
		maps.Copy(r.Header, w.header)
	}
	resp, err := w.next.RoundTrip(r)
	if cancels {
		w.once.Do(func() { close(w.told) })
	}
	w.note(r, resp, err)
	if err != nil {
		end()
		return nil, err
	}
	resp.Body = &answer{w: w, raw: resp.Body, end: end}
	return resp, nil
}

// begin counts a request. A session's DELETE is for when nobody waits any more.
func (w *wire) begin(r *http.Request) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.requests++
	switch {
	case w.requests > maxRequests:
		w.fault = errTooMany
		w.abort()
		return errTooMany
	case r.Method == http.MethodDelete && !w.closing && w.asking.Err() != nil:
		return context.Canceled
	}
	return nil
}

// note remembers how an exchange went that somebody waits for.
func (w *wire) note(r *http.Request, resp *http.Response, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Method == http.MethodDelete || errors.Is(w.fault, errTooMany) {
		return
	}
	w.fault = err
	if resp != nil {
		w.status = resp.StatusCode
		w.session = w.session || resp.Header.Get("Mcp-Session-Id") != ""
	}
}

// failed remembers that an answer could not be read to its end.
func (w *wire) failed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !errors.Is(w.fault, errTooMany) {
		w.fault = err
	}
}

// last returns how the last exchange went.
func (w *wire) last() (status int, session bool, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status, w.session, w.fault
}

// close lets the session end itself on the wire.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closing = true
}

// cancels reports whether a request tells the server that nobody waits for its
// answer any more.
func (w *wire) cancels(r *http.Request) bool {
	if w.asking.Err() == nil || r.GetBody == nil {
		return false
	}
	b, err := r.GetBody()
	if err != nil {
		return false
	}
	defer b.Close()
	var m struct{ Method string }
	return json.NewDecoder(b).Decode(&m) == nil && m.Method == "notifications/cancelled"
}

// take takes n bytes of what the server may still send.
func (w *wire) take(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left -= int64(n)
	return w.left >= 0
}

func sameOrigin(a, b *url.URL) bool {
	return strings.EqualFold(a.Scheme, b.Scheme) && strings.EqualFold(a.Host, b.Host)
}

// answer is the body of an answer, within what the session may read.
type answer struct {
	w    *wire
	raw  io.ReadCloser
	end  func()
	once sync.Once
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.raw.Read(p)
	if !a.w.take(n) {
		n, err = 0, &capability.HTTPError{Code: abi.HTTPResponseTooLarge}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		a.w.failed(err)
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	err := a.raw.Close()
	a.once.Do(a.end)
	return err
}
