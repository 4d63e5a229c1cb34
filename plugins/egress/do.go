package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// refuse returns the error of a request that the operator does not allow.
func refuse(reason string) error {
	return &capability.HTTPError{Code: abi.HTTPDenied, Audit: reason}
}

func fail(code string) error { return &capability.HTTPError{Code: code} }

// hop is one request of an exchange.
type hop struct {
	method string
	to     target
	fields []field
	body   []byte
}

// Do implements capability.HTTP.
func (c *Client) Do(ctx context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	h, err := c.first(r)
	if err != nil {
		return nil, err
	}
	within := c.options.MaxTime
	if r.Timeout > 0 {
		within = min(within, r.Timeout)
	}
	most := c.options.MaxResponse
	if r.MaxBytes > 0 {
		most = min(most, r.MaxBytes)
	}
	resp, err := c.start(ctx, h, within, most) //nolint:bodyclose // the caller closes it
	if err != nil {
		return nil, err
	}
	return &capability.HTTPResponse{
		Status: resp.StatusCode, Header: responseFields(resp.Header), Body: resp.Body,
	}, nil
}

// start sends h and returns the response that it leads to, whose body ends the
// exchange: within that time, and at most so many bytes.
func (c *Client) start(ctx context.Context, h hop, within time.Duration, most int64) (*http.Response, error) {
	if !c.conns.begin() {
		return nil, fail(abi.HTTPNetwork)
	}
	x := &exchange{c: c, outer: ctx}
	x.ctx, x.cancel = context.WithTimeout(ctx, within)
	resp, err := x.follow(h)
	if err != nil {
		x.end()
		return nil, err
	}
	resp.Body = &body{x: x, raw: resp.Body, left: most}
	return resp, nil
}

// first checks what a plugin asks for.
func (c *Client) first(r *capability.HTTPRequest) (hop, error) {
	h := hop{method: r.Method, body: bytes.Clone(r.Body)}
	if h.method == "" {
		h.method = http.MethodGet
	}
	if !validMethod(h.method) {
		return hop{}, fail(abi.HTTPInvalidMethod)
	}
	var ok bool
	if h.to, ok = parseTarget(r.URL); !ok {
		return hop{}, fail(abi.HTTPInvalidURL)
	}
	if int64(len(r.Body)) > c.options.MaxRequest {
		return hop{}, fail(abi.HTTPRequestTooLarge)
	}
	var err error
	h.fields, err = parseFields(r.Header)
	return h, err
}

// exchange is a request with its redirects and the body of its response.
type exchange struct {
	c      *Client
	outer  context.Context // the caller's
	ctx    context.Context // with the time of the exchange
	cancel context.CancelFunc
	once   sync.Once
}

// end frees what the exchange holds.
func (x *exchange) end() {
	x.once.Do(func() {
		x.cancel()
		x.c.conns.end()
	})
}

// follow sends h and what its redirects lead to, and returns the first
// response that is none. Each hop is checked like the first.
func (x *exchange) follow(h hop) (*http.Response, error) {
	reason := capability.AuditRule
	for redirects := 0; ; redirects++ {
		resp, err := x.send(h, reason)
		if err != nil {
			return nil, err
		}
		location := resp.Header.Get("Location")
		if !redirect(resp.StatusCode) || location == "" {
			return resp, nil
		}
		_ = resp.Body.Close() // a redirect's body is for people
		if redirects == maxRedirects {
			return nil, fail(abi.HTTPTooManyRedirects)
		}
		if h, err = h.next(resp.StatusCode, location); err != nil {
			return nil, err
		}
		reason = capability.AuditRedirect
	}
}

// send sends one request if a rule allows it.
func (x *exchange) send(h hop, reason string) (*http.Response, error) {
	allowed, private := x.c.find(h.method, h.to)
	if !allowed {
		return nil, refuse(reason)
	}
	if !private && h.to.url.Scheme != "https" && slices.ContainsFunc(h.fields, func(f field) bool { return f.own }) {
		return nil, &capability.HTTPError{Code: abi.HTTPSecretDenied, Audit: capability.AuditSecret}
	}
	header, err := x.c.header(h.fields, h.to)
	if err != nil {
		return nil, err
	}
	req := (&http.Request{
		Method: h.method, URL: h.to.url, Host: h.to.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Close: bindsConn(header),
	}).WithContext(x.ctx)
	if len(h.body) > 0 {
		req.Body = io.NopCloser(bytes.NewReader(h.body))
		req.ContentLength = int64(len(h.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(h.body)), nil }
	}
	via := x.c.public
	if private {
		via = x.c.private
	}
	resp, err := via.RoundTrip(req)
	if err != nil {
		return nil, x.failed(err)
	}
	if resp.StatusCode < http.StatusOK { // nobody asked to switch protocols
		_ = resp.Body.Close()
		return nil, fail(abi.HTTPNetwork)
	}
	return resp, nil
}

// failed returns what the caller is told of err: closed words, or the end of
// its own context.
func (x *exchange) failed(err error) error {
	switch {
	case x.outer.Err() != nil:
		return x.outer.Err()
	case errors.Is(err, errAddress):
		return refuse(capability.AuditAddress)
	case errors.Is(x.ctx.Err(), context.DeadlineExceeded):
		return fail(abi.HTTPTimeout)
	}
	return fail(abi.HTTPNetwork)
}

// redirect reports whether a status sends the client elsewhere by itself.
func redirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// next returns the request that a redirect asks for, with the method that RFC
// 9110 gives it. What another origin must not get is dropped, for good.
func (h hop) next(status int, location string) (hop, error) {
	to, err := url.Parse(location)
	if err != nil || len(location) > maxURL {
		return hop{}, fail(abi.HTTPNetwork)
	}
	base := *h.to.url
	t, ok := newTarget(base.ResolveReference(to))
	if !ok {
		return hop{}, refuse(capability.AuditRedirect)
	}
	n := hop{method: h.method, to: t, fields: h.fields, body: h.body}
	switch {
	case status == http.StatusSeeOther && h.method != http.MethodHead,
		h.method == http.MethodPost && (status == http.StatusMovedPermanently || status == http.StatusFound):
		n.method, n.body, n.fields = http.MethodGet, nil, withoutBody(n.fields)
	}
	if !t.sameOrigin(h.to) {
		n.fields = crossed(n.fields)
	}
	return n, nil
}

// body is the body of a response, within its time and length.
type body struct {
	x    *exchange
	raw  io.ReadCloser
	left int64 // bytes
	err  error // of Read, for good
}

// Read implements io.Reader. It needs one byte past the end to know that a
// body is too long, and gives it to nobody.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p))-1 > b.left {
		p = p[:b.left+1]
	}
	n, err := b.raw.Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), fail(abi.HTTPResponseTooLarge)
	} else if err != nil && (!errors.Is(err, io.EOF) || b.x.ctx.Err() != nil) {
		// A server that is told of the end may still close its body in order:
		// what came until then is no whole answer.
		err = b.x.failed(err)
	}
	b.left -= int64(n)
	b.err = err
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// Close implements io.Closer and ends the exchange, beneath a Read under way too.
func (b *body) Close() error {
	defer b.x.end()
	b.x.cancel() // first, so that no server can make Close wait
	return b.raw.Close()
}
