package egress_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// asked is a body that knows whether it was closed.
type asked struct {
	io.Reader
	closed atomic.Bool
}

func (a *asked) Close() error { a.closed.Store(true); return nil }

// trip sends a request with fields through a Transport that owns x-key.
func (w *world) trip(t *testing.T, method, url, body string, pairs ...string) (string, error) {
	t.Helper()
	sent := &asked{Reader: strings.NewReader(body)}
	r, err := http.NewRequestWithContext(t.Context(), method, url, sent)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Add(pairs[i], pairs[i+1])
	}
	resp, err := egress.Transport{Client: w.client, Own: func(f string) bool { return f == "x-key" }}.RoundTrip(r)
	if !sent.closed.Load() {
		t.Error("the body of the request was left open")
	}
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.Request != r {
		t.Error("the response is of another request")
	}
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// tells answers with what it was asked.
func tells(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	_, _ = io.WriteString(rw, strings.Join([]string{r.Method, string(body), r.Header.Get("X-Key"), r.Header.Get("X-Other"), r.Header.Get("Authorization")}, "|"))
}

func inClear(private bool, hosts ...string) egress.Options {
	var o egress.Options
	for _, h := range hosts {
		o.Rules = append(o.Rules, egress.Rule{Scheme: "http", Host: h, Methods: []string{"GET", "POST"}, Private: private})
	}
	return o
}

// TestTransport checks which fields follow to which origin.
func TestTransport(t *testing.T) {
	var w *world
	w = newWorld(t, inClear(true, "api.test", "other.test"), func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/same":
			http.Redirect(rw, r, "/end", http.StatusTemporaryRedirect)
		case "/away":
			http.Redirect(rw, r, w.at("http", "other.test", "/end"), http.StatusPermanentRedirect)
		case "/back":
			http.Redirect(rw, r, w.at("http", "other.test", "/home"), http.StatusTemporaryRedirect)
		case "/home":
			http.Redirect(rw, r, w.at("http", "api.test", "/end"), http.StatusTemporaryRedirect)
		case "/see":
			http.Redirect(rw, r, "/end", http.StatusSeeOther)
		default:
			tells(rw, r)
		}
	})
	for path, want := range map[string]string{
		"/end": "POST|hi|k|o|Bearer t", "/same": "POST|hi|k|o|Bearer t", "/away": "POST|hi||o|",
		"/back": "POST|hi||o|", "/see": "GET||k|o|Bearer t",
	} {
		got, err := w.trip(t, "POST", w.at("http", "api.test", path), "hi", "X-Key", "k", "X-Other", "o", "Authorization", "Bearer t")
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", path, got, err, want)
		}
	}
}

// TestTransportRefuses checks that a Transport is bound as a Client is.
func TestTransportRefuses(t *testing.T) {
	var w *world
	o := inClear(true, "api.test")
	o.MaxRequest, o.MaxResponse = 10, 100
	w = newWorld(t, o, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/metadata":
			http.Redirect(rw, r, "http://169.254.169.254/", http.StatusTemporaryRedirect)
		case "/long":
			_, _ = io.WriteString(rw, strings.Repeat("x", 101))
		default:
			tells(rw, r)
		}
	})
	tests := []struct {
		method, url, body string
		fields            []string
		code              string
	}{
		{"POST", w.at("http", "api.test", "/"), "12345678901", nil, abi.HTTPRequestTooLarge},
		{"DELETE", w.at("http", "api.test", "/"), "", nil, abi.HTTPDenied},
		{"POST", w.at("http", "other.test", "/"), "", nil, abi.HTTPDenied},
		{"POST", w.at("http", "api.test", "/metadata"), "", nil, abi.HTTPDenied},
		{"POST", w.at("http", "api.test", "/long"), "", nil, abi.HTTPResponseTooLarge},
		{"POST", w.at("http", "api.test", "/"), "", []string{"Connection", "close"}, abi.HTTPInvalidHeader},
		{"POST", w.at("http", "api.test", "/"), "", []string{"X-Key", "{{secret:A}}"}, abi.HTTPSecretDenied},
	}
	for _, tt := range tests {
		got, err := w.trip(t, tt.method, tt.url, tt.body, tt.fields...)
		if e, ok := errors.AsType[*capability.HTTPError](err); !ok || e.Code != tt.code {
			t.Errorf("%s %s: got %q, %v; want %s", tt.method, tt.url, got, err, tt.code)
		}
	}
}

// TestTransportOwnInClear checks that an own field goes without TLS only where
// a rule grants private addresses, after a redirect too.
func TestTransportOwnInClear(t *testing.T) {
	o := inClear(false, "api.test")
	w := newWorld(t, o, tells)
	_, err := w.trip(t, "POST", w.at("http", "api.test", "/"), "", "X-Key", "k")
	wantCode(t, err, abi.HTTPSecretDenied, capability.AuditSecret)
	_, err = w.trip(t, "POST", w.at("http", "api.test", "/"), "", "X-Other", "o")
	wantCode(t, err, abi.HTTPDenied, capability.AuditAddress) // it got as far as the dialler
}

// TestAllows checks what is said of a request that is not sent.
func TestAllows(t *testing.T) {
	c := egress.New(egress.Options{Rules: []egress.Rule{
		{Host: "a.example.com", Methods: []string{"POST"}, PathPrefix: "/v1"},
		{Scheme: "http", Host: "127.0.0.1", Port: 81, Private: true},
	}})
	defer c.Close()
	tests := []struct {
		method, url      string
		allowed, private bool
	}{
		{"POST", "https://a.example.com/v1/x", true, false},
		{"GET", "https://a.example.com/v1/x", false, false},
		{"POST", "https://a.example.com/v1x", false, false},
		{"GET", "http://127.0.0.1:81/", true, true},
		{"GET", "http://u@127.0.0.1:81/", false, false},
		{"GET", "%", false, false},
	}
	for _, tt := range tests {
		if allowed, private := c.Allows(tt.method, tt.url); allowed != tt.allowed || private != tt.private {
			t.Errorf("%s %s: got %v, %v", tt.method, tt.url, allowed, private)
		}
	}
}

// TestReadWhileClosed closes a body that another goroutine reads.
func TestReadWhileClosed(t *testing.T) {
	w := newWorld(t, inClear(true, "api.test"), func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "x")
		_ = http.NewResponseController(rw).Flush()
		<-r.Context().Done()
	})
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.at("http", "api.test", "/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := egress.Transport{Client: w.client}.RoundTrip(r) //nolint:bodyclose // that is what is tested
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := io.ReadAll(resp.Body)
		done <- err
	}()
	_ = resp.Body.Close()
	if err := <-done; err == nil {
		t.Error("a closed body was read to its end")
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("a closed body was read")
	}
}
