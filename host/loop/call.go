package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

// call is one try of a tool call, the model's or a tool's: what a toolset is
// given to run it with.
type call struct {
	chain *chain // of the model that called it, or called its callers
	kit   *kit
	up    *call // whose tool made it, or whose agent; nil: the root's model did
	tool  response.ServerTool
	depth int // tools, not agents, that wait for it

	mu   *sync.Mutex   // one for a call of the root's model and all below it
	step response.Step // as stored
	left store.Write   // what calls that were stopped below it left to be written
}

// call returns the next try of a model's tool call.
func (c *chain) call(s response.Step) *call {
	t := &call{chain: c, kit: c.kit, up: c.up, tool: c.kit.of(s), mu: &sync.Mutex{}, step: s}
	if c.up != nil {
		t.mu, t.depth = c.up.mu, c.up.depth
	}
	return t
}

// do runs the try within ctx and the tool's own time.
func (c *call) do(ctx context.Context) result {
	if c.tool.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.tool.Timeout)
		defer cancel()
	}
	if c.tool.Agent != nil {
		return c.descend(ctx)
	}
	r, begun := c.chain.run, c.begun()
	info := abi.CallInfo{
		ResponseID: "resp_" + r.claim.ID.String(), Step: begun.Key(), Attempt: r.claim.Attempt,
		IdempotencyKey: begun.IdempotencyKey(r.claim.ID), Tenant: r.claim.Tenant, Model: c.chain.claim.Model,
	}
	if end, ok := ctx.Deadline(); ok {
		info.DeadlineInMS = max(1, time.Until(end).Milliseconds())
	}
	t := ToolCall{Tool: c.tool, Arguments: begun.Input, Info: info, Depth: c.depth, Effect: c.effect, Nested: c}
	var out ToolResult
	if c.tool.Remote {
		out = r.callRemote(ctx, t)
	} else {
		out = c.kit.set.Call(ctx, t)
	}
	res := result{step: c.begun(), left: c.kept()}
	if c.chain.ctx.Err() != nil && out.Class != queue.OK {
		res.stopped = true
		return res
	}
	return c.ended(res, out)
}

// ended reads how the toolset says that the try ended.
func (c *call) ended(res result, out ToolResult) result {
	s := &res.step
	s.Output, s.Fuel, s.Used, s.Code = []byte(out.Output), out.Fuel, out.Used, out.Code
	s.Detail, s.Log = cut(out.Detail, response.MaxDetail), cut(out.Log, response.MaxLog)
	if out.Generation != "" {
		s.Generation = out.Generation
	}
	if out.Class == queue.OK {
		s.State, s.Class, res.kv = response.Completed, queue.OK, out.KV
		return res
	}
	if c.tool.Opaque && out.Fuel == 0 && (out.Class == queue.GuestThrottled || out.Class == queue.PluginUnavailable) {
		s.EffectStarted = false // it was refused before it began
	}
	res = res.failed(out.Class, 0, out.Code)
	if out.RetryAfter >= 0 {
		res.step.RetryAfter = out.RetryAfter.Milliseconds()
	}
	return res
}

// cut returns at most n bytes of s, and no part of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}

// begun returns the step as it is stored.
func (c *call) begun() response.Step {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.step
}

// keep keeps what a stopped call left.
func (c *call) keep(w store.Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	add(&c.left, w)
}

func (c *call) kept() store.Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left
}

// effect is ToolCall.Effect. What a nested call does its callers did too.
func (c *call) effect(ctx context.Context) error {
	r := c.chain.run
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := r.held(ctx); err != nil {
		return err
	}
	began := c.unmarked()
	if len(began) == 0 {
		return nil
	}
	if err := r.record(ctx, store.Write{Steps: began}); err != nil {
		return err
	}
	c.mark()
	return r.held(ctx)
}

// unmarked returns the call's step and those of its callers that have begun no
// effect yet, as ones that have; c.mu is held.
func (c *call) unmarked() []response.Step {
	var began []response.Step
	for at := c; at != nil; at = at.up {
		if s := at.step; !s.EffectStarted {
			s.EffectStarted = true
			began = append(began, s)
		}
	}
	return began
}

// mark notes that what unmarked returned is stored; c.mu is held.
func (c *call) mark() {
	for at := c; at != nil; at = at.up {
		at.step.EffectStarted = true
	}
}

// held reports why the run may not begin anything any more, nil if it may.
func (r *run) held(ctx context.Context) error {
	switch {
	case r.ctx.Err() != nil:
		return fmt.Errorf("loop: %w", context.Cause(r.ctx))
	case !r.loop.opt.Live():
		r.cancel(queue.ErrFenced)
		return fmt.Errorf("loop: %w", queue.ErrFenced)
	case ctx.Err() != nil:
		return fmt.Errorf("loop: %w", context.Cause(ctx))
	}
	return nil
}

// record writes steps beside those of the run's own goroutine, and waits within
// ctx. What the store refuses ends the run, but for what only changed meanwhile.
func (r *run) record(ctx context.Context, w store.Write) error {
	err := r.out.record(ctx, w)
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
		r.cancel(err)
	}
	return err
}
