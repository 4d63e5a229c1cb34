package tool

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/sdk/abi"
)

// Error is a failure of a call with a meaning to the loop: InvalidArgs,
// NotFound, Denied and Permanent give their text to the model, which can then
// do better; Transient asks the retry policy. An error of any other type is
// internal: the retry policy is asked, and the model sees a generic text. An
// Error may be wrapped; the text is that of the outermost error.
type Error struct {
	Code       abi.FailCode
	RetryAfter time.Duration // negative: not said
	// Reason is the host's closed word where a capability was refused or
	// failed, like abi.HTTPTimeout; "" otherwise.
	Reason string
	err    error
}

// Error implements error.
func (e *Error) Error() string {
	if e.err == nil {
		return e.Code.String()
	}
	return e.err.Error()
}

// Unwrap returns what the error was made of.
func (e *Error) Unwrap() error { return e.err }

// Failure returns the error's arguments of abi.ImportFail.
func (e *Error) Failure() (code abi.FailCode, retryAfterMS int64) {
	if e.RetryAfter < 0 {
		return e.Code, -1
	}
	return e.Code, e.RetryAfter.Milliseconds()
}

// InvalidArgs tells the model what is wrong with its arguments.
func InvalidArgs(format string, a ...any) error {
	return &Error{Code: abi.FailInvalidArgs, RetryAfter: -1, err: fmt.Errorf(format, a...)}
}

// NotFound tells the model that what it asked for does not exist.
func NotFound(format string, a ...any) error {
	return &Error{Code: abi.FailNotFound, RetryAfter: -1, err: fmt.Errorf(format, a...)}
}

// Denied tells the model that it may not have what it asked for.
func Denied(format string, a ...any) error {
	return &Error{Code: abi.FailDenied, RetryAfter: -1, err: fmt.Errorf(format, a...)}
}

// Permanent tells the model of a failure that no retry mends.
func Permanent(format string, a ...any) error {
	return &Error{Code: abi.FailPermanent, RetryAfter: -1, err: fmt.Errorf(format, a...)}
}

// Transient asks the retry policy for another try, not before retryAfter; a
// negative retryAfter leaves the time to the policy. The host keeps to what
// the tool declared: a call of a Once tool is not repeated.
func Transient(retryAfter time.Duration, format string, a ...any) error {
	return &Error{Code: abi.FailTransient, RetryAfter: retryAfter, err: fmt.Errorf(format, a...)}
}
