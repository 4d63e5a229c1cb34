// Package hostfn answers the capability calls of a guest: it enforces grants
// and caps over the ports of package capability. It knows neither Wasm nor
// where a port keeps its data.
package hostfn

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// The caps of one call.
const (
	maxRequest = 1 << 20 // bytes of one request frame
	maxReplies = 16 << 20
)

// Session is the capabilities of one call of a guest. It belongs to one
// goroutine and dies with the call.
type Session struct {
	env      capability.Env
	left     int // calls
	made     int
	kv       kvWrites
	replies  map[uint32][]byte
	held     int // bytes in replies
	lastUsed uint32
}

// New returns a session that makes up to calls calls under env.
func New(env capability.Env, calls int) *Session {
	return &Session{env: env, left: calls}
}

// PortError says that a port of the host failed. It ends the call.
type PortError struct {
	Op  string
	Err error
}

// Error returns the op and the cause.
func (e *PortError) Error() string { return fmt.Sprintf("hostfn: %s: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *PortError) Unwrap() error { return e.Err }

// Call carries out one op and returns what abi.ImportCall answers: an errno,
// or the handle and length of a reply frame. op and request are not kept. The
// error is a *PortError or that of ctx.
func (s *Session) Call(ctx context.Context, op string, request []byte) (int64, error) {
	if s.left <= 0 {
		return abi.PackErrno(abi.EDQUOT), nil
	}
	s.left--
	s.made++
	run, ok := ops[op]
	switch {
	case !ok:
		return abi.PackErrno(abi.ENOSYS), nil
	case !s.env.Granted[op]:
		return abi.PackErrno(abi.EPERM), nil
	case len(request) > maxRequest:
		return abi.PackErrno(abi.E2BIG), nil
	}
	head, body, err := abi.DecodeFrame(request)
	if err != nil {
		return abi.PackErrno(abi.EINVAL), nil
	}
	r, err := run(s, ctx, head, body)
	if err != nil {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return 0, &PortError{Op: op, Err: err}
	}
	return s.keep(r)
}

// ops holds what this host can do.
var ops = map[string]func(s *Session, ctx context.Context, head, body []byte) (reply, error){
	abi.OpKVGet: (*Session).kvGet,
	abi.OpKVPut: (*Session).kvPut,
}

// reply is what an op answers. The error in its head is a closed code, never
// the text of a port.
type reply struct {
	head abi.ReplyHead
	body []byte
}

func newReply(status int, code string, body []byte) reply {
	return reply{head: abi.ReplyHead{Status: status, Error: code}, body: body}
}

func (s *Session) keep(r reply) (int64, error) {
	head, err := json.Marshal(r.head)
	if err != nil {
		return 0, fmt.Errorf("hostfn: reply: %w", err)
	}
	frame := abi.EncodeFrame(head, r.body)
	if len(frame) > maxReplies-s.held {
		return abi.PackErrno(abi.EDQUOT), nil
	}
	s.lastUsed++
	s.held += len(frame)
	if s.replies == nil {
		s.replies = map[uint32][]byte{}
	}
	s.replies[s.lastUsed] = frame
	return abi.PackReply(s.lastUsed, uint32(len(frame))), nil
}

// Reply returns the frame that handle stands for.
func (s *Session) Reply(handle uint32) ([]byte, bool) {
	frame, ok := s.replies[handle]
	return frame, ok
}

// Close forgets a handle; one that is not known is ignored.
func (s *Session) Close(handle uint32) {
	s.held -= len(s.replies[handle])
	delete(s.replies, handle)
}

// Calls returns how many calls were made, refused ones included.
func (s *Session) Calls() int { return s.made }

// Puts returns the writes of the call in order.
func (s *Session) Puts() []capability.Put { return s.kv.puts }
