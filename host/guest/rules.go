package guest

import (
	"slices"
	"strings"

	"github.com/casemate/casemate/plugins/egress"
)

// bothRules returns rules that allow what a and b both allow.
func bothRules(a, b []egress.Rule) (all []egress.Rule) {
	for _, x := range a {
		for _, y := range b {
			if r, ok := bothRule(spelt(x), spelt(y)); ok {
				all = append(all, r)
			}
		}
	}
	return all
}

// bothRule returns the rule that allows what two spelt rules both allow, if
// there is anything.
func bothRule(a, b egress.Rule) (egress.Rule, bool) {
	host, sameHost := narrower(a.Host, b.Host, hostWithin)
	path, samePath := narrower(a.PathPrefix, b.PathPrefix, pathWithin)
	r := egress.Rule{Scheme: a.Scheme, Host: host, Port: a.Port, PathPrefix: path, Private: a.Private && b.Private}
	for _, m := range a.Methods {
		if slices.Contains(b.Methods, m) {
			r.Methods = append(r.Methods, m)
		}
	}
	return r, sameHost && samePath && a.Scheme == b.Scheme && a.Port == b.Port && len(r.Methods) > 0
}

// spelt returns r with what it leaves out.
func spelt(r egress.Rule) egress.Rule {
	if r.Scheme == "" {
		r.Scheme = "https"
	}
	if r.Port == 0 && r.Scheme == "https" {
		r.Port = 443
	}
	if r.Port == 0 && r.Scheme == "http" {
		r.Port = 80
	}
	if len(r.Methods) == 0 {
		r.Methods = []string{"GET", "HEAD"}
	}
	r.Host = strings.ToLower(r.Host)
	r.PathPrefix = "/" + strings.Trim(r.PathPrefix, "/")
	return r
}

// narrower returns the one of a and b that lies within the other, if one does.
func narrower(a, b string, within func(inner, outer string) bool) (string, bool) {
	switch {
	case within(a, b):
		return a, true
	case within(b, a):
		return b, true
	}
	return "", false
}

// hostWithin reports whether outer stands for all that inner stands for.
func hostWithin(inner, outer string) bool {
	suffix, wild := strings.CutPrefix(outer, "*")
	return inner == outer || wild && strings.HasSuffix(inner, suffix)
}

// pathWithin reports whether all paths below inner are below outer.
func pathWithin(inner, outer string) bool {
	return outer == "/" || inner == outer || strings.HasPrefix(inner, outer+"/")
}

// bothSecrets returns those of now that before had too, with the values of now.
func bothSecrets(before, now []egress.Secret) (all []egress.Secret) {
	for _, s := range now {
		same := func(o egress.Secret) bool {
			return o.Name == s.Name && strings.EqualFold(o.Host, s.Host) && strings.EqualFold(o.Header, s.Header)
		}
		if slices.ContainsFunc(before, same) {
			all = append(all, s)
		}
	}
	return all
}
