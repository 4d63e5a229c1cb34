package guest

import (
	"reflect"
	"slices"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// powers are what one call may do.
type powers struct {
	granted map[string]bool
	http    capability.HTTP // nil without the grant
	release func()
}

// powers returns what a call of m may do now: what m was loaded with, as far as
// the operator still says so. A module that was replaced since the attempt
// began, or that stays because its successor cannot be loaded, keeps working;
// what was taken away meanwhile is gone for it at once, and what was added is
// not for it.
func (s *toolset) powers(m *module) powers {
	now := s.catalog.tools.Load().sources[m.descriptor.Name]
	p := powers{granted: make(map[string]bool, len(m.granted)), release: func() {}}
	for op, granted := range m.granted {
		p.granted[op] = granted && slices.Contains(now.Grants, op)
	}
	switch {
	case !p.granted[abi.OpHTTPFetch]:
	case reflect.DeepEqual(now.HTTP, m.source.HTTP) && reflect.DeepEqual(now.Secrets, m.source.Secrets):
		p.http = m.http
	default:
		client := egress.New(egress.Options{
			Rules: bothRules(m.source.HTTP, now.HTTP), Secrets: bothSecrets(m.source.Secrets, now.Secrets),
		})
		p.http, p.release = client, client.Close
	}
	return p
}
