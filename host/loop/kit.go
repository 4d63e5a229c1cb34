package loop

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/casemate/casemate/host/response"
)

// kit is the tools of a scope. It does not change.
type kit struct {
	set   Toolset
	agent func(schema json.RawMessage, arguments []byte) error // of an agent's call
	local []response.ServerTool                                // of plugins and agents
	list  []response.ServerTool                                // all of them, as the model is offered them
	tools map[string]response.ServerTool                       // list, by name
}

// resolve returns the tools of offers: those of plugins, and agents.
func (r *run) resolve(offers []response.Offer) *kit {
	k := &kit{set: r.loop.tools.Resolve(r.claim.Tenant, offers), agent: r.loop.opt.Check}
	k.local = slices.Clone(k.set.Tools())
	for _, o := range offers {
		i := slices.IndexFunc(r.brief.Agents, func(a response.AgentBrief) bool { return a.Name == o.Tool })
		if o.Plugin == response.AgentLabel && i >= 0 {
			k.local = append(k.local, agentTool(o, &r.brief.Agents[i]))
		}
	}
	return k.with(k.local)
}

// with returns the kit with another list.
func (k *kit) with(list []response.ServerTool) *kit {
	next := &kit{set: k.set, agent: k.agent, local: k.local, list: list, tools: map[string]response.ServerTool{}}
	for _, t := range list {
		next.tools[t.Name] = t
	}
	return next
}

// of returns the tool of a step, which names it by plugin and bare name.
func (k *kit) of(s response.Step) response.ServerTool {
	for _, t := range k.list {
		if t.Plugin == s.Plugin && t.Tool == s.Tool {
			return t
		}
	}
	return response.ServerTool{Offer: response.Offer{Plugin: s.Plugin, Tool: s.Tool}}
}

// check holds arguments against a tool's schema. A remote server does that
// itself.
func (k *kit) check(t response.ServerTool, arguments []byte) error {
	switch {
	case t.Agent != nil && len(t.Agent.Parameters) == 0:
		return checkInput(arguments)
	case t.Agent != nil && k.agent != nil:
		return k.agent(t.Parameters, arguments)
	case t.Agent != nil, t.Remote:
		return nil
	}
	return k.set.Check(t, arguments)
}

// agentTool is an agent as a tool. A new try of its call goes on in its scope,
// so it does no harm.
func agentTool(o response.Offer, a *response.AgentBrief) response.ServerTool {
	t := response.ServerTool{Offer: o, Description: a.Description, Parameters: a.Parameters, Effects: "idempotent", Agent: a}
	if len(t.Parameters) == 0 {
		t.Parameters = json.RawMessage(inputSchema)
	}
	return t
}

// inputSchema is the schema of an agent that does not say one.
const inputSchema = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`

var errInput = errors.New(`arguments: must be {"input": a string}`)

// checkInput checks arguments by inputSchema.
func checkInput(arguments []byte) error {
	var a struct {
		Input *string `json:"input"`
	}
	if json.Unmarshal(arguments, &a) != nil || a.Input == nil {
		return errInput
	}
	return nil
}
