package plugins_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/plugins/egress/egresstest"
	w "github.com/casemate/casemate/plugins/internal/wasmtest"
	"github.com/casemate/casemate/sdk/abi"
)

// fetches returns a tool that makes one request and answers with the head of
// the reply as a JSON string in a list, or the errno.
func fetches(head abi.HTTPHead) []byte {
	request, err := json.Marshal(head)
	if err != nil {
		panic(err)
	}
	return toolGuest(func(g *guest) []byte {
		const result, buf = 512, 32 << 10
		print := g.printer()
		get := w.Seq(w.I32(result), w.I64Load)
		wrap := func(v []byte) []byte { return w.Seq(v, []byte{0xa7}) }
		handle := wrap(w.Seq(get, w.I64(32), []byte{0x88}))
		return w.Seq(
			w.I32(result), g.call(abi.ImportCall, g.text(abi.OpHTTPFetch), g.text(string(abi.EncodeFrame(request, nil)))), w.I64Store,
			g.write("["),
			get, w.I64(0), []byte{0x53}, w.If, print(get), []byte{0x05}, // else
			// The length of the head, and then the head.
			g.call(abi.ImportReplyRead, handle, w.I32(0), w.I32(buf), w.I32(4)), w.Drop,
			g.call(abi.ImportReplyRead, handle, w.I32(4), w.I32(buf+8), w.Seq(w.I32(buf), w.I32Load)), w.Drop,
			g.call(abi.ImportOutputWrite, w.I32(buf+8), w.Seq(w.I32(buf), w.I32Load)), w.Drop,
			w.End, g.write("]"), w.I32(0),
		)
	})
}

// web is a server under several names, of which the operator allows one.
type web struct {
	port    string
	client  *egress.Client
	reached atomic.Int32 // requests for paths that no guest may get to
	secrets atomic.Int32 // requests that carried the secret to where it may not go
}

const theSecret = "s3cret"

func newWeb(t *testing.T) *web {
	t.Helper()
	b := &web{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(b.serve))
	server.StartTLS()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.port = u.Port()
	port, err := strconv.Atoi(b.port)
	if err != nil {
		t.Fatal(err)
	}
	names := &egresstest.Names{}
	here := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	names.Set("example.com", here) // in the server's certificate
	names.Set("loopback.test", here)
	names.Set("metadata.test", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	o := egress.Options{
		RootCAs: pool, Resolver: names.Resolver(),
		Rules: []egress.Rule{
			{Host: "example.com", Port: port, PathPrefix: "/open", Private: true},
			{Host: "loopback.test", Port: port},
			{Host: "metadata.test", Port: port, Private: true},
			{Host: "127.0.0.1", Port: port, PathPrefix: "/other", Private: true},
		},
		Secrets: []egress.Secret{{Name: "KEY", Host: "example.com", Header: "Authorization", Value: theSecret}},
	}
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	b.client = egress.New(o)
	t.Cleanup(b.client.Close)
	return b
}

func (b *web) serve(rw http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.URL.Path, "/open") && !strings.HasPrefix(r.URL.Path, "/other") {
		b.reached.Add(1)
	}
	if strings.HasPrefix(r.URL.Path, "/other") && strings.Contains(fmt.Sprint(r.Header), theSecret) {
		b.secrets.Add(1)
	}
	if to := r.URL.Query().Get("to"); to != "" {
		http.Redirect(rw, r, to, http.StatusFound)
		return
	}
	if r.URL.Path == "/open/drip" {
		rw.WriteHeader(http.StatusOK)
		for range 3 {
			if _, err := rw.Write([]byte(".")); err != nil {
				return
			}
			rw.(http.Flusher).Flush()
		}
		<-r.Context().Done() // and nothing more
	}
}

