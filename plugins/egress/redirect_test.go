package egress_test

import (
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// seen tells what a request looked like to the server.
func seen(out http.ResponseWriter, r *http.Request) {
	data, _ := io.ReadAll(r.Body)
	line := r.Method + " " + r.URL.Path
	for _, name := range []string{"Authorization", "Cookie", "X-Key", "X-Plain", "Content-Type"} {
		if v := r.Header.Get(name); v != "" {
			line += " " + name + "=" + v
		}
	}
	_, _ = out.Write([]byte(line + " " + string(data)))
}

// redirects answers /STATUS?to=URL with a redirect, and else with seen.
func redirects(out http.ResponseWriter, r *http.Request) {
	status, err := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
	if err != nil {
		seen(out, r)
		return
	}
	if to := r.URL.Query().Get("to"); to != "" {
		out.Header().Set("Location", to)
	}
	out.WriteHeader(status)
	_, _ = out.Write([]byte("moved"))
}

func TestRedirects(t *testing.T) {
	methods := []string{"GET", "HEAD", "POST", "PUT"}
	w := newWorld(t, egress.Options{Rules: []egress.Rule{
		{Scheme: "http", Host: "api.test", Methods: methods, Private: true},
		{Scheme: "http", Host: "other.test", PathPrefix: "/open", Private: true},
		{Scheme: "http", Host: "other.test", PathPrefix: "/302", Private: true},
		{Scheme: "http", Host: "strict.test"},
		{Scheme: "http", Host: "meta.test", Private: true},
	}}, redirects)
	w.names.Set("strict.test", loopback)
	w.names.Set("meta.test", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	header := fields("Authorization", "a", "Cookie", "c", "X-Plain", "p", "Content-Type", "t")
	const all = " Authorization=a Cookie=c X-Plain=p"
	rule, addr := capability.AuditRedirect, capability.AuditAddress
	for _, tt := range []struct {
		name, method, status, to, want, audit string // body; or "" and why it is denied
	}{
		{"301 of a get", "GET", "301", "/x", "GET /x" + all + " Content-Type=t body", ""},
		{"301 of a post", "POST", "301", "/x", "GET /x" + all + " ", ""},
		{"302 of a post", "POST", "302", "/x", "GET /x" + all + " ", ""},
		{"303 of a put", "PUT", "303", "/x", "GET /x" + all + " ", ""},
		{"302 of a put", "PUT", "302", "/x", "PUT /x" + all + " Content-Type=t body", ""},
		{"307 of a post", "POST", "307", "/x", "POST /x" + all + " Content-Type=t body", ""},
		{"308 of a put", "PUT", "308", "/x", "PUT /x" + all + " Content-Type=t body", ""},
		{"300 is an answer", "GET", "300", "/x", "moved", ""},
		{"304 is an answer", "GET", "304", "/x", "", ""},
		{"no location", "GET", "302", "", "moved", ""},
		{"another origin", "GET", "302", "http://other.test/open", "GET /open X-Plain=p Content-Type=t body", ""},
		{"another origin and back", "GET", "302", "http://other.test/302?to=http://api.test/x", "GET /x X-Plain=p Content-Type=t body", ""},
		{"another path of another origin", "GET", "302", "http://other.test/closed", "", rule},
		{"a method that the target does not have", "POST", "307", "http://other.test/open", "", rule},
		{"a host of no rule", "GET", "302", "http://evil.test/", "", rule},
		{"a host of no rule without a scheme", "GET", "302", "//evil.test/", "", rule},
		{"another scheme", "GET", "302", "https://api.test/", "", rule},
		{"a scheme that is not http", "GET", "302", "file:///etc/passwd", "", rule},
		{"a user", "GET", "302", "http://u:p@api.test/", "", rule},
		{"upwards", "GET", "302", "/a/%2e%2e/x", "", rule},
		{"a private address", "GET", "302", "http://strict.test/", "", addr},
		{"metadata", "GET", "302", "http://meta.test/latest", "", addr},
		{"a metadata address", "GET", "302", "http://169.254.169.254/", "", rule},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := strings.NewReplacer("other.test", w.at("", "other.test", "")[3:], "strict.test", w.at("", "strict.test", "")[3:],
				"meta.test", w.at("", "meta.test", "")[3:], "http://api.test", w.at("http", "api.test", "")).Replace(tt.to)
			url := w.at("http", "api.test", "/"+tt.status)
			if to != "" {
				url += "?to=" + strings.ReplaceAll(to, "%", "%25")
			}
			got, err := w.do(t, capability.HTTPRequest{Method: tt.method, URL: url, Header: header, Body: []byte("body")})
			switch {
			case tt.audit != "":
				wantCode(t, err, abi.HTTPDenied, tt.audit)
			case err != nil || got.body != tt.want:
				t.Errorf("got %q, %v; want %q", got.body, err, tt.want)
			}
		})
	}
}

