package abi

// KVHead is the request head of OpKVGet, OpKVPut and OpKVDelete. The body of a
// put is the value; the others have no body. A get looks at Key only, a delete
// not at TTLMS.
type KVHead struct {
	Key string `json:"key"` // 1 to MaxKVKey bytes of UTF-8 without NUL
	// IfMatch writes only if the key has this ETag; IfNoneMatch only if there
	// is no such key. At most one of them.
	IfMatch     string `json:"if_match,omitempty"`
	IfNoneMatch bool   `json:"if_none_match,omitempty"`
	// TTLMS is how long a value is kept, in milliseconds from the commit, at
	// most MaxKVTTLMS; 0: for ever.
	TTLMS int64 `json:"ttl_ms,omitempty"`
}

// KVListHead is the request head of OpKVList: keys that begin with Prefix and
// are greater than After by their bytes.
type KVListHead struct {
	Prefix string `json:"prefix,omitempty"`
	After  string `json:"after,omitempty"`
	Limit  int    `json:"limit,omitempty"` // 1 to MaxKVList; 0: DefaultKVList
}

// KVReply is the reply head of the kv ops. The body is the value of a get, and
// the keys of a list as a JSON array of strings, ascending by their bytes.
type KVReply struct {
	ReplyHead
	ETag string `json:"etag,omitempty"` // get: stands for the value; opaque
	More bool   `json:"more,omitempty"` // list: there are keys after the last one
}

// Words of ReplyHead.Error of the kv ops.
const (
	ErrorKey        = "invalid_key"
	ErrorTTL        = "invalid_ttl"
	ErrorCondition  = "precondition_failed" // if_match or if_none_match does not hold
	ErrorValue      = "value_too_large"
	ErrorManyWrites = "too_many_writes" // of one call
	ErrorQuota      = "quota_exceeded"  // of the plugin, for the tenant
)

// Limits of the kv ops: lengths in bytes, and the writes of one call.
const (
	MaxKVKey      = 512
	MaxKVValue    = 64 << 10
	MaxKVPuts     = 100     // deletes counted
	MaxKVPutBytes = 1 << 20 // keys and values of all writes
	MaxKVTTLMS    = 100 * 365 * 24 * 60 * 60 * 1000
	DefaultKVList = 100
	MaxKVList     = 1000
)

// The quota of one plugin for one tenant: keys, and bytes of keys and values.
const (
	QuotaKVKeys  = 10_000
	QuotaKVBytes = 16 << 20
)
