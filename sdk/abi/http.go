package abi

// HTTPHead is the request head of OpHTTPFetch. The body of the request frame
// is the body of the HTTP request, as raw bytes.
type HTTPHead struct {
	Method  string      `json:"method,omitempty"`  // "": GET
	URL     string      `json:"url"`               // absolute, http or https
	Headers [][2]string `json:"headers,omitempty"` // name and value
	// TimeoutMS bounds the exchange, the body of the response included; 0: as
	// long as the host allows.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// MaxBytes bounds the body of the response; 0: DefaultHTTPBody for one in
	// the reply, as much as the host allows for a stream.
	MaxBytes int64 `json:"max_bytes,omitempty"`
	// Stream asks for the body by HTTPReply.Stream and not in the reply.
	Stream bool `json:"stream,omitempty"`
}

// HTTPReply is the reply head of OpHTTPFetch. Its Status is 200 when there is
// a response, whatever the server said: that is HTTPStatus. The body of the
// frame is the response's, unless Stream is set.
type HTTPReply struct {
	ReplyHead
	HTTPStatus int         `json:"http_status,omitempty"`
	Headers    [][2]string `json:"headers,omitempty"` // names in lower case
	Stream     uint32      `json:"stream,omitempty"`  // handle of ImportStreamRead; 0: none
}

// Words of ReplyHead.Error of OpHTTPFetch.
const (
	// With StatusBadRequest: the request was not sent.
	HTTPInvalidURL    = "invalid_url"
	HTTPInvalidMethod = "invalid_method"
	HTTPInvalidHeader = "invalid_header"
	// With StatusTooLarge: a request body, or a header, longer than allowed.
	HTTPRequestTooLarge = "request_too_large"
	// With StatusDenied: by no rule of the operator, or at an address that is
	// never allowed; by no binding of a secret.
	HTTPDenied       = "denied"
	HTTPSecretDenied = "secret_denied"
	// With StatusBadGateway.
	HTTPNetwork          = "network" // not resolved, not reached, not spoken with, or cut
	HTTPTooManyRedirects = "too_many_redirects"
	HTTPResponseTooLarge = "response_too_large" // than max_bytes, or than allowed
	// With StatusTimeout.
	HTTPTimeout = "timeout"
)

// Bounds of the response bodies that OpHTTPFetch puts into its reply, in
// bytes, and of the streams that one call may hold open.
const (
	DefaultHTTPBody = 1 << 20
	MaxHTTPBody     = 8 << 20
	MaxStreams      = 8
)
