package hostfn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// entry is a key's value, or its absence.
type entry struct {
	had   bool
	value []byte
}

// size is what the entry of a key counts for the quota.
func (e entry) size(key string) int64 {
	if !e.had {
		return 0
	}
	return int64(len(key) + len(e.value))
}

// kvState is what a call has read and written until its step is settled.
type kvState struct {
	puts   []capability.Put
	latest map[string]entry // by key: as the call's last write left it
	size   int              // of all writes
	// committed holds what was read of the port, once for each key: the call
	// sees one state and not what others commit meanwhile.
	committed map[string]entry
	seen      map[string]bool // keys of committed that the guest learned of
	used      *usage
}

// usage is what the plugin held when the call first asked.
type usage struct {
	keys  int
	bytes int64
}

// etag stands for a value.
func etag(value []byte) string {
	sum := sha256.Sum256(value)
	return hex.EncodeToString(sum[:16])
}

// kvNow returns key as the guest sees it, and remembers that it did.
func (s *Session) kvNow(ctx context.Context, key string) (entry, error) {
	if e, ok := s.kv.latest[key]; ok {
		return e, nil
	}
	e, err := s.kvCommitted(ctx, key)
	if err != nil {
		return entry{}, err
	}
	if s.kv.seen == nil {
		s.kv.seen = map[string]bool{}
	}
	s.kv.seen[key] = true
	return e, nil
}

// kvCommitted returns what the port says of key, and says it again without
// asking twice.
func (s *Session) kvCommitted(ctx context.Context, key string) (entry, error) {
	if e, ok := s.kv.committed[key]; ok {
		return e, nil
	}
	if s.env.KV == nil {
		return entry{}, errNoPort
	}
	value, had, err := s.env.KV.Get(ctx, key)
	if err != nil {
		return entry{}, err
	}
	e := entry{had: had}
	if had {
		e.value = bytes.Clone(value)
	}
	if s.kv.committed == nil {
		s.kv.committed = map[string]entry{}
	}
	s.kv.committed[key] = e
	return e, nil
}

// write buffers one write. The first to a key that the guest has seen holds
// only as long as the key is what it saw; later ones follow it.
func (k *kvState) write(key string, to entry, ttl time.Duration) {
	p := capability.Put{Key: key, Value: to.value, Delete: !to.had, TTL: ttl}
	if _, written := k.latest[key]; !written && k.seen[key] {
		was := k.committed[key]
		p.Checked, p.Had, p.Was = true, was.had, was.value
	}
	if k.latest == nil {
		k.latest = map[string]entry{}
	}
	k.latest[key] = to
	k.size += len(key) + len(to.value)
	k.puts = append(k.puts, p)
}

// merge returns committed keys, ascending, with those of the call's own writes.
func (k *kvState) merge(committed []string, prefix, after string) []string {
	keys := make([]string, 0, len(committed)+len(k.latest))
	for _, key := range committed {
		if _, written := k.latest[key]; !written {
			keys = append(keys, key)
		}
	}
	for key, e := range k.latest {
		if e.had && strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// kvFits reports whether the plugin stays within its quota with one more
// write. Calls at the same time do not see each other, so together they may
// pass it by what they write.
func (s *Session) kvFits(ctx context.Context, key string, to entry) (bool, error) {
	if !to.had {
		return true, nil
	}
	if s.env.KV == nil {
		return false, errNoPort
	}
	if s.kv.used == nil {
		keys, size, err := s.env.KV.Used(ctx)
		if err != nil {
			return false, err
		}
		s.kv.used = &usage{keys: keys, bytes: size}
	}
	// Nearly always there is room even if no write replaces anything.
	most := usage{keys: s.kv.used.keys + len(s.kv.puts) + 1, bytes: s.kv.used.bytes + int64(s.kv.size) + to.size(key)}
	if most.within() {
		return true, nil
	}
	exact, err := s.kvAfter(ctx, key, to)
	// A plugin over its quota may still make itself smaller.
	smaller := exact.keys <= s.kv.used.keys && exact.bytes <= s.kv.used.bytes
	return smaller || exact.within(), err
}

// kvAfter returns what the plugin holds once the call's writes and one more
// are committed.
func (s *Session) kvAfter(ctx context.Context, key string, to entry) (usage, error) {
	after := map[string]entry{key: to}
	for other, e := range s.kv.latest {
		if other != key {
			after[other] = e
		}
	}
	u := *s.kv.used
	for key, e := range after {
		was, err := s.kvCommitted(ctx, key)
		if err != nil {
			return usage{}, err
		}
		u.bytes += e.size(key) - was.size(key)
		switch {
		case e.had && !was.had:
			u.keys++
		case !e.had && was.had:
			u.keys--
		}
	}
	return u, nil
}

func (u usage) within() bool { return u.keys <= abi.QuotaKVKeys && u.bytes <= abi.QuotaKVBytes }
