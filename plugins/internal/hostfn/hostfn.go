// Package hostfn answers the capability calls of a guest: it enforces grants
// and caps over the ports of package capability. It knows neither Wasm nor
// where a port keeps its data.
package hostfn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// The caps of one call, in bytes.
const (
	maxRequest = 1 << 20 // of one request frame
	// maxHead is of its head, which is parsed at one go: the longest header and
	// URL of a request fit, however they are escaped.
	maxHead = 256 << 10
	// maxReplies is how much may be held in replies when a call is made. Its own
	// reply may pass that: what was done must be told.
	maxReplies = 16 << 20
	// chunk is how much is read from a port between two debits.
	chunk = 64 << 10
)

// Session is the capabilities of one call of a guest. It belongs to one
// goroutine and dies with the call: whoever made it calls End.
type Session struct {
	// Spend debits fuel, one unit for 16 bytes that an op carries and for each
	// byte of JSON in its request, before more is carried. It may end the call by a panic; nothing is left half-done
	// then that End does not undo. nil debits nothing.
	Spend func(fuel uint64)

	env      capability.Env
	left     int // calls
	made     int
	nested   int // tool.call so far
	kv       kvState
	replies  map[uint32][]byte
	streams  map[uint32]*stream
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

// errNoPort is the cause of a PortError when an op is granted that the host
// gave no port for.
var errNoPort = errors.New("granted, but the host gave no port for it")

// op is one op that this host can do. Its error is an abi.Errno, which the
// guest gets, or ends the call.
type op func(s *Session, ctx context.Context, head, body []byte) (reply, error)

var ops = map[string]op{
	abi.OpKVGet:     (*Session).kvGet,
	abi.OpKVPut:     (*Session).kvPut,
	abi.OpKVDelete:  (*Session).kvDelete,
	abi.OpKVList:    (*Session).kvList,
	abi.OpHTTPFetch: (*Session).httpFetch,
	abi.OpToolCall:  (*Session).toolCall,
	abi.OpTimeNow:   (*Session).timeNow,
	abi.OpRand:      (*Session).rand,
}

// Call carries out one op and returns what abi.ImportCall answers: an errno,
// or the handle and length of a reply frame. name and request are not kept,
// and ctx is that of the whole call: streams live under it. The error is a
// *PortError or that of ctx.
func (s *Session) Call(ctx context.Context, name string, request []byte) (int64, error) {
	if s.left <= 0 {
		return abi.PackErrno(abi.EDQUOT), nil
	}
	s.left--
	s.made++
	run, ok := ops[name]
	switch {
	case !ok:
		return abi.PackErrno(abi.ENOSYS), nil
	case !s.env.Granted[name]:
		s.audit(name, capability.AuditNotGranted)
		return abi.PackErrno(abi.EPERM), nil
	case len(request) > maxRequest:
		return abi.PackErrno(abi.E2BIG), nil
	case s.held >= maxReplies:
		return abi.PackErrno(abi.EDQUOT), nil
	}
	s.spend(len(request))
	head, body, err := abi.DecodeFrame(request)
	switch {
	case err != nil:
		return abi.PackErrno(abi.EINVAL), nil
	case len(head) > maxHead:
		return abi.PackErrno(abi.E2BIG), nil
	}
	s.spendParse(len(head))
	r, err := run(s, ctx, head, body)
	if err != nil {
		return failed(ctx, name, err)
	}
	return s.keep(r)
}

// failed tells the guest of an errno and the host of anything else.
func failed(ctx context.Context, name string, err error) (int64, error) {
	if errno, ok := errors.AsType[abi.Errno](err); ok {
		return abi.PackErrno(errno), nil
	}
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	return 0, &PortError{Op: name, Err: err}
}

// reply is what an op answers: head is encoded as JSON. The error in it is a
// closed code, never the text of a port.
type reply struct {
	head any
	body []byte
}

// plain is a reply with a status and, where that is an error, its code.
func plain(status int, code string) reply {
	return reply{head: abi.ReplyHead{Status: status, Error: code}}
}

func (s *Session) keep(r reply) (int64, error) {
	head, err := json.Marshal(r.head)
	if err != nil {
		return 0, fmt.Errorf("hostfn: reply: %w", err)
	}
	size := abi.FramePrefix + len(head) + len(r.body)
	s.spend(size)
	if s.replies == nil {
		s.replies = map[uint32][]byte{}
	}
	handle := s.handle()
	s.held += size
	s.replies[handle] = abi.EncodeFrame(head, r.body)
	return abi.PackReply(handle, uint32(size)), nil
}

// handle returns a number that this call has not used yet. There are no more
// handles than two a call, so they stay far below their limit.
func (s *Session) handle() uint32 {
	s.lastUsed++
	return s.lastUsed
}

// Reply returns the frame that handle stands for.
func (s *Session) Reply(handle uint32) ([]byte, bool) {
	frame, ok := s.replies[handle]
	return frame, ok
}

// Close forgets a handle, of a reply or a stream; one that is not known is
// ignored.
func (s *Session) Close(handle uint32) {
	if st, ok := s.streams[handle]; ok {
		st.close()
		delete(s.streams, handle)
		return
	}
	s.held -= len(s.replies[handle])
	delete(s.replies, handle)
}

// End closes every stream. The puts and the counts stay readable.
func (s *Session) End() {
	for _, st := range s.streams {
		st.close()
	}
	s.streams, s.replies, s.held = nil, nil, 0
}

// Calls returns how many calls were made, refused ones included.
func (s *Session) Calls() int { return s.made }

// Puts returns the writes of the call in order.
func (s *Session) Puts() []capability.Put { return s.kv.puts }

// spend debits for n bytes.
func (s *Session) spend(n int) {
	if s.Spend != nil && n > 0 {
		s.Spend(uint64(n) / 16)
	}
}

// spendParse debits for n bytes of JSON, which cost far more than a copy.
func (s *Session) spendParse(n int) {
	if s.Spend != nil && n > 0 {
		s.Spend(uint64(n))
	}
}

func (s *Session) audit(name, reason string) {
	if s.env.Audit != nil {
		s.env.Audit(name, reason)
	}
}

// effect is called before what changes something outside.
func (s *Session) effect(ctx context.Context) error {
	if s.env.Effect == nil {
		return nil
	}
	return s.env.Effect(ctx)
}
