package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

// module is a loaded plugin in one role. It is closed when it is retired and
// nobody holds it any more.
type module struct {
	plugin     *plugins.Plugin
	descriptor abi.Descriptor
	digest     string
	source     Source
	limits     plugins.Limits
	granted    map[string]bool             // wanted ∧ granted
	schemas    map[string]*manifest.Schema // by tool
	http       *egress.Client              // nil unless http.fetch/1 is granted
	log        hclog.Logger

	mu      sync.Mutex
	users   int
	retired bool
}

// retireGrace is how long a retired module stays open for callers that found
// it just before it was replaced.
const retireGrace = 2 * time.Second

// newModule checks that a plugin fits its role.
func newModule(ctx context.Context, p *plugins.Plugin, s Source) (*module, error) {
	m := &module{
		plugin: p, descriptor: p.Descriptor(), digest: p.Digest(), source: s, limits: s.Limits,
		granted: map[string]bool{}, schemas: map[string]*manifest.Schema{},
	}
	if !slices.Contains(m.descriptor.Kinds, string(s.Role)) {
		return nil, fmt.Errorf("guest: %s: plugin %q is a plugin for %v, but is configured as %s", s.File, m.descriptor.Name, m.descriptor.Kinds, s.Role)
	}
	if s.Role != Tool {
		m.limits = s.Limits.Over(plugins.DefaultLimits(abi.ExportRoute))
		return m, m.rehearse(ctx, s.Role)
	}
	return m, m.equip()
}

// equip gives a tool module its schemas and its powers.
func (m *module) equip() error {
	s := m.source
	if m.descriptor.Name == response.AgentLabel {
		return fmt.Errorf("guest: %s: the plugin is named %q, which stands for the agents of the configuration: rename it", s.File, m.descriptor.Name)
	}
	for _, op := range m.descriptor.Capabilities {
		m.granted[op] = slices.Contains(s.Grants, op)
	}
	for _, t := range m.descriptor.Tools {
		schema, err := manifest.ParseSchema(t.Parameters)
		if err != nil {
			return fmt.Errorf("guest: %s: tool %q: parameters: %w", s.File, t.Name, err)
		}
		m.schemas[t.Name] = schema
	}
	for name := range s.Effects {
		if m.schemas[name] == nil {
			return fmt.Errorf("guest: %s: plugin %q has no tool %q to set the effects of", s.File, m.descriptor.Name, name)
		}
	}
	if !m.granted[abi.OpHTTPFetch] {
		return nil
	}
	o := egress.Options{Rules: s.HTTP, Secrets: s.Secrets}
	if err := o.Validate(); err != nil {
		return fmt.Errorf("guest: %s: %w", s.File, err)
	}
	m.http = egress.New(o)
	return nil
}

// effects returns what a tool may change: by the operator, else by its
// descriptor, and undeclared ones may do anything once.
func (m *module) effects(t abi.ToolDescriptor) string {
	switch {
	case m.source.Effects[t.Name] != "":
		return m.source.Effects[t.Name]
	case t.Effects != "":
		return string(t.Effects)
	}
	return string(abi.EffectsOnce)
}

// hold keeps the module open until release.
func (m *module) hold() {
	m.mu.Lock()
	m.users++
	m.mu.Unlock()
}

func (m *module) release() {
	m.mu.Lock()
	m.users--
	last := m.retired && m.users == 0
	m.mu.Unlock()
	if last {
		m.close()
	}
}

// retire closes the module once its last user has gone.
func (m *module) retire() {
	m.hold()
	m.mu.Lock()
	m.retired = true
	m.mu.Unlock()
	time.AfterFunc(retireGrace, m.release)
}

func (m *module) close() {
	if m.http != nil {
		m.http.Close()
	}
	if err := m.plugin.Close(context.Background()); err != nil {
		m.log.Warn("close module", "plugin", m.descriptor.Name, "digest", m.digest, "error", err)
	}
}

func (m *module) tool(name string) (abi.ToolDescriptor, bool) {
	for _, t := range m.descriptor.Tools {
		if t.Name == name {
			return t, true
		}
	}
	return abi.ToolDescriptor{}, false
}

func digestOf(wasm []byte) string {
	sum := sha256.Sum256(wasm)
	return "sha256:" + hex.EncodeToString(sum[:])
}
