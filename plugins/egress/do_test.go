package egress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// plain is a rule that allows every method on the server without TLS.
var plain = egress.Rule{
	Scheme: "http", Host: "api.test", Private: true,
	Methods: []string{"GET", "HEAD", "POST", "PUT", "DELETE"},
}

func TestExchange(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}}, func(out http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		h := out.Header()
		h.Set("X-Seen", r.Header.Get("X-Two")+"|"+strings.Join(r.Header.Values("X-One"), ",")+"|"+r.UserAgent()+"|"+r.Header.Get("Accept-Encoding"))
		h.Set("Set-Cookie", "a=b")
		h.Set("Proxy-Authenticate", "Basic")
		h.Set("Connection", "x-seen")
		h.Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		out.WriteHeader(http.StatusTeapot)
		_, _ = out.Write([]byte(r.Method + " " + r.Host + " " + string(data)))
	})
	host := strings.TrimPrefix(w.at("http", "api.test", ""), "http://")
	for _, tt := range []struct {
		name string
		r    capability.HTTPRequest
		body string
		seen string
		size string
	}{
		{"a get", capability.HTTPRequest{}, "GET " + host + " ", "||casemate|", "0"},
		{"a head", capability.HTTPRequest{Method: "HEAD"}, "", "||casemate|", "0"},
		{
			"a post",
			capability.HTTPRequest{Method: "POST", Body: []byte("a\x00b"), Header: fields("X-One", "1", "x-one", "2", "X-TWO", "\t3", "User-Agent", "me")},
			"POST " + host + " a\x00b", "3|1,2|me|", "3",
		},
		{"an empty post", capability.HTTPRequest{Method: "POST"}, "POST " + host + " ", "||casemate|", "0"},
		{"gzip is the plugin's to ask for", capability.HTTPRequest{Header: fields("accept-encoding", "gzip")}, "GET " + host + " ", "||casemate|gzip", "0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.r.URL = w.at("http", "api.test", "/x")
			got, err := w.do(t, tt.r)
			if err != nil || got.status != http.StatusTeapot || got.body != tt.body {
				t.Errorf("got %d, %q, %v; want %q", got.status, got.body, err, tt.body)
			}
			if got.header["x-seen"] != tt.seen || got.header["x-length"] != tt.size || got.header["set-cookie"] != "a=b" {
				t.Errorf("got header %q, want x-seen %q and x-length %s", got.header, tt.seen, tt.size)
			}
			for _, hop := range []string{"connection", "proxy-authenticate", "transfer-encoding"} {
				if v, ok := got.header[hop]; ok {
					t.Errorf("the plugin sees %s: %q", hop, v)
				}
			}
		})
	}
}

func TestRequestHeaders(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}}, func(http.ResponseWriter, *http.Request) {
		t.Error("the request was sent")
	})
	many := make([]string, 2*65)
	for i := range many {
		many[i] = "x"
	}
	const bad, large = abi.HTTPInvalidHeader, abi.HTTPRequestTooLarge
	for _, tt := range []struct {
		name, code, audit string
		header            []capability.HTTPHeader
	}{
		{"a line break in a value", bad, "egress_header", fields("x", "a\r\nHost: b")},
		{"a line feed in a value", bad, "egress_header", fields("x", "a\nb")},
		{"a carriage return in a value", bad, "egress_header", fields("x", "a\rb")},
		{"a NUL in a value", bad, "egress_header", fields("x", "a\x00b")},
		{"a line break in a name", bad, "egress_header", fields("x\r\ny", "a")},
		{"a colon in a name", bad, "egress_header", fields("x:y", "a")},
		{"a space in a name", bad, "egress_header", fields("x ", "a")},
		{"no name", bad, "egress_header", fields("", "a")},
		{"a pseudo header", bad, "egress_header", fields(":authority", "b")},
		{"host", bad, "egress_header", fields("hOsT", "internal")},
		{"content-length", bad, "egress_header", fields("Content-Length", "0")},
		{"transfer-encoding", bad, "egress_header", fields("Transfer-Encoding", "chunked")},
		{"connection", bad, "egress_header", fields("Connection", "authorization")},
		{"te", bad, "egress_header", fields("TE", "trailers")},
		{"trailer", bad, "egress_header", fields("Trailer", "x")},
		{"upgrade", bad, "egress_header", fields("Upgrade", "websocket")},
		{"expect", bad, "egress_header", fields("Expect", "100-continue")},
		{"proxy-authorization", bad, "egress_header", fields("Proxy-Authorization", "x")},
		{"proxy-anything", bad, "egress_header", fields("proxy-x", "x")},
		{"proxy", bad, "egress_header", fields("Proxy", "http://evil.test")},
		{"content-length, spelt for some servers", bad, "egress_header", fields("Content_Length", "0")},
		{"another method", bad, "egress_header", fields("X-HTTP-Method-Override", "DELETE")},
		{"another path", bad, "egress_header", fields("X-Original-URL", "/admin")},
		{"another host", bad, "egress_header", fields("X_Forwarded_Host", "internal")},
		{"a secret without an end", bad, "", fields("x", "{{secret:a")},
		{"a secret without a name", bad, "", fields("x", "{{secret:}}")},
		{"too many", large, "", fields(many...)},
		{"too long", large, "", fields("x", strings.Repeat("x", 32<<10))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "api.test", "/"), Header: tt.header})
			wantCode(t, err, tt.code, tt.audit)
		})
	}
	_, err := w.do(t, capability.HTTPRequest{Method: "POST", URL: w.at("http", "api.test", "/"), Body: make([]byte, 1<<20+1)})
	wantCode(t, err, large, "")
}

