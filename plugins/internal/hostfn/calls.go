package hostfn

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// maxToolName is the longest tool name that is passed on, in bytes: that of a
// plugin, two underscores, that of a tool.
const maxToolName = 63 + 2 + 64

// toolCall calls another tool. Each call has a number, also one that is
// refused: a later try of the step that asks the same gets the same numbers.
func (s *Session) toolCall(ctx context.Context, head, body []byte) (reply, error) {
	n := s.nested
	s.nested++
	s.spendParse(len(body))
	var h abi.ToolCallHead
	if json.Unmarshal(head, &h) != nil || h.Tool == "" || len(h.Tool) > maxToolName || !object(body) {
		return plain(abi.StatusBadRequest, abi.ErrorRequest), nil
	}
	if s.env.Tools == nil {
		return reply{}, errNoPort
	}
	arguments := append([]byte(nil), body...)
	if len(arguments) == 0 {
		arguments = []byte("{}")
	}
	r, err := s.env.Tools.Call(ctx, n, h.Tool, arguments)
	switch {
	case errors.Is(err, capability.ErrNoTool):
		return plain(abi.StatusNoEntry, abi.ErrorNoTool), nil
	case errors.Is(err, capability.ErrRefused):
		s.audit(abi.OpToolCall, capability.AuditTool)
		return reply{}, abi.EPERM
	case errors.Is(err, capability.ErrExhausted):
		return reply{}, abi.EDQUOT
	case err != nil:
		return reply{}, fmt.Errorf("nested call %d: %w", n, err)
	}
	return toolReply(r), nil
}

func toolReply(r capability.ToolReply) reply {
	head := abi.ToolReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, IsError: r.IsError}
	if r.Code != "" {
		head = abi.ToolReply{ReplyHead: abi.ReplyHead{Status: abi.StatusToolFailed, Error: r.Code}}
	}
	return reply{head: head, body: r.Output}
}

// object reports whether arguments are a JSON object, or absent.
func object(arguments []byte) bool {
	if len(arguments) == 0 {
		return true
	}
	var o map[string]json.RawMessage
	return json.Unmarshal(arguments, &o) == nil && o != nil
}

// timeNow tells the time to the millisecond: a finer clock is a tool for
// measuring the host.
func (s *Session) timeNow(context.Context, []byte, []byte) (reply, error) {
	return reply{head: abi.TimeReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, NowMS: time.Now().UnixMilli()}}, nil
}

// rand gives random bytes of the host.
func (s *Session) rand(_ context.Context, head, _ []byte) (reply, error) {
	var h abi.RandHead
	if json.Unmarshal(head, &h) != nil || h.N < 1 || h.N > abi.MaxRand {
		return plain(abi.StatusBadRequest, abi.ErrorRequest), nil
	}
	s.spend(h.N)
	body := make([]byte, h.N)
	if _, err := crand.Read(body); err != nil {
		return reply{}, err
	}
	return reply{head: abi.ReplyHead{Status: abi.StatusOK}, body: body}, nil
}
