// Package tenant says who a key belongs to and what that tenant may use:
// models, tools and limits. It reads no files, stores no key in the clear and
// enforces nothing.
package tenant

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Default is the name of the one tenant of a host without tenants.
const Default = "default"

// How a tenant's tools come into a request.
const (
	Auto  = "auto"   // every granted tool is offered
	OptIn = "opt_in" // only those that the request lists
)

// The errors of New; decide with errors.Is.
var (
	// ErrDuplicate: two entries share a name or a key.
	ErrDuplicate = errors.New("used twice")
	// ErrInvalid: an entry cannot mean anything.
	ErrInvalid = errors.New("invalid")
)

// Tenant is one customer of the host. Its slices are shared: do not change
// them.
type Tenant struct {
	Name   string
	Models []string // aliases it may ask for; empty: all
	Tools  Tools
	Limits Limits
}

// Tools says which plugin tools a tenant is given, and how.
type Tools struct {
	Mode  string   // Auto or OptIn; "": Auto
	Allow []string // "plugin" or "plugin/tool"; empty: all
}

// Limits are a tenant's share of the host.
type Limits struct {
	Weight     float64 // share of the claims against other tenants; 0: 1
	MaxRunning int     // most requests running at once per model lane; 0: no cap
}

// Entry is a Tenant with the sha256 sums of its keys.
type Entry struct {
	Tenant
	KeyHashes [][32]byte
}

// Directory finds tenants by key and by name. It never changes, so it is safe
// for concurrent use.
type Directory struct {
	salt   [32]byte
	byName map[string]Tenant
	byKey  map[[32]byte]string // HMAC of a key's hash to the tenant's name
	open   string
}

// New checks entries and returns their Directory. Without entries it holds the
// one tenant Default, which may use everything. Without any key there can be
// only one tenant, which then needs none: see Open. The error wraps
// ErrDuplicate or ErrInvalid and names the entry, never a key.
func New(entries []Entry) (*Directory, error) {
	if len(entries) == 0 {
		entries = []Entry{{Tenant: Tenant{Name: Default}}}
	}
	d := &Directory{byName: make(map[string]Tenant), byKey: make(map[[32]byte]string)}
	if _, err := rand.Read(d.salt[:]); err != nil {
		return nil, fmt.Errorf("tenant: salt: %w", err)
	}
	for _, e := range entries {
		t, err := check(e.Tenant)
		if err != nil {
			return nil, err
		}
		if _, ok := d.byName[t.Name]; ok {
			return nil, fmt.Errorf("tenant: %q: name %w", t.Name, ErrDuplicate)
		}
		d.byName[t.Name] = t
		for _, h := range e.KeyHashes {
			k := d.index(h)
			if other, ok := d.byKey[k]; ok {
				return nil, fmt.Errorf("tenant: %q: a key %w, first by %q", t.Name, ErrDuplicate, other)
			}
			d.byKey[k] = t.Name
		}
	}
	if len(d.byKey) == 0 {
		if len(entries) > 1 {
			return nil, fmt.Errorf("tenant: %d tenants and no key to tell them apart: %w", len(entries), ErrInvalid)
		}
		d.open = entries[0].Name
	}
	return d, nil
}

// check returns t with its own slices and its defaults filled in.
func check(t Tenant) (Tenant, error) {
	switch {
	case t.Name == "" || len(t.Name) > 128 || strings.ContainsFunc(t.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return t, fmt.Errorf("tenant: %q: want a name of 1 to 128 bytes without spaces: %w", t.Name, ErrInvalid)
	case t.Tools.Mode != "" && t.Tools.Mode != Auto && t.Tools.Mode != OptIn:
		return t, fmt.Errorf("tenant: %q: tools.mode %q: want %q or %q: %w", t.Name, t.Tools.Mode, Auto, OptIn, ErrInvalid)
	case !(t.Limits.Weight >= 0 && t.Limits.Weight <= 1e6):
		return t, fmt.Errorf("tenant: %q: limits.weight %v: want 0 to 1e6: %w", t.Name, t.Limits.Weight, ErrInvalid)
	case t.Limits.MaxRunning < 0:
		return t, fmt.Errorf("tenant: %q: limits.max_running %d: want 0 or more: %w", t.Name, t.Limits.MaxRunning, ErrInvalid)
	}
	if t.Tools.Mode == "" {
		t.Tools.Mode = Auto
	}
	if t.Limits.Weight == 0 {
		t.Limits.Weight = 1
	}
	t.Models, t.Tools.Allow = slices.Clone(t.Models), slices.Clone(t.Tools.Allow)
	return t, nil
}

// index is where a key's hash is kept. It is salted afresh in each process, so
// that how long a look-up takes tells nothing about the stored hashes.
func (d *Directory) index(hash [32]byte) [32]byte {
	m := hmac.New(sha256.New, d.salt[:])
	m.Write(hash[:])
	return [32]byte(m.Sum(nil))
}

// ByKey returns the tenant that key belongs to.
func (d *Directory) ByKey(key string) (Tenant, bool) {
	name, ok := d.byKey[d.index(sha256.Sum256([]byte(key)))]
	if !ok {
		return Tenant{}, false
	}
	return d.byName[name], true
}

// Open returns the one tenant of a host where no key is configured: everybody
// who reaches that host is it.
func (d *Directory) Open() (Tenant, bool) {
	if d.open == "" {
		return Tenant{}, false
	}
	return d.byName[d.open], true
}

// ByName returns the tenant of that name.
func (d *Directory) ByName(name string) (Tenant, bool) {
	t, ok := d.byName[name]
	return t, ok
}

// MayUse reports whether t may ask for model.
func (t Tenant) MayUse(model string) bool {
	return len(t.Models) == 0 || slices.Contains(t.Models, model)
}

// MayCall reports whether tool of plugin may be offered to t's requests.
func (t Tenant) MayCall(plugin, tool string) bool {
	return len(t.Tools.Allow) == 0 ||
		slices.Contains(t.Tools.Allow, plugin) || slices.Contains(t.Tools.Allow, plugin+"/"+tool)
}
