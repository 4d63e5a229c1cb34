package egress

import (
	"net/url"
	"path"
	"strings"
	"testing"
)

// FuzzTarget: whatever a URL looks like, one that is below a prefix stays below
// it for a server that decodes and cleans its path, once or again and again,
// and what is sent is read as the same.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{
		"https://a.test/v1/x", "https://a.test/v1/../x", "https://a.test/v1/%2e%2e/x", "https://a.test/v1/%252e%252e%252fx", `https://a.test/v1/..\x`,
		"https://a.test/v1/%2525%252e", "https://a.test/v1/%25%32%65%25%32%65/x", "https://a.test/v1//..;/x", "http://[::1]:80/v1/?a=b#c", "https://u@a.test/v1", "https://a.test/v1/%zz", "https://A.test:443/v1/ü",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		to, ok := parseTarget(raw)
		if !ok {
			return
		}
		u, err := url.Parse(to.url.String())
		if err != nil {
			t.Fatalf("%q is sent as %q: %v", raw, to.url, err)
		}
		again, ok := newTarget(u)
		if !ok || again.url.String() != to.url.String() || again.host != to.host || again.port != to.port {
			t.Errorf("%q is sent as %q, read as %+v, %v", raw, to.url, again, ok)
		}
		if !to.below("/v1") {
			return
		}
		seen := u.EscapedPath()
		for range 4 {
			for _, p := range []string{seen, strings.ReplaceAll(seen, `\`, "/")} {
				if clean := path.Clean("/" + p); clean != "/v1" && !strings.HasPrefix(clean, "/v1/") && strings.HasPrefix(seen, "/v1") {
					t.Errorf("%q is below /v1, but some server sees %q", raw, clean)
				}
			}
			plain, err := url.PathUnescape(seen)
			if err != nil || plain == seen {
				break
			}
			seen = plain
		}
	})
}
