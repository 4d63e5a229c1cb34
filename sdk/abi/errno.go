package abi

import "strconv"

// Error describes e; it makes Errno an error, so that
// errors.Is(err, abi.ECANCELED) tells which one an import returned.
func (e Errno) Error() string {
	switch e {
	case E2BIG:
		return "too big"
	case EACCES:
		return "access denied"
	case EAGAIN:
		return "try again"
	case EBADF:
		return "bad handle"
	case ECANCELED:
		return "canceled"
	case EINVAL:
		return "invalid argument"
	case EIO:
		return "i/o error"
	case ENOENT:
		return "no such entry"
	case ENOSYS:
		return "unknown op"
	case EOVERFLOW:
		return "value too large"
	case EPERM:
		return "not granted"
	case EDQUOT:
		return "out of budget"
	}
	return "errno " + strconv.Itoa(int(e))
}

// maxHandle keeps a packed reply positive: its handle fills the upper half of
// an i64 but for the sign.
const maxHandle = 1<<31 - 1

// PackReply returns what ImportCall answers when it has a reply: handle in the
// upper 32 bits, the length of the reply frame in the lower 32. A handle above
// 2^31−1 cannot be told from an errno and gives −EOVERFLOW.
func PackReply(handle, length uint32) int64 {
	if handle > maxHandle {
		return PackErrno(EOVERFLOW)
	}
	return int64(handle)<<32 | int64(length)
}

// PackErrno returns what an import answers when it fails with e.
func PackErrno(e Errno) int64 { return -int64(e) }

// UnpackReply is the reverse of PackReply and PackErrno. When err is not nil
// it is an Errno and there is no reply.
func UnpackReply(v int64) (handle, length uint32, err error) {
	if v < 0 {
		return 0, 0, Errno(-v)
	}
	return uint32(v >> 32), uint32(v), nil
}
