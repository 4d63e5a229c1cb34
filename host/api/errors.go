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
	"github.com/casemate/casemate/host/store"
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
	case errors.Is(err, queue.ErrShutdown), errors.Is(err, stream.ErrStopped), errors.Is(err, store.ErrClosed):
		return unavailable(time.Second, "The host is shutting down.", err)
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
		return explainCap(err)
	case errors.Is(err, store.ErrUnavailable):
		return unavailable(storeAway, "The host's store is away.", err)
	case errors.Is(err, errTooSlow), errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded):
		return &Error{Status: http.StatusRequestTimeout, Code: "request_timeout", Message: "The body did not arrive in time.", cause: err}
	case errors.As(err, &later):
		return unavailable(max(later.RetryAfter(), time.Second), "The host cannot take this request now.", err)
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

// explainCap says which cap refused a request, and when to come again.
func explainCap(err error) *Error {
	e := &Error{
		Status: http.StatusTooManyRequests, Code: "concurrency_limit_exceeded", RetryAfter: time.Second, cause: err,
		Message: "As many requests for this model are running as this key may have.",
	}
	var full *store.AtCap
	if !errors.As(err, &full) {
		return e
	}
	e.RetryAfter = full.RetryAfter()
	switch {
	case full.Gate:
		e.Message = "As many requests are running as this key may have."
	case full.Wait > 0:
		e.Message = "The model is rate limited now."
	}
	return e
}

// What is told of a request whose deadline passed while it was queued.
const (
	expiredCode = "request_expired"
	expiredText = "The request expired: its deadline passed while it waited in the queue."
)

// storeAway is how long clients should wait for the store to come back.
const storeAway = 5 * time.Second

// unavailable is the answer of a host that cannot do its part now.
func unavailable(after time.Duration, message string, cause error) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: "service_unavailable", RetryAfter: after, Message: message, cause: cause,
	}
}

// closedCode matches codes that may be shown: typed, never free text.
var closedCode = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// explainOutcome maps the class and upstream status of a failed request, or a
// policy's rejection as it is. What an upstream wrote is not in an outcome: its
// Message is the host's or a policy's, and a plain upstream failure has none.
func explainOutcome(o queue.Outcome, cause error) *Error {
	e := &Error{
		Status: http.StatusInternalServerError, Code: "server_error", Param: o.Param, Message: o.Message,
		RetryAfter: o.RetryAfter, Final: o.Final, cause: cause,
	}
	text := "The request failed inside the host."
	switch o.Class {
	case queue.RateLimited:
		e.Status, text = http.StatusTooManyRequests, "The model is rate limited now."
	case queue.UpstreamStatus:
		e.Status = response.UpstreamStatus(o.Status)
		text = upstreamText(e.Status)
	case queue.UpstreamTimeout:
		e.Status, text = http.StatusGatewayTimeout, "The model did not answer in time."
	case queue.UpstreamNetwork, queue.UpstreamInvalid:
		e.Status, text = http.StatusBadGateway, "The model gave no usable answer."
	case queue.ClassDeadline:
		e.Status, text = http.StatusGatewayTimeout, "The deadline of the request passed."
	case queue.WorkerLost:
		e.Status, text = http.StatusServiceUnavailable, "The host that ran the request was lost."
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
	if o.Rejected && o.Status >= http.StatusBadRequest && o.Status < 600 {
		e.Status, e.Code, text = o.Status, policyRejected, "The routing policy rejected the request."
	}
	if e.Message == "" {
		e.Message = text
	}
	passes := e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable
	if passes && !e.Final && !o.Rejected { // a policy says itself when to come back
		e.RetryAfter = max(e.RetryAfter, time.Second)
	}
	switch {
	case closedCode.MatchString(o.Code):
		e.Code = o.Code
	case o.Rejected:
	case e.Status == http.StatusTooManyRequests:
		e.Code = "rate_limit_exceeded"
	case e.Status < http.StatusInternalServerError && e.Code == "server_error":
		e.Code = "upstream_rejected"
	}
	return e
}

// upstreamText says what a status means that response.UpstreamStatus returned.
func upstreamText(status int) string {
	switch status {
	case http.StatusGatewayTimeout:
		return "The model did not answer in time."
	case http.StatusTooManyRequests:
		return "The model is rate limited now."
	case http.StatusServiceUnavailable:
		return "The model is overloaded now."
	case http.StatusBadGateway:
		return "The model's endpoint failed."
	}
	return "The model's endpoint rejected the request."
}
