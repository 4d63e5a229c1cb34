package tool

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// Store is the plugin's own state for the tenant of a call. What a call puts
// is seen by its own later gets at once, and by other calls when the step is
// settled; a call that fails leaves nothing. So a tool whose only effect is on
// its Store happens exactly once. Two calls at the same time do not see each
// other's puts, and of two puts to one key the later settled stays.
type Store struct{ host guest.Host }

// KV returns the state of the plugin. The plugin must Want abi.OpKVGet and
// abi.OpKVPut, and the operator must grant them.
func KV(ctx Context) Store { return Store{host: ctx.host} }

// Get returns the value of key; ok is false when there is none. An error is
// an *Error: Denied when kv.get/1 is not granted, otherwise internal. A host
// that cannot read its store ends the call.
func (s Store) Get(key string) (value []byte, ok bool, err error) {
	status, value, err := s.do(abi.OpKVGet, key, nil)
	switch {
	case err != nil:
		return nil, false, err
	case status == abi.StatusNoEntry:
		return nil, false, nil
	case status != abi.StatusFound:
		return nil, false, statusError(abi.OpKVGet, key, status)
	}
	return value, true, nil
}

// Put sets the value of key. A key has 1 to abi.MaxKVKey bytes of UTF-8
// without NUL, a value at most abi.MaxKVValue. Errors are as those of Get;
// a value that is too large, or one too many, is Permanent.
func (s Store) Put(key string, value []byte) error {
	status, _, err := s.do(abi.OpKVPut, key, value)
	if err != nil {
		return err
	}
	if status < 200 || status > 299 {
		return statusError(abi.OpKVPut, key, status)
	}
	return nil
}

func (s Store) do(op, key string, body []byte) (status int, reply []byte, err error) {
	if !utf8.ValidString(key) { // JSON would make one key of two
		return 0, nil, fmt.Errorf("%s %q: the key is not UTF-8", op, key)
	}
	head, err := json.Marshal(abi.KVHead{Key: key})
	if err != nil {
		return 0, nil, fmt.Errorf("%s %q: %w", op, key, err)
	}
	frame, err := s.host.Call(op, abi.EncodeFrame(head, body))
	if err != nil {
		return 0, nil, &Error{Code: errnoCode(err), RetryAfter: -1, err: fmt.Errorf("%s %q: %w", op, key, err)}
	}
	head, body, err = abi.DecodeFrame(frame)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %q: %w", op, key, err)
	}
	var h abi.ReplyHead
	if err := json.Unmarshal(head, &h); err != nil {
		return 0, nil, fmt.Errorf("%s %q: %w", op, key, err)
	}
	return h.Status, body, nil
}

func errnoCode(err error) abi.FailCode {
	if errors.Is(err, abi.EPERM) {
		return abi.FailDenied
	}
	return abi.FailInternal
}

func statusError(op, key string, status int) error {
	code := abi.FailInternal
	switch status {
	case abi.StatusTooLarge, abi.StatusFull:
		code = abi.FailPermanent
	}
	return &Error{Code: code, RetryAfter: -1, err: fmt.Errorf("%s %q: status %d", op, key, status)}
}
