// Package capability declares what a plugin may be given: the ports that a
// host implements and the per-call Env that binds a call to its tenant. It
// declares only; it enforces nothing, does no I/O and imports nothing of ours.
package capability

import (
	"context"
	"errors"
)

// ErrEnded is wrapped by a port, or by Env.Effect, when nobody waits for the
// call any more: its lease was lost, or its request has ended. The call then
// ends as canceled, and the host has done nothing wrong.
var ErrEnded = errors.New("capability: the call's owner has ended")

// Env binds one call to the tenant and step that it works for. The zero Env
// has no powers: describe, conformance checks and policies run under it. All
// functions and ports of it may be nil; they are called by one goroutine at a
// time, with no lock held.
type Env struct {
	Tenant string
	// Granted holds the op strings ("kv.get/1") that this call may use:
	// descriptor ∧ operator grant ∧ tenant policy, computed by the host.
	Granted map[string]bool
	// KV is the plugin's own state, already namespaced by tenant and plugin;
	// HTTP sends what the operator's rules allow; Tools calls other tools as
	// steps below the call's own. Each may be nil when no op of it is granted.
	KV    KV
	HTTP  HTTP
	Tools Tools
	// Effect is called before each op that changes something outside:
	// http.fetch with another method than GET or HEAD. It records that effects
	// began and checks that the lease is still held; its error ends the call
	// before anything was sent. Tools does the same for what it calls.
	Effect func(ctx context.Context) error
	// Audit is told of each refused op. Both words are closed strings of the
	// host, never text of the guest: an op that the host knows, and one of the
	// reasons Audit….
	Audit func(op, reason string)
	// Emit receives progress that the guest reports. An error that wraps
	// context.Canceled tells the guest that it was aborted.
	Emit func(kind int32, data []byte) error
}

// The reasons that Env.Audit is given.
const (
	AuditNotGranted = "not_granted"   // the op is not in Env.Granted
	AuditRule       = "egress_rule"   // no rule allows the URL and method
	AuditAddress    = "egress_addr"   // the name stands for an address that is not allowed
	AuditRedirect   = "egress_hop"    // a redirect led to what no rule allows
	AuditSecret     = "egress_secret" // a secret is not bound to that host and header
	AuditHeader     = "egress_header" // a header that a guest may not set, or one with a line break
	AuditTool       = "tool_refused"  // the host does not let this call call that tool
)
