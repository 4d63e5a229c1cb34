package guest

import (
	"slices"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// powers are what one call may do.
type powers struct {
	granted map[string]bool
	http    capability.HTTP // nil without the grant
	release func()
}

// powers returns what a call of m may do now. A module that was replaced since
// the attempt began keeps working, but what the operator has taken away
// meanwhile is gone for it at once, and what was added is not for it.
func (s *toolset) powers(m *module) powers {
	p := powers{granted: m.granted, release: func() {}}
	client := m.http
	if now := s.catalog.tools.Load().modules[m.descriptor.Name]; now != m {
		p.granted, client = map[string]bool{}, nil
		if now != nil {
			for op, granted := range m.granted {
				p.granted[op] = granted && slices.Contains(now.source.Grants, op)
			}
			now.hold()
			p.release = now.release
			client = now.http
		}
	}
	if client == nil {
		p.granted = without(p.granted, abi.OpHTTPFetch)
		return p
	}
	p.http = client // not a nil *Client
	return p
}

// without returns granted without op.
func without(granted map[string]bool, op string) map[string]bool {
	if !granted[op] {
		return granted
	}
	rest := make(map[string]bool, len(granted))
	for other, ok := range granted {
		rest[other] = ok && other != op
	}
	return rest
}
