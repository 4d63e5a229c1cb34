package loop

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Call implements Nested. The steps of the call, and of those that it makes,
// are stored under its caller's key.
func (c *call) Call(ctx context.Context, n int, tool string, arguments []byte) (NestedReply, error) {
	r := c.chain.run
	if err := r.held(ctx); err != nil {
		return NestedReply{}, err
	}
	parent := c.begun()
	if !c.may(parent, tool) {
		return NestedReply{}, ErrNestedDenied
	}
	plan := response.NextNested(response.NestedView{
		NestedCall: response.NestedCall{Parent: parent, N: n, Tool: tool, Arguments: bytes.Clone(arguments)},
		Steps:      r.ledger.of(parent.Key()), Tools: c.kit.tools, Check: c.kit.check,
	})
	next := plan.Run
	if next == nil {
		next = plan.Answer
	}
	if plan.New && !r.ledger.reserve(*next) {
		return NestedReply{}, ErrNestedBudget
	}
	if plan.Answer != nil {
		if err := r.settleNested(ctx, plan.Settle); err != nil {
			return NestedReply{}, err
		}
		return reply(*plan.Answer), nil
	}
	return c.nest(ctx, *plan.Run, plan.Settle)
}

// may reports whether a tool that runs may call another one: not itself or one
// that waits for it, not too deep, and not one that its client is to approve.
func (c *call) may(parent response.Step, tool string) bool {
	t, ok := c.kit.tools[tool]
	switch {
	case c.depth >= response.MaxNesting:
		return false
	case !ok:
		return true // it is told so
	case t.Agent != nil && strings.Count(parent.Key(), "/") > response.MaxAgentDepth:
		return false
	}
	return !t.Approval && !c.waits(t)
}

// waits reports whether t is a tool that waits for this call to end.
func (c *call) waits(t response.ServerTool) bool {
	for at := c; at != nil; at = at.up {
		if at.tool.Plugin == t.Plugin && at.tool.Tool == t.Tool {
			return true
		}
	}
	return false
}

func reply(s response.Step) NestedReply {
	receipt := response.Receipt(s)
	return NestedReply{Output: receipt.Output, IsError: receipt.Failed}
}

// settleNested writes settled steps. What is open below them is settled with
// the call of the model's that they are below.
func (r *run) settleNested(ctx context.Context, steps []response.Step) error {
	if len(steps) == 0 {
		return nil
	}
	r.ledger.put(steps...)
	return r.record(ctx, store.Write{Steps: steps})
}

// nest runs a nested call to its end. Its try is stored before it begins, in
// one write with settled steps that it takes the place of. A tool that is not
// pure is an effect of its caller: a new try of that might not ask for the same.
func (c *call) nest(ctx context.Context, s response.Step, settle []response.Step) (NestedReply, error) {
	r := c.chain.run
	for conflicts := 0; ; conflicts++ {
		inner := &call{chain: c.chain, kit: c.kit, up: c, tool: c.kit.of(s), depth: c.depth + 1, mu: c.mu}
		inner.step = s.Begin(r.claim.Attempt, inner.tool)
		if err := inner.begin(ctx, settle); err != nil {
			return NestedReply{}, err
		}
		settle = nil
		res := inner.do(ctx)
		if res.stopped {
			c.keep(res.left)
			return NestedReply{}, fmt.Errorf("loop: %w", cmp.Or(context.Cause(c.chain.ctx), context.Cause(ctx)))
		}
		err := r.endNested(res, res.kv)
		if errors.Is(err, store.ErrConflict) {
			switch {
			case !res.step.Repeatable():
				res = res.unwritten(queue.StepAbandoned, "step_abandoned")
			case conflicts >= maxConflicts:
				res = res.unwritten(queue.HostError, "")
			default:
				c.keep(res.left) // what was used stays used
				s = res.step.Again()
				s.Tries--
				continue
			}
			err = r.endNested(res, nil)
		}
		if err != nil {
			return NestedReply{}, err
		}
		return reply(res.step), nil
	}
}

// begin stores the try, and that its callers began an effect if it may be one.
// Also when ctx ends first the try counts as begun, since it may be stored.
func (c *call) begin(ctx context.Context, settle []response.Step) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	steps := append(settle, c.step)
	c.chain.run.ledger.put(steps...)
	effect := c.step.Effects != "pure" || c.step.EffectStarted
	if effect {
		steps = append(steps, c.up.unmarked()...)
	}
	if err := c.chain.run.record(ctx, store.Write{Steps: steps}); err != nil {
		return err
	}
	if effect {
		c.up.mark()
	}
	return c.chain.run.held(ctx)
}

// endNested stores how a nested call ended, with what its tool wrote to its
// plugin's state: an end that is known is written even if its caller has no
// time left.
func (r *run) endNested(res result, kv []store.KVPut) error {
	s := response.EndNested(res.step)
	w := store.Write{KV: kv}
	add(&w, res.left)
	w.Steps = append(w.Steps, r.ledger.settle(s)...)
	err := r.record(r.ctx, w)
	if err == nil {
		r.ledger.put(s)
	}
	return err
}
