// Package guest turns loaded plugins into the tools of the loop and the
// policies of the host, and swaps them while both are in use. It watches no
// files and holds no sandbox rules of its own.
package guest

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// Condition says how a source fares: for /readyz.
type Condition struct {
	Source Source
	Digest string // of the module in use; "" when there is none
	Err    error  // why the file as it is now is not in use; nil: it is
}

// Policies takes over loaded policies; nil means the built-in one.
type Policies interface {
	SetRoute(a policy.Asker)
	SetRetry(a policy.Asker)
}

// Catalog is what is loaded now. It is safe for concurrent use.
type Catalog struct {
	manager  *plugins.Manager
	kv       KV
	policies Policies
	options  Options
	log      hclog.Logger

	swap  sync.Mutex // one change at a time
	tools atomic.Pointer[shelf]

	mu         sync.Mutex
	conditions map[sourceKey]Condition
	loaded     map[sourceKey]*module
	sources    map[sourceKey]Source // as Apply was given them last
}

// shelf is the tools offered now, by plugin name, each with the source that it
// comes from as it is now configured: the module may be of the one before.
type shelf struct {
	modules map[string]*module
	sources map[string]Source
}

// Options of a Catalog. The zero value works.
type Options struct {
	Logger hclog.Logger // nil drops its lines
	// Audit gets a line for each kind of refused capability call of a call, and
	// Refused is told of each one; file is that of the Source. nil drops them.
	Audit   hclog.Logger
	Refused func(file, op, reason string)
	// TenantLimits returns what stands in place of a plugin's limits for a
	// tenant, where it is not zero; plugin is its own name. nil: nothing does.
	TenantLimits func(tenant, plugin string) plugins.Limits
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Audit == nil {
		o.Audit = hclog.NewNullLogger()
	}
	if o.Refused == nil {
		o.Refused = func(string, string, string) {}
	}
	if o.TenantLimits == nil {
		o.TenantLimits = func(string, string) plugins.Limits { return plugins.Limits{} }
	}
	return o
}

// New returns an empty catalog: built-in policies, no tools.
func New(m *plugins.Manager, kv KV, p Policies, o Options) *Catalog {
	o = o.withDefaults()
	c := &Catalog{
		manager: m, kv: kv, policies: p, options: o, log: o.Logger,
		conditions: map[sourceKey]Condition{}, loaded: map[sourceKey]*module{}, sources: map[sourceKey]Source{},
	}
	c.tools.Store(&shelf{modules: map[string]*module{}})
	return c
}

// Apply makes sources, and nothing else, what is loaded: at most one route and
// one retry policy, and tools. A source that cannot be loaded leaves its last
// good module in place, and a policy also the one of another file before it;
// the error names each. A source that is as it was, file and all, is left
// alone. All of the change is seen at once, but for powers that a source takes
// away: they are gone before anything is loaded, and whether or not it can be.
func (c *Catalog) Apply(ctx context.Context, sources []Source) error {
	c.swap.Lock()
	defer c.swap.Unlock()
	keep := map[sourceKey]bool{}
	for _, s := range sources {
		keep[s.key()] = true
	}
	c.configure(sources)
	var first error
	failed := 0
	var gone []*module
	for _, s := range sources {
		old, err := c.load(ctx, s, keep)
		if err != nil {
			failed++
			if first == nil {
				first = err
			}
		}
		if old != nil {
			gone = append(gone, old)
		}
	}
	gone = append(gone, c.retain(keep)...)
	c.publish()
	for _, m := range gone {
		m.retire()
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more)", first, failed-1)
	}
	return first
}

// configure notes what the operator says now, which takes powers away at once.
// What he does not name any more stays as it was until it is dropped: it may
// come back from another file.
func (c *Catalog) configure(sources []Source) {
	c.mu.Lock()
	for _, s := range sources {
		c.sources[s.key()] = s
	}
	c.mu.Unlock()
	c.publish()
}

// Refresh loads the sources of file again, if what the file holds has changed.
func (c *Catalog) Refresh(ctx context.Context, file string) error {
	c.swap.Lock()
	defer c.swap.Unlock()
	conditions := c.Conditions()
	keep := map[sourceKey]bool{}
	for _, cond := range conditions {
		keep[cond.Source.key()] = true
	}
	var first error
	for _, cond := range conditions {
		if cond.Source.File != file {
			continue
		}
		old, err := c.load(ctx, cond.Source, keep)
		if err != nil && first == nil {
			first = err
		}
		c.publish()
		if old != nil {
			old.retire()
		}
	}
	return first
}

