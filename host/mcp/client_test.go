package mcp_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins/egress"
)

// TestTools lists all pages of each kind of server.
func TestTools(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			noneLeft(t)
			at := remote(t, kind(toolbox(&canceled{})))
			c := client(t, mcp.Options{}, at)
			s := asked(at)
			tools, err := c.Tools(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if want := []string{"echo", "empty", "large", "mixed", "silent", "structured", "wait", "wrong"}; !slices.Equal(names(tools), want) {
				t.Errorf("got %q, want %q", names(tools), want)
			}
			if e := tools[0]; e.Description != "Does echo." || string(e.InputSchema) != `{"type":"object"}` {
				t.Errorf("got %+v", e)
			}
			s.Allowed = []string{"wrong", "nothing"}
			if tools, err = c.Tools(t.Context(), s); err != nil || !slices.Equal(names(tools), []string{"wrong"}) {
				t.Errorf("got %q and %v, want the allowed tool", names(tools), err)
			}
		})
	}
}

func names(tools []response.RemoteTool) []string {
	var all []string
	for _, t := range tools {
		all = append(all, t.Name)
	}
	return all
}

// TestCall reads each kind of result from each kind of server.
func TestCall(t *testing.T) {
	tests := []struct {
		tool, arguments string
		class           queue.Class
		code, output    string
	}{
		{"echo", `{"city":"Ulm"}`, queue.OK, "", "got\n{\"city\":\"Ulm\"}"},
		{"structured", `{}`, queue.OK, "", "{\"n\":1}\n{\"type\":\"image\",\"mime_type\":\"image/png\",\"bytes\":5}"},
		{"mixed", `{}`, queue.OK, "", "see\n{\"type\":\"image\",\"mime_type\":\"image/png\",\"bytes\":5}\n" +
			"{\"type\":\"resource_link\",\"uri\":\"file:///a\",\"name\":\"a\"}\n" +
			"{\"type\":\"resource\",\"mime_type\":\"text/plain\",\"uri\":\"file:///b\",\"text\":\"b\"}"},
		{"wrong", `{}`, queue.GuestError, "permanent", "no such city"},
		{"silent", `{}`, queue.GuestError, "permanent", `{"error":{"code":"permanent","message":"The tool failed."}}`},
		{"empty", `{}`, queue.OK, "", ""},
		{"large", `{}`, queue.GuestOutput, "output_too_large", `{"error":{"code":"output_too_large","message":"The tool's output is too large."}}`},
		{"nothing", `{}`, queue.GuestError, "invalid_args", `{"error":{"code":"invalid_args","message":"unknown tool \"nothing\""}}`},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			noneLeft(t)
			at := remote(t, kind(toolbox(&canceled{})))
			c := client(t, mcp.Options{MaxOutput: 1 << 10}, at)
			for _, tt := range tests {
				r := c.Call(t.Context(), asked(at), callOf(tt.tool, tt.arguments))
				if r.Class != tt.class || r.Code != tt.code || r.Output != tt.output || r.RetryAfter >= 0 {
					t.Errorf("%s: got %s %q %q, want %s %q %q", tt.tool, r.Class, r.Code, r.Output, tt.class, tt.code, tt.output)
				}
			}
		})
	}
}

// TestCanceled checks that a server learns that nobody waits for a call any
// more, when its caller leaves and when its time is over.
func TestCanceled(t *testing.T) {
	for name, kind := range kinds {
		for _, late := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				noneLeft(t)
				var counts canceled
				at := remote(t, kind(toolbox(&counts)))
				c := client(t, mcp.Options{}, at)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				call := callOf("wait", `{}`)
				want := queue.ClassCanceled
				if late {
					call.Tool.Timeout, want = 500*time.Millisecond, queue.GuestDeadline
				} else {
					go func() {
						for counts.began.Load() == 0 && ctx.Err() == nil {
							<-time.After(time.Millisecond)
						}
						cancel()
					}()
				}
				if r := c.Call(ctx, asked(at), call); r.Class != want {
					t.Errorf("got %s %s, want %s", r.Class, r.Output, want)
				}
				c.Close()
				for end := time.Now().Add(10 * time.Second); counts.ended.Load() == 0 && time.Now().Before(end); {
					<-time.After(time.Millisecond)
				}
				if b, e := counts.began.Load(), counts.ended.Load(); b != 1 || e != 1 {
					t.Errorf("%d calls began and %d were canceled, want 1 and 1", b, e)
				}
			})
		}
	}
}

