package egress_test

import (
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

func TestRules(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{
		{Scheme: "http", Host: "api.test", PathPrefix: "/v1", Private: true},
		{Scheme: "http", Host: "API.test", PathPrefix: "/v2/", Methods: []string{"POST"}, Private: true},
		{Scheme: "http", Host: "*.wild.test", Private: true},
		{Scheme: "http", Host: "127.0.0.1", PathPrefix: "/ip", Private: true},
		{Scheme: "http", Host: "api.test", PathPrefix: "/group/a", Private: true},
	}}, func(out http.ResponseWriter, r *http.Request) {
		_, _ = out.Write([]byte(r.Method + " " + r.RequestURI))
	})
	w.names.Set("a.wild.test", loopback)
	w.names.Set("a.b.wild.test", loopback)
	const denied, bad = abi.HTTPDenied, abi.HTTPInvalidURL
	for _, tt := range []struct {
		method, host, path, want string // body, or a code
	}{
		{"", "api.test", "/v1", "GET /v1"},
		{"GET", "API.TEST", "/v1/", "GET /v1/"},
		{"GET", "api.test", "/v1/x?q=1&r=%2f..#part", "GET /v1/x?q=1&r=%2f.."},
		{"GET", "api.test", "/v1/a%2Fb", "GET /v1/a%2Fb"},
		{"GET", "api.test", "/v1/%2ejson", "GET /v1/%2ejson"},
		{"GET", "api.test", "/v1/...", "GET /v1/..."},
		{"GET", "api.test", "/%76%31/x", "GET /%76%31/x"},
		{"GET", "api.test", "/v1/ü x", "GET /v1/%C3%BC%20x"},
		{"GET", "api.test", "/v1x", denied},
		{"GET", "api.test", "/", denied},
		{"GET", "api.test", "", denied},
		{"GET", "api.test", "//v1", denied},
		{"GET", "api.test", "/v1%2fadmin", denied},
		{"GET", "api.test", "/group%2fa/x", denied},
		{"GET", "api.test", "/V1", denied},
		{"POST", "api.test", "/v1", denied},
		{"get", "api.test", "/v1", denied},
		{"POST", "api.test", "/v2/x", "POST /v2/x"},
		{"POST", "api.test", "/v2", "POST /v2"},
		{"GET", "api.test", "/v2/x", denied},
		{"GET", "other.test", "/v1", denied},
		{"GET", "evil-api.test", "/v1", denied},
		{"GET", "api.test.evil.test", "/v1", denied},
		{"GET", "a.wild.test", "/any", "GET /any"},
		{"GET", "a.b.wild.test", "/any", "GET /any"},
		{"GET", "wild.test", "/any", denied},
		{"GET", "evilwild.test", "/any", denied},
		{"GET", "127.0.0.1", "/ip", "GET /ip"},
		{"GET", "[::ffff:127.0.0.1]", "/ip", denied},
		{"GET", "127.1", "/ip", bad},
		{"GET", "2130706433", "/ip", bad},
		{"GET", "0x7f.0x1", "/ip", bad},
		{"GET", "[::1%25lo]", "/ip", bad},
		{"GET", "api.test.", "/v1", bad},
		{"GET", "api。test", "/v1", bad},
		{"GET", "user@api.test", "/v1", bad},
		{"GET", "user:pass@api.test", "/v1", bad},
		{"GET", "api.test", "/v1/../admin", bad},
		{"GET", "api.test", "/v1/./x", bad},
		{"GET", "api.test", "/v1/..", bad},
		{"GET", "api.test", "/v1/%2e%2e/admin", bad},
		{"GET", "api.test", "/v1/%252e%252E/admin", bad},
		{"GET", "api.test", "/v1/%25zz/%252e%252e/admin", bad},
		{"GET", "api.test", "/v1/..%2fadmin", bad},
		{"GET", "api.test", "/v1%2f..%2fadmin", bad},
		{"GET", "api.test", `/v1/..\admin`, bad},
		{"GET", "api.test", "/v1/..%5cadmin", bad},
		{"GET", "api.test", "/v1/..;x=1/admin", bad},
		{"GET", "api.test", "/v1/%c0%ae%c0%ae/admin", bad},
		{"GET", "api.test", "/v1/%e0%80%ae%e0%80%ae/admin", bad},
		{"GET", "api.test", "/v1/%ef%bc%8e%ef%bc%8e/admin", bad},
		{"GET", "api.test", "/v1/%e2%80%a5/admin", bad},
		{"GET", "api.test", "/v1/..%ef%bc%8fadmin", bad},
		{"GET", "api.test", "/v1/..%c1%9cadmin", bad},
		{"GET", "api.test", "/v1/%25%32%65%25%32%65/admin", bad},
		{"GET", "api.test", "/v1/%25%32%65%2e%25%32%66admin", bad},
		{"GET", "api.test", "/v1/..%00/admin", bad},
		{"GET", "api.test", "/v1/.%09./admin", bad},
		{"GET", "api.test", "/v1/..%20/admin", bad},
		{"GET", "api.test", "/v1/..%3fx/admin", bad},
		{"GET", "api.test", "/v1/..%23/admin", bad},
		{"GET", "api.test", "/v1/100%25/%25zz/a%00b%20", "GET /v1/100%25/%25zz/a%00b%20"},
		{"GET", "api.test", "/v1/%zz", bad},
		{"GET", "api.test", "/v1?a b", bad},
		{"GET", "api.test", "/v1?a\r\nX: y", bad},
		{"GET", "api.test", "/v1/" + strings.Repeat("x", 9000), bad},
		{"GET", "api.test", "/v1/{{secret:KEY}}", bad},
		{"CONNECT", "api.test", "/v1", abi.HTTPInvalidMethod},
		{"trace", "api.test", "/v1", abi.HTTPInvalidMethod},
		{"GET /v1 HTTP/1.1\r\nX: ", "api.test", "/v1", abi.HTTPInvalidMethod},
	} {
		t.Run(tt.method+" "+tt.host+" "+tt.path[:min(len(tt.path), 40)], func(t *testing.T) {
			got, err := w.do(t, capability.HTTPRequest{Method: tt.method, URL: w.at("http", tt.host, tt.path)})
			switch {
			case tt.want == denied:
				wantCode(t, err, denied, capability.AuditRule)
			case !strings.Contains(tt.want, " "):
				wantCode(t, err, tt.want, "")
			case err != nil || got.body != tt.want:
				t.Errorf("got %q, %v; want %q", got.body, err, tt.want)
			}
		})
	}
	for _, raw := range []string{"", "/v1", "api.test/v1", "ftp://api.test/v1", "file:///etc/passwd", "http:api.test", "http://", "http:///v1", "http://api.test:0/", "http://api.test:99999/v1"} {
		if _, err := w.do(t, capability.HTTPRequest{URL: raw}); true {
			wantCode(t, err, bad, "")
		}
	}
	if _, err := w.do(t, capability.HTTPRequest{URL: "http://api.test/v1"}); true { // another port
		wantCode(t, err, denied, capability.AuditRule)
	}
	if _, err := w.do(t, capability.HTTPRequest{URL: w.at("https", "api.test", "/v1")}); true {
		wantCode(t, err, denied, capability.AuditRule)
	}
}

