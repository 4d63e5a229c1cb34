package plugins

import (
	"context"
	crand "crypto/rand"
	"errors"
	"io"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// Call calls one entry of the plugin and returns how that ended; it never
// panics for what a guest does. Each call finds the plugin as it was after its
// start and warm-up, whatever calls were before. A call that ends because ctx
// did is Canceled or Deadline.
func (p *Plugin) Call(ctx context.Context, c Call) Result {
	if !p.begin() {
		return ended(Unavailable, "plugin is closed")
	}
	defer p.end()
	if !p.has(c.Entry) {
		return ended(Denied, "plugin has no "+c.Entry)
	}
	call := &callContext{Context: ctx, m: p.m}
	defer call.end()
	c.Limits = c.Limits.Over(DefaultLimits(c.Entry))
	o := Observation{Plugin: p.name, Entry: c.Entry, Tenant: c.Env.Tenant}
	res := p.admitted(call, c, &o)
	if p.m.observe != nil {
		o.Class, o.Usage = res.Class, res.Usage
		p.m.observe(o)
	}
	return res
}

// admitted makes the call if neither the breaker nor a bound is in its way.
func (p *Plugin) admitted(ctx *callContext, c Call, o *Observation) (res Result) {
	tenant := c.Env.Tenant
	if !p.breakers.allow(tenant) {
		return ended(Unavailable, "the plugin died too often: it is not called for a while")
	}
	defer func() { // also when the host panics, or a trial would never end
		if o.Opened = p.breakers.note(tenant, res.Class); o.Opened {
			p.m.log.Warn("breaker opened: the plugin died too often and is not called for a while",
				"plugin", p.name, "entry", c.Entry, "tenant", tenant, "class", string(res.Class))
		}
	}()
	return p.bounded(ctx, c, o)
}

// bounded waits until the call may have an instance, and makes it.
func (p *Plugin) bounded(ctx *callContext, c Call, o *Observation) Result {
	var use *tenantUse
	var limits TenantLimits
	if !pure(c.Entry) { // policies work for the operator, whoever they decide about
		use, limits = p.m.tenants.of(c.Env.Tenant)
	}
	if !c.Nested {
		if use != nil && limits.Instances > 0 {
			if err := use.gate.enter(ctx, limits.Instances, c.Limits.Wall); err != nil {
				return notLetIn(ctx, err)
			}
			defer use.gate.leave()
		}
		gate := p.gateOf(c)
		if err := gate.enter(ctx, atOnce(c.Entry), c.Limits.Wall); err != nil {
			return notLetIn(ctx, err)
		}
		defer gate.leave()
	}
	fuel := budget{left: c.Limits.Fuel, use: use, perMinute: limits.FuelPerMinute}
	if !fuel.any() {
		return ended(Throttled, errTenantFuel.Error())
	}
	return p.once(ctx, c, &fuel, func(res Result) {
		if pure(c.Entry) && res.Class == OK && p.m.toCheck() {
			p.askAgain(ctx, c, res, o)
		}
	})
}

// askAgain makes a call once more, to see whether its answer is a function of
// its input. An end that is not the guest's own tells nothing about that.
func (p *Plugin) askAgain(ctx *callContext, c Call, res Result, o *Observation) {
	again := p.once(ctx, c, &budget{left: c.Limits.Fuel}, func(Result) {})
	if o.Checked = telling(again.Class); o.Checked {
		o.Impure = again.Class != res.Class || string(again.Output) != string(res.Output) || again.Usage.Fuel != res.Usage.Fuel
	}
}

func notLetIn(ctx *callContext, err error) Result {
	if errors.Is(err, errBusy) {
		return ended(Throttled, errBusy.Error())
	}
	return stopped(ctx, err)
}

// budget is the fuel of a call: its own limit, and what its tenant has left.
type budget struct {
	left      uint64
	use       *tenantUse // nil: no bound
	perMinute uint64
	charged   uint64 // of the tenant, of the run in progress
}

// any reports whether the tenant has fuel at all.
func (b *budget) any() bool {
	return b.use == nil || b.use.spend(0, b.perMinute, time.Now())
}

// charge charges the tenant with what the run has used so far.
func (b *budget) charge(used uint64) error {
	if b.use == nil || b.perMinute == 0 {
		return nil
	}
	fuel := used - b.charged
	b.charged = used
	if !b.use.spend(fuel, b.perMinute, time.Now()) {
		return errTenantFuel
	}
	return nil
}

// settle ends a run that used so much.
func (b *budget) settle(used uint64) {
	_ = b.charge(used) // it is over: nothing to refuse
	b.charged = 0
	b.left -= min(used, b.left)
}

// run describes a run of the guest within the budget.
func (b *budget) run(f *frame.Frame) engine.Run {
	r := engine.Run{Fuel: b.left, Deadline: f.Deadline, Data: f}
	if b.use != nil {
		r.Refill = b.charge
	}
	return r
}

// once makes the call on an instance of its own. It passes the result to then
// before anybody else gets the instance.
func (p *Plugin) once(ctx *callContext, c Call, fuel *budget, then func(Result)) Result {
	in, err := p.acquire(ctx, c, fuel)
	if err != nil {
		res := p.notStarted(ctx, err)
		res.Usage.Fuel = c.Limits.Fuel - fuel.left
		return res
	}
	defer p.release(ctx, in)
	res := p.run(ctx, in, newFrame(c, in.clock), c, fuel)
	then(res)
	return res
}

// newFrame returns the frame of a call, whose clock goes on from since.
func newFrame(c Call, since *frame.Clock) *frame.Frame {
	f := &frame.Frame{
		Input:     c.Input,
		Log:       frame.NewLog(c.Limits.LogLines, c.Limits.LogBytes),
		Fuel:      c.Limits.Fuel,
		Wall:      c.Limits.Wall,
		MaxOutput: c.Limits.OutputBytes,
		MaxEmits:  c.Limits.Emits,
	}
	switch c.Entry {
	case abi.ExportToolCall:
		f.Clock, f.Rand = frame.NewClock(), io.Reader(crand.Reader)
		f.Caps, f.Emit = hostfn.New(c.Env, c.Limits.Calls), c.Env.Emit
	case abi.ExportDescribe:
		f.Clock, f.Rand, f.Pure, f.Powerless = frame.NewPureClock(), frame.NewRand(frame.InitSeed), true, true
	default:
		f.Clock, f.Rand, f.Pure = frame.NewPureClock(), frame.NewRand(c.Seed), true
		f.Clock.SetNow(c.NowMS)
	}
	f.Clock.Continue(since)
	return f
}

// run makes the call on an instance in hand.
func (p *Plugin) run(ctx *callContext, in *instance, f *frame.Frame, c Call, fuel *budget) Result {
	if ctx.Err() != nil {
		return stopped(ctx, ctx.Err())
	}
	in.SetMemoryLimit(c.Limits.MemoryBytes)
	begin := time.Now()
	f.Deadline = begin.Add(c.Limits.Wall)
	if end, ok := ctx.Deadline(); ok && end.Before(f.Deadline) {
		f.Deadline = end
	}
	if f.Caps != nil {
		defer f.Caps.End()
	}
	status, err := p.enter(ctx, in, f, c.Entry, fuel)
	res := verdict(ctx, in.Instance, f, status, err)
	res.Usage = Usage{
		Wall: time.Since(begin), Fuel: c.Limits.Fuel - fuel.left, Memory: in.MemorySize(), Output: len(f.Output()),
	}
	if res.Class == HostError {
		p.logHostError(c.Entry, err)
	}
	res.logs(f)
	if f.Caps != nil {
		res.Usage.HostCalls = f.Caps.Calls()
		if res.Class == OK {
			res.Puts = f.Caps.Puts()
		}
	}
	return res
}

// enter runs on_restore, where the plugin has one, and the entry.
func (p *Plugin) enter(ctx context.Context, in *instance, f *frame.Frame, entry string, fuel *budget) (status int32, err error) {
	if p.onRestore && p.image != nil {
		caps := f.Caps
		f.Powerless, f.Caps = true, nil
		status, err = in.Call(ctx, abi.ExportOnRestore, fuel.run(f))
		fuel.settle(in.FuelUsed())
		f.Powerless, f.Caps = entry == abi.ExportDescribe, caps
		if err != nil || status != 0 {
			return status, err
		}
	}
	status, err = in.Call(ctx, entry, fuel.run(f))
	fuel.settle(in.FuelUsed())
	return status, err
}

// notStarted is the result of a call that got no instance.
func (p *Plugin) notStarted(ctx *callContext, err error) Result {
	switch {
	case ctx.Err() != nil:
		return stopped(ctx, ctx.Err())
	case errors.Is(err, errTenantFuel):
		return died(Throttled, "", err)
	case errors.Is(err, engine.ErrFuel):
		return died(Fuel, "used up its fuel: ", err)
	case errors.Is(err, engine.ErrStopped):
		return died(Deadline, "the wall clock ran out: ", err)
	case errors.Is(err, engine.ErrMemory):
		return died(Memory, "", err)
	case isHostError(err):
		p.logHostError(abi.ExportInitialize, err)
		return ended(Unavailable, hostDetail)
	}
	return died(Unavailable, "", err)
}

// logHostError tells the operator what the plugin's owner is not told.
func (p *Plugin) logHostError(entry string, err error) {
	p.m.log.Error("host failed in a plugin call", "plugin", p.name, "entry", entry, "error", hostCause(err))
}

func (r *Result) logs(f *frame.Frame) {
	for _, l := range f.Log.Lines() {
		r.Logs = append(r.Logs, LogLine{Level: l.Level, Text: l.Text})
		r.Usage.LogBytes += len(l.Text)
	}
	r.Usage.LogsDropped = f.Log.Dropped()
}