// TestBounds: no server holds a call beyond its time or fills the host.
func TestBounds(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}, MaxResponse: 100_000}, func(out http.ResponseWriter, r *http.Request) {
		flush := func() { _ = http.NewResponseController(out).Flush() }
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/drip":
			for r.Context().Err() == nil {
				_, _ = out.Write([]byte("."))
				flush()
				select {
				case <-time.After(time.Millisecond):
				case <-r.Context().Done():
				}
			}
		case "/large":
			_, _ = out.Write(make([]byte, 100_001))
		case "/full":
			_, _ = out.Write(make([]byte, 100_000))
		case "/headers":
			for i := range 100 {
				out.Header().Set("x-"+strconv.Itoa(i), strings.Repeat("x", 1000))
			}
		case "/cut":
			out.Header().Set("Content-Length", "10")
			_, _ = out.Write([]byte("short"))
			flush()
			panic(http.ErrAbortHandler)
		case "/bomb":
			out.Header().Set("Content-Encoding", "gzip")
			_, _ = out.Write([]byte("\x1f\x8bnot unpacked"))
		}
	})
	for _, tt := range []struct {
		path string
		r    capability.HTTPRequest
		code string
		body int
	}{
		{"/silent", capability.HTTPRequest{Timeout: 30 * time.Millisecond}, abi.HTTPTimeout, 0},
		{"/drip", capability.HTTPRequest{Timeout: 30 * time.Millisecond}, abi.HTTPTimeout, -1},
		{"/large", capability.HTTPRequest{}, abi.HTTPResponseTooLarge, 100_000},
		{"/full", capability.HTTPRequest{}, "", 100_000},
		{"/full", capability.HTTPRequest{MaxBytes: 1 << 30}, "", 100_000},
		{"/full", capability.HTTPRequest{MaxBytes: 99_999}, abi.HTTPResponseTooLarge, 99_999},
		{"/headers", capability.HTTPRequest{}, abi.HTTPNetwork, 0},
		{"/cut", capability.HTTPRequest{}, abi.HTTPNetwork, 5},
		{"/bomb", capability.HTTPRequest{}, "", 14},
	} {
		t.Run(tt.path, func(t *testing.T) {
			tt.r.URL = w.at("http", "api.test", tt.path)
			got, err := w.do(t, tt.r)
			if tt.code != "" {
				wantCode(t, err, tt.code, "")
			} else if err != nil {
				t.Error(err)
			}
			if tt.body >= 0 && len(got.body) != tt.body {
				t.Errorf("got %d bytes, want %d", len(got.body), tt.body)
			}
		})
	}
	t.Run("no bound but the largest number", func(t *testing.T) {
		c := egress.New(egress.Options{Rules: []egress.Rule{withPort(plain, w.port)}, MaxResponse: math.MaxInt64, Resolver: w.names.Resolver()})
		defer c.Close()
		resp, err := c.Do(t.Context(), &capability.HTTPRequest{URL: w.at("http", "api.test", "/full")})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if data, err := io.ReadAll(resp.Body); err != nil || len(data) != 100_000 {
			t.Errorf("got %d bytes, %v", len(data), err)
		}
	})
	t.Run("the time of the client", func(t *testing.T) {
		c := egress.New(egress.Options{Rules: []egress.Rule{withPort(plain, w.port)}, MaxTime: 30 * time.Millisecond, Resolver: w.names.Resolver()})
		defer c.Close()
		_, err := c.Do(t.Context(), &capability.HTTPRequest{URL: w.at("http", "api.test", "/silent"), Timeout: time.Hour})
		wantCode(t, err, abi.HTTPTimeout, "")
	})
	t.Run("the caller's end", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := w.client.Do(ctx, &capability.HTTPRequest{URL: w.at("http", "api.test", "/drip")})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, context.Canceled) {
			t.Errorf("read: got %v, want canceled", err)
		}
		if _, err := w.client.Do(ctx, &capability.HTTPRequest{URL: w.at("http", "api.test", "/full")}); !errors.Is(err, context.Canceled) {
			t.Errorf("do: got %v, want canceled", err)
		}
	})
}

