package hostfn

import (
	"context"
	"errors"
	"io"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// stream is a body that the guest reads in parts.
type stream struct {
	body io.ReadCloser
	end  abi.Errno // what every further read answers, once ended
	done bool
}

func (st *stream) close() {
	if st.body != nil {
		_ = st.body.Close() // what was not read is not wanted
		st.body = nil
	}
}

// addStream keeps body until it is closed or the call ends, and returns its
// handle. That there is room, httpFetch has seen to.
func (s *Session) addStream(body io.ReadCloser) uint32 {
	if s.streams == nil {
		s.streams = map[uint32]*stream{}
	}
	handle := s.handle()
	s.streams[handle] = &stream{body: body}
	return handle
}

// StreamRead reads the next bytes of a stream into dst, at least one unless
// the stream is at its end. It answers n, 0 at the end, or an errno: EBADF for
// a handle that is not an open stream, E2BIG where the body is longer than
// what was allowed, EIO where it broke. It reads 64 KiB at most. An error is
// that of ctx, which is the call's, and ends the call.
func (s *Session) StreamRead(ctx context.Context, handle uint32, dst []byte) (n int, errno abi.Errno, err error) {
	st, ok := s.streams[handle]
	switch {
	case !ok:
		return 0, abi.EBADF, nil
	case st.done:
		return 0, st.end, nil
	case len(dst) == 0:
		return 0, 0, nil
	}
	dst = dst[:min(len(dst), chunk)]
	for n == 0 && err == nil {
		n, err = st.body.Read(dst)
	}
	if n > 0 {
		// An error that came with bytes comes again with the next read.
		s.spend(n)
		return n, 0, nil
	}
	if ctx.Err() != nil {
		return 0, 0, ctx.Err()
	}
	st.done, st.end = true, streamErrno(err)
	st.close()
	return 0, st.end, nil
}

// streamErrno returns what a guest gets for the error of a body: 0 at its end.
func streamErrno(err error) abi.Errno {
	if errors.Is(err, io.EOF) {
		return 0
	}
	if e, ok := errors.AsType[*capability.HTTPError](err); ok && e.Code == abi.HTTPResponseTooLarge {
		return abi.E2BIG
	}
	return abi.EIO
}
