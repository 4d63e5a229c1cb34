package loop

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// list answers a step that asks for the tools of a label: a server's, or with no
// I/O this host's own.
func (r *run) list(ctx context.Context, s response.Step, k *kit) result {
	server, remote := r.server(s.Plugin)
	if !remote {
		return listed(s, response.LocalList(k.local, s.Plugin))
	}
	within, cancel := context.WithTimeout(ctx, r.loop.opt.ListWithin)
	defer cancel()
	tools, err := r.remoteTools(within, server)
	switch {
	case err == nil:
		res := listed(s, slices.DeleteFunc(tools, func(t response.RemoteTool) bool { return !server.offers(t) }))
		if res.step.Output = []byte(server.hide(string(res.step.Output))); json.Valid(res.step.Output) {
			return res
		}
		err = &RemoteError{Code: "invalid", Message: "The MCP server's list of tools could not be read."}
	case ctx.Err() != nil:
		return result{step: s, stopped: true}
	}
	told := &RemoteError{Code: "unreachable", Message: "The MCP server did not answer."}
	if !errors.As(err, &told) && within.Err() != nil {
		told = &RemoteError{Code: "timeout", Message: "The MCP server did not answer in time."}
	}
	class, known := classes[told.Code]
	if !known {
		class = queue.UpstreamInvalid
	}
	res := result{step: s}.failed(class, 0, told.Code)
	res.step.Output = response.ErrorOutput(told.Code, told.Message)
	return res
}

// classes are those of a server's errors, by code.
var classes = map[string]queue.Class{
	"denied": queue.GuestDenied, "unauthorized": queue.GuestError, "timeout": queue.GuestDeadline,
	"invalid": queue.UpstreamInvalid, "unreachable": queue.UpstreamNetwork,
}

// listed is the end of a step that got its list.
func listed(s response.Step, tools []response.RemoteTool) result {
	s.State, s.Class, s.Output = response.Completed, queue.OK, response.ListOutput(tools)
	return result{step: s}
}

// offered returns local tools and those of the servers that are listed by now.
func (r *run) offered(local []response.ServerTool) []response.ServerTool {
	all := response.ToolsOf(r.brief, local, r.ledger.of(""))
	for i := range all {
		all[i].Opaque = all[i].Opaque || all[i].Remote
	}
	return all
}

// offers reports whether the request lets a tool of the server be offered.
func (s RemoteServer) offers(t response.RemoteTool) bool {
	return s.Allowed == nil || slices.Contains(s.Allowed, t.Name)
}

// shortest is how short a credential may be to be looked for in what a server
// says: shorter ones are words like any other.
const shortest = 8

// hide returns what a server says without the credentials that it was sent: a
// server that repeats them, as in an error, has them written nowhere.
func (s RemoteServer) hide(said string) string {
	for _, value := range append(slices.Collect(maps.Values(s.Headers)), s.Authorization) {
		_, token, _ := strings.Cut(value, " ") // behind "Bearer"
		for _, secret := range []string{value, token} {
			if len(secret) >= shortest {
				said = strings.ReplaceAll(said, secret, "[hidden]")
			}
		}
	}
	return said
}

// server returns the server of a label, with what the client sent for it.
func (r *run) server(label string) (RemoteServer, bool) {
	i := slices.IndexFunc(r.brief.Remotes, func(m response.Remote) bool { return m.Label == label })
	if i < 0 {
		return RemoteServer{}, false
	}
	return RemoteServer{Remote: r.brief.Remotes[i], Credentials: r.secret[label], Tenant: r.claim.Tenant}, true
}

func (r *run) remoteTools(ctx context.Context, s RemoteServer) ([]response.RemoteTool, error) {
	if r.loop.opt.Remotes == nil {
		return nil, &RemoteError{Code: "denied", Message: "This host calls no other MCP servers."}
	}
	return r.loop.opt.Remotes.Tools(ctx, s)
}

// callRemote runs a tool of a server.
func (r *run) callRemote(ctx context.Context, t ToolCall) ToolResult {
	server, ok := r.server(t.Tool.Plugin)
	if !ok || r.loop.opt.Remotes == nil {
		return ToolResult{Class: queue.PluginUnavailable, RetryAfter: -1}
	}
	within, cancel := context.WithTimeout(ctx, r.loop.opt.CallWithin)
	defer cancel()
	out := r.loop.opt.Remotes.Call(within, server, t)
	out.Output, out.Detail, out.Log = server.hide(out.Output), server.hide(out.Detail), server.hide(out.Log)
	return out
}