func withPort(r egress.Rule, port int) egress.Rule {
	r.Port = port
	return r
}

// TestResponseOrder: the same response is the same to the plugin each time.
func TestResponseOrder(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}}, func(out http.ResponseWriter, _ *http.Request) {
		for i := range 40 {
			out.Header().Set(fmt.Sprintf("X-%02d", 39-i), "v")
		}
		out.Header()["X-20"] = []string{"second", "first"}
	})
	resp, err := w.client.Do(t.Context(), &capability.HTTPRequest{URL: w.at("http", "api.test", "/")})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sorted := slices.IsSortedFunc(resp.Header, func(a, b capability.HTTPHeader) int { return strings.Compare(a.Name, b.Name) })
	at := slices.Index(resp.Header, capability.HTTPHeader{Name: "x-20", Value: "second"})
	if !sorted || at < 0 || resp.Header[at+1].Value != "first" {
		t.Errorf("header %v: want names sorted and the values of one in order", resp.Header)
	}
}

// TestBoundConnections: a connection that a server may know a tenant by is not
// kept for the next.
func TestBoundConnections(t *testing.T) {
	w := newWorld(t, egress.Options{Rules: []egress.Rule{plain}}, func(out http.ResponseWriter, r *http.Request) {
		_, _ = out.Write([]byte(r.RemoteAddr))
	})
	last := ""
	for _, tt := range []struct {
		authorization string
		kept          bool // for the next
	}{{"Bearer x", true}, {"NTLM x", false}, {"Basic x", true}, {"negotiate x", false}, {"Negotiate\tx", false}, {"", true}} {
		got, err := w.do(t, capability.HTTPRequest{URL: w.at("http", "api.test", "/"), Header: fields("Authorization", tt.authorization)})
		if err != nil {
			t.Fatal(err)
		}
		if last != "" && got.body != last {
			t.Errorf("before %q: the connection was not kept", tt.authorization)
		}
		last = got.body
		if !tt.kept {
			select {
			case <-w.gone:
			case <-time.After(10 * time.Second):
				t.Errorf("after %q: the connection was kept", tt.authorization)
			}
			last = ""
		}
	}
}

// TestClose: a closed client holds no connection, at once where it is idle and
// else when its exchange ends.
func TestClose(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, busy %v", scheme, busy), func(t *testing.T) {
				rule := plain
				rule.Scheme, rule.Host = scheme, "example.com"
				w := newWorld(t, egress.Options{Rules: []egress.Rule{rule}}, func(out http.ResponseWriter, r *http.Request) {
					_, _ = out.Write([]byte(r.Proto))
					if r.URL.Path == "/busy" {
						_ = http.NewResponseController(out).Flush()
						<-r.Context().Done()
					}
				})
				resp, err := w.client.Do(t.Context(), &capability.HTTPRequest{URL: w.at(scheme, "example.com", "/")})
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(resp.Body)
				if want := map[string]string{"http": "HTTP/1.1", "https": "HTTP/2.0"}[scheme]; err != nil || string(data) != want {
					t.Errorf("got %q, %v, want %s", data, err, want)
				}
				if busy {
					if err := resp.Body.Close(); err != nil {
						t.Error(err)
					}
					if resp, err = w.client.Do(t.Context(), &capability.HTTPRequest{URL: w.at(scheme, "example.com", "/busy")}); err != nil {
						t.Fatal(err)
					}
					w.client.Close()
					w.wantOpen(t)
				}
				if err := resp.Body.Close(); err != nil {
					t.Error(err)
				}
				if !busy {
					w.wantOpen(t)
					w.client.Close()
				}
				select {
				case <-w.gone:
				case <-time.After(10 * time.Second):
					t.Error("the connection is still open")
				}
				_, err = w.client.Do(t.Context(), &capability.HTTPRequest{URL: w.at(scheme, "example.com", "/")})
				wantCode(t, err, abi.HTTPNetwork, "")
			})
		}
	}
}

// wantOpen fails the test if a connection was closed.
func (w *world) wantOpen(t *testing.T) {
	t.Helper()
	select {
	case <-w.gone:
		t.Error("the connection was not kept")
	default:
	}
}
