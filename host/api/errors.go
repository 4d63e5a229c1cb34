package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/stream"
)

// Error is an answer that is not a success, in OpenAI's shape.
type Error struct {
	Status     int
	Code       string // "": null
	Param      string // "": null
	Message    string
	RetryAfter time.Duration // 0: not said
	Final      bool          // clients that would retry such a status should not
	Allow      string        // of a 405
	cause      error
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("api: %d %s: %v", e.Status, e.Code, e.cause)
	}
	return fmt.Sprintf("api: %d %s", e.Status, e.Code)
}

// Unwrap returns what led to the answer, or nil.
func (e *Error) Unwrap() error { return e.cause }

// MarshalJSON returns {"error":{"message","type","param","code"}}.
func (e *Error) MarshalJSON() ([]byte, error) {
	type inner struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}
	in := inner{Message: e.Message, Type: e.kind()}
	if e.Param != "" {
		in.Param = &e.Param
	}
	if e.Code != "" {
		in.Code = &e.Code
	}
	return json.Marshal(struct {
		Error inner `json:"error"`
	}{in})
}

// kind is OpenAI's type of an error, which follows from its status.
func (e *Error) kind() string {
	switch {
	case e.Status == http.StatusUnauthorized:
		return "authentication_error"
	case e.Status == http.StatusForbidden:
		return "permission_error"
	case e.Status == http.StatusConflict:
		return "conflict_error"
	case e.Status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case e.Status >= http.StatusInternalServerError:
		return "server_error"
	}
	return "invalid_request_error"
}

// head sets the headers that belong to e.
func (e *Error) head(h http.Header) {
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
		h.Set("Retry-After-Ms", strconv.FormatInt(e.RetryAfter.Milliseconds(), 10))
	}
	if e.Final {
		h.Set("X-Should-Retry", "false")
	}
	if e.Allow != "" {
		h.Set("Allow", e.Allow)
	}
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
}

// failure is an outcome that is not a success.
type failure struct{ queue.Outcome }

func failed(o queue.Outcome) *failure {
	if o.To == queue.Canceled {
		o.Class = queue.ClassCanceled
	}
	return &failure{o}
}

func (f *failure) Error() string {
	return fmt.Sprintf("api: request is %s: class %s, status %d", f.To, f.Class, f.Status)
}

// errTooSlow: a request's own body did not arrive in time.
var errTooSlow = errors.New("api: body did not arrive in time")

// explain maps every error and outcome to its answer: the one place that does.
// nil: there is nobody to answer.
func explain(err error) *Error {
	var (
		answer *Error
		bad    *response.BadRequest
		size   *http.MaxBytesError
		ending *failure
		later  interface{ RetryAfter() time.Duration }
	)
	switch {
	case errors.As(err, &answer):
		return answer
	case errors.As(err, &bad):
		return &Error{Status: http.StatusBadRequest, Code: bad.Code, Param: bad.Param, Message: bad.Message, cause: err}
	case errors.As(err, &size):
		return &Error{
			Status: http.StatusRequestEntityTooLarge, Code: "payload_too_large", cause: err,
			Message: fmt.Sprintf("The body is larger than %d bytes.", size.Limit),
		}
	case errors.As(err, &ending):
		return explainOutcome(ending.Outcome, err)
	case errors.Is(err, queue.ErrClientGone):
		return nil
	case errors.Is(err, queue.ErrNotFound):
		return &Error{Status: http.StatusNotFound, Code: "not_found", Param: "id", Message: "There is no such response.", cause: err}
	case errors.Is(err, queue.ErrRunning):
		return &Error{
			Status: http.StatusConflict, Code: "response_in_progress", Final: true, cause: err,
			Message: "The response is still running: cancel it or wait for its end.",
		}
	case errors.Is(err, queue.ErrAtCap):
		return &Error{
			Status: http.StatusTooManyRequests, Code: "concurrency_limit_exceeded", RetryAfter: time.Second, cause: err,
			Message: "As many requests for this model are running as this key may have.",
		}
	case errors.Is(err, errTooSlow), errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusRequestTimeout, Code: "request_timeout", Message: "The body did not arrive in time.", cause: err}
	case errors.As(err, &later):
		return &Error{
			Status: http.StatusServiceUnavailable, Code: "service_unavailable", RetryAfter: max(later.RetryAfter(), time.Second), cause: err,
			Message: "The host cannot take this request now.",
		}
	case errors.Is(err, stream.ErrStopped):
		return &Error{
			Status: http.StatusServiceUnavailable, Code: "service_unavailable", RetryAfter: time.Second, cause: err,
			Message: "The host is shutting down.",
		}
	case errors.Is(err, stream.ErrGap):
		return &Error{
			Status: http.StatusBadRequest, Code: "events_expired", Param: "starting_after", cause: err,
			Message: "The events that follow starting_after are no longer kept.",
		}
	case errors.Is(err, queue.ErrLeaseLost):
		return explainOutcome(queue.Outcome{To: queue.Failed, Class: queue.WorkerLost}, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, queue.ErrDeadline):
		return explainOutcome(queue.Outcome{To: queue.Failed, Class: queue.ClassDeadline}, err)
	}
	return &Error{Status: http.StatusInternalServerError, Code: "server_error", Message: "The host made a mistake.", cause: err}
}

