package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/response"
)

// The bounds of a server's list.
const (
	maxTools     = 256
	maxPages     = 64
	maxListBytes = 1 << 20 // of all names, descriptions, schemas and annotations
	maxName      = 64
)

// noParameters is the schema of a tool that has none.
const noParameters = `{"type":"object","properties":{}}`

// Tools implements loop.Remotes. Tools that s.Allowed does not name are left
// out, and so are those whose names no model takes.
func (c *Client) Tools(ctx context.Context, s loop.RemoteServer) ([]response.RemoteTool, error) {
	asking, cancel := context.WithTimeout(ctx, c.options.ListTime)
	defer cancel()
	var found list
	for try := 0; ; try++ {
		tools, err := c.list(asking, s)
		if errors.Is(err, errLost) && try == 0 {
			continue
		}
		if err == nil {
			found = tools
			break
		}
		return nil, toldList(ctx, err)
	}
	return found.tools, nil
}

// toldList returns the error of a list, without a server's own words.
func toldList(ctx context.Context, err error) error {
	if stop := stopped(ctx); stop != nil {
		return stop
	}
	if e, ok := errors.AsType[*loop.RemoteError](err); ok {
		return e
	}
	if _, ok := errors.AsType[*jsonrpc.Error](err); ok {
		return remote(codeInvalid, "The MCP server refused to list its tools.")
	}
	return remote(codeInvalid, invalid)
}

// list asks for all pages in one session.
func (c *Client) list(ctx context.Context, s loop.RemoteServer) (list, error) {
	l := list{allowed: s.Allowed, seen: map[string]bool{}}
	x, err := c.open(ctx, s)
	if err != nil {
		return l, err
	}
	defer x.close()
	cursors := map[string]bool{}
	for p := (&sdk.ListToolsParams{}); ; {
		page, err := x.ListTools(ctx, p)
		if err != nil {
			return l, x.explain(err)
		}
		if err := l.add(page.Tools); err != nil {
			return l, err
		}
		if page.NextCursor == "" {
			return l, nil
		}
		if cursors[page.NextCursor] || len(cursors) == maxPages {
			return l, remote(codeInvalid, "The MCP server's list of tools does not end.")
		}
		cursors[page.NextCursor] = true
		p = &sdk.ListToolsParams{Cursor: page.NextCursor}
	}
}

// list is what a server lists, within its bounds.
type list struct {
	allowed []string // nil: all
	tools   []response.RemoteTool
	seen    map[string]bool
	bytes   int
}

func (l *list) add(page []*sdk.Tool) error {
	for _, t := range page {
		if t == nil || !legal(t.Name) || l.seen[t.Name] || l.allowed != nil && !slices.Contains(l.allowed, t.Name) {
			continue
		}
		schema, ok := schemaOf(t.InputSchema)
		if !ok {
			continue // no model can be told how to call it
		}
		r := response.RemoteTool{Name: t.Name, Description: strings.ToValidUTF8(t.Description, "\uFFFD"), InputSchema: schema}
		if t.Annotations != nil {
			r.Annotations, _ = json.Marshal(t.Annotations)
		}
		l.seen[t.Name] = true
		l.bytes += len(r.Name) + len(r.Description) + len(r.InputSchema) + len(r.Annotations)
		if len(l.tools) == maxTools || l.bytes > maxListBytes {
			return remote(codeInvalid, fmt.Sprintf(
				"The MCP server lists more than %d tools, or than %d bytes of them: name those that are needed in allowed_tools.", maxTools, maxListBytes))
		}
		l.tools = append(l.tools, r)
	}
	return nil
}

// schemaOf returns a tool's schema as JSON, and whether it is that of an object.
func schemaOf(v any) (json.RawMessage, bool) {
	if v == nil {
		return json.RawMessage(noParameters), true
	}
	m, ok := v.(map[string]any)
	if !ok || m["type"] != nil && m["type"] != "object" {
		return nil, false
	}
	raw, err := json.Marshal(m)
	return raw, err == nil
}

// legal reports whether every model takes the name for a tool's.
func legal(name string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	return name != "" && len(name) <= maxName && strings.Trim(name, letters) == ""
}