// TestEscapeToTheNetwork: a guest with http.fetch/1 gets to what the operator
// named, and nowhere else.
func TestEscapeToTheNetwork(t *testing.T) {
	b := newWeb(t)
	at := func(scheme, host, path string) string { return scheme + "://" + host + ":" + b.port + path }
	bearer := [2]string{"authorization", "Bearer {{secret:KEY}}"}
	for _, tt := range []struct {
		name  string
		head  abi.HTTPHead
		want  string // part of the head of the reply, or the errno
		audit string
	}{
		{"control: what is allowed", abi.HTTPHead{URL: at("https", "example.com", "/open")}, `"http_status":200`, ""},
		{"another path", abi.HTTPHead{URL: at("https", "example.com", "/closed")}, abi.HTTPDenied, capability.AuditRule},
		{"a path that climbs", abi.HTTPHead{URL: at("https", "example.com", "/open/../closed")}, abi.HTTPInvalidURL, "*"},
		{"a path that climbs, escaped", abi.HTTPHead{URL: at("https", "example.com", "/open/%2e%2e/closed")}, abi.HTTPInvalidURL, "*"},
		{"another host", abi.HTTPHead{URL: "https://other.example/open"}, abi.HTTPDenied, capability.AuditRule},
		{"another scheme", abi.HTTPHead{URL: at("http", "example.com", "/open")}, abi.HTTPDenied, capability.AuditRule},
		{"another method", abi.HTTPHead{Method: "DELETE", URL: at("https", "example.com", "/open")}, abi.HTTPDenied, capability.AuditRule},
		{"a file", abi.HTTPHead{URL: "file:///etc/passwd"}, abi.HTTPInvalidURL, "*"},
		{"redirect to a denied path", abi.HTTPHead{URL: at("https", "example.com", "/open?to=/closed")}, abi.HTTPDenied, capability.AuditRedirect},
		{"redirect to a denied host", abi.HTTPHead{URL: at("https", "example.com", "/open?to="+at("https", "loopback.test", "/x"))}, abi.HTTPDenied, "*"},
		{"a name that is 127.0.0.1", abi.HTTPHead{URL: at("https", "loopback.test", "/open")}, abi.HTTPDenied, capability.AuditAddress},
		{"a name that is 169.254.169.254", abi.HTTPHead{URL: at("https", "metadata.test", "/open")}, abi.HTTPDenied, capability.AuditAddress},
		{"slow-drip body", abi.HTTPHead{URL: at("https", "example.com", "/open/drip"), TimeoutMS: 100}, abi.HTTPTimeout, ""},
		{"header injection by value", abi.HTTPHead{URL: at("https", "example.com", "/open"), Headers: [][2]string{{"x", "a\r\nhost: evil"}}}, abi.HTTPInvalidHeader, capability.AuditHeader},
		{"header injection by name", abi.HTTPHead{URL: at("https", "example.com", "/open"), Headers: [][2]string{{"x: y\r\nz", "a"}}}, abi.HTTPInvalidHeader, capability.AuditHeader},
		{"host header", abi.HTTPHead{URL: at("https", "example.com", "/open"), Headers: [][2]string{{"Host", "evil"}}}, abi.HTTPInvalidHeader, capability.AuditHeader},
		{"secret in the URL", abi.HTTPHead{URL: at("https", "example.com", "/open?k={{secret:KEY}}")}, abi.HTTPInvalidURL, "*"},
		{"secret in another header", abi.HTTPHead{URL: at("https", "example.com", "/open"), Headers: [][2]string{{"x-key", "{{secret:KEY}}"}}}, abi.HTTPSecretDenied, capability.AuditSecret},
		{"secret to another host", abi.HTTPHead{URL: at("https", "127.0.0.1", "/other"), Headers: [][2]string{bearer}}, abi.HTTPSecretDenied, capability.AuditSecret},
		{"secret over a redirect", abi.HTTPHead{URL: at("https", "example.com", "/open?to="+at("https", "127.0.0.1", "/other")), Headers: [][2]string{bearer}}, `"http_status":200`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := load(t, fetches(tt.head))
			var audited []string
			env := capability.Env{
				Tenant: "a", Granted: map[string]bool{abi.OpHTTPFetch: true}, HTTP: b.client,
				Audit: func(op, reason string) { audited = append(audited, op+" "+reason) },
			}
			res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: env})
			wantClass(t, res, plugins.OK)
			if !strings.Contains(string(res.Output), tt.want) {
				t.Errorf("reply = %s, want %s in it", res.Output, tt.want)
			}
			if tt.want != `"http_status":200` && strings.Contains(string(res.Output), "http_status") {
				t.Errorf("reply = %s: there was a response", res.Output)
			}
			if tt.audit != "*" && tt.audit != "" && !slices.Contains(audited, abi.OpHTTPFetch+" "+tt.audit) || tt.audit == "" && audited != nil {
				t.Errorf("audit = %q, want %q", audited, tt.audit)
			}
			for _, address := range []string{"127.0.0.1", "169.254", theSecret} {
				if strings.Contains(string(res.Output), address) {
					t.Errorf("the reply tells %s: %s", address, res.Output)
				}
			}
		})
	}
	if n := b.reached.Load(); n != 0 {
		t.Errorf("%d requests reached what is not allowed", n)
	}
	if n := b.secrets.Load(); n != 0 {
		t.Errorf("the secret was sent elsewhere %d times", n)
	}
}

// TestEscapeWithoutGrant: a power that was not granted is a value to the
// guest, and a line in the audit.
func TestEscapeWithoutGrant(t *testing.T) {
	var audited []string
	env := capability.Env{HTTP: newWeb(t).client, Audit: func(op, reason string) { audited = append(audited, op+" "+reason) }}
	p := load(t, fetches(abi.HTTPHead{URL: "https://example.com/"}))
	res := p.Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: env})
	wantClass(t, res, plugins.OK)
	if string(res.Output) != "[-63]" || !slices.Equal(audited, []string{abi.OpHTTPFetch + " " + capability.AuditNotGranted}) {
		t.Errorf("reply = %s, audit = %q; want -63 and one line", res.Output, audited)
	}
}

// TestEffectBeforeSending: nothing leaves the host before it is on record that
// effects began, and nothing at all once the lease is lost.
func TestEffectBeforeSending(t *testing.T) {
	b := newWeb(t)
	post := fetches(abi.HTTPHead{Method: "POST", URL: "https://example.com:" + b.port + "/open"})
	lost := fmt.Errorf("lease lost: %w", capability.ErrEnded)
	env := capability.Env{
		Granted: map[string]bool{abi.OpHTTPFetch: true}, HTTP: neverHTTP{t},
		Effect: func(context.Context) error { return lost },
	}
	res := load(t, post).Call(t.Context(), plugins.Call{Entry: abi.ExportToolCall, Env: env})
	wantClass(t, res, plugins.Canceled)
}

// neverHTTP fails a test that sends anything.
type neverHTTP struct{ t *testing.T }

func (n neverHTTP) Do(_ context.Context, r *capability.HTTPRequest) (*capability.HTTPResponse, error) {
	n.t.Errorf("sent %s %s after the lease was lost", r.Method, r.URL)
	return nil, &capability.HTTPError{Code: abi.HTTPNetwork}
}
