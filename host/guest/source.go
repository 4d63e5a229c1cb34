package guest

import (
	"context"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/egress"
)

// Role is what a file is loaded for.
type Role string

// The roles.
const (
	Tool  Role = "tool"
	Route Role = "route"
	Retry Role = "retry"
)

// Source is a module file, what it is loaded for and what it may do. It holds
// secrets: it is not for a log.
type Source struct {
	Role   Role
	File   string
	Limits plugins.Limits // of each call; zero fields take the defaults of the role

	// These are for tools only.
	Grants  []string          // op strings, "kv.get/1"
	Effects map[string]string // by tool, in place of what the descriptor says
	HTTP    []egress.Rule     // what http.fetch/1 may be used for
	Secrets []egress.Secret
}

// sourceKey identifies what a module is in use for. There are many tools, each
// by its file, and one policy of each role, whatever file it comes from.
type sourceKey struct {
	Role Role
	File string // of a tool
}

func (s Source) key() sourceKey {
	if s.Role != Tool {
		return sourceKey{Role: s.Role}
	}
	return sourceKey{s.Role, s.File}
}

// KV reads the committed state of plugins; see store.Store for its methods.
type KV interface {
	KVGet(ctx context.Context, tenant, plugin, key string) (value []byte, ok bool, err error)
	KVList(ctx context.Context, tenant, plugin, prefix, after string, limit int) (keys []string, err error)
	KVUsed(ctx context.Context, tenant, plugin string) (keys int, bytes int64, err error)
}
