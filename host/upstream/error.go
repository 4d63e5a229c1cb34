package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/casemate/casemate/host/object"
	"github.com/casemate/casemate/host/queue"
)

// ErrInvalid is what an OnData returns, wrapped or not, for data that it cannot
// read: the class of the call is then queue.UpstreamInvalid.
var ErrInvalid = errors.New("data cannot be read")

// MaxRetryAfter is the longest wait that an upstream may ask for.
const MaxRetryAfter = time.Hour

// Error is how a call failed. Its text never holds text of the upstream.
type Error struct {
	Class queue.Class
	// Status is the upstream's HTTP status, also the one that an error inside a
	// 200 stands for; 0: none. 401, 402 and 403 are about the host's own account:
	// not for the eyes of clients.
	Status int
	// Code is the upstream's error code when it is one of a closed list, such as
	// "context_length_exceeded" or "rate_limit_exceeded"; else "".
	Code       string
	RetryAfter time.Duration // capped at MaxRetryAfter; < 0: not said
	Begun      bool          // an event that says something of the answer was handed to OnData
	NoCall     bool          // the target was not called: it had no slot free, or asked to be left alone
	// Reason tells an operator what happened, in a few words of a closed list,
	// such as "no first event" or "body too long".
	Reason string
	cause  error // of the caller: what OnData or Slots returned, or its context's cause
}

// Error returns class, status, code and reason.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("upstream: ")
	b.WriteString(string(e.Class))
	if e.Status != 0 {
		b.WriteString(" " + strconv.Itoa(e.Status))
	}
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.Reason != "" {
		b.WriteString(": " + e.Reason)
	}
	return b.String()
}

// Unwrap returns what OnData or Slots returned, or the cause of the caller's
// context when that ended the call; else nil.
func (e *Error) Unwrap() error { return e.cause }

func fail(class queue.Class, reason string) *Error {
	return &Error{Class: class, RetryAfter: -1, Reason: reason}
}

// knownCodes are the error codes that are passed on, with the status that each
// stands for when an error comes inside a 200.
var knownCodes = map[string]int{
	"context_length_exceeded":      http.StatusBadRequest,
	"string_above_max_length":      http.StatusBadRequest,
	"invalid_request_error":        http.StatusBadRequest,
	"invalid_value":                http.StatusBadRequest,
	"invalid_type":                 http.StatusBadRequest,
	"missing_required_parameter":   http.StatusBadRequest,
	"unknown_parameter":            http.StatusBadRequest,
	"unsupported_parameter":        http.StatusBadRequest,
	"unsupported_value":            http.StatusBadRequest,
	"content_filter":               http.StatusBadRequest,
	"content_policy_violation":     http.StatusBadRequest,
	"invalid_prompt":               http.StatusBadRequest,
	"bio_policy":                   http.StatusBadRequest,
	"invalid_image":                http.StatusBadRequest,
	"invalid_image_format":         http.StatusBadRequest,
	"invalid_base64_image":         http.StatusBadRequest,
	"invalid_image_url":            http.StatusBadRequest,
	"image_too_large":              http.StatusBadRequest,
	"image_too_small":              http.StatusBadRequest,
	"image_parse_error":            http.StatusBadRequest,
	"failed_to_download_image":     http.StatusBadRequest,
	"unsupported_image_media_type": http.StatusBadRequest,
	"invalid_api_key":              http.StatusUnauthorized,
	"authentication_error":         http.StatusUnauthorized,
	"billing_hard_limit_reached":   http.StatusPaymentRequired,
	"permission_error":             http.StatusForbidden,
	"permission_denied":            http.StatusForbidden,
	"not_found_error":              http.StatusNotFound,
	"model_not_found":              http.StatusNotFound,
	"request_too_large":            http.StatusRequestEntityTooLarge,
	"insufficient_quota":           http.StatusTooManyRequests,
	"rate_limit":                   http.StatusTooManyRequests,
	"rate_limit_error":             http.StatusTooManyRequests,
	"rate_limit_exceeded":          http.StatusTooManyRequests,
	"server_error":                 http.StatusInternalServerError,
	"internal_error":               http.StatusInternalServerError,
	"internal_server_error":        http.StatusInternalServerError,
	"api_error":                    http.StatusInternalServerError,
	"service_unavailable":          http.StatusServiceUnavailable,
	"slow_down":                    http.StatusServiceUnavailable,
	"overloaded_error":             http.StatusServiceUnavailable,
	"engine_overloaded":            http.StatusServiceUnavailable,
	"timeout":                      http.StatusGatewayTimeout,
	"timeout_error":                http.StatusGatewayTimeout,
}

// An envelope is what is read of an upstream's error object. Never its message.
type envelope struct {
	Code   json.RawMessage `json:"code"`
	Type   json.RawMessage `json:"type"`
	Status json.RawMessage `json:"status"`
}

// known returns the code to pass on and the status it stands for: of "code",
// else of "type"; "" and 0 if neither is known.
func (e envelope) known() (code string, status int) {
	for _, raw := range []json.RawMessage{e.Code, e.Type} {
		var name string
		if json.Unmarshal(raw, &name) != nil {
			continue
		}
		if status, ok := knownCodes[name]; ok {
			return name, status
		}
	}
	return "", 0
}

// number returns the HTTP error status written as "code" or "status", as a
// number or as digits; 0: none.
func (e envelope) number() int {
	for _, raw := range []json.RawMessage{e.Code, e.Status} {
		n, err := strconv.Atoi(strings.Trim(string(raw), `"`))
		if err == nil && n >= 400 && n <= 599 {
			return n
		}
	}
	return 0
}

// embedded returns the error that a valid JSON object of a 200 holds as its
// top-level "error", or nil. null, false, "" and {} are no error.
func embedded(data []byte) *Error {
	raw := object.Value(data, "error")
	switch string(raw) {
	case "", "null", "false", `""`:
		return nil
	}
	if raw[0] == '{' && len(bytes.TrimSpace(raw[1:len(raw)-1])) == 0 {
		return nil
	}
	return fromEnvelope(raw)
}

// fromEnvelope returns the error that raw, any JSON value, stands for.
func fromEnvelope(raw []byte) *Error {
	var env envelope
	_ = json.Unmarshal(raw, &env) // a text instead of an object says nothing more
	code, status := env.known()
	if n := env.number(); n != 0 {
		status = n
	}
	if status == 0 {
		status = http.StatusInternalServerError
	}
	e := fail(classOf(status), "error in the answer")
	e.Status, e.Code = status, code
	return e
}

// classOf returns the class of an HTTP error status.
func classOf(status int) queue.Class {
	if status == http.StatusTooManyRequests {
		return queue.RateLimited
	}
	return queue.UpstreamStatus
}

// retryAfter reads Retry-After-Ms and Retry-After, seconds or a date; -1: not
// said, or nonsense. It never returns more than MaxRetryAfter. A date is meant by
// the clock that the answer itself is dated by, which may be off from this host's.
func retryAfter(h http.Header, now time.Time) time.Duration {
	if d, ok := span(h.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	v := h.Get("Retry-After")
	if d, ok := span(v, time.Second); ok {
		return d
	}
	if at, err := http.ParseTime(v); err == nil {
		if dated, err := http.ParseTime(h.Get("Date")); err == nil {
			now = dated
		}
		return min(max(at.Sub(now), 0), MaxRetryAfter)
	}
	return -1
}

func span(v string, unit time.Duration) (time.Duration, bool) {
	n, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	if err != nil || math.IsNaN(n) || n < 0 {
		return 0, false
	}
	return time.Duration(min(n*float64(unit), float64(MaxRetryAfter))), true
}
