package egress

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// target is a URL that was taken apart once: what is compared with the rules
// is what is sent.
type target struct {
	url      *url.URL
	host     string // lower case; an address in its one spelling
	port     int
	segments []string // of the path, each decoded
}

// parseTarget reads an absolute URL and reports whether it is one that can be
// sent without a second meaning.
func parseTarget(raw string) (target, bool) {
	if len(raw) > maxURL || strings.Contains(raw, secretOpen) {
		return target{}, false
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, false
	}
	return newTarget(u)
}

func newTarget(u *url.URL) (target, bool) {
	t := target{host: normalHost(u.Hostname()), port: defaultPort(u.Scheme)}
	switch {
	case u.Scheme != "https" && u.Scheme != "http", u.Opaque != "", u.User != nil, !validHost(t.host):
		return target{}, false
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return target{}, false
		}
		t.port = int(n)
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if path[0] != '/' || hasDots(path) || !printable(u.RawQuery) {
		return target{}, false
	}
	for _, s := range strings.Split(path[1:], "/") {
		plain, err := url.PathUnescape(s)
		if err != nil {
			return target{}, false
		}
		t.segments = append(t.segments, plain)
	}
	t.url = &url.URL{
		Scheme: u.Scheme, Host: t.authority(u.Scheme), Path: u.Path, RawPath: u.RawPath,
		RawQuery: u.RawQuery, ForceQuery: u.ForceQuery,
	}
	return t, true
}

// authority returns host and port as they are sent, without a default port.
func (t target) authority(scheme string) string {
	if t.port != defaultPort(scheme) {
		return net.JoinHostPort(t.host, strconv.Itoa(t.port))
	}
	if strings.Contains(t.host, ":") {
		return "[" + t.host + "]"
	}
	return t.host
}

// below reports whether the path begins with the segments of prefix.
func (t target) below(prefix string) bool {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return true
	}
	want := strings.Split(prefix, "/")
	return len(t.segments) >= len(want) && slices.Equal(t.segments[:len(want)], want)
}

// sameOrigin reports whether u has the scheme, host and port of t.
func (t target) sameOrigin(u target) bool {
	return t.url.Scheme == u.url.Scheme && t.host == u.host && t.port == u.port
}

// lookalikes are what some servers take for a character that shapes a path:
// overlong UTF-8, and the wide forms that normalisation folds.
var lookalikes = strings.NewReplacer(
	"\xc0\xae", ".", "\xe0\x80\xae", ".", "\uff0e", ".", "\u2024", ".", "\u2025", "..",
	"\xc0\xaf", "/", "\xe0\x80\xaf", "/", "\uff0f", "/", "\xc1\x9c", `\`, "\xe0\x81\x9c", `\`, "\uff3c", `\`,
)

// hasDots reports whether some server may read a path as leading upwards: with
// . or .. as a segment, however often escaped, behind \, before what may end a
// segment, or with blanks and control characters that may be dropped.
func hasDots(path string) bool {
	plain := lookalikes.Replace(unescape(path))
	for s := range strings.FieldsFuncSeq(plain, func(c rune) bool { return c == '/' || c == '\\' }) {
		if end := strings.IndexAny(s, ";?#\x00"); end >= 0 {
			s = s[:end]
		}
		s = strings.Map(func(c rune) rune {
			if c <= ' ' || c == 0x7f {
				return -1
			}
			return c
		}, s)
		if s == "." || s == ".." {
			return true
		}
	}
	return false
}

// unescape undoes every layer of escapes, in one pass: each byte may complete
// an escape that ends there, and what that stands for another.
func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := range len(s) {
		out = append(out, s[i])
		for n := len(out) - 3; n >= 0 && out[n] == '%'; n = len(out) - 3 {
			c, err := strconv.ParseUint(string(out[n+1:]), 16, 8)
			if err != nil {
				break
			}
			out = append(out[:n], byte(c))
		}
	}
	return string(out)
}

// printable reports whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// normalHost returns the one spelling of a host name or address.
func normalHost(host string) string {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String()
	}
	return strings.ToLower(host)
}

// validHost reports whether host, in its one spelling, is an address without a
// zone or a name of letters, digits, -, _ and dots. A name whose last label is
// a number is an address to some resolvers, and refused.
func validHost(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Zone() == ""
	}
	if len(host) > 253 {
		return false
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}
