package capability

import (
	"context"
	"time"
)

// KV is the state of one plugin for one tenant. Reads see committed state;
// the writes of a call are buffered by the caller of KV, so that a call sees
// its own writes, and are returned with the result of the call.
type KV interface {
	// Get returns the committed value of key; ok is false when there is none
	// or it has expired.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
	// List returns at most limit committed keys that begin with prefix and are
	// greater than after, ascending by their bytes, without expired ones.
	List(ctx context.Context, prefix, after string, limit int) (keys []string, err error)
	// Used returns how many keys are held and the length of all keys and
	// values in bytes, for the quota.
	Used(ctx context.Context) (keys int, bytes int64, err error)
}

// Put is one buffered write of a call. Those of a call are committed in order,
// all or none.
type Put struct {
	Key    string
	Value  []byte
	Delete bool          // the key goes, and Value is nil
	TTL    time.Duration // from the commit; 0: for ever
	// Checked: the writes of the call are committed only if the key is still
	// what the call saw: Was or, where Had is not set, absent. Of several
	// writes to one key only the first can be checked.
	Checked bool
	Had     bool
	Was     []byte
}
