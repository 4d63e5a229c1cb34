package plugintest

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// state is what stands behind a plugin's capabilities: its own keys, in
// memory, and a network that allows nothing.
type state struct {
	granted map[string]bool
	http    capability.HTTP
	values  map[string][]byte
}

func newState(d abi.Descriptor) *state {
	s := &state{granted: map[string]bool{}, http: offline{}, values: map[string][]byte{}}
	for _, op := range d.Capabilities {
		s.granted[op] = true
	}
	return s
}

// state returns an empty one for a call of the plugin that is checked.
func (k *kit) state() *state {
	s := newState(k.images[0].Descriptor())
	if k.http != nil {
		s.http = k.http
	}
	return s
}

func (s *state) env() capability.Env {
	return capability.Env{Tenant: conformance, Granted: s.granted, KV: s, HTTP: s.http, Tools: alone{}}
}

// apply commits the writes of a call. Lifetimes do not run out here.
func (s *state) apply(puts []capability.Put) {
	for _, p := range puts {
		value, had := s.values[p.Key]
		switch {
		case p.Checked && (had != p.Had || !bytes.Equal(value, p.Was)):
		case p.Delete:
			delete(s.values, p.Key)
		default:
			s.values[p.Key] = p.Value
		}
	}
}

// Get implements capability.KV.
func (s *state) Get(_ context.Context, key string) (value []byte, ok bool, err error) {
	value, ok = s.values[key]
	return value, ok, nil
}

// List implements capability.KV.
func (s *state) List(_ context.Context, prefix, after string, limit int) (keys []string, err error) {
	for key := range s.values {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), limit)], nil
}

// Used implements capability.KV.
func (s *state) Used(context.Context) (keys int, size int64, err error) {
	for key, value := range s.values {
		size += int64(len(key) + len(value))
	}
	return len(s.values), size, nil
}

// offline is the network of a plugin outside of any host: no rule allows
// anything.
type offline struct{}

// Do implements capability.HTTP.
func (offline) Do(context.Context, *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	return nil, &capability.HTTPError{Code: abi.HTTPDenied, Audit: capability.AuditRule}
}

// alone are the other tools of a plugin outside of any host: none.
type alone struct{}

// Call implements capability.Tools.
func (alone) Call(context.Context, int, string, []byte) (capability.ToolReply, error) {
	return capability.ToolReply{}, capability.ErrNoTool
}
