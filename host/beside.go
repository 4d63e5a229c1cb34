package host

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/tenant"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/egress"
)

// agents are the agents of c, for the API.
func agents(c Config) []response.Agent {
	var all []response.Agent
	for _, a := range c.Agents {
		all = append(all, response.Agent{
			Name: a.Name, Description: a.Description, Parameters: a.Parameters, Model: a.Model,
			Instructions: a.Instructions, Tools: a.Tools, MaxModelCalls: a.MaxModelCalls,
		})
	}
	return all
}

// warnOfAgents tells of what agents are to work with and is not there. A plugin
// may come later, so it is no error.
func (h *Host) warnOfAgents() {
	known := map[string]bool{}
	for _, t := range h.catalog.Granted() {
		known[t.Plugin], known[t.Plugin+"/"+t.Tool] = true, true
	}
	for _, a := range h.config.Agents {
		known[response.AgentLabel+"/"+a.Name] = true
	}
	for _, a := range h.config.Agents {
		for _, name := range a.Tools {
			if !known[name] {
				h.log.Warn("an agent is to work with a tool that is not loaded: want plugin, plugin/tool or agents/NAME", "agent", a.Name, "tool", name)
			}
		}
	}
}

// checkAgents refuses parameters that are no JSON Schema.
func checkAgents(c Config) error {
	for _, a := range c.Agents {
		if a.Parameters == nil {
			continue
		}
		if err := plugins.CheckSchema(a.Parameters); err != nil {
			return fmt.Errorf("agent %s: parameters: %w", a.Name, err)
		}
	}
	return nil
}

// remotes makes the client of the MCP servers that clients may name; nil where
// none may be.
func remotes(c Config) *mcp.Client {
	if len(c.MCP.HTTP) == 0 {
		return nil
	}
	return mcp.New(mcp.Options{Rules: rules(c.MCP.HTTP), Version: Version})
}

// rules are what may be sent.
func rules(all []HTTPRule) []egress.Rule {
	var to []egress.Rule
	for _, r := range all {
		to = append(to, egress.Rule{
			Scheme: r.Scheme, Host: r.Host, Port: r.Port, Methods: r.Methods, PathPrefix: r.Path, Private: r.Private,
		})
	}
	return to
}

// models are the upstreams' models as the API sees them.
type models struct {
	*upstream.Client
	windows map[string]int
}

func (h *Host) models() models {
	m := models{h.upstream, map[string]int{}}
	for _, model := range h.config.Models {
		m.windows[model.Name] = model.ContextWindow
	}
	return m
}

// Window implements api.Models.
func (m models) Window(model string) int { return m.windows[model] }

// checkArguments holds a call of an agent against what its parameters say.
func checkArguments(schema json.RawMessage, arguments []byte) error {
	return plugins.CheckArguments(schema, arguments)
}

// lines makes requests of the lines of batches.
type lines struct {
	*api.API
	tenants *tenant.Directory
}

// MayUse implements batch.Maker.
func (l lines) MayUse(name, model string) bool {
	t, ok := l.tenants.ByName(name)
	return ok && l.MayAsk(t, model)
}

// Prepare implements batch.Maker.
func (l lines) Prepare(ctx context.Context, name, path string, body []byte) (queue.New, []response.Event, error) {
	t, ok := l.tenants.ByName(name)
	if !ok {
		return queue.New{}, nil, api.UnknownTenant()
	}
	return l.Line(ctx, t, path, body)
}
