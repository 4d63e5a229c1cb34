package tool

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// ask makes one capability call. about names it in errors, which are *Error
// when the host refused the op: Denied where it is not granted, Permanent for a
// request that is too large. They are internal when head or reply cannot be
// coded. What the reply's status means is the caller's to say.
func ask(h guest.Host, op, about string, head, reply any, body []byte) ([]byte, error) {
	text, err := json.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", op, about, err)
	}
	frame, err := h.Call(op, abi.EncodeFrame(text, body))
	if err != nil {
		code := abi.FailInternal
		switch {
		case errors.Is(err, abi.EPERM):
			code = abi.FailDenied
		case errors.Is(err, abi.E2BIG):
			code = abi.FailPermanent
		}
		return nil, &Error{Code: code, RetryAfter: -1, err: fmt.Errorf("%s %q: %w", op, about, err)}
	}
	text, body, err = abi.DecodeFrame(frame)
	if err == nil {
		err = json.Unmarshal(text, reply)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q: reply: %w", op, about, err)
	}
	return body, nil
}

// refused is the error of an op that answered with an error status.
func refused(op, about string, h abi.ReplyHead, code abi.FailCode) error {
	why := fmt.Sprintf("status %d", h.Status)
	if h.Error != "" {
		why = h.Error
	}
	return &Error{Code: code, RetryAfter: -1, Reason: h.Error, err: fmt.Errorf("%s %q: %s", op, about, why)}
}

// millis returns d in milliseconds, rounded away from zero: what is short must
// not become what has no end.
func millis(d time.Duration) int64 {
	ms, rest := d.Milliseconds(), d%time.Millisecond
	switch {
	case rest > 0:
		ms++
	case rest < 0:
		ms--
	}
	return ms
}
