package host_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testguest"
)

// withKey sends a tenant's key.
type withKey struct{}

func (withKey) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer key")
	return http.DefaultTransport.RoundTrip(r)
}

// An MCP client calls a plugin that keeps notes and an agent that uses it: both
// run as they do for a model.
func TestToolServer(t *testing.T) {
	module := filepath.Join(t.TempDir(), "notes.wasm")
	if err := os.WriteFile(module, testguest.Build(t, "../examples/tools/notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runs(t, func(_ int, req demo.Request) demo.Turn {
		body := string(req.Body)
		switch {
		case !strings.Contains(body, "You keep notes"):
			return demo.Turn{Status: http.StatusBadRequest}
		case strings.Contains(body, `"role":"tool"`):
			return demo.Turn{Text: "noted: " + lastContent(req.Body)}
		}
		return demo.Turn{Calls: []demo.Call{{ID: "c1", Name: "notes", Arguments: `{"op":"list"}`}}}
	}, func(c *host.Config) {
		c.Plugins = []host.Plugin{{File: module, Grants: []string{"kv.get/1", "kv.put/1"}}}
		c.Agents = []host.Agent{{Name: "scribe", Description: "keeps notes", Model: "m", Instructions: "You keep notes.", Tools: []string{"notes"}}}
	})
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	s, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{Endpoint: r.url + "/mcp", HTTPClient: &http.Client{Transport: withKey{}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
	}
	if got := strings.Join(names, " "); !strings.Contains(got, "notes") || !strings.Contains(got, "scribe") {
		t.Fatalf("tools %s", got)
	}
	for _, c := range []struct {
		name, arguments, want string
		failed                bool
	}{
		{"notes", `{"op":"add","text":"buy milk"}`, "", false},
		{"notes", `{"op":"list"}`, "buy milk", false},
		{"scribe", `{"input":"what is there?"}`, "noted: ", false},
		{"scribe", `{"input":"what is there?"}`, "buy milk", false},
		{"notes", `{"op":"no such"}`, "", true},
		{"scribe", `{"other":1}`, "", true},
	} {
		name := c.name
		for _, n := range names {
			if strings.HasSuffix(n, c.name) {
				name = n
			}
		}
		res, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: json.RawMessage(c.arguments)})
		if err != nil {
			t.Errorf("%s %s: %v", c.name, c.arguments, err)
			continue
		}
		var got string
		for _, p := range res.Content {
			if text, ok := p.(*sdk.TextContent); ok {
				got += text.Text
			}
		}
		if res.IsError != c.failed || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: got %q, failed %t; want %q, %t", c.name, c.arguments, got, res.IsError, c.want, c.failed)
		}
	}
	if _, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "unknown"}); err == nil {
		t.Error("an unknown tool was called")
	}
}

// lastContent is the content of the last message of a chat request.
func lastContent(body []byte) string {
	var q struct {
		Messages []struct{ Content any }
	}
	if json.Unmarshal(body, &q) != nil || len(q.Messages) == 0 {
		return ""
	}
	s, _ := q.Messages[len(q.Messages)-1].Content.(string)
	return s
}