// TestAddresses: what a name stands for decides, at the moment of the dial.
func TestAddresses(t *testing.T) {
	var reached atomic.Int32
	w := newWorld(t, egress.Options{Rules: []egress.Rule{
		{Scheme: "http", Host: "open.test"},
		{Scheme: "http", Host: "private.test", Private: true},
		{Scheme: "http", Host: "127.0.0.1"},
		{Scheme: "http", Host: "169.254.169.254", Private: true},
		{Scheme: "http", Host: "private.test", PathPrefix: "/open", Methods: []string{"POST"}},
		{Scheme: "http", Host: "private.test", Port: 1, Private: true},
	}}, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	addrs := func(all ...string) (set []netip.Addr) {
		for _, a := range all {
			set = append(set, netip.MustParseAddr(a))
		}
		return set
	}
	for _, tt := range []struct {
		name, host string
		set        []netip.Addr
		ok         bool
	}{
		{"loopback", "open.test", addrs("127.0.0.1"), false},
		{"loopback, granted", "private.test", addrs("127.0.0.1"), true},
		{"loopback as IPv6", "open.test", addrs("::1"), false},
		{"mapped loopback", "open.test", addrs("::ffff:127.0.0.1"), false},
		{"loopback behind NAT64", "open.test", addrs("64:ff9b::7f00:1"), false},
		{"metadata", "open.test", addrs("169.254.169.254"), false},
		{"metadata, granted", "private.test", addrs("169.254.169.254"), false},
		{"mapped metadata, granted", "private.test", addrs("::ffff:169.254.169.254"), false},
		{"metadata of IPv6, granted", "private.test", addrs("fd00:ec2::254"), false},
		{"unspecified, granted", "private.test", addrs("0.0.0.0"), false},
		{"one of two may be dialled", "private.test", addrs("169.254.169.254", "127.0.0.1"), true},
		{"an address by itself", "127.0.0.1", nil, false},
		{"a metadata address by itself, granted", "169.254.169.254", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.set != nil {
				w.names.Set(tt.host, tt.set)
			}
			before := reached.Load()
			_, err := w.do(t, capability.HTTPRequest{URL: w.at("http", tt.host, "/")})
			if tt.ok != (reached.Load() > before) {
				t.Errorf("reached %v, want %v", reached.Load() > before, tt.ok)
			}
			if tt.ok && err != nil {
				t.Error(err)
			}
			if !tt.ok {
				wantCode(t, err, abi.HTTPDenied, capability.AuditAddress)
			}
			w.server.CloseClientConnections()
		})
	}
	t.Run("a name that is bound again", func(t *testing.T) {
		w.names.Set("private.test", loopback, addrs("169.254.169.254"))
		url := w.at("http", "private.test", "/")
		if _, err := w.do(t, capability.HTTPRequest{URL: url}); err != nil {
			t.Fatal(err)
		}
		w.server.CloseClientConnections()
		_, err := w.do(t, capability.HTTPRequest{URL: url})
		wantCode(t, err, abi.HTTPDenied, capability.AuditAddress)
	})
	t.Run("a connection of a rule that grants more", func(t *testing.T) {
		w.names.Set("private.test", loopback)
		if _, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "private.test", "/open")}); err != nil {
			t.Fatal(err)
		}
		_, err := w.do(t, capability.HTTPRequest{Method: "POST", URL: w.at("http", "private.test", "/open")})
		wantCode(t, err, abi.HTTPDenied, capability.AuditAddress)
	})
	t.Run("one of two is not there, the other refused", func(t *testing.T) {
		w.names.Set("private.test", addrs("127.0.0.1", "169.254.169.254"))
		_, err := w.do(t, capability.HTTPRequest{URL: "http://private.test:1/"})
		wantCode(t, err, abi.HTTPDenied, capability.AuditAddress)
	})
	t.Run("no such name", func(t *testing.T) {
		w.names.Set("open.test")
		_, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "open.test", "/")})
		wantCode(t, err, abi.HTTPNetwork, "")
	})
}

