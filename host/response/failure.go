package response

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Failure is what the client is told, never in upstream's words.
type Failure struct {
	Code    string // of OpenAI's list: "server_error", "rate_limit_exceeded", "invalid_prompt"
	Message string
	Status  int // HTTP, where nothing was sent yet
	Class   queue.Class
	// Rejected: the route policy refused the request; Status, Code, Message and
	// RetryAfter are its own.
	Rejected   bool
	RetryAfter time.Duration // 0: not said
	// Final: the same request would end the same again.
	Final bool
}

// FailureOf says what the client is told of a model call that failed for good.
func FailureOf(s Step) *Failure {
	if s.Class == queue.RateLimited || s.Class == queue.UpstreamStatus && s.Status == 429 {
		return rateLimited(s)
	}
	f := &Failure{Code: "server_error", Class: s.Class}
	if s.Class == queue.UpstreamStatus {
		f.Status, f.Message = UpstreamStatus(s.Status), "The model could not answer this request."
		switch f.Status {
		case 400, 413, 415, 422:
			f.Code, f.Message = refusal(s.Code)
		}
		return f
	}
	told, ok := classTold[s.Class]
	if !ok {
		told = classTold[queue.HostError]
	}
	f.Status, f.Message = told.status, told.message
	return f
}

// refusal is the code and message for a request that the model refused with a
// code. Those that a client can act on are passed on as they are; of the others
// no more is told than that the request is to blame.
func refusal(code string) (passed, message string) {
	switch {
	case code == "context_length_exceeded":
		return code, "The input is longer than the context window of the model."
	case code == "content_filter", code == "content_policy_violation":
		return "invalid_prompt", "The content filter of the model refused this request."
	case code == "bio_policy":
		return code, "A policy of the model refused this request."
	case strings.Contains(code, "image"):
		return code, "The model could not take an image of this request."
	case code == "unsupported_value", code == "unsupported_parameter":
		return "invalid_prompt", "The model does not support a part of this request."
	}
	return "invalid_prompt", "The model refused this request as invalid."
}

// classTold is what the client is told of a class; of those that are not here,
// what it is told of HostError.
var classTold = map[queue.Class]struct {
	status  int
	message string
}{
	queue.UpstreamTimeout:   {504, "The model did not answer in time."},
	queue.UpstreamNetwork:   {502, "The model could not be reached."},
	queue.UpstreamInvalid:   {502, "The model's answer could not be read."},
	queue.PluginUnavailable: {503, "A plugin that this response needs is not available."},
	queue.ClassDeadline:     {504, "The response did not end before its deadline."},
	queue.WorkerLost:        {500, "The worker of this response was lost."},
	queue.HostError:         {500, "The response failed on this host."},
}

// rateLimited words the message so that clients which read the delay out of it
// find it.
func rateLimited(s Step) *Failure {
	f := &Failure{Code: "rate_limit_exceeded", Status: 429, Class: s.Class, Message: "The model is rate limited. Please try again later."}
	if s.RetryAfter > 0 {
		f.Message = fmt.Sprintf("The model is rate limited. Please try again in %ds.", (s.RetryAfter+999)/1000)
	}
	return f
}

// UpstreamStatus returns the status to answer for upstream's: a 4xx, 502, 503
// or 504. What it returned once it returns again. A status that speaks of the
// host's own account or address at the upstream, as they are configured, is
// not the client's business.
func UpstreamStatus(status int) int {
	switch status {
	case http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden, http.StatusNotFound,
		http.StatusMethodNotAllowed, http.StatusProxyAuthRequired:
		return http.StatusBadGateway
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return http.StatusGatewayTimeout
	case http.StatusServiceUnavailable, 529: // 529: overloaded
		return http.StatusServiceUnavailable
	}
	if status >= http.StatusBadRequest && status < http.StatusInternalServerError {
		return status
	}
	return http.StatusBadGateway
}

type toolError struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// ErrorOutput is the text that the model is given for a tool call without a
// result: {"error":{"code","message"}}.
func ErrorOutput(code, message string) []byte {
	var e toolError
	e.Error.Code, e.Error.Message = code, message
	return marshal(e)
}

// errorMessage is the message in what ErrorOutput wrote; other text is its own
// message.
func errorMessage(output string) string {
	var e toolError
	if json.Unmarshal([]byte(output), &e) == nil && e.Error.Message != "" {
		return e.Error.Message
	}
	return output
}

// toolTold is the code and message that a model is given for a class.
var toolTold = map[queue.Class][2]string{
	queue.GuestDeadline:     {"timeout", "The tool did not answer in time."},
	queue.ClassDeadline:     {"timeout", "The tool did not answer in time."},
	queue.PluginUnavailable: {"unavailable", "The tool is not available."},
	queue.GuestThrottled:    {"unavailable", "The tool is not available."},
	queue.GuestDenied:       {"denied", "The tool was not allowed to do this."},
	queue.StepAbandoned:     {"step_abandoned", "The tool was interrupted. It may or may not have taken effect, and was not run again."},
	queue.WorkerLost:        {"step_abandoned", "The tool was interrupted. It may or may not have taken effect, and was not run again."},
}

// toolFailure is the default code and message of a failed tool call, by class.
func toolFailure(s Step) (code, message string) {
	code, message = "internal", "The tool failed."
	if told, ok := toolTold[s.Class]; ok {
		code, message = told[0], told[1]
	}
	if s.Code != "" {
		code = s.Code
	}
	return code, message
}

// Receipt returns the receipt of a settled tool call.
func Receipt(s Step) ToolReceipt {
	if s.State == Completed {
		return ToolReceipt{Output: string(s.Output)}
	}
	code, message := toolFailure(s)
	out := s.Output
	if len(out) == 0 {
		out = ErrorOutput(code, message)
	}
	return ToolReceipt{Output: string(out), Error: code, Failed: true}
}
