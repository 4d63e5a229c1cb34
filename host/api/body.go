package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// body reads the whole body of a POST and checks that it is one JSON value.
func (x *exchange) body(limit int64) ([]byte, error) {
	b, err := x.read(limit)
	if err != nil {
		return nil, err
	}
	return b, checkJSON(b)
}

// mostAhead is the most memory that a body gets because it says that it needs
// it: what comes decides about more.
const mostAhead = 256 << 10

// read reads the whole body, up to limit bytes.
func (x *exchange) read(limit int64) ([]byte, error) {
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, &Error{
			Status: http.StatusUnsupportedMediaType, Code: "unsupported_encoding",
			Message: "Send the body without a Content-Encoding.",
		}
	}
	if x.r.ContentLength > limit {
		x.w.Header().Set("Connection", "close")
		return nil, fmt.Errorf("api: body: %w", &http.MaxBytesError{Limit: limit})
	}
	// The limit must be gone before the server waits on this connection for
	// the client to leave.
	_ = x.rc.SetReadDeadline(time.Now().Add(x.a.ReadTimeout))
	var b bytes.Buffer
	b.Grow(int(min(max(x.r.ContentLength, 0), mostAhead)) + bytes.MinRead)
	_, err := b.ReadFrom(http.MaxBytesReader(x.w, x.r.Body, limit))
	_ = x.rc.SetReadDeadline(time.Time{})
	var size *http.MaxBytesError
	switch {
	case errors.As(err, &size):
		return nil, fmt.Errorf("api: body: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("api: body: %w", errTooSlow)
	case x.r.Context().Err() != nil, errors.Is(err, context.Canceled), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("api: body: %w: %w", x.left(), err)
	case err != nil: // chunks that are none
		x.w.Header().Set("Connection", "close")
		return nil, &Error{Status: http.StatusBadRequest, Code: "invalid_body", Message: "The body could not be read.", cause: err}
	}
	return b.Bytes(), nil
}

// checkJSON says where b is not one JSON value, without showing it.
func checkJSON(b []byte) error {
	bad := func(format string, args ...any) error {
		return &response.BadRequest{Code: "invalid_json", Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(b) == 0:
		return bad("The body is empty: a JSON object is needed.")
	case !utf8.Valid(b):
		return bad("The body is not valid UTF-8.")
	}
	if json.Valid(b) {
		return nil
	}
	var raw json.RawMessage
	err := json.Unmarshal(b, &raw)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax) && strings.Contains(syntax.Error(), "max depth"):
		return bad("The body is nested too deeply: see byte %d.", syntax.Offset)
	case errors.As(err, &syntax) && syntax.Offset >= int64(len(b)):
		return bad("The body is not valid JSON: it ends too early, after %d bytes.", len(b))
	case errors.As(err, &syntax):
		return bad("The body is not valid JSON: see byte %d.", syntax.Offset)
	}
	return bad("The body is not valid JSON.")
}

// responsePrefix begins the public id of a response.
const responsePrefix = "resp_"

// responseID reads the public id of a response.
func responseID(s string) (queue.ID, error) {
	hex, ok := strings.CutPrefix(s, responsePrefix)
	if !ok {
		return queue.ID{}, queue.ErrNotFound
	}
	id, err := queue.ParseID(hex)
	if err != nil {
		return queue.ID{}, queue.ErrNotFound // a malformed id is nobody's
	}
	return id, nil
}
