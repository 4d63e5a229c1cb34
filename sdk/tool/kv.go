package tool

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
)

// Store is the plugin's own state for the tenant of a call. What a call writes
// is seen by its own later reads at once, and by other calls when the step is
// settled; a call that fails leaves nothing. So a tool whose only effect is on
// its Store happens exactly once. Two calls at the same time do not see each
// other's writes. A write to a key that the call has read holds only if the
// key is still what it read; otherwise the host runs the call again. Of two
// writes to a key that neither read, the later settled stays.
//
// A key has 1 to abi.MaxKVKey bytes of UTF-8 without NUL, a value at most
// abi.MaxKVValue. Errors are *Error: Denied when the op is not granted,
// Permanent for a value that is too large, a write too many or a full quota,
// otherwise internal. A host that cannot read its store ends the call.
type Store struct{ host guest.Host }

// KV returns the state of the plugin. The plugin must Want the ops that it
// uses, abi.OpKVGet and so on, and the operator must grant them.
func (c Context) KV() Store { return Store{host: c.host} }

// Entry is a value with the tag that stands for it.
type Entry struct {
	Value []byte
	ETag  string // for Write.IfMatch; opaque
}

// Write says under which condition and for how long a value is written. The
// zero Write has no condition and no end.
type Write struct {
	TTL      time.Duration // whole milliseconds from when the step is settled; 0: for ever
	IfMatch  string        // only if the key has this tag
	IfAbsent bool          // only if there is no such key
}

// Get returns the value of key; ok is false when there is none.
func (s Store) Get(key string) (value []byte, ok bool, err error) {
	e, ok, err := s.Entry(key)
	return e.Value, ok, err
}

// Entry returns the value of key with its tag; ok is false when there is none.
func (s Store) Entry(key string) (e Entry, ok bool, err error) {
	var r abi.KVReply
	value, err := s.do(abi.OpKVGet, abi.KVHead{Key: key}, &r, nil)
	switch {
	case err != nil:
		return Entry{}, false, err
	case r.Status == abi.StatusNoEntry:
		return Entry{}, false, nil
	case r.Status != abi.StatusOK:
		return Entry{}, false, kvError(abi.OpKVGet, key, r.ReplyHead)
	}
	return Entry{Value: value, ETag: r.ETag}, true, nil
}

// Put sets the value of key.
func (s Store) Put(key string, value []byte) error {
	_, err := s.PutIf(key, value, Write{})
	return err
}

// PutIf sets the value of key as w says; done is false when its condition does
// not hold. The host checks the condition again when the step is settled, and
// runs the call again if it does not hold then.
func (s Store) PutIf(key string, value []byte, w Write) (done bool, err error) {
	head := abi.KVHead{Key: key, IfMatch: w.IfMatch, IfNoneMatch: w.IfAbsent, TTLMS: millis(w.TTL)}
	return s.write(abi.OpKVPut, head, value)
}

// Delete removes key, whether or not there is one.
func (s Store) Delete(key string) error {
	_, err := s.write(abi.OpKVDelete, abi.KVHead{Key: key}, nil)
	return err
}

// DeleteIf removes key if it has the tag; done is false when it has not.
func (s Store) DeleteIf(key, etag string) (done bool, err error) {
	return s.write(abi.OpKVDelete, abi.KVHead{Key: key, IfMatch: etag}, nil)
}

// List returns keys that begin with prefix and are greater than after by their
// bytes, ascending, at most limit; 0 is abi.DefaultKVList, the most is
// abi.MaxKVList. more tells that there are others after the last one. Unlike
// what is read, what is listed is not checked when the step is settled.
func (s Store) List(prefix, after string, limit int) (keys []string, more bool, err error) {
	var r abi.KVReply
	body, err := ask(s.host, abi.OpKVList, prefix, abi.KVListHead{Prefix: prefix, After: after, Limit: limit}, &r, nil)
	switch {
	case err != nil:
		return nil, false, err
	case r.Status != abi.StatusOK:
		return nil, false, kvError(abi.OpKVList, prefix, r.ReplyHead)
	}
	if err := json.Unmarshal(body, &keys); err != nil {
		return nil, false, fmt.Errorf("%s %q: keys: %w", abi.OpKVList, prefix, err)
	}
	return keys, r.More, nil
}

func (s Store) write(op string, head abi.KVHead, value []byte) (done bool, err error) {
	var r abi.KVReply
	_, err = s.do(op, head, &r, value)
	switch {
	case err != nil:
		return false, err
	case r.Status == abi.StatusNotMatched:
		return false, nil
	case r.Status != abi.StatusStored:
		return false, kvError(op, head.Key, r.ReplyHead)
	}
	return true, nil
}

func (s Store) do(op string, head abi.KVHead, reply *abi.KVReply, body []byte) ([]byte, error) {
	if !utf8.ValidString(head.Key) { // JSON would make one key of two
		return nil, fmt.Errorf("%s %q: the key is not UTF-8", op, head.Key)
	}
	return ask(s.host, op, head.Key, head, reply, body)
}

func kvError(op, key string, h abi.ReplyHead) error {
	code := abi.FailInternal
	switch h.Status {
	case abi.StatusTooLarge, abi.StatusInsufficient:
		code = abi.FailPermanent
	}
	return refused(op, key, h, code)
}