func TestValidate(t *testing.T) {
	for name, o := range map[string]egress.Options{
		"a scheme":            {Rules: []egress.Rule{{Scheme: "ftp", Host: "a.test"}}},
		"no host":             {Rules: []egress.Rule{{}}},
		"a star alone":        {Rules: []egress.Rule{{Host: "*"}}},
		"a star in a name":    {Rules: []egress.Rule{{Host: "a.*.test"}}},
		"a star, an address":  {Rules: []egress.Rule{{Host: "*.127.0.0.1"}}},
		"a host with a port":  {Rules: []egress.Rule{{Host: "a.test:80"}}},
		"a host with a path":  {Rules: []egress.Rule{{Host: "a.test/v1"}}},
		"a port":              {Rules: []egress.Rule{{Host: "a.test", Port: 70000}}},
		"a relative path":     {Rules: []egress.Rule{{Host: "a.test", PathPrefix: "v1"}}},
		"a path with dots":    {Rules: []egress.Rule{{Host: "a.test", PathPrefix: "/v1/.."}}},
		"a path with escapes": {Rules: []egress.Rule{{Host: "a.test", PathPrefix: "/%76%31"}}},
		"a path with a query": {Rules: []egress.Rule{{Host: "a.test", PathPrefix: "/v1?a=b"}}},
		"a method":            {Rules: []egress.Rule{{Host: "a.test", Methods: []string{"CONNECT"}}}},
		"a secret's name":     {Secrets: []egress.Secret{{Name: "a}}", Host: "a.test", Header: "x", Value: "v"}}},
		"a secret's host":     {Secrets: []egress.Secret{{Name: "a", Host: "*.test", Header: "x", Value: "v"}}},
		"a secret's header":   {Secrets: []egress.Secret{{Name: "a", Host: "a.test", Header: "Host", Value: "v"}}},
		"a secret's newlines": {Secrets: []egress.Secret{{Name: "a", Host: "a.test", Header: "x", Value: "v\r\n"}}},
	} {
		err := o.Validate()
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
		c := egress.New(o)
		if _, err := c.Do(t.Context(), &capability.HTTPRequest{URL: "https://a.test/v1"}); true {
			wantCode(t, err, abi.HTTPDenied, capability.AuditRule)
		}
		c.Close()
	}
}
