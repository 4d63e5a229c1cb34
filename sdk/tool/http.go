package tool

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// Header is the fields of an HTTP header, name and value, in order.
type Header [][2]string

// Get returns the first value of a field; the case of its name does not
// matter. "" when there is none.
func (h Header) Get(name string) string {
	for _, f := range h {
		if strings.EqualFold(f[0], name) {
			return f[1]
		}
	}
	return ""
}

// Request is an HTTP request. A header value may name a secret of the
// operator's, {{secret:NAME}}: the host puts its value there if it is bound to
// that host and header, over https only. Fields that are the host's to write,
// like Host and Connection, are refused.
type Request struct {
	Method string // "": GET
	URL    string // absolute, http or https
	Header Header
	Body   []byte
	// Timeout bounds the exchange with its body, in whole milliseconds; 0: as
	// long as the host allows.
	Timeout time.Duration
	// MaxBytes bounds the body of the response: a longer one is an error. 0 is
	// abi.DefaultHTTPBody, or with Stream as much as the host allows.
	MaxBytes int64
	// Stream asks for the body in parts: Response.Stream, not Response.Body.
	Stream bool
}

// Response is what a server answered, an error of its own too.
type Response struct {
	Status int
	Header Header
	Body   []byte // whole, unless Request.Stream was set
	// Stream is the body in parts, at most abi.MaxStreams at a time: close it.
	// It fails with an abi.Errno: E2BIG past MaxBytes, EIO where it broke.
	Stream io.ReadCloser
}

// HTTP sends a request, as the operator's rules allow it, and follows up to
// five redirects. The plugin must Want abi.OpHTTPFetch, and the operator must
// grant it. Errors are *Error with the host's word as Reason: Denied for what
// no rule allows, InvalidArgs for a URL that cannot be sent, Transient where
// the server was not reached or was slow, Permanent for what is too large. A
// server that answers with an error is no error.
func (c Context) HTTP(r Request) (Response, error) {
	texts := []string{r.Method, r.URL}
	for _, f := range r.Header {
		texts = append(texts, f[0], f[1])
	}
	for _, text := range texts {
		if !utf8.ValidString(text) { // JSON would send another text
			return Response{}, InvalidArgs("%s %q: not UTF-8", abi.OpHTTPFetch, r.URL)
		}
	}
	head := abi.HTTPHead{
		Method: r.Method, URL: r.URL, Headers: r.Header,
		TimeoutMS: millis(r.Timeout), MaxBytes: r.MaxBytes, Stream: r.Stream,
	}
	var reply abi.HTTPReply
	body, err := ask(c.host, abi.OpHTTPFetch, r.URL, head, &reply, r.Body)
	switch {
	case err != nil:
		return Response{}, err
	case reply.Status != abi.StatusOK:
		return Response{}, refused(abi.OpHTTPFetch, r.URL, reply.ReplyHead, httpCode(reply.ReplyHead))
	}
	out := Response{Status: reply.HTTPStatus, Header: reply.Headers}
	if r.Stream {
		out.Stream = &stream{host: c.host, handle: reply.Stream}
		return out, nil
	}
	out.Body = body
	return out, nil
}

func httpCode(h abi.ReplyHead) abi.FailCode {
	switch {
	case h.Error == abi.HTTPInvalidURL:
		return abi.FailInvalidArgs
	case h.Error == abi.HTTPTooManyRedirects, h.Error == abi.HTTPResponseTooLarge, h.Status == abi.StatusTooLarge:
		return abi.FailPermanent
	case h.Status == abi.StatusDenied:
		return abi.FailDenied
	case h.Status == abi.StatusBadGateway, h.Status == abi.StatusTimeout:
		return abi.FailTransient
	}
	return abi.FailInternal
}

// stream reads a body in parts.
type stream struct {
	host   guest.Host
	handle uint32
	closed bool
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	switch {
	case s.closed:
		return 0, fmt.Errorf("read a closed body: %w", abi.EBADF)
	case len(p) == 0:
		return 0, nil
	}
	n, err := s.host.StreamRead(s.handle, p)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Close implements io.Closer.
func (s *stream) Close() error {
	if !s.closed {
		s.closed = true
		s.host.StreamClose(s.handle)
	}
	return nil
}
