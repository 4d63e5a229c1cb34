package config

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The kinds of an upstream.
const (
	kindChat      = "chat"
	kindResponses = "responses"
	kindDemo      = "demo"
	kindOpenAI    = "openai" // another name of chat
)

var (
	plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}$`)
	toolEntry = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64})?$`)
	opName    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}/[1-9][0-9]{0,3}$`)
	variable  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// root reads the whole document.
func (r *reader) root(n *yaml.Node) {
	var upstreams, models, agents, tenants names
	keys := r.keysUnder("")
	maps.Copy(keys, map[string]value{
		"retry_budget": func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("retry_budget.")) },
		"log":          func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("log.")) },
		"timeouts":     func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("timeouts.")) },
		"sandbox":      r.sandbox,
		"metrics": func(n *yaml.Node, path string) {
			r.object(n, path, map[string]value{"key_env": r.variable(func(v string) { r.file.MetricsKey = v })})
		},
		"upstreams": r.list(func(n *yaml.Node, path string) { r.upstream(n, path, &upstreams) }),
		"models":    r.list(func(n *yaml.Node, path string) { r.model(n, path, &models) }),
		"plugins":   r.list(r.plugin),
		"policies":  r.policies,
		"agents":    r.list(func(n *yaml.Node, path string) { r.agent(n, path, &agents) }),
		"mcp":       r.mcp,
		"files":     func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("files.")) },
		"batches":   func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("batches.")) },
		"tenants":   r.list(func(n *yaml.Node, path string) { r.tenant(n, path, &tenants) }),
	})
	r.object(n, "", keys)
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, key := range []string{"upstreams", "models"} {
		if !hasItems(n, key) {
			r.wrong(r.at(n, key), "want at least one")
		}
	}
}

// hasItems reports whether key of the mapping n holds anything; what it holds
// has been looked at already.
func hasItems(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1].Kind != yaml.SequenceNode || len(n.Content[i+1].Content) > 0
		}
	}
	return false
}

// sandbox reads what all plugins share.
func (r *reader) sandbox(n *yaml.Node, path string) {
	keys := r.keysUnder("sandbox.")
	keys["breaker"] = func(n *yaml.Node, path string) { r.object(n, path, r.keysUnder("sandbox.breaker.")) }
	r.object(n, path, keys)
}

// names are those given so far, each with its line.
type names map[string]int

// name reads the name of an item: it must match form and be new in seen.
func (r *reader) name(dst *string, seen *names, form *regexp.Regexp) value {
	return func(n *yaml.Node, path string) {
		r.text(dst, matches(form))(n, path)
		switch line := (*seen)[*dst]; {
		case *dst == "":
		case line != 0:
			r.wrong(r.at(n, path), "%s is there twice, first on line %d", brief(*dst), line)
		default:
			if *seen == nil {
				*seen = names{}
			}
			(*seen)[*dst] = n.Line
		}
	}
}

// needs refuses an item whose key was left out.
func (r *reader) needs(n *yaml.Node, path string, keys ...string) {
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, key := range keys {
		if !has(n, key) {
			r.wrong(r.at(n, join(path, key)), "is missing")
		}
	}
}

func has(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}

func (r *reader) upstream(n *yaml.Node, path string, seen *names) {
	var u Upstream
	r.object(n, path, map[string]value{
		"name":        r.name(&u.Name, seen, plainName),
		"kind":        r.text(&u.Kind, func(s string) error { return oneOf(s, kindChat, kindResponses, kindDemo, kindOpenAI) }),
		"base_url":    r.text(&u.BaseURL, checkBaseURL),
		"api_key_env": r.variable(func(v string) { u.APIKey = v }),
		"limits": func(n *yaml.Node, path string) {
			r.object(n, path, map[string]value{"max_in_flight": r.count(&u.MaxInFlight), "reserve": r.reserve(&u.Reserve)})
		},
	})
	r.needs(n, path, "name", "kind")
	r.reserved(n, path, u.Reserve, limit{"max_in_flight", u.MaxInFlight})
	switch u.Kind {
	case kindChat, kindOpenAI, kindResponses:
		r.needs(n, path, "base_url")
	case kindDemo:
		for _, key := range []string{"base_url", "api_key_env"} {
			if has(n, key) {
				r.wrong(r.at(n, join(path, key)), "an upstream of kind demo has none: it runs inside the host")
			}
		}
	}
	r.file.Upstreams = append(r.file.Upstreams, u)
}

func (r *reader) model(n *yaml.Node, path string, seen *names) {
	var m Model
	r.object(n, path, map[string]value{
		"name": r.name(&m.Name, seen, modelName),
		"targets": r.list(func(n *yaml.Node, path string) {
			m.Targets = append(m.Targets, r.target(n, path, m.Targets))
		}),
		"escalate":       r.escalation(&m),
		"record":         r.recorded(&m.Record),
		"context_window": amount(r, &m.ContextWindow, tokensOf),
	})
	r.needs(n, path, "name", "targets")
	if n.Kind == yaml.MappingNode && has(n, "targets") && !hasItems(n, "targets") {
		r.wrong(r.at(n, join(path, "targets")), "want at least one")
	}
	r.file.Models = append(r.file.Models, m)
}

// target reads one target; others are those before it.
func (r *reader) target(n *yaml.Node, path string, others []Target) Target {
	t := Target{Weight: 1}
	r.object(n, path, map[string]value{
		"upstream": func(n *yaml.Node, path string) {
			r.text(&t.Upstream, matches(plainName))(n, path)
			up := t.Upstream
			r.later = append(r.later, func() {
				known := func(u Upstream) bool { return u.Name == up }
				if up != "" && !slices.ContainsFunc(r.file.Upstreams, known) {
					r.wrong(r.at(n, path), "no upstream is named %s", brief(up))
				}
			})
		},
		"model": r.text(&t.Model, func(s string) error {
			if s == "" || len(s) > 256 {
				return errors.New("want the upstream's name of the model, 1 to 256 bytes")
			}
			return checkText(s)
		}),
		"weight": r.weight(&t.Weight),
	})
	r.needs(n, path, "upstream", "model")
	same := func(o Target) bool { return o.Upstream == t.Upstream && o.Model == t.Model }
	if t.Upstream != "" && t.Model != "" && slices.ContainsFunc(others, same) {
		r.wrong(r.at(n, path), "%s of %s is there twice", brief(t.Model), t.Upstream)
	}
	return t
}

func (r *reader) tenant(n *yaml.Node, path string, seen *names) {
	t := Tenant{ToolMode: "auto", Weight: 1}
	r.object(n, path, map[string]value{
		"name":   r.name(&t.Name, seen, plainName),
		"keys":   r.list(func(n *yaml.Node, path string) { r.key(n, path, &t) }),
		"models": r.some(&t.Models, matches(modelName)),
		"tools": func(n *yaml.Node, path string) {
			r.object(n, path, map[string]value{
				"mode":  r.text(&t.ToolMode, func(s string) error { return oneOf(s, "auto", "opt_in") }),
				"allow": r.some(&t.ToolAllow, matches(toolEntry)),
			})
		},
		"limits": func(n *yaml.Node, path string) {
			r.object(n, path, map[string]value{
				"weight": r.weight(&t.Weight), "max_running": r.count(&t.MaxRunning),
				"max_running_total": r.count(&t.MaxRunningTotal), "reserve": r.reserve(&t.Reserve),
				"plugin_fuel_per_minute": amount(r, &t.PluginFuelPerMinute, fuelOfMinute),
				"plugin_instances":       r.count(&t.PluginInstances),
			})
		},
		"plugin_limits": r.pluginLimits(&t.PluginLimits),
	})
	r.needs(n, path, "name", "keys")
	r.reserved(n, path, t.Reserve, limit{"max_running", t.MaxRunning}, limit{"max_running_total", t.MaxRunningTotal})
	if n.Kind == yaml.MappingNode && has(n, "keys") && !hasItems(n, "keys") {
		r.wrong(r.at(n, join(path, "keys")), "want at least one: a tenant without a key cannot ask anything")
	}
	r.later = append(r.later, func() {
		for _, name := range t.Models {
			if !slices.ContainsFunc(r.file.Models, func(m Model) bool { return m.Name == name }) {
				r.wrong(r.at(n, join(path, "models")), "no model is named %s", brief(name))
			}
		}
	})
	r.file.Tenants = append(r.file.Tenants, t)
}

// key reads one API key of t: the variable that holds it, or its hash.
func (r *reader) key(n *yaml.Node, path string, t *Tenant) {
	var hash [sha256.Size]byte
	given := false
	r.object(n, path, map[string]value{
		"env": r.variable(func(v string) { hash, given = sha256.Sum256([]byte(v)), true }),
		"sha256": func(n *yaml.Node, path string) {
			s, ok := r.scalar(n, path, "!!str")
			if !ok {
				return
			}
			sum, err := hex.DecodeString(s)
			if err != nil || len(sum) != len(hash) {
				r.wrong(r.at(n, path), "want the SHA-256 of the key as 64 hex digits")
				return
			}
			hash, given = [sha256.Size]byte(sum), true
		},
	})
	if n.Kind == yaml.MappingNode && has(n, "env") == has(n, "sha256") {
		r.wrong(r.at(n, path), "want one of env and sha256")
	}
	if !given {
		return
	}
	for _, other := range append(slices.Clone(r.file.Tenants), *t) {
		if slices.Contains(other.KeyHashes, hash) {
			r.wrong(r.at(n, path), "this key belongs to tenant %s already", other.Name)
		}
	}
	t.KeyHashes = append(t.KeyHashes, hash)
}

// variable reads the name of a variable and gives its value to use. Messages
// name the variable and never the value.
func (r *reader) variable(use func(string)) value {
	return func(n *yaml.Node, path string) {
		var name string
		r.text(&name, matches(variable))(n, path)
		if name == "" {
			return
		}
		r.used[name] = true
		v := r.env[name]
		switch {
		case !r.secrets:
		case v == "":
			r.wrong(r.at(n, path), "the environment has no %s, or it is empty", name)
		case strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c >= 0x7f }):
			r.wrong(r.at(n, path), "%s holds a space, a line end or a character that no HTTP header may carry", name)
		default:
			use(v)
		}
	}
}

func checkBaseURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("want http://HOST/… or https://HOST/…, like https://api.openai.com/v1")
	case u.User != nil:
		return errors.New("holds a password; use api_key_env")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("want no ? and no #: paths are added at its end")
	}
	return nil
}

func matches(form *regexp.Regexp) func(string) error {
	return func(s string) error {
		if !form.MatchString(s) {
			return fmt.Errorf("%s does not match %s", brief(s), form)
		}
		return nil
	}
}
