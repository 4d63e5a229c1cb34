package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/sdk/abi"
)

// Registry collects what a plugin is while its package initialisers run, and
// answers describe from it. A mistake of the author is kept and reported by
// Describe, where the host can show it with the plugin's name; a panic during
// initialisation would only show as a trap. The zero value is empty.
type Registry struct {
	desc    abi.Descriptor
	errs    []error
	entries map[string]func(Host) error
	warm    []warmUp
}

// warmUp is one input for the host to run before it takes the image. What the
// SDK adds by itself stands for an entry until its author adds one.
type warmUp struct {
	of    string // a tool's name, or an export of a policy
	own   bool   // the author's
	input abi.WarmUp
}

// process is the registry of the module that this code is linked into. A
// module has one descriptor, so there is one.
var process Registry

// Process returns the registry that export describe answers from.
func Process() *Registry { return &process }

// Name sets the plugin's name, version and description. A second call that
// says something else is a mistake.
func (r *Registry) Name(name, version, description string) {
	if r.desc.Name != "" && (r.desc.Name != name || r.desc.Version != version || r.desc.Description != description) {
		r.Mistake(fmt.Errorf("plugin is %s %s already, not %s %s", r.desc.Name, r.desc.Version, name, version))
		return
	}
	if !validPluginName(name) {
		r.Mistake(fmt.Errorf("plugin name %q: want a lower-case letter, then up to 62 of a-z, 0-9 and -", name))
	}
	if version == "" {
		r.Mistake(fmt.Errorf("plugin %q has no version", name))
	}
	r.desc.Name, r.desc.Version, r.desc.Description = name, version, description
}

// Serve makes body the answer of an export, abi.ExportToolCall and the like.
func (r *Registry) Serve(export string, body func(Host) error) {
	if r.entries == nil {
		r.entries = make(map[string]func(Host) error)
	}
	r.entries[export] = body
}

// Serves reports whether export has an answer.
func (r *Registry) Serves(export string) bool { return r.entries[export] != nil }

// Enter runs what serves export with h and returns the export's status.
func (r *Registry) Enter(export string, h Host) int32 {
	body, ok := r.entries[export]
	if !ok {
		body = func(Host) error { return fmt.Errorf("nothing is registered for %s", export) }
	}
	return Run(h, body)
}

// Kind adds one of abi.KindTool, KindRoute and KindRetry.
func (r *Registry) Kind(kind string) {
	if !slices.Contains(r.desc.Kinds, kind) {
		r.desc.Kinds = append(r.desc.Kinds, kind)
		slices.Sort(r.desc.Kinds)
	}
}

// Tool adds a tool, in the order in which the model sees them.
func (r *Registry) Tool(t abi.ToolDescriptor) {
	r.Kind(abi.KindTool)
	same := func(o abi.ToolDescriptor) bool { return o.Name == t.Name }
	switch {
	case !validToolName(t.Name):
		r.Mistake(fmt.Errorf("tool name %q: want 1 to 64 of a-z, A-Z, 0-9, _ and -", t.Name))
	case slices.ContainsFunc(r.desc.Tools, same):
		r.Mistake(fmt.Errorf("tool %s is registered twice", t.Name))
	}
	r.desc.Tools = append(r.desc.Tools, t)
}

// Want adds ops to the capabilities that the plugin asks for.
func (r *Registry) Want(ops ...string) {
	r.desc.Capabilities = append(r.desc.Capabilities, ops...)
	slices.Sort(r.desc.Capabilities)
	r.desc.Capabilities = slices.Compact(r.desc.Capabilities)
}

// ConfigSchema sets the JSON Schema of the operator's configuration.
func (r *Registry) ConfigSchema(schema json.RawMessage) {
	if r.desc.ConfigSchema != nil {
		r.Mistake(errors.New("config schema is set twice"))
	}
	r.desc.ConfigSchema = schema
}

// WarmUp adds an input for a tool or an export of a policy. own tells that the
// author wants it: what was added without is dropped then.
func (r *Registry) WarmUp(of string, own bool, input abi.WarmUp) {
	r.warm = append(r.warm, warmUp{of: of, own: own, input: input})
}

// OwnWarmUp reports whether the author added an input for of.
func (r *Registry) OwnWarmUp(of string) bool {
	return slices.ContainsFunc(r.warm, func(w warmUp) bool { return w.own && w.of == of })
}

// warmUps returns the inputs as the descriptor holds them.
func (r *Registry) warmUps() ([]json.RawMessage, error) {
	var all []json.RawMessage
	for _, w := range r.warm {
		if !w.own && r.OwnWarmUp(w.of) {
			continue
		}
		text, err := json.Marshal(w.input)
		if err != nil {
			return nil, fmt.Errorf("warm-up of %s: %w", w.of, err)
		}
		all = append(all, text)
	}
	return all, nil
}

// Mistake keeps an error for Describe.
func (r *Registry) Mistake(err error) { r.errs = append(r.errs, err) }

// Describe returns the descriptor as JSON, or everything that is wrong with
// what was registered.
func (r *Registry) Describe() ([]byte, error) {
	errs := slices.Clone(r.errs)
	if r.desc.Name == "" {
		errs = append(errs, errors.New("the plugin has no name: call Plugin in an init function"))
	}
	if len(r.desc.Kinds) == 0 {
		errs = append(errs, errors.New("nothing is registered: register a tool or a policy in an init function"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	d := r.desc
	d.V = abi.Version
	var err error
	if d.WarmUp, err = r.warmUps(); err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	out, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	return out, nil
}

// Descriptor returns what has been registered so far, mistakes left out.
func (r *Registry) Descriptor() abi.Descriptor {
	d := r.desc
	d.V = abi.Version
	return d
}

// validPluginName reports whether s matches ^[a-z][a-z0-9-]{0,62}$. Package
// regexp would add a tenth to the size of a small guest.
func validPluginName(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	for _, c := range []byte(s) {
		if !lower(c) && !digit(c) && c != '-' {
			return false
		}
	}
	return true
}

// validToolName reports whether s matches ^[a-zA-Z0-9_-]{1,64}$.
func validToolName(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for _, c := range []byte(s) {
		if !lower(c) && !lower(c|0x20) && !digit(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }
