package tool

import (
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/sdk/abi"
)

// Answer is what another tool answered.
type Answer struct {
	Text    string // as a model would be given it: text, or JSON as text
	IsError bool   // the tool says that Text tells of a failure
}

// CallTool calls another tool that the response may use, with arguments that
// encode to a JSON object; nil is {}. The call is a step of its own: it is
// recorded, and when this call is tried again it is answered from the record
// as long as the same is asked in the same order. The plugin must Want
// abi.OpToolCall, and the operator must grant it.
//
// Errors are *Error. Where the other tool failed, Code, Reason and text are
// those of its failure; a tool that does not exist is NotFound; one that the
// host does not let this call call, in a circle or too deep, is Denied.
func (c Context) CallTool(name string, arguments any) (Answer, error) {
	var body []byte
	if arguments != nil {
		var err error
		if body, err = json.Marshal(arguments); err != nil {
			return Answer{}, fmt.Errorf("%s %q: arguments: %w", abi.OpToolCall, name, err)
		}
	}
	var r abi.ToolReply
	out, err := ask(c.host, abi.OpToolCall, name, abi.ToolCallHead{Tool: name}, &r, body)
	switch {
	case err != nil:
		return Answer{}, err
	case r.Status == abi.StatusToolFailed:
		return Answer{}, &Error{Code: failCode(r.Error), RetryAfter: -1, Reason: r.Error, err: fmt.Errorf("tool %s: %s: %s", name, r.Error, out)}
	case r.Status == abi.StatusNoEntry:
		return Answer{}, refused(abi.OpToolCall, name, r.ReplyHead, abi.FailNotFound)
	case r.Status != abi.StatusOK:
		return Answer{}, refused(abi.OpToolCall, name, r.ReplyHead, abi.FailInternal)
	}
	return Answer{Text: string(out), IsError: r.IsError}, nil
}

// failCode returns the fail code of a name; a class of the host's is internal.
func failCode(name string) abi.FailCode {
	for c := abi.FailInvalidArgs; c < abi.FailInternal; c++ {
		if c.String() == name {
			return c
		}
	}
	return abi.FailInternal
}