// Conditions returns how each source fares, by role and file.
func (c *Catalog) Conditions() []Condition {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Condition, 0, len(c.conditions))
	for _, cond := range c.conditions {
		all = append(all, cond)
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i].Source, all[j].Source
		return a.Role < b.Role || a.Role == b.Role && a.File < b.File
	})
	return all
}

// load loads one source and puts it in the place of the one before, which it
// returns if it is out of use with the next publish.
func (c *Catalog) load(ctx context.Context, s Source, keep map[sourceKey]bool) (replaced *module, err error) {
	m, err := c.open(ctx, s, keep)
	c.mu.Lock()
	old := c.loaded[s.key()]
	cond := Condition{Source: s, Err: err}
	switch {
	case m != nil:
		c.loaded[s.key()] = m
		cond.Digest = m.digest
	case old != nil:
		cond.Digest = old.digest
	}
	c.conditions[s.key()] = cond
	c.mu.Unlock()
	if err != nil {
		args := []any{"role", s.Role, "file", s.File, "error", err}
		if old != nil {
			args = append(args, "in_use", old.digest) // the one before stays
		}
		c.log.Error("module not loaded", args...)
		return nil, err
	}
	if m == old {
		return nil, nil
	}
	c.log.Info("module loaded", "role", s.Role, "file", s.File, "plugin", m.descriptor.Name,
		"version", m.descriptor.Version, "digest", m.digest)
	for op, granted := range m.granted {
		if !granted {
			c.log.Warn("the plugin wants a power that it is not granted", "plugin", m.descriptor.Name, "op", op)
		}
	}
	return old, nil
}

// open reads, loads and checks a source. It returns the module in use when
// nothing has changed.
func (c *Catalog) open(ctx context.Context, s Source, keep map[sourceKey]bool) (*module, error) {
	wasm, err := os.ReadFile(s.File)
	if err != nil {
		return nil, fmt.Errorf("guest: %s: %w", s.File, err)
	}
	c.mu.Lock()
	old := c.loaded[s.key()]
	c.mu.Unlock()
	if old != nil && old.digest == digestOf(wasm) && reflect.DeepEqual(old.source, s) {
		return old, nil
	}
	p, err := c.manager.Load(ctx, s.File, wasm)
	if err != nil {
		return nil, err
	}
	m, err := newModule(ctx, p, s)
	if err == nil {
		err = c.clash(m, s, keep)
	}
	if err != nil {
		closing := p.Close(ctx)
		if closing != nil {
			c.log.Warn("close a refused module", "file", s.File, "error", closing)
		}
		return nil, err
	}
	m.log = c.log
	return m, nil
}

// clash refuses a second tool plugin of the same name, unless the first is
// about to be dropped.
func (c *Catalog) clash(m *module, s Source, keep map[sourceKey]bool) error {
	if s.Role != Tool {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, other := range c.loaded {
		if key.Role == Tool && key != s.key() && keep[key] && other.descriptor.Name == m.descriptor.Name {
			return fmt.Errorf("guest: %s: a plugin named %q is already loaded from %s: rename one of them",
				s.File, m.descriptor.Name, key.File)
		}
	}
	return nil
}

// retain drops what is not to be kept, and returns it.
func (c *Catalog) retain(keep map[sourceKey]bool) (dropped []*module) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, m := range c.loaded {
		if !keep[key] {
			c.log.Info("module dropped", "role", key.Role, "plugin", m.descriptor.Name, "digest", m.digest)
			dropped = append(dropped, m)
			delete(c.loaded, key)
		}
	}
	for key := range c.conditions {
		if !keep[key] {
			delete(c.conditions, key)
			delete(c.sources, key)
		}
	}
	return dropped
}

// publish makes what is loaded what the next call and decision find.
func (c *Catalog) publish() {
	next := &shelf{modules: map[string]*module{}, sources: map[string]Source{}}
	var route, retry policy.Asker
	c.mu.Lock()
	for key, m := range c.loaded {
		switch key.Role {
		case Tool:
			next.modules[m.descriptor.Name], next.sources[m.descriptor.Name] = m, c.sources[key]
		case Route:
			route = asker{m, abi.ExportRoute}
		case Retry:
			retry = asker{m, abi.ExportRetry}
		}
	}
	c.mu.Unlock()
	c.tools.Store(next)
	c.policies.SetRoute(route)
	c.policies.SetRetry(retry)
}
