package plugins

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

// boot runs a module up to its snapshot: start, describe, warm-up. Nothing in
// it knows a tenant, and clock and entropy are the same everywhere, so that
// two hosts take the same image.
type boot struct {
	p   *Plugin
	ctx context.Context
	in  *engine.Instance
	// clock is one for all that runs: a guest may not see it go back.
	clock *frame.Clock
	fuel  budget    // of all that runs
	until time.Time // the same
}

// The budget of all that runs before the snapshot: the module's own code, but
// no part of a call.
const (
	startWall = 20 * time.Second
	startFuel = 20_000_000_000
)

func newBoot(ctx context.Context, p *Plugin) *boot {
	return &boot{p: p, ctx: ctx, fuel: budget{left: startFuel}, until: time.Now().Add(startWall)}
}

// frame returns the frame of one of the runs.
func (b *boot) frame() *frame.Frame {
	f := newBootFrame()
	f.Deadline = b.until
	return f
}

func (b *boot) close() {
	if b.in != nil {
		b.in.Close(context.WithoutCancel(b.ctx))
	}
}

// start makes the instance, whose start is no part of any call: what it wrote
// is nobody's output.
func (b *boot) start(ctx *callContext) (Result, bool) {
	f := b.frame()
	in, err := b.p.fresh(ctx, toolMemory, f, &b.fuel)
	if err != nil {
		res := b.p.notStarted(ctx, err)
		res.logs(f)
		return res, false
	}
	b.in, b.clock = in, f.Clock
	return Result{}, true
}

// call runs one export without powers. Its verdict is that of any call.
func (b *boot) call(export string, input []byte) Result {
	ctx := &callContext{Context: b.ctx, m: b.p.m}
	defer ctx.end()
	if b.in == nil {
		if res, ok := b.start(ctx); !ok {
			return res
		}
	}
	f := b.frame()
	f.Input, f.MaxOutput, f.Clock = input, manifest.MaxDescriptor, b.clock
	status, err := b.in.Call(ctx, export, b.fuel.run(f))
	b.fuel.settle(b.in.FuelUsed())
	res := verdict(ctx, b.in, f, status, err)
	if res.Class == HostError {
		b.p.logHostError(export, err)
	}
	res.logs(f)
	return res
}

// describe asks the guest what it is and checks what it says.
func (b *boot) describe() error {
	res := b.call(abi.ExportDescribe, nil)
	if res.Class != OK {
		return b.p.notReady(b.ctx, abi.ExportDescribe, res)
	}
	desc, err := manifest.Parse(res.Output)
	if err != nil {
		return refused("%s: %w", abi.ExportDescribe, err)
	}
	b.p.desc, b.p.manifest = desc, res.Output
	return nil
}

// warmRounds is how often each warm-up input is run: what a guest does once
// and keeps, it has done after the first, and what its allocator needs, after
// a few.
const warmRounds = 4

// warmUp runs the descriptor's inputs: what a first call of the guest makes
// once is in the image then, and no later call pays for it.
func (b *boot) warmUp() error {
	if len(b.p.code.Unrestorable()) > 0 {
		return nil // there will be no image
	}
	for range warmRounds {
		for i, raw := range b.p.desc.WarmUp {
			entry, input, err := warmUpCall(raw)
			if err != nil {
				return refused("warm_up[%d]: %w", i, err)
			}
			if !b.p.has(entry) {
				return refused("warm_up[%d] is for %s, which the plugin does not have", i, entry)
			}
			// A guest that says itself that it could not, for want of powers,
			// has run like any other.
			if res := b.call(entry, input); res.Class != OK && res.Class != Failed {
				return b.p.notReady(b.ctx, fmt.Sprintf("warm_up[%d]", i), res)
			}
		}
	}
	return nil
}

// snapshot takes the image.
func (b *boot) snapshot() error {
	if len(b.p.code.Unrestorable()) > 0 {
		return nil
	}
	image, err := b.in.Snapshot()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	b.p.image, b.p.clock = image, b.clock
	return nil
}

// warmUpCall returns the call that one input of a descriptor stands for.
func warmUpCall(raw json.RawMessage) (entry string, input []byte, err error) {
	var w abi.WarmUp
	if err := json.Unmarshal(raw, &w); err != nil {
		return "", nil, fmt.Errorf("not a warm-up input: %w", err)
	}
	switch {
	case w.Tool != "" && w.Route == nil && w.Retry == nil:
		if w.Arguments == nil {
			w.Arguments = json.RawMessage("{}")
		}
		input, err = json.Marshal(abi.ToolCall{
			V: abi.Version, Tool: w.Tool, Arguments: w.Arguments, WarmUp: true,
			Call: abi.CallInfo{
				ResponseID: "resp_warmup", Step: "/0", Attempt: 1, IdempotencyKey: "warmup//0",
				Tenant: "warmup", Model: "warmup", DeadlineInMS: toolWall.Milliseconds(),
			},
		})
		return abi.ExportToolCall, input, err
	case w.Tool == "" && w.Route != nil && w.Retry == nil:
		return abi.ExportRoute, w.Route, nil
	case w.Tool == "" && w.Route == nil && w.Retry != nil:
		return abi.ExportRetry, w.Retry, nil
	}
	return "", nil, errors.New(`want exactly one of "tool" (with "arguments"), "route" and "retry"`)
}
