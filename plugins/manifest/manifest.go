// Package manifest checks descriptors and their schemas, and reads and writes
// the custom section that carries one. It runs no guest code and grants nothing.
package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/casemate/casemate/sdk/abi"
)

// ErrInvalid is wrapped by everything that is wrong with a descriptor.
var ErrInvalid = errors.New("manifest: invalid descriptor")

// The bounds of a descriptor. Lengths are in bytes.
const (
	MaxDescriptor   = 512 << 10 // the whole, as JSON
	MaxTools        = 128
	MaxDescription  = 16 << 10 // of the plugin, and of each tool
	MaxSchema       = 64 << 10
	MaxCapabilities = 64
	MaxWarmUp       = 64
	MaxTimeoutMS    = 24 * 60 * 60 * 1000
)

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	toolName   = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	opName     = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}/[1-9][0-9]{0,3}$`)
	// semver as semver.org defines it.
	semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)` +
		`(-(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?` +
		`(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$`)
)

// Parse reads and checks a descriptor. Unknown fields are ignored; a tool that
// declares no effects gets abi.EffectsOnce. An error wraps ErrInvalid and
// names the field.
func Parse(data []byte) (abi.Descriptor, error) {
	if len(data) > MaxDescriptor {
		return abi.Descriptor{}, invalid("it has %d bytes, more than %d", len(data), MaxDescriptor)
	}
	var d abi.Descriptor
	if err := json.Unmarshal(data, &d); err != nil {
		return abi.Descriptor{}, invalid("not the JSON of a descriptor: %s", brief(err.Error()))
	}
	if err := check(&d); err != nil {
		return abi.Descriptor{}, err
	}
	for i := range d.Tools {
		if d.Tools[i].Effects == "" {
			d.Tools[i].Effects = abi.EffectsOnce
		}
	}
	return d, nil
}

// Equal reports whether a and b are the same JSON value: neither spaces, nor
// the order of members, nor how a number is written make a difference.
func Equal(a, b []byte) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return reflect.DeepEqual(x, y)
}

func check(d *abi.Descriptor) error {
	switch {
	case d.V != abi.Version:
		return invalid("v is %d, want %d", d.V, abi.Version)
	case !pluginName.MatchString(d.Name):
		return invalid("name %s does not match %s", brief(d.Name), pluginName)
	case len(d.Version) > 64 || !semver.MatchString(d.Version):
		return invalid("version %s is not a semantic version like 0.1.0", brief(d.Version))
	}
	if err := checkText("description", d.Description); err != nil {
		return err
	}
	if err := checkKinds(d); err != nil {
		return err
	}
	if err := checkTools(d.Tools); err != nil {
		return err
	}
	if err := checkCapabilities(d.Capabilities); err != nil {
		return err
	}
	if d.ConfigSchema != nil {
		if err := checkSchema(d.ConfigSchema, false); err != nil {
			return invalid("config_schema: %w", err)
		}
	}
	if len(d.WarmUp) > MaxWarmUp {
		return invalid("warm_up has %d inputs, more than %d", len(d.WarmUp), MaxWarmUp)
	}
	return nil
}

func checkKinds(d *abi.Descriptor) error {
	if len(d.Kinds) == 0 {
		return invalid("kinds is empty, want some of tool, route, retry")
	}
	for i, k := range d.Kinds {
		switch k {
		case abi.KindTool, abi.KindRoute, abi.KindRetry:
		default:
			return invalid("kinds[%d] is %s, want tool, route or retry", i, brief(k))
		}
		if slices.Contains(d.Kinds[:i], k) {
			return invalid("kinds has %s twice", k)
		}
	}
	isTool := slices.Contains(d.Kinds, abi.KindTool)
	switch {
	case isTool && len(d.Tools) == 0:
		return invalid("kinds has tool, but tools is empty")
	case !isTool && len(d.Tools) > 0:
		return invalid("tools has %d entries, but kinds has no tool", len(d.Tools))
	}
	return nil
}

func checkTools(tools []abi.ToolDescriptor) error {
	if len(tools) > MaxTools {
		return invalid("tools has %d entries, more than %d", len(tools), MaxTools)
	}
	seen := make(map[string]bool, len(tools))
	for i := range tools {
		t := &tools[i]
		switch {
		case !toolName.MatchString(t.Name):
			return invalid("tools[%d].name %s does not match %s", i, brief(t.Name), toolName)
		case seen[t.Name]:
			return invalid("tools has %s twice", t.Name)
		case t.TimeoutMS < 0 || t.TimeoutMS > MaxTimeoutMS:
			return invalid("tool %s: timeout_ms %d is not in 0 … %d", t.Name, t.TimeoutMS, MaxTimeoutMS)
		}
		seen[t.Name] = true
		if err := checkText("tool "+t.Name+": description", t.Description); err != nil {
			return err
		}
		switch t.Effects {
		case "", abi.EffectsPure, abi.EffectsIdempotent, abi.EffectsOnce:
		default:
			return invalid("tool %s: effects is %s, want pure, idempotent or once", t.Name, brief(string(t.Effects)))
		}
		if err := checkSchema(t.Parameters, true); err != nil {
			return invalid("tool %s: parameters: %w", t.Name, err)
		}
	}
	return nil
}

// checkCapabilities checks the form of op strings only: an op that this host
// does not know may be known to the next one, and asking for it is answered
// with an errno.
func checkCapabilities(ops []string) error {
	if len(ops) > MaxCapabilities {
		return invalid("capabilities has %d entries, more than %d", len(ops), MaxCapabilities)
	}
	for i, op := range ops {
		if !opName.MatchString(op) {
			return invalid("capabilities[%d] is %s, want an op like kv.get/1", i, brief(op))
		}
	}
	return nil
}

func checkSchema(raw json.RawMessage, object bool) error {
	typ, _, err := parseSchema(raw)
	switch {
	case err != nil:
		return err
	case object && typ != "object":
		return fmt.Errorf(`type is %s, want "object"`, brief(typ))
	}
	return nil
}

func checkText(field, s string) error {
	switch {
	case len(s) > MaxDescription:
		return invalid("%s has %d bytes, more than %d", field, len(s), MaxDescription)
	case strings.ContainsRune(s, 0) || !utf8.ValidString(s):
		return invalid("%s holds a NUL character or is not UTF-8", field)
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// brief quotes s for a message, cut when it is long.
func brief(s string) string {
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}
