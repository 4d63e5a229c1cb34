package egress_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/plugins/egress/egresstest"
)

// world is a server on loopback that names lead to, and a client of it.
type world struct {
	names  egresstest.Names
	server *httptest.Server
	client *egress.Client
	port   int
	gone   chan struct{} // a connection was closed
}

// loopback is where test servers are.
var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1")}

// newWorld starts a server, with TLS where o has a rule for https. The rules
// of o without a port are for the server's, and api.test is its name.
func newWorld(t *testing.T, o egress.Options, handler http.HandlerFunc) *world {
	t.Helper()
	w := &world{server: httptest.NewUnstartedServer(handler), gone: make(chan struct{}, 100)}
	w.server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			w.gone <- struct{}{}
		}
	}
	if o.Rules != nil && o.Rules[0].Scheme == "http" {
		w.server.Start()
	} else {
		w.server.EnableHTTP2 = true
		w.server.StartTLS()
		o.RootCAs = x509.NewCertPool()
		o.RootCAs.AddCert(w.server.Certificate())
	}
	t.Cleanup(w.server.Close)
	u, err := url.Parse(w.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	w.port, err = strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.Rules {
		if o.Rules[i].Port == 0 {
			o.Rules[i].Port = w.port
		}
	}
	w.names.Set("api.test", loopback)
	w.names.Set("other.test", loopback)
	w.names.Set("example.com", loopback) // in the certificate of httptest
	o.Resolver = w.names.Resolver()
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	w.client = egress.New(o)
	t.Cleanup(w.client.Close)
	return w
}

// at returns a URL of the server under a name.
func (w *world) at(scheme, host, path string) string {
	return scheme + "://" + host + ":" + strconv.Itoa(w.port) + path
}

// answer is a response that was read to its end.
type answer struct {
	status int
	header map[string]string
	body   string
}

func (w *world) do(t *testing.T, r capability.HTTPRequest) (answer, error) {
	t.Helper()
	resp, err := w.client.Do(t.Context(), &r)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	a := answer{status: resp.Status, header: map[string]string{}, body: string(data)}
	for _, f := range resp.Header {
		a.header[f.Name] = f.Value
	}
	return a, err
}

// wantCode checks the closed words of an error, and that it says no more.
func wantCode(t *testing.T, err error, code, audit string) {
	t.Helper()
	e, ok := errors.AsType[*capability.HTTPError](err)
	if !ok || e.Code != code || e.Audit != audit {
		t.Errorf("got error %v (%+v), want %s, audit %q", err, e, code, audit)
	}
	if ok && err.Error() != "http: "+code {
		t.Errorf("the error says more than its code: %q", err)
	}
}

func fields(pairs ...string) []capability.HTTPHeader {
	var h []capability.HTTPHeader
	for i := 0; i < len(pairs); i += 2 {
		h = append(h, capability.HTTPHeader{Name: pairs[i], Value: pairs[i+1]})
	}
	return h
}
