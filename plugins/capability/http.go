package capability

import (
	"context"
	"io"
	"time"
)

// HTTP sends requests for plugins and decides which may go where.
type HTTP interface {
	// Do sends r, follows redirects, and returns once the head of a final
	// response is there. The caller closes its body. ctx governs the body too.
	// Errors are ctx's or an *HTTPError. Do keeps nothing of r once it
	// returned.
	Do(ctx context.Context, r *HTTPRequest) (*HTTPResponse, error)
}

// HTTPRequest is what a plugin asks for, not checked yet.
type HTTPRequest struct {
	Method string // "": GET
	URL    string
	// Header values may hold {{secret:NAME}}.
	Header []HTTPHeader
	Body   []byte
	// Timeout bounds the exchange with its body; 0: as long as HTTP allows.
	Timeout time.Duration
	// MaxBytes bounds the body of the response; 0: as much as HTTP allows.
	MaxBytes int64
}

// HTTPHeader is one header field.
type HTTPHeader struct{ Name, Value string }

// HTTPResponse is a final response. Header names are in lower case.
type HTTPResponse struct {
	Status int
	Header []HTTPHeader
	// Body fails with ctx's error or an *HTTPError, also where it is longer
	// than the request's MaxBytes.
	Body io.ReadCloser
}

// HTTPError is why a request was not sent or a response not received. It
// holds closed words only: no address, no name, no text of a server.
type HTTPError struct {
	Code string // abi.HTTP…, told to the guest
	// Audit is why the host refused, one of the reasons of Env.Audit; "" when
	// it did not.
	Audit string
}

// Error returns the code.
func (e *HTTPError) Error() string { return "http: " + e.Code }
