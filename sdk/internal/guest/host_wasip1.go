package guest

import (
	"math"
	"runtime"
	"time"
	"unsafe"

	"github.com/casemate/casemate/sdk/abi"
)

// Imports is the Host of a running guest.
type Imports struct{}

var _ Host = Imports{}

// Input implements Host.
func (Imports) Input() []byte {
	buf := make([]byte, inputLen())
	n := 0
	for n < len(buf) {
		got := inputRead(uint32(n), at(buf[n:]), uint32(len(buf)-n))
		if got <= 0 {
			break
		}
		n += int(got)
	}
	runtime.KeepAlive(buf)
	return buf[:n]
}

// Write implements Host.
func (Imports) Write(p []byte) error {
	return errno(outputWrite(at(p), uint32(len(p))))
}

// Fail implements Host.
func (Imports) Fail(code abi.FailCode, retryAfterMS int64, text string) {
	b := []byte(text)
	fail(int32(code), int32(max(-1, min(retryAfterMS, math.MaxInt32))), at(b), uint32(len(b)))
	runtime.KeepAlive(b)
}

// Log implements Host.
func (Imports) Log(level abi.Level, text string) {
	b := []byte(text)
	logLine(int32(level), at(b), uint32(len(b)))
	runtime.KeepAlive(b)
}

// Emit implements Host.
func (Imports) Emit(kind int32, data []byte) error {
	return errno(emit(kind, at(data), uint32(len(data))))
}

// Call implements Host.
func (Imports) Call(op string, request []byte) ([]byte, error) {
	name := []byte(op)
	packed := call(at(name), uint32(len(name)), at(request), uint32(len(request)))
	runtime.KeepAlive(name)
	runtime.KeepAlive(request)
	handle, length, err := abi.UnpackReply(packed)
	if err != nil {
		return nil, err
	}
	defer streamClose(handle)
	reply := make([]byte, length)
	for n := 0; n < len(reply); {
		got := replyRead(handle, uint32(n), at(reply[n:]), uint32(len(reply)-n))
		if got <= 0 {
			return nil, errnoOr(got, abi.EIO)
		}
		n += int(got)
	}
	return reply, nil
}

// StreamRead implements Host.
func (Imports) StreamRead(stream uint32, p []byte) (int, error) {
	n := streamRead(stream, at(p), uint32(len(p)))
	runtime.KeepAlive(p)
	if n < 0 {
		return 0, abi.Errno(-n)
	}
	return int(n), nil
}

// StreamClose implements Host.
func (Imports) StreamClose(stream uint32) { streamClose(stream) }

// Budget implements Host.
func (Imports) Budget(which abi.Budget) int64 { return budget(int32(which)) }

// Random implements Host.
func (Imports) Random(p []byte) {
	if randomGet(at(p), uint32(len(p))) != 0 {
		panic("guest: the host has no entropy")
	}
	runtime.KeepAlive(p)
}

// Now implements Host by the clock of WASI, which is the host's.
func (Imports) Now() time.Time { return time.Now() }

// at returns the address of p's bytes, which stay where they are: the stack
// that p may stand on cannot move while an import runs.
func at(p []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(p)) }

func errno(result int32) error {
	if result < 0 {
		return abi.Errno(-result)
	}
	return nil
}

func errnoOr(result int32, other abi.Errno) error {
	if err := errno(result); err != nil {
		return err
	}
	return other
}
