package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Plugin is a module file and the powers that the operator grants it.
type Plugin struct {
	File    string
	Grants  []string // ops, like "kv.get/1"
	HTTP    []HTTPRule
	Secrets []Secret
	// Effects are by tool, "pure", "idempotent" or "once", in place of what the
	// plugin says of it.
	Effects map[string]string
	Limits  Limits
}

// HTTPRule lets http.fetch/1 send some requests.
type HTTPRule struct {
	Scheme  string   // "https" or "http"
	Host    string   // a name, "*." and a name, or an address; lower case
	Port    int      // 0: that of the scheme
	Methods []string // GET and HEAD unless set
	Path    string   // that paths begin with, whole segments
	Private bool     // the host may have a private address
}

// Secret is a value that a plugin may send without ever seeing it.
type Secret struct {
	Name   string
	Value  string // of the variable that env names
	Host   string // that it may be sent to
	Header string // that it may be sent in
}

// Policies are module files; "" is the built-in policy.
type Policies struct {
	Route  string
	Retry  string
	Limits Limits // of each decision
}

// The ops that a host knows, and the effects that a tool may have.
const opHTTP = "http.fetch/1"

var (
	knownOps = []string{
		"kv.get/1", "kv.put/1", "kv.delete/1", "kv.list/1", opHTTP, "tool.call/1", "time.now/1", "rand/1",
	}
	knownMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
	ownHeaders   = []string{
		"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect",
		"http2-settings",
	}
)

