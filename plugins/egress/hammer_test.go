package egress

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"

	"github.com/casemate/casemate/plugins/capability"
)

// TestHammer: however exchanges end, and whenever the client is closed, nothing
// of them is left.
func TestHammer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(out, r, "/whole", http.StatusFound)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := out.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		default:
			_, _ = out.Write([]byte("whole"))
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	const workers, rounds = 8, 40
	c := New(Options{Rules: []Rule{{Scheme: "http", Host: "127.0.0.1", Port: port, Private: true}}})
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for round := range rounds {
				if worker == 0 && round == rounds/2 {
					c.Close()
				}
				exchangeOnce(t.Context(), c, server.URL, worker+round)
			}
		})
	}
	group.Wait()
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	if c.conns.active != 0 || len(c.conns.open) != 0 {
		t.Errorf("%d exchanges and %d connections are left", c.conns.active, len(c.conns.open))
	}
}

// exchangeOnce makes one exchange and ends it in the kind-th way.
func exchangeOnce(ctx context.Context, c *Client, base string, kind int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	path := []string{"/whole", "/away", "/endless"}[kind%3]
	if kind%5 == 0 {
		go cancel()
	}
	resp, err := c.Do(ctx, &capability.HTTPRequest{URL: base + path, MaxBytes: 1 << 20})
	if err != nil {
		return // closed or canceled
	}
	defer resp.Body.Close()
	var body io.Reader = resp.Body
	if kind%2 == 0 {
		body = io.LimitReader(body, 1)
	}
	_, _ = io.Copy(io.Discard, body) // it may be canceled, closed or too long
}