// closedCode matches codes that may be shown: typed, never free text.
var closedCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// explainOutcome maps the class and upstream status of a failed request. What
// an upstream wrote is not in an outcome: its Message is the host's or a
// policy's, and a plain upstream failure has none.
func explainOutcome(o queue.Outcome, cause error) *Error {
	e := &Error{Status: http.StatusInternalServerError, Code: "server_error", Message: o.Message, RetryAfter: o.RetryAfter, cause: cause}
	text := "The request failed inside the host."
	switch o.Class {
	case queue.RateLimited:
		e.Status, text = http.StatusTooManyRequests, "The model is rate limited now."
	case queue.UpstreamStatus:
		if e.Status, text = upstreamStatus(o.Status); o.Message != "" && ofAccount(o.Status) {
			e.Status = o.Status // a routing policy's own rejection
		}
	case queue.UpstreamTimeout:
		e.Status, text = http.StatusGatewayTimeout, "The model did not answer in time."
	case queue.UpstreamNetwork, queue.UpstreamInvalid:
		e.Status, text = http.StatusBadGateway, "The model gave no usable answer."
	case queue.ClassDeadline:
		e.Status, text = http.StatusGatewayTimeout, "The deadline of the request passed."
	case queue.WorkerLost:
		e.Status, text = http.StatusServiceUnavailable, "The host that ran the request was lost."
		e.RetryAfter = max(e.RetryAfter, time.Second)
	case queue.PluginUnavailable, queue.GuestThrottled:
		e.Status, text = http.StatusServiceUnavailable, "A tool that the request needs is not available."
	case queue.ClassCanceled:
		e.Status, e.Code, e.Final, text = http.StatusConflict, "canceled", true, "The request was canceled."
	case queue.OK, queue.GuestTrap, queue.GuestFuel, queue.GuestDeadline, queue.GuestMemory, queue.GuestDepth,
		queue.GuestOutput, queue.GuestDenied, queue.GuestError, queue.GuestInvalidOutput, queue.StepAbandoned, queue.HostError:
		if o.Status >= http.StatusBadRequest && o.Status < 600 {
			e.Status = o.Status
		}
	}
	if e.Message == "" {
		e.Message = text
	}
	switch {
	case closedCode.MatchString(o.Code):
		e.Code = o.Code
	case e.Status == http.StatusTooManyRequests:
		e.Code = "rate_limit_exceeded"
	case e.Status < http.StatusInternalServerError && e.Code == "server_error":
		e.Code = "upstream_rejected"
	}
	return e
}

// ofAccount reports whether an upstream's status speaks of the host's account
// or address there, as it is configured.
func ofAccount(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return true
	}
	return false
}

// upstreamStatus is what the client is told of an upstream's status. Its view
// of the host's own account (401, 402, 403) is none of the client's business.
func upstreamStatus(status int) (int, string) {
	switch {
	case ofAccount(status):
		return http.StatusBadGateway, "The model's endpoint refused the host."
	case status == http.StatusRequestTimeout, status == http.StatusGatewayTimeout:
		return http.StatusGatewayTimeout, "The model did not answer in time."
	case status == http.StatusTooManyRequests:
		return status, "The model is rate limited now."
	case status >= http.StatusBadRequest && status < http.StatusInternalServerError:
		return status, "The model's endpoint rejected the request."
	case status == http.StatusServiceUnavailable, status == 529:
		return http.StatusServiceUnavailable, "The model is overloaded now."
	}
	return http.StatusBadGateway, "The model's endpoint failed."
}
