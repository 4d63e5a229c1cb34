package abi

// KVHead is the request head of OpKVGet and OpKVPut. The body of a put is the
// value; a get has no body.
type KVHead struct {
	Key string `json:"key"` // 1 to MaxKVKey bytes of UTF-8 without NUL
}

// ReplyHead is the reply head of every op.
type ReplyHead struct {
	Status int    `json:"status"`
	Error  string `json:"error,omitempty"` // closed code when Status is 400 or more and not StatusNoEntry
}

// The statuses of ReplyHead that kv.get/1 and kv.put/1 answer.
const (
	StatusFound    = 200 // get: the body of the reply is the value
	StatusStored   = 204 // put: buffered, committed with the step
	StatusBadKey   = 400 // the key breaks the rule of KVHead, or the head is not JSON
	StatusNoEntry  = 404 // get: there is no such key
	StatusTooLarge = 413 // put: the value is longer than MaxKVValue
	StatusFull     = 507 // put: the call has written too much already
)

// Limits of the kv ops: lengths in bytes, and the writes of one call.
const (
	MaxKVKey      = 512
	MaxKVValue    = 64 << 10
	MaxKVPuts     = 100
	MaxKVPutBytes = 1 << 20 // keys and values of all writes
)
