package mcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/plugins/egress"
)

// libraries are what a goroutine that a session left behind is in.
var libraries = []string{"modelcontextprotocol/go-sdk", "casemate/host/mcp.", "plugins/egress.", "net/http.(*persistConn)"}

// noneLeft checks that no session or connection is left when t ends. It is
// called first, so that its check comes last.
func noneLeft(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left string
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
			if left = leftover(); left == "" {
				return
			}
		}
		t.Errorf("a goroutine is left:\n%s", left)
	})
}

func leftover() string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i == 0 || strings.Contains(stack, "testing.") {
			continue // this one, and those of tests
		}
		for _, l := range libraries {
			if strings.Contains(stack, l) {
				return stack
			}
		}
	}
	return ""
}

// remote starts a server on loopback and returns its address.
func remote(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/mcp"
}

// ruleFor returns the rule that lets the server at an address be asked.
func ruleFor(t *testing.T, address string) egress.Rule {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return egress.Rule{Scheme: "http", Host: u.Hostname(), Port: port, PathPrefix: "/mcp", Private: true}
}

// client returns a client that may ask the servers at these addresses.
func client(t *testing.T, o mcp.Options, addresses ...string) *mcp.Client {
	t.Helper()
	for _, a := range addresses {
		o.Rules = append(o.Rules, ruleFor(t, a))
	}
	c := mcp.New(o)
	t.Cleanup(c.Close)
	return c
}

// asked is a server as a request names it.
func asked(address string, with ...response.Credentials) loop.RemoteServer {
	s := loop.RemoteServer{Remote: response.Remote{Label: "srv", URL: address}, Tenant: "acme"}
	if len(with) > 0 {
		s.Credentials = with[0]
	}
	return s
}

// callOf is one call of a tool.
func callOf(tool, arguments string) loop.ToolCall {
	return loop.ToolCall{
		Tool: response.ServerTool{
			Offer: response.Offer{Name: "srv__" + tool, Plugin: "srv", Tool: tool}, Remote: true,
		},
		Arguments: []byte(arguments), Effect: func(context.Context) error { return nil },
	}
}

// code returns the code of a RemoteError.
func code(err error) string {
	if e, ok := errors.AsType[*loop.RemoteError](err); ok {
		return e.Code
	}
	return ""
}

// kinds are the ways that servers speak.
var kinds = map[string]func(*sdk.Server) http.Handler{
	"sessions": func(s *sdk.Server) http.Handler {
		return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
	},
	"no sessions": func(s *sdk.Server) http.Handler {
		return sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, &sdk.StreamableHTTPOptions{
			Stateless: true, JSONResponse: true, PropagateRequestCancellation: true,
		})
	},
	"events of 2024": func(s *sdk.Server) http.Handler {
		return sdk.NewSSEHandler(func(*http.Request) *sdk.Server { return s }, nil)
	},
}

// canceled counts the calls of the tool "wait" that were canceled.
type canceled struct{ began, ended atomic.Int32 }

// toolbox is a server with a few tools.
func toolbox(c *canceled) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "toolbox", Version: "1"}, &sdk.ServerOptions{PageSize: 2})
	add := func(name string, do sdk.ToolHandler) {
		s.AddTool(&sdk.Tool{Name: name, Description: "Does " + name + ".", InputSchema: json.RawMessage(`{"type":"object"}`)}, do)
	}
	text := func(s string) *sdk.TextContent { return &sdk.TextContent{Text: s} }
	add("echo", func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{text("got"), text(string(r.Params.Arguments))}}, nil
	})
	add("structured", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{
			Content:           []sdk.Content{&sdk.ImageContent{MIMEType: "image/png", Data: []byte("12345")}},
			StructuredContent: map[string]any{"n": 1},
		}, nil
	})
	add("mixed", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{
			text("see"), &sdk.ImageContent{MIMEType: "image/png", Data: []byte("12345")},
			&sdk.ResourceLink{URI: "file:///a", Name: "a"},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///b", MIMEType: "text/plain", Text: "b"}},
		}, StructuredContent: map[string]any{"n": 1}}, nil
	})
	add("wrong", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{text("no such city")}, IsError: true}, nil
	})
	add("empty", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{}, nil
	})
	add("silent", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{IsError: true}, nil
	})
	add("large", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{text(strings.Repeat("x", 2<<10))}}, nil
	})
	add("wait", func(ctx context.Context, _ *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		c.began.Add(1)
		<-ctx.Done()
		c.ended.Add(1)
		return nil, ctx.Err()
	})
	return s
}

// peek returns the method of a client's message and leaves its body.
func peek(r *http.Request) string {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return ""
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var m struct{ Method string }
	_ = json.Unmarshal(body, &m)
	return m.Method
}
