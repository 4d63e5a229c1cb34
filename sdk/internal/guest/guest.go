// Package guest joins a plugin written in Go to native/1: the imports, the
// exports that every plugin has (describe, the marker), and what the packages
// of an author have registered. Authors use sdk/tool and sdk/policy; package
// guest does not know what a tool or a policy is.
package guest

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// Host is what a guest may ask of its host: the imports of abi.Module with
// Go's types. It is implemented over the imports on wasip1 and by Fake
// elsewhere. Errors are of type abi.Errno.
type Host interface {
	// Input returns the whole input of the call; the caller may keep it.
	Input() []byte
	// Write appends p to the output: all of it, or nothing and an error.
	Write(p []byte) error
	// Fail ends the call as failed once the guest returns, and discards its
	// output. A negative retryAfterMS says nothing about a retry.
	Fail(code abi.FailCode, retryAfterMS int64, text string)
	Log(level abi.Level, text string)
	// Emit reports progress; abi.ECANCELED tells that the call was aborted.
	Emit(kind int32, data []byte) error
	// Call asks for a capability and returns its reply frame.
	Call(op string, request []byte) ([]byte, error)
	// StreamRead reads the next bytes of a stream that a reply named: 0 at its
	// end, or where p is empty.
	StreamRead(stream uint32, p []byte) (int, error)
	StreamClose(stream uint32)
	Budget(which abi.Budget) int64
	// Random fills p from the entropy of the host, which no snapshot of the
	// guest repeats.
	Random(p []byte)
	Now() time.Time
}

// Failing is an error that says which fail code it has. retryAfterMS is
// negative when it says nothing about a retry.
type Failing interface {
	error
	Failure() (code abi.FailCode, retryAfterMS int64)
}

// Run calls body with h and returns the status of an export: 0, or 1 after
// telling h of the failure. An error that is not Failing is internal. A panic
// of body is an internal failure with its text, so that it reads as more than
// a trap; a panic on another goroutine still traps.
func Run(h Host, body func(Host) error) (status int32) {
	defer func() {
		if p := recover(); p != nil {
			h.Fail(abi.FailInternal, -1, fmt.Sprintf("panic: %v", p))
			status = 1
		}
	}()
	// An export returns to its host without a turn of Go's scheduler: here the
	// collector's goroutines get one, not only when a later call must wait for
	// memory.
	defer runtime.Gosched()
	err := body(h)
	if err == nil {
		return 0
	}
	code, retryAfterMS := abi.FailInternal, int64(-1)
	var f Failing
	if errors.As(err, &f) {
		code, retryAfterMS = f.Failure()
	}
	h.Fail(code, retryAfterMS, err.Error())
	return 1
}
