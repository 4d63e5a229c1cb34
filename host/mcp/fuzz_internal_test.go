package mcp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// FuzzResult reads results of any shape.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"content":[{"type":"text","text":"a"},{"type":"image","data":"YQ==","mimeType":"image/png"}],"isError":true}`))
	f.Add([]byte(`{"content":[{"type":"resource","resource":{"uri":"x"}},{"type":"resource_link","uri":"x","name":"n"}],"structuredContent":[1]}`))
	f.Add([]byte(`{"resultType":"input_required","content":null}`))
	c := &Client{options: Options{MaxOutput: 64}}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r sdk.CallToolResult
		if json.Unmarshal(data, &r) != nil {
			return
		}
		out := c.result(&r)
		switch {
		case out.Class != queue.OK && (out.Output == "" || out.Code == ""):
			t.Errorf("%s tells the model nothing: %+v", data, out)
		case out.Class == queue.OK && len(out.Output) > c.options.MaxOutput:
			t.Errorf("%d bytes of output", len(out.Output))
		case !utf8.ValidString(out.Output):
			t.Errorf("output %q is no text", out.Output)
		}
	})
}

// FuzzList reads lists of any shape.
func FuzzList(f *testing.F) {
	f.Add([]byte(`{"tools":[{"name":"a","inputSchema":{"type":"object"}},null,{"name":"a"},{"name":"b","inputSchema":[]}]}`), "a")
	f.Add([]byte(`{"tools":[{"name":"x y","inputSchema":null,"annotations":{"title":"t"}}]}`), "")
	f.Fuzz(func(t *testing.T, data []byte, allowed string) {
		var page sdk.ListToolsResult
		if json.Unmarshal(data, &page) != nil {
			return
		}
		l := list{seen: map[string]bool{}}
		if allowed != "" {
			l.allowed = strings.Split(allowed, ",")
		}
		if err := l.add(page.Tools); err != nil {
			return
		}
		seen := map[string]bool{}
		for _, tool := range l.tools {
			var schema map[string]any
			if json.Unmarshal(tool.InputSchema, &schema) != nil || !legal(tool.Name) || seen[tool.Name] || !utf8.ValidString(tool.Description) {
				t.Errorf("%s: got %+v", data, tool)
			}
			seen[tool.Name] = true
		}
	})
}

// FuzzServe sends bodies of any shape to a server.
func FuzzServe(f *testing.F) {
	for _, body := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1}}}`,
		`{"jsonrpc":"2.0","id":"x","method":"tools/list"}`, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`,
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`,
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":null}`, `{"jsonrpc":"2.0","id":1,"result":{}}`, `{`, ``,
		`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`,
	} {
		f.Add([]byte(body), "2025-06-18", "s")
		f.Add([]byte(body), "2026-07-28", "")
	}
	s := NewServer("test")
	tools := []response.ServerTool{{Offer: response.Offer{Name: "a", Plugin: "p", Tool: "a"}}}
	f.Fuzz(func(t *testing.T, body []byte, version, session string) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/mcp", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header["Mcp-Protocol-Version"], r.Header[sessionHeader] = []string{version}, []string{session}
		w := httptest.NewRecorder()
		s.Serve(w, r, body, "acme", tools, func(_ context.Context, tool response.ServerTool, arguments []byte) (string, bool, error) {
			if tool.Name != "a" || !json.Valid(arguments) {
				t.Errorf("%s called %s with %s", body, tool.Name, arguments)
			}
			return "done", false, nil
		})
		if ctx.Err() != nil {
			t.Errorf("%s: there is no answer", body)
		}
		if w.Code < 200 || w.Code >= 600 {
			t.Errorf("%s: got %d", body, w.Code)
		}
		if len(s.calls) != 0 {
			t.Errorf("%d calls are still known", len(s.calls))
		}
	})
}

// TestInputSchema checks that clients are listed schemas of objects.
func TestInputSchema(t *testing.T) {
	for raw, want := range map[string]string{
		"": noParameters, "null": noParameters, "[]": noParameters, `{"type":"object","a":1}`: `{"type":"object","a":1}`,
		`{"properties":{}}`: `{"properties":{},"type":"object"}`,
	} {
		got, err := json.Marshal(inputSchema(json.RawMessage(raw)))
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v", raw, got, err)
		}
	}
}
