package tooltest

import (
	"errors"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/tool"
)

// Refuse returns the error of a request that the host does not carry out, for
// Call.HTTP: why is one of abi.HTTP….
func Refuse(why string) error {
	return &tool.Error{Code: abi.FailInternal, RetryAfter: -1, Reason: why}
}

// refusals holds the op's status for each word; any other is a bad gateway.
var refusals = map[string]int{
	abi.HTTPInvalidURL:      abi.StatusBadRequest,
	abi.HTTPInvalidMethod:   abi.StatusBadRequest,
	abi.HTTPInvalidHeader:   abi.StatusBadRequest,
	abi.HTTPRequestTooLarge: abi.StatusTooLarge,
	abi.HTTPDenied:          abi.StatusDenied,
	abi.HTTPSecretDenied:    abi.StatusDenied,
	abi.HTTPTimeout:         abi.StatusTimeout,
}

// answerHTTP asks c.HTTP as the host asks a server.
func (c Call) answerHTTP(h abi.HTTPHead, body []byte) (abi.HTTPReply, []byte) {
	resp, err := c.HTTP(tool.Request{
		Method: h.Method, URL: h.URL, Header: h.Headers, Body: body,
		Timeout: time.Duration(h.TimeoutMS) * time.Millisecond, MaxBytes: h.MaxBytes, Stream: h.Stream,
	})
	if err != nil {
		return abi.HTTPReply{ReplyHead: refusal(err)}, nil
	}
	return abi.HTTPReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, HTTPStatus: resp.Status, Headers: resp.Header}, resp.Body
}

func refusal(err error) abi.ReplyHead {
	why := abi.HTTPNetwork
	if e, ok := errors.AsType[*tool.Error](err); ok && e.Reason != "" {
		why = e.Reason
	}
	status, ok := refusals[why]
	if !ok {
		status = abi.StatusBadGateway
	}
	return abi.ReplyHead{Status: status, Error: why}
}

// answerTool asks c.Tools as the host calls another tool.
func (c Call) answerTool(name string, arguments []byte) (abi.ToolReply, []byte) {
	if len(arguments) == 0 {
		arguments = []byte("{}")
	}
	a, err := c.Tools(name, string(arguments))
	if err == nil {
		return abi.ToolReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, IsError: a.IsError}, []byte(a.Text)
	}
	code := abi.FailInternal
	if e, ok := errors.AsType[*tool.Error](err); ok {
		code = e.Code
	}
	return abi.ToolReply{ReplyHead: abi.ReplyHead{Status: abi.StatusToolFailed, Error: code.String()}}, []byte(err.Error())
}
