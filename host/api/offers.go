package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/tenant"
)

// offer picks the server tools that a request's model may call and names them.
// granted are the tools of the tenant's host; a tenant in opt-in mode gets only
// those of the servers that the request lists, and in both modes the list's
// allowed_tools narrow their server. The error is a *response.BadRequest.
func offer(t tenant.Tenant, req *response.Request, granted []response.ServerTool) ([]response.ServerTool, error) {
	var tools []response.ServerTool
	for _, tool := range granted {
		if t.MayCall(tool.Plugin, tool.Tool) {
			tools = append(tools, tool)
		}
	}
	if err := checkServers(req.Servers, tools); err != nil {
		return nil, err
	}
	tools = slices.DeleteFunc(tools, func(tool response.ServerTool) bool {
		listed, allowed := wanted(req.Servers, tool)
		return !allowed && (listed || t.Tools.Mode == tenant.OptIn)
	})
	slices.SortFunc(tools, func(a, b response.ServerTool) int {
		return cmp.Or(cmp.Compare(a.Plugin, b.Plugin), cmp.Compare(a.Tool, b.Tool))
	})
	name(tools)
	return tools, nil
}

// checkServers refuses to look for tools that there are not.
func checkServers(servers []response.ServerRef, tools []response.ServerTool) error {
	for _, s := range servers {
		var names []string
		for _, tool := range tools {
			if tool.Plugin == s.Label {
				names = append(names, tool.Tool)
			}
		}
		if len(names) == 0 {
			return &response.BadRequest{
				Param: "tools", Code: "unknown_server",
				Message: fmt.Sprintf("There is no server %q with tools for this key.", s.Label),
			}
		}
		for _, n := range s.Allowed {
			if !slices.Contains(names, n) {
				return &response.BadRequest{
					Param: "tools", Code: "unknown_tool",
					Message: fmt.Sprintf("Server %q has no tool %q for this key.", s.Label, n),
				}
			}
		}
	}
	return nil
}

// wanted reports whether the request lists the tool's server, and whether any
// such entry lets the tool through.
func wanted(servers []response.ServerRef, tool response.ServerTool) (listed, allowed bool) {
	for _, s := range servers {
		if s.Label == tool.Plugin {
			listed = true
			allowed = allowed || s.Allowed == nil || slices.Contains(s.Allowed, tool.Tool)
		}
	}
	return listed, allowed
}

// name gives each tool the name that the model sees: its bare name, or
// <plugin>__<tool> where another plugin's tool has the same, or where a bare
// name looks like such a pair. Names differ and have at most maxName bytes.
func name(tools []response.ServerTool) {
	bare := make(map[string]int)
	for _, tool := range tools {
		bare[tool.Tool]++
	}
	long := make(map[string]bool)
	for _, tool := range tools {
		if bare[tool.Tool] > 1 {
			long[longName(tool)] = true
		}
	}
	given := make(map[string]int)
	for i := range tools {
		tool := &tools[i]
		if tool.Name = tool.Tool; bare[tool.Tool] > 1 || long[tool.Tool] {
			tool.Name = longName(*tool)
		}
		given[tool.Name]++
	}
	for i := range tools { // a plugin's own name may hold what joins the two
		if tool := &tools[i]; given[tool.Name] > 1 {
			tool.Name = digestName(*tool)
		}
	}
}

// maxName is how long a function's name may be for every upstream.
const maxName = 64

// longName is <plugin>__<tool>, or where that is too long, its beginning and a
// digest.
func longName(tool response.ServerTool) string {
	if pair := tool.Plugin + "__" + tool.Tool; len(pair) <= maxName {
		return pair
	}
	return digestName(tool)
}

// digestName is the beginning of <plugin>__<tool> and a digest of both names:
// the same on every host, and no other tool's.
func digestName(tool response.ServerTool) string {
	sum := sha256.Sum256([]byte(tool.Plugin + "\x00" + tool.Tool))
	digest := "_" + hex.EncodeToString(sum[:8])
	pair := tool.Plugin + "__" + tool.Tool
	return pair[:min(len(pair), maxName-len(digest))] + digest
}