func TestRedirectLoop(t *testing.T) {
	var hops atomic.Int32
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}}, func(out http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		hops.Add(1)
		if n > 0 {
			http.Redirect(out, r, "/?n="+strconv.Itoa(n-1), http.StatusFound)
		}
	})
	if got, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "api.test", "/?n=5")}); err != nil || got.status != 200 || hops.Load() != 6 {
		t.Errorf("five redirects: got %d after %d requests, %v", got.status, hops.Load(), err)
	}
	_, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "api.test", "/?n=6")})
	wantCode(t, err, abi.HTTPTooManyRedirects, "")
	if hops.Load() != 12 {
		t.Errorf("six redirects: %d requests were sent, want 6", hops.Load()-6)
	}
}

// secretWorld is a server with TLS, under example.com and 127.0.0.1, that
// secrets of example.com are sent to.
func secretWorld(t *testing.T) *world {
	return newWorld(t, egress.Options{
		Rules: []egress.Rule{
			{Host: "example.com", Methods: []string{"GET", "POST"}, Private: true},
			{Host: "127.0.0.1", Methods: []string{"GET", "POST"}, Private: true},
			{Scheme: "http", Host: "example.com", Private: true},
		},
		Secrets: []egress.Secret{
			{Name: "KEY", Host: "Example.com", Header: "X-Key", Value: "s3cret"},
			{Name: "KEY2", Host: "example.com", Header: "x-key", Value: "{{secret:KEY}}"},
			{Name: "TOKEN", Host: "example.com", Header: "Authorization", Value: "t0ken"},
		},
	}, redirects)
}

func TestSecrets(t *testing.T) {
	w := secretWorld(t)
	const denied = abi.HTTPSecretDenied
	for _, tt := range []struct {
		name, scheme, host, header, value, want, code string
	}{
		{"alone", "https", "example.com", "x-key", "{{secret:KEY}}", "GET / X-Key=s3cret ", ""},
		{"in a text", "https", "EXAMPLE.COM", "Authorization", "Bearer {{secret:TOKEN}}!", "GET / Authorization=Bearer t0ken! ", ""},
		{"twice", "https", "example.com", "X-KEY", "{{secret:KEY}}{{secret:KEY}}", "GET / X-Key=s3crets3cret ", ""},
		{"a value that looks like a name", "https", "example.com", "x-key", "{{secret:KEY2}}", "GET / X-Key={{secret:KEY}} ", ""},
		{"braces of another kind", "https", "example.com", "x-key", "{{KEY}}", "GET / X-Key={{KEY}} ", ""},
		{"another header", "https", "example.com", "x-plain", "{{secret:KEY}}", "", denied},
		{"another host", "https", "127.0.0.1", "x-key", "{{secret:KEY}}", "", denied},
		{"no such secret", "https", "example.com", "x-key", "{{secret:NONE}}", "", denied},
		{"names are exact", "https", "example.com", "x-key", "{{secret:key}}", "", denied},
		{"one bound, one not", "https", "example.com", "x-key", "{{secret:KEY}}{{secret:TOKEN}}", "", denied},
		{"without TLS", "http", "example.com", "x-key", "{{secret:KEY}}", "", denied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := w.do(t, capability.HTTPRequest{URL: w.at(tt.scheme, tt.host, "/"), Header: fields(tt.header, tt.value)})
			switch {
			case tt.code != "":
				wantCode(t, err, tt.code, capability.AuditSecret)
			case err != nil || got.body != tt.want:
				t.Errorf("got %q, %v; want %q", got.body, err, tt.want)
			}
		})
	}
	t.Run("in a body", func(t *testing.T) {
		got, err := w.do(t, capability.HTTPRequest{Method: "POST", URL: w.at("https", "example.com", "/"), Body: []byte("{{secret:KEY}}")})
		if want := "POST / {{secret:KEY}}"; err != nil || got.body != want {
			t.Errorf("got %q, %v; want %q", got.body, err, want)
		}
	})
	for _, part := range []string{"/{{secret:KEY}}", "/?q={{secret:KEY}}", "/#{{secret:KEY}}"} {
		_, err := w.do(t, capability.HTTPRequest{URL: w.at("https", "example.com", part)})
		wantCode(t, err, abi.HTTPInvalidURL, "")
	}
}

// TestSecretsOverRedirects: a secret goes where it is bound to, and not where
// that host sends its clients.
func TestSecretsOverRedirects(t *testing.T) {
	w := secretWorld(t)
	header := fields("x-key", "{{secret:KEY}}", "x-plain", "p")
	here := w.at("https", "example.com", "")
	there := w.at("https", "127.0.0.1", "")
	for _, tt := range []struct{ name, path, want string }{
		{"the same origin", "/302?to=/x", "GET /x X-Key=s3cret X-Plain=p "},
		{"another origin", "/302?to=" + there + "/x", "GET /x X-Plain=p "},
		{"another origin and back", "/302?to=" + there + "/302%3Fto=" + here + "/x", "GET /x X-Plain=p "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := w.do(t, capability.HTTPRequest{URL: here + tt.path, Header: header})
			if err != nil || got.body != tt.want {
				t.Errorf("got %q, %v; want %q", got.body, err, tt.want)
			}
		})
	}
	t.Run("out of TLS", func(t *testing.T) {
		_, err := w.do(t, capability.HTTPRequest{URL: here + "/302?to=http://example.com/x", Header: header})
		wantCode(t, err, abi.HTTPDenied, capability.AuditRedirect) // another port, no rule
	})
}
