// Package capability declares what a plugin may be given: the ports that a
// host implements and the per-call Env that binds a call to its tenant. It
// declares only; it enforces nothing, does no I/O and imports nothing.
package capability

import "context"

// Env binds one call to the tenant and step that it works for. The zero Env
// has no powers: describe, conformance checks and policies run under it.
type Env struct {
	Tenant string
	// Granted holds the op strings ("kv.get/1") that this call may use:
	// descriptor ∧ operator grant ∧ tenant policy, computed by the host.
	Granted map[string]bool
	// KV is the plugin's own state, already namespaced by tenant and plugin.
	// It may be nil when no kv op is granted.
	KV KV
	// Emit receives progress that the guest reports; it may be nil. An error
	// that wraps context.Canceled tells the guest that it was aborted.
	Emit func(kind int32, data []byte) error
}

// KV is the state of one plugin for one tenant. Reads see committed state;
// the writes of a call are buffered by the caller of Get, so that a call sees
// its own writes, and are returned with the result of the call.
type KV interface {
	// Get returns the committed value of key; ok is false when there is none.
	Get(ctx context.Context, key string) (value []byte, ok bool, err error)
}

// Put is one buffered write of a call.
type Put struct {
	Key   string
	Value []byte
}
