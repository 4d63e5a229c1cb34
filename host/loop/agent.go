package loop

import (
	"context"

	"github.com/casemate/casemate/host/response"
)

// descend runs the agent that is called: a chain of its own in the scope of the
// call, which goes on where an earlier try left it. What it leaves to be written
// commits with the call's step.
func (c *call) descend(ctx context.Context) result {
	ctx, cancel := context.WithCancel(ctx)
	a := c.agent(ctx)
	defer func() {
		cancel()
		a.drain()
	}()
	h := a.drive()
	a.drain()
	res := result{step: c.begun(), left: a.pending}
	switch {
	case h.wait > 0:
		res.wait, res.class = h.wait, h.class
	case h.stopped: // with the run, or for want of its caller's time
		res.stopped = true
	default:
		res.step = response.EndAgent(res.step, h.plan, a.run.ledger.of(a.scope))
	}
	return res
}

// agent returns the chain of the agent that is called. Its requests are its
// model's own, on behalf of the response: the same tenant, budget and deadline.
func (c *call) agent(ctx context.Context) *chain {
	r, s := c.chain.run, c.begun()
	claim := r.claim
	claim.Model, claim.Escalated = c.tool.Agent.Model, ""
	q := response.AgentRequest(*c.tool.Agent, s.Input)
	q.MaxOutputTokens = r.brief.Request.MaxOutputTokens
	a := &chain{
		run: r, ctx: ctx, scope: s.Key(), claim: claim, agent: c.tool.Agent, up: c,
		brief: response.Brief{Request: q, Offers: c.tool.Agent.Offers, Agents: r.brief.Agents},
	}
	a.open()
	return a
}
