package hostfn

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// The closed codes of replies that are errors.
const (
	codeHead     = "invalid_request"
	codeKey      = "invalid_key"
	codeTooLarge = "value_too_large"
	codeFull     = "too_many_writes"
)

var errNoPort = errors.New("granted, but the host gave no port for it")

// kvWrites holds the writes of a call until its step is settled.
type kvWrites struct {
	puts   []capability.Put
	latest map[string]int // key → index in puts
	size   int
}

func (s *Session) kvGet(ctx context.Context, head, _ []byte) (reply, error) {
	key, bad := kvKey(head)
	if bad != "" {
		return newReply(abi.StatusBadKey, bad, nil), nil
	}
	if i, ok := s.kv.latest[key]; ok {
		return newReply(abi.StatusFound, "", s.kv.puts[i].Value), nil
	}
	if s.env.KV == nil {
		return reply{}, errNoPort
	}
	value, ok, err := s.env.KV.Get(ctx, key)
	switch {
	case err != nil:
		return reply{}, err
	case !ok:
		return newReply(abi.StatusNoEntry, "", nil), nil
	}
	return newReply(abi.StatusFound, "", value), nil
}

func (s *Session) kvPut(_ context.Context, head, body []byte) (reply, error) {
	key, bad := kvKey(head)
	size := len(key) + len(body)
	switch {
	case bad != "":
		return newReply(abi.StatusBadKey, bad, nil), nil
	case len(body) > abi.MaxKVValue:
		return newReply(abi.StatusTooLarge, codeTooLarge, nil), nil
	case len(s.kv.puts) >= abi.MaxKVPuts || size > abi.MaxKVPutBytes-s.kv.size:
		return newReply(abi.StatusFull, codeFull, nil), nil
	}
	if s.kv.latest == nil {
		s.kv.latest = map[string]int{}
	}
	s.kv.size += size
	s.kv.latest[key] = len(s.kv.puts)
	// The body is a slice of the guest's memory.
	s.kv.puts = append(s.kv.puts, capability.Put{Key: key, Value: append([]byte{}, body...)})
	return newReply(abi.StatusStored, "", nil), nil
}

// kvKey returns the key of a request head, or the code of what is wrong. A
// head that is not UTF-8 is refused before encoding/json would repair it: two
// keys must not become one.
func kvKey(head []byte) (key, bad string) {
	var h abi.KVHead
	if !utf8.Valid(head) || json.Unmarshal(head, &h) != nil {
		return "", codeHead
	}
	if h.Key == "" || len(h.Key) > abi.MaxKVKey || strings.ContainsRune(h.Key, 0) || !soundEscapes(head, h.Key) {
		return "", codeKey
	}
	return h.Key, ""
}

// soundEscapes reports false when the key holds U+FFFD that the head did not
// spell: half a surrogate pair that encoding/json replaced.
func soundEscapes(head []byte, key string) bool {
	if !strings.ContainsRune(key, utf8.RuneError) {
		return true
	}
	return strings.ContainsRune(string(head), utf8.RuneError) || strings.Contains(strings.ToLower(string(head)), `\ufffd`)
}