// TestEffect checks that a call is announced before it is sent, and that one
// that may not begin is not sent.
func TestEffect(t *testing.T) {
	noneLeft(t)
	var mu sync.Mutex
	var seen []string
	inner := kinds["sessions"](toolbox(&canceled{}))
	at := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if m := peek(r); m == "tools/call" {
			mu.Lock()
			seen = append(seen, m)
			mu.Unlock()
		}
		inner.ServeHTTP(w, r)
	}))
	c := client(t, mcp.Options{}, at)
	call := callOf("echo", `{}`)
	call.Effect = func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, "effect")
		return nil
	}
	if r := c.Call(t.Context(), asked(at), call); r.Class != queue.OK || !slices.Equal(seen, []string{"effect", "tools/call"}) {
		t.Errorf("got %s %s and %q", r.Class, r.Output, seen)
	}
	seen = nil
	call.Effect = func(context.Context) error { return queue.ErrLeaseLost }
	if r := c.Call(t.Context(), asked(at), call); r.Class != queue.ClassCanceled || len(seen) > 0 {
		t.Errorf("got %s %s and %q, want nothing sent", r.Class, r.Output, seen)
	}
}

// TestCredentials checks who is sent what a client gave for a server.
func TestCredentials(t *testing.T) {
	noneLeft(t)
	type got struct{ authorization, key, hop string }
	record := func(all *[]got, mu *sync.Mutex, h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			*all = append(*all, got{r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), r.Header.Get(queue.HopHeader)})
			mu.Unlock()
			h.ServeHTTP(w, r)
		})
	}
	var mu sync.Mutex
	var first, second []got
	box := kinds["sessions"](toolbox(&canceled{}))
	other := remote(t, record(&second, &mu, box))
	own := remote(t, record(&first, &mu, box))
	away := remote(t, record(&first, &mu, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other, http.StatusTemporaryRedirect)
	})))
	c := client(t, mcp.Options{}, own, other, away)
	with := response.Credentials{Authorization: "tok-1", Headers: map[string]string{"X-Api-Key": "k-2"}}
	for _, at := range []string{own, away} {
		if r := c.Call(t.Context(), asked(at, with), callOf("echo", `{}`)); r.Class != queue.OK {
			t.Fatalf("got %s %s", r.Class, r.Output)
		}
	}
	c.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, g := range first {
		if g != (got{"Bearer tok-1", "k-2", "1"}) {
			t.Errorf("the server got %+v", g)
		}
	}
	for _, g := range second {
		if g != (got{"", "", "1"}) {
			t.Errorf("another origin got %+v", g)
		}
	}
	if len(first) < 8 || len(second) < 4 {
		t.Errorf("got %d and %d requests", len(first), len(second))
	}
}

// TestAllowed checks what the operator's rules say of an address.
func TestAllowed(t *testing.T) {
	none := mcp.New(mcp.Options{})
	some := mcp.New(mcp.Options{Rules: []egress.Rule{
		{Host: "mcp.example.com", PathPrefix: "/v1"},
		{Scheme: "http", Host: "open.example.com"},
		{Scheme: "http", Host: "127.0.0.1", Port: 8080, Private: true},
		{Host: "read.example.com", Methods: []string{"GET"}},
	}})
	tests := []struct {
		c    *mcp.Client
		url  string
		want string // part of the error; "": allowed
	}{
		{none, "https://mcp.example.com/v1", "must allow the address under mcp.http"},
		{some, "https://mcp.example.com/v1/x", ""},
		{some, "https://MCP.example.com/v1", ""},
		{some, "https://mcp.example.com/v2", "does not allow"},
		{some, "http://mcp.example.com/v1", "does not allow"},
		{some, "https://user:pw@mcp.example.com/v1", "does not allow"},
		{some, "https://mcp.example.com:444/v1", "does not allow"},
		{some, "https://read.example.com/", "does not allow"},
		{some, "http://127.0.0.1:8080/mcp", ""},
		{some, "ftp://mcp.example.com/v1", "does not allow"},
		{some, "%", "does not allow"},
	}
	for _, tt := range tests {
		err := tt.c.Allowed(tt.url)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.url, err, tt.want)
		}
	}
	_, err := none.Tools(t.Context(), asked("https://mcp.example.com/v1"))
	if code(err) != "denied" {
		t.Errorf("got %v, want denied", err)
	}
	if r := some.Call(t.Context(), asked("https://mcp.example.com/v2"), callOf("echo", `{}`)); r.Class != queue.GuestDenied {
		t.Errorf("got %s %s, want denied", r.Class, r.Output)
	}
}