var (
	pluginName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	toolName   = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	secretName = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
	hostName   = regexp.MustCompile(`^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)
)

func (r *reader) plugin(n *yaml.Node, path string) {
	var p Plugin
	r.object(n, path, map[string]value{
		"file":    r.module(&p.File),
		"grants":  r.grants(&p.Grants),
		"http":    r.list(func(n *yaml.Node, path string) { p.HTTP = append(p.HTTP, r.rule(n, path)) }),
		"secrets": r.list(func(n *yaml.Node, path string) { r.secret(n, path, &p) }),
		"tools":   r.effects(&p.Effects),
		"limits":  r.limits(&p.Limits),
	})
	r.needs(n, path, "file")
	same := func(o Plugin) bool { return o.File == p.File }
	if p.File != "" && slices.ContainsFunc(r.file.Plugins, same) {
		r.wrong(r.at(n, path), "%s is there twice", brief(p.File))
	}
	r.network(n, path, p)
	r.file.Plugins = append(r.file.Plugins, p)
}

// grants reads op strings. One that this host does not know is no mistake: the
// file may be shared with hosts that do.
func (r *reader) grants(dst *[]string) value {
	read := r.texts(dst, matches(opName))
	return func(n *yaml.Node, path string) {
		read(n, path)
		for i, c := range n.Content {
			if n.Kind == yaml.SequenceNode && opName.MatchString(c.Value) && !slices.Contains(knownOps, c.Value) {
				r.warn(r.at(c, fmt.Sprintf("%s[%d]", path, i)), "this host knows no %s; it knows %s",
					brief(c.Value), strings.Join(knownOps, ", "))
			}
		}
	}
}

// network tells what of a plugin's powers over the network has no use. To take
// one away must not need two changes, so none of it is an error.
func (r *reader) network(n *yaml.Node, path string, p Plugin) {
	granted := slices.Contains(p.Grants, opHTTP)
	switch {
	case granted && len(p.HTTP) == 0:
		r.warn(r.at(n, path), "%s is granted, but without rules under http no request is allowed", opHTTP)
	case !granted && len(p.HTTP) > 0:
		r.warn(r.at(n, join(path, "http")), "has no use: %s is not among the grants", opHTTP)
	}
	for _, s := range p.Secrets {
		reaches := func(h HTTPRule) bool { return h.Scheme == "https" && h.covers(s.Host) }
		if s.Host != "" && !slices.ContainsFunc(p.HTTP, reaches) {
			r.warn(r.at(n, join(path, "secrets")), "%s has no use: no https rule under http allows its host %s", s.Name, s.Host)
		}
	}
}

// covers reports whether a rule allows host.
func (h HTTPRule) covers(host string) bool {
	if suffix, ok := strings.CutPrefix(h.Host, "*"); ok {
		return strings.HasSuffix(host, suffix) && len(host) > len(suffix)
	}
	return h.Host == host
}

// rule reads what http.fetch/1 may be used for.
func (r *reader) rule(n *yaml.Node, path string) HTTPRule {
	h := HTTPRule{Scheme: "https", Path: "/"}
	r.object(n, path, map[string]value{
		"scheme":  r.text(&h.Scheme, func(s string) error { return oneOf(s, "https", "http") }),
		"host":    r.text(&h.Host, checkHost),
		"port":    r.port(&h.Port),
		"methods": r.some(&h.Methods, func(s string) error { return oneOf(s, knownMethods...) }),
		"path":    r.text(&h.Path, checkPath),
		"private": r.flag(&h.Private),
	})
	r.needs(n, path, "host")
	addr, err := netip.ParseAddr(h.Host)
	switch {
	case err == nil && (addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified()):
		r.wrong(r.at(n, join(path, "host")), "no request to %s is ever allowed", h.Host)
	case !h.Private && (h.Host == "localhost" || err == nil && isPrivate(addr)):
		r.warn(r.at(n, path), "%s is a private address: without private: true no request to it is allowed", h.Host)
	}
	return h
}

// sharedNAT is for networks behind a carrier's translation.
var sharedNAT = netip.MustParsePrefix("100.64.0.0/10")

func isPrivate(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsPrivate() || a.IsLoopback() || sharedNAT.Contains(a)
}

func (r *reader) port(dst *int) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, "!!int")
		if !ok {
			return
		}
		v, err := number(s, 65535)
		if err != nil {
			r.wrong(r.at(n, path), "%w", err)
			return
		}
		*dst = int(v)
	}
}

// checkHost accepts what a rule may name. Names are compared as they stand, so
// there is one spelling of each.
func checkHost(s string) error {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" && addr.String() == s {
		return nil
	}
	labels := strings.Split(s, ".")
	last := labels[len(labels)-1]
	if len(s) > 253 || !hostName.MatchString(s) || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return errors.New("want a name in lower case without scheme, port and path, like api.example.com or *.example.com, or an IP address")
	}
	return nil
}

// checkPath accepts what paths may begin with.
func checkPath(s string) error {
	if !strings.HasPrefix(s, "/") || strings.ContainsAny(s, "?#\\%") || strings.Contains(s+"/", "/../") || strings.Contains(s+"/", "/./") {
		return errors.New("want what paths begin with, like /v1/, without ?, #, %, \\ and dots as segments")
	}
	return checkText(s)
}

// secret reads one secret of p.
func (r *reader) secret(n *yaml.Node, path string, p *Plugin) {
	var s Secret
	r.object(n, path, map[string]value{
		"name":   r.text(&s.Name, matches(secretName)),
		"env":    r.variable(func(v string) { s.Value = v }),
		"host":   r.text(&s.Host, checkSecretHost),
		"header": r.text(&s.Header, checkHeader),
	})
	r.needs(n, path, "name", "env", "host", "header")
	same := func(o Secret) bool {
		return o.Name == s.Name && o.Host == s.Host && strings.EqualFold(o.Header, s.Header)
	}
	if s.Name != "" && slices.ContainsFunc(p.Secrets, same) {
		r.wrong(r.at(n, path), "%s is there twice for this host and header", brief(s.Name))
	}
	p.Secrets = append(p.Secrets, s)
}

func checkSecretHost(s string) error {
	if strings.HasPrefix(s, "*") {
		return errors.New("want one host: a secret is not for every name of a domain")
	}
	return checkHost(s)
}

func checkHeader(s string) error {
	if name := strings.ToLower(s); slices.Contains(ownHeaders, name) || strings.HasPrefix(name, "proxy-") {
		return errors.New("is a header that the host writes by itself")
	}
	return matches(headerName)(s)
}

// effects reads what the operator says of tools: {NAME: {effects: once}}.
func (r *reader) effects(dst *map[string]string) value {
	return func(n *yaml.Node, path string) {
		r.mapping(n, path, matches(toolName), func(tool string, n *yaml.Node, path string) {
			var effects string
			r.object(n, path, map[string]value{
				"effects": r.text(&effects, func(s string) error { return oneOf(s, "pure", "idempotent", "once") }),
			})
			r.needs(n, path, "effects")
			if *dst == nil {
				*dst = map[string]string{}
			}
			(*dst)[tool] = effects
		})
	}
}

func (r *reader) policies(n *yaml.Node, path string) {
	r.object(n, path, map[string]value{
		"route":  r.module(&r.file.Policies.Route),
		"retry":  r.module(&r.file.Policies.Retry),
		"limits": r.limits(&r.file.Policies.Limits),
	})
	if l := r.file.Policies.Limits; l.Emits > 0 || l.Calls > 0 {
		r.warn(r.at(n, join(path, "limits")), "emits and calls have no use: a policy may do neither")
	}
}

// module reads the path of a file that must be there.
func (r *reader) module(dst *string) value {
	return func(n *yaml.Node, path string) {
		r.text(dst, checkText)(n, path)
		if *dst == "" {
			if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && n.Value == "" {
				r.wrong(r.at(n, path), "want the path of a .wasm file")
			}
			return
		}
		*dst = r.path(*dst)
		info, err := os.Stat(*dst)
		switch {
		case err != nil:
			r.wrong(r.at(n, path), "%w", err)
		case !info.Mode().IsRegular():
			r.wrong(r.at(n, path), "%s is not a file", *dst)
		}
	}
}
