package hostfn

import (
	"context"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
)

// kvGet answers with what the call wrote itself, or else with what is
// committed.
func (s *Session) kvGet(ctx context.Context, head, _ []byte) (reply, error) {
	h, bad := kvHead(head)
	if bad != "" {
		return plain(abi.StatusBadRequest, bad), nil
	}
	now, err := s.kvNow(ctx, h.Key)
	switch {
	case err != nil:
		return reply{}, err
	case !now.had:
		return plain(abi.StatusNoEntry, ""), nil
	}
	r := abi.KVReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, ETag: etag(now.value)}
	return reply{head: r, body: now.value}, nil
}

func (s *Session) kvPut(ctx context.Context, head, body []byte) (reply, error) {
	h, bad := kvHead(head)
	switch {
	case bad != "":
		return plain(abi.StatusBadRequest, bad), nil
	case h.TTLMS < 0 || h.TTLMS > abi.MaxKVTTLMS:
		return plain(abi.StatusBadRequest, abi.ErrorTTL), nil
	case len(body) > abi.MaxKVValue:
		return plain(abi.StatusTooLarge, abi.ErrorValue), nil
	}
	// The body is a slice of the guest's memory.
	return s.kvWrite(ctx, h, entry{had: true, value: append([]byte{}, body...)})
}

func (s *Session) kvDelete(ctx context.Context, head, _ []byte) (reply, error) {
	h, bad := kvHead(head)
	if bad != "" {
		return plain(abi.StatusBadRequest, bad), nil
	}
	h.TTLMS = 0
	return s.kvWrite(ctx, h, entry{})
}

// kvWrite buffers one write if its condition holds and there is room for it.
func (s *Session) kvWrite(ctx context.Context, h abi.KVHead, to entry) (reply, error) {
	size := len(h.Key) + len(to.value)
	if len(s.kv.puts) >= abi.MaxKVPuts || size > abi.MaxKVPutBytes-s.kv.size {
		return plain(abi.StatusInsufficient, abi.ErrorManyWrites), nil
	}
	holds, err := s.kvHolds(ctx, h)
	switch {
	case err != nil:
		return reply{}, err
	case !holds:
		return plain(abi.StatusNotMatched, abi.ErrorCondition), nil
	}
	fits, err := s.kvFits(ctx, h.Key, to)
	switch {
	case err != nil:
		return reply{}, err
	case !fits:
		return plain(abi.StatusInsufficient, abi.ErrorQuota), nil
	}
	s.kv.write(h.Key, to, time.Duration(h.TTLMS)*time.Millisecond)
	return plain(abi.StatusStored, ""), nil
}

// kvHolds reports whether the condition of a write holds now. What it looked
// at is checked again when the write is committed.
func (s *Session) kvHolds(ctx context.Context, h abi.KVHead) (bool, error) {
	if h.IfMatch == "" && !h.IfNoneMatch {
		return true, nil
	}
	now, err := s.kvNow(ctx, h.Key)
	if err != nil {
		return false, err
	}
	if h.IfNoneMatch {
		return !now.had, nil
	}
	return now.had && etag(now.value) == h.IfMatch, nil
}

// kvList answers with committed keys and those that the call wrote itself.
func (s *Session) kvList(ctx context.Context, head, _ []byte) (reply, error) {
	var h abi.KVListHead
	if !utf8.Valid(head) || json.Unmarshal(head, &h) != nil || h.Limit < 0 || h.Limit > abi.MaxKVList {
		return plain(abi.StatusBadRequest, abi.ErrorRequest), nil
	}
	for _, part := range []string{h.Prefix, h.After} {
		if part != "" && !validKey(head, part) {
			return plain(abi.StatusBadRequest, abi.ErrorKey), nil
		}
	}
	if h.Limit == 0 {
		h.Limit = abi.DefaultKVList
	}
	if s.env.KV == nil {
		return reply{}, errNoPort
	}
	// One more tells whether there is more; each delete of the call may take
	// one away.
	keys, err := s.env.KV.List(ctx, h.Prefix, h.After, h.Limit+1+len(s.kv.latest))
	if err != nil {
		return reply{}, err
	}
	keys = s.kv.merge(keys, h.Prefix, h.After)
	r := abi.KVReply{ReplyHead: abi.ReplyHead{Status: abi.StatusOK}, More: len(keys) > h.Limit}
	body, err := json.Marshal(keys[:min(len(keys), h.Limit)])
	if err != nil {
		return reply{}, err
	}
	return reply{head: r, body: body}, nil
}

// kvHead reads a request head, or returns the code of what is wrong. A head
// that is not UTF-8 is refused before encoding/json would repair it: two keys
// must not become one.
func kvHead(head []byte) (h abi.KVHead, bad string) {
	if !utf8.Valid(head) || json.Unmarshal(head, &h) != nil || h.IfMatch != "" && h.IfNoneMatch {
		return abi.KVHead{}, abi.ErrorRequest
	}
	if !validKey(head, h.Key) {
		return abi.KVHead{}, abi.ErrorKey
	}
	return h, ""
}

func validKey(head []byte, key string) bool {
	return key != "" && len(key) <= abi.MaxKVKey && !strings.ContainsRune(key, 0) && soundEscapes(head, key)
}

// soundEscapes reports false when the key holds U+FFFD that the head did not
// spell: half a surrogate pair that encoding/json replaced.
func soundEscapes(head []byte, key string) bool {
	if !strings.ContainsRune(key, utf8.RuneError) {
		return true
	}
	return strings.ContainsRune(string(head), utf8.RuneError) || strings.Contains(strings.ToLower(string(head)), `\ufffd`)
}
