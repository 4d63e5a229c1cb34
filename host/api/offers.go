package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/tenant"
)

// defaultParameters is the schema of an agent that has none of its own.
const defaultParameters = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}`

// offer resolves the tools that the model of a turn may call: those of this
// host, agents among them, and the servers of the client's choice. It returns
// the credentials for the latter. The error is a *response.BadRequest.
func (t *turn) offer() (response.Secret, error) {
	tools, agents, err := t.a.offers(t.tenant, t.req)
	if err != nil {
		return nil, err
	}
	t.brief.Agents, t.brief.Offers = agents, nil
	for _, tool := range tools {
		t.brief.Offers = append(t.brief.Offers, tool.Offer)
	}
	secret, err := t.remotes()
	if err != nil {
		return nil, err
	}
	t.tools = response.ToolsOf(t.brief, tools, nil)
	return secret, nil
}

// offers picks the server tools that a request's model may call and names them.
// A tenant in opt-in mode gets only those of the servers that the request lists,
// and in both modes the list's allowed_tools narrow their server. agents are
// those among the tools, and those that they may call in turn.
func (a *API) offers(t tenant.Tenant, req *response.Request) (tools []response.ServerTool, agents []response.AgentBrief, err error) {
	granted := response.ToolsOf(response.Brief{Request: req}, a.granted(t.Name), nil)
	for _, tool := range granted {
		if t.MayCall(tool.Plugin, tool.Tool) {
			tools = append(tools, tool)
		}
	}
	if err := checkServers(req.Servers, tools); err != nil {
		return nil, nil, err
	}
	tools = slices.DeleteFunc(tools, func(tool response.ServerTool) bool {
		listed, allowed := wanted(req.Servers, tool)
		return !allowed && (listed || t.Tools.Mode == tenant.OptIn)
	})
	arrange(tools)
	return tools, a.agents(tools, granted), nil
}

// granted returns the tools of this host for a tenant, agents included.
func (a *API) granted(tenant string) []response.ServerTool {
	tools := slices.Clone(a.Tools.Granted(tenant))
	for _, g := range a.Agents {
		tool := response.ServerTool{
			Offer:       response.Offer{Plugin: response.AgentLabel, Tool: g.Name},
			Description: g.Description, Parameters: g.Parameters, Effects: "idempotent",
			Agent: &response.AgentBrief{
				Name: g.Name, Description: g.Description, Parameters: g.Parameters, Model: g.Model,
				Instructions: g.Instructions, MaxModelCalls: g.MaxModelCalls,
			},
		}
		if len(tool.Parameters) == 0 {
			tool.Parameters = json.RawMessage(defaultParameters)
		}
		tools = append(tools, tool)
	}
	return tools
}

// agents returns the agents among tools, and those that they lead to, each with
// what its own model is offered: what the operator gave it of granted, whatever
// the tenant may call by itself, since who may call an agent may have it do its
// work. Nobody is there to approve what an agent calls, so what needs that is
// not offered to it.
func (a *API) agents(tools, granted []response.ServerTool) []response.AgentBrief {
	var briefs []response.AgentBrief
	known := map[string]bool{}
	for open := slices.Clone(tools); len(open) > 0; open = open[1:] {
		g := open[0].Agent
		if g == nil || known[g.Name] {
			continue
		}
		known[g.Name] = true
		i := slices.IndexFunc(a.Agents, func(o response.Agent) bool { return o.Name == g.Name })
		own := slices.DeleteFunc(slices.Clone(granted), func(t response.ServerTool) bool {
			names := a.Agents[i].Tools
			return t.Approval || !slices.Contains(names, t.Plugin) && !slices.Contains(names, t.Plugin+"/"+t.Tool)
		})
		arrange(own)
		brief := *g
		for _, t := range own {
			brief.Offers = append(brief.Offers, t.Offer)
		}
		briefs = append(briefs, brief)
		open = append(open, own...)
	}
	return briefs
}

// arrange sorts and names tools.
func arrange(tools []response.ServerTool) {
	slices.SortFunc(tools, func(a, b response.ServerTool) int {
		return cmp.Or(cmp.Compare(a.Plugin, b.Plugin), cmp.Compare(a.Tool, b.Tool))
	})
	name(tools)
}

// Remotes knows which servers of others may be used. The text of its errors is
// for the client.
type Remotes interface {
	// Allowed returns why no server at that address may be used.
	Allowed(url string) error
	// Check returns why the credentials may not be sent there.
	Check(url string, c response.Credentials) error
}

// remotes takes the servers that the request names by address into the brief.
func (t *turn) remotes() (response.Secret, error) {
	var secret response.Secret
	for _, ref := range t.req.Servers {
		if ref.URL == "" {
			continue
		}
		param := t.req.ServerParam(ref.Label)
		own := func(tool response.ServerTool) bool { return tool.Plugin == ref.Label }
		if ref.Label == response.AgentLabel || slices.ContainsFunc(t.a.Tools.Granted(t.tenant.Name), own) {
			return nil, &response.BadRequest{
				Param: param + ".server_label", Code: "duplicate_server_label",
				Message: fmt.Sprintf("This host has a server %q of its own: choose another label.", ref.Label),
			}
		}
		if t.a.Remotes == nil {
			return nil, &response.BadRequest{Param: param + ".server_url", Code: "unsupported_parameter", Message: "This host lets requests name no MCP server: its operator must allow the address under mcp.http of its configuration."}
		}
		if err := t.a.Remotes.Allowed(ref.URL); err != nil {
			return nil, &response.BadRequest{Param: param + ".server_url", Code: "invalid_value", Message: err.Error()}
		}
		if err := t.a.Remotes.Check(ref.URL, ref.Credentials); err != nil {
			return nil, &response.BadRequest{Param: param + ".headers", Code: "invalid_value", Message: err.Error()}
		}
		remote := response.Remote{
			Label: ref.Label, URL: ref.URL, Allowed: ref.Allowed, Description: ref.Description,
			Approval: response.Approval{Always: true}, // what the client does not say of a stranger's tools
		}
		if ref.Approval != nil {
			remote.Approval = *ref.Approval
		}
		t.brief.Remotes = append(t.brief.Remotes, remote)
		if ref.Credentials.Authorization != "" || len(ref.Credentials.Headers) > 0 {
			if secret == nil {
				secret = response.Secret{}
			}
			secret[ref.Label] = ref.Credentials
		}
	}
	return secret, nil
}

// checkServers refuses to look for tools that there are not.
func checkServers(servers []response.ServerRef, tools []response.ServerTool) error {
	for _, s := range servers {
		if s.URL != "" {
			continue
		}
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
		if s.Label == tool.Plugin && s.URL == "" {
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
