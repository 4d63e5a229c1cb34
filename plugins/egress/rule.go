package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Rule allows some requests. A request is allowed if one rule allows it.
type Rule struct {
	Scheme string // "https" or "http"; "": https
	// Host is a name in ASCII, "*." and a name, which stands for the names
	// below it and not for itself, or an IP address without brackets.
	Host    string
	Port    int      // 0: that of the scheme
	Methods []string // none: GET and HEAD
	// PathPrefix is what paths begin with, by whole segments: /v1 and /v1/
	// allow /v1 and /v1/x but not /v1x. It is written without escapes. "": all.
	PathPrefix string
	// Private lets the host have a loopback, private or carrier-grade NAT
	// address. Link-local and metadata addresses are never allowed.
	Private bool
}

// Secret is a value that requests may carry where they say {{secret:Name}},
// without their sender seeing it.
type Secret struct {
	Name   string // 1 to 64 of A-Z, a-z, 0-9, _, - and .
	Host   string // the one host that it is sent to, over https, at any port
	Header string // the one header that it is sent in
	Value  string
}

func (r Rule) check() error {
	switch {
	case r.Scheme != "" && r.Scheme != "https" && r.Scheme != "http":
		return fmt.Errorf("egress: rule for %q: scheme %q: want https or http", r.Host, r.Scheme)
	case !validHost(strings.TrimPrefix(r.normal().Host, "*.")):
		return fmt.Errorf("egress: rule for %q: want a host name in ASCII, *. and a name, or an IP address", r.Host)
	case strings.HasPrefix(r.Host, "*.") && isAddr(r.Host[2:]):
		return fmt.Errorf("egress: rule for %q: an address has no names below it", r.Host)
	case r.Port < 0 || r.Port > 65535:
		return fmt.Errorf("egress: rule for %q: port %d: want 1 to 65535", r.Host, r.Port)
	case r.PathPrefix != "" && (r.PathPrefix[0] != '/' || hasDots(r.PathPrefix)):
		return fmt.Errorf("egress: rule for %q: path %q: want it to begin with / and to have no . or .. in it", r.Host, r.PathPrefix)
	case strings.ContainsAny(r.PathPrefix, `?#%\\`):
		return fmt.Errorf("egress: rule for %q: path %q: want a path alone, without escapes, ?, # and \\", r.Host, r.PathPrefix)
	}
	for _, m := range r.Methods {
		if !validMethod(m) {
			return fmt.Errorf("egress: rule for %q: method %q is not one that can be allowed", r.Host, m)
		}
	}
	return nil
}

// normal returns r with its defaults and in the one spelling that is compared.
func (r Rule) normal() Rule {
	if r.Scheme == "" {
		r.Scheme = "https"
	}
	if r.Port == 0 {
		r.Port = defaultPort(r.Scheme)
	}
	if len(r.Methods) == 0 {
		r.Methods = []string{"GET", "HEAD"}
	}
	r.Host = normalHost(r.Host)
	return r
}

// allows reports whether a rule in normal form allows a request.
func (r Rule) allows(method string, t target) bool {
	return r.Scheme == t.url.Scheme && r.Port == t.port && covers(r.Host, t.host) &&
		slices.Contains(r.Methods, method) && t.below(r.PathPrefix)
}

// find returns how the rules allow a request: by any rule, and by one that
// grants private addresses.
func (c *Client) find(method string, t target) (allowed, private bool) {
	for _, r := range c.rules {
		if r.allows(method, t) {
			allowed = true
			private = private || r.Private
		}
	}
	return allowed, private
}

// covers reports whether a rule's host stands for host.
func covers(rule, host string) bool {
	if suffix, ok := strings.CutPrefix(rule, "*"); ok {
		return strings.HasSuffix(host, suffix) && !isAddr(host)
	}
	return rule == host
}

func (s Secret) check() error {
	switch {
	case !validSecretName(s.Name):
		return errors.New("egress: a secret's name has 1 to 64 letters, digits, dots and _ or -")
	case !validHost(normalHost(s.Host)):
		return fmt.Errorf("egress: secret %s: host %q: want one host", s.Name, s.Host)
	case !validFieldName(s.Header) || ownField(strings.ToLower(s.Header)):
		return fmt.Errorf("egress: secret %s: header %q: want one that a plugin may set", s.Name, s.Header)
	case !validFieldValue(s.Value):
		return fmt.Errorf("egress: secret %s: its value has a line break or a NUL in it", s.Name)
	}
	return nil
}

func (s Secret) normal() Secret {
	s.Host, s.Header = normalHost(s.Host), strings.ToLower(s.Header)
	return s
}

// secret returns the value that is bound to a host and a header, in lower case.
func (c *Client) secret(name, host, header string) (string, bool) {
	for _, s := range c.secrets {
		if s.Name == name && s.Host == host && s.Header == header {
			return s.Value, true
		}
	}
	return "", false
}

func validSecretName(name string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
	return name != "" && len(name) <= 64 && strings.Trim(name, letters) == ""
}

func isAddr(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func defaultPort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}