// TestCheck checks which headers a client may set.
func TestCheck(t *testing.T) {
	c := mcp.New(mcp.Options{Rules: []egress.Rule{
		{Host: "a.example.com"}, {Scheme: "http", Host: "a.example.com"}, {Scheme: "http", Host: "b.example.com", Private: true},
	}})
	header := func(name, value string) response.Credentials {
		return response.Credentials{Headers: map[string]string{name: value}}
	}
	tests := []struct {
		url  string
		with response.Credentials
		ok   bool
	}{
		{"https://a.example.com/", response.Credentials{Authorization: "t", Headers: map[string]string{"X-Key": "v"}}, true},
		{"https://a.example.com/", header("Authorization", "Basic eA=="), true},
		{"http://a.example.com/", response.Credentials{Authorization: "t"}, false},
		{"http://a.example.com/", response.Credentials{}, true},
		{"http://b.example.com/", response.Credentials{Authorization: "t"}, true},
		{"https://a.example.com/", response.Credentials{Authorization: "t\r\nX: y"}, false},
		{"https://a.example.com/", response.Credentials{Authorization: "t", Headers: map[string]string{"authorization": "u"}}, false},
		{"https://a.example.com/", header("X-Many", strings.Repeat("x", 17<<10)), false},
	}
	for _, name := range []string{
		"Host", "Content-Length", "Connection", "Transfer-Encoding", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization",
		"Cookie", "COOKIE2", "Accept", "Content-Type", "Mcp-Session-Id", "mcp_session_id", "Last-Event-ID", queue.HopHeader, "", "a b", "X-Ö",
		"X-Forwarded-Host", "Origin", "User-Agent",
	} {
		tests = append(tests, struct {
			url  string
			with response.Credentials
			ok   bool
		}{"https://a.example.com/", header(name, "v"), false})
	}
	for _, value := range []string{"a\nb", "a\x00b", "{{secret:X}}"} {
		tests = append(tests, struct {
			url  string
			with response.Credentials
			ok   bool
		}{"https://a.example.com/", header("X-Key", value), false})
	}
	for _, tt := range tests {
		err := c.Check(tt.url, tt.with)
		if (err == nil) != tt.ok {
			t.Errorf("%s with %q: got %v, want ok %v", tt.url, tt.with.Headers, err, tt.ok)
		}
		if err != nil && (strings.Contains(err.Error(), "Basic") || strings.Contains(err.Error(), "xxx")) {
			t.Errorf("the error holds a value: %v", err)
		}
	}
}

// TestManyAtOnce runs sessions beside each other and checks that none is left.
func TestManyAtOnce(t *testing.T) {
	noneLeft(t)
	at := remote(t, kinds["sessions"](toolbox(&canceled{})))
	c := client(t, mcp.Options{}, at)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if r := c.Call(t.Context(), asked(at), callOf("echo", `{}`)); r.Class != queue.OK {
					t.Errorf("got %s %s", r.Class, r.Output)
				}
				if _, err := c.Tools(t.Context(), asked(at)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestStopped checks that the end of the caller's context is its own error.
func TestStopped(t *testing.T) {
	noneLeft(t)
	at := remote(t, kinds["sessions"](toolbox(&canceled{})))
	c := client(t, mcp.Options{}, at)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Tools(ctx, asked(at))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, ok := errors.AsType[*loop.RemoteError](err); ok {
		t.Errorf("got %v, want no fault of the server's", err)
	}
}
