package plugins

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/hostfn"
	"github.com/casemate/casemate/sdk/abi"
)

// startWall bounds the start of an instance, which is the module's own code
// but no part of the call.
const startWall = 10 * time.Second

// The defaults of Limits.
const (
	policyWall   = 100 * time.Millisecond
	policyMemory = 16 << 20
	policyOutput = 16 << 10
	toolWall     = 30 * time.Second
	toolMemory   = 64 << 20
	toolOutput   = 1 << 20

	defaultLogLines = 1000
	defaultLogBytes = 256 << 10
	defaultEmits    = 100
	defaultCalls    = 256
)

// withDefaults fills what is zero with the defaults of entry's kind.
func (l Limits) withDefaults(entry string) Limits {
	d := Limits{
		Wall: toolWall, MemoryBytes: toolMemory, OutputBytes: toolOutput,
		LogLines: defaultLogLines, LogBytes: defaultLogBytes, Emits: defaultEmits, Calls: defaultCalls,
	}
	if pure(entry) {
		d.Wall, d.MemoryBytes, d.OutputBytes = policyWall, policyMemory, policyOutput
	}
	fill(&l.Wall, d.Wall)
	fill(&l.MemoryBytes, d.MemoryBytes)
	fill(&l.OutputBytes, d.OutputBytes)
	fill(&l.LogLines, d.LogLines)
	fill(&l.LogBytes, d.LogBytes)
	fill(&l.Emits, d.Emits)
	fill(&l.Calls, d.Calls)
	return l
}

func fill[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// pure reports whether an entry is a policy's: a function of its input alone.
func pure(entry string) bool { return entry == abi.ExportRoute || entry == abi.ExportRetry }

// Call calls one entry of the plugin and returns how that ended; it never
// panics for what a guest does. A call that ends because ctx did is Canceled
// or Deadline. Instances are started outside of the call's wall clock.
func (p *Plugin) Call(ctx context.Context, c Call) Result {
	if !p.begin() {
		return ended(Unavailable, "plugin is closed")
	}
	defer p.end()
	if !p.has(c.Entry) {
		return ended(Denied, "plugin has no "+c.Entry)
	}
	ctx, stop := p.m.callContext(ctx)
	defer stop(nil)
	c.Limits = c.Limits.withDefaults(c.Entry)
	if pure(c.Entry) {
		return p.callPolicy(ctx, c)
	}
	return p.callFresh(ctx, c)
}

// callContext returns a context that also ends when the manager cuts calls
// short.
func (m *Manager) callContext(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(m.calls, func() { cancel(errClosing) })
	return ctx, func(cause error) {
		unlink()
		cancel(cause)
	}
}

// callFresh calls an entry on an instance of its own.
func (p *Plugin) callFresh(ctx context.Context, c Call) Result {
	f := p.newFrame(c)
	in, err := p.start(ctx, f, c.Limits.MemoryBytes)
	if err != nil {
		return p.notStarted(ctx, f, err)
	}
	defer in.Close(context.WithoutCancel(ctx))
	res, _ := p.run(ctx, in, f, c)
	return res
}

// callPolicy calls an entry on one of the shared instances.
func (p *Plugin) callPolicy(ctx context.Context, c Call) Result {
	in, err := p.pool.get(ctx, c.Limits.Wall)
	switch {
	case errors.Is(err, errBusy):
		return ended(Throttled, errBusy.Error())
	case err != nil:
		return stopped(ctx)
	}
	f := p.newFrame(c)
	if in == nil {
		if in, err = p.start(ctx, f, c.Limits.MemoryBytes); err != nil {
			p.pool.drop()
			return p.notStarted(ctx, f, err)
		}
	}
	f.Clock = in.clock
	f.Clock.SetNow(c.NowMS)
	f.Rand = frame.NewRand(c.Seed)
	res, sound := p.run(ctx, in, f, c)
	if !sound {
		in.Close(context.WithoutCancel(ctx))
		p.pool.drop()
		return res
	}
	p.pool.put(in)
	return res
}

// newFrame returns the frame of a call whose instance has not started yet.
func (p *Plugin) newFrame(c Call) *frame.Frame {
	f := &frame.Frame{
		Input:     c.Input,
		Pure:      c.Entry != abi.ExportToolCall,
		Clock:     frame.NewPureClock(),
		Rand:      frame.NewRand(frame.InitSeed),
		Log:       frame.NewLog(c.Limits.LogLines, c.Limits.LogBytes),
		Wall:      c.Limits.Wall,
		MaxOutput: c.Limits.OutputBytes,
		MaxEmits:  c.Limits.Emits,
	}
	if c.Entry == abi.ExportToolCall {
		f.Clock = frame.NewClock(p.m.epoch)
		f.Rand = io.Reader(crand.Reader)
	}
	return f
}

// start returns a started instance. While it starts, the guest has no input
// and no powers; f gets its logs and lends it clock and entropy.
func (p *Plugin) start(ctx context.Context, f *frame.Frame, memory uint64) (*instance, error) {
	boot := *f
	boot.Input, boot.Caps, boot.Emit = nil, nil, nil
	boot.Powerless = true
	boot.Wall = startWall
	boot.Deadline = time.Now().Add(startWall)
	ctx, cancel := context.WithDeadline(frame.With(ctx, &boot), boot.Deadline)
	defer cancel()

	in, err := p.code.Instantiate(ctx, memory)
	if err != nil {
		return nil, &startError{"start section", err}
	}
	if !p.starts {
		return &instance{Instance: in, clock: f.Clock}, nil
	}
	if _, err := in.Call(ctx, abi.ExportInitialize); err != nil {
		if in.GrowRefused() {
			err = fmt.Errorf("%w: %w", engine.ErrMemory, err)
		}
		in.Close(context.WithoutCancel(ctx))
		return nil, &startError{abi.ExportInitialize, err}
	}
	if ctx.Err() != nil {
		in.Close(context.WithoutCancel(ctx))
		return nil, &startError{abi.ExportInitialize, engine.Stopped(ctx)}
	}
	return &instance{Instance: in, clock: f.Clock}, nil
}

// run makes the call on an instance in hand. sound reports whether the
// instance may be used again.
func (p *Plugin) run(ctx context.Context, in *instance, f *frame.Frame, c Call) (res Result, sound bool) {
	if ctx.Err() != nil {
		return stopped(ctx), false
	}
	if c.Entry == abi.ExportDescribe {
		f.Powerless = true
	} else if !f.Pure {
		f.Caps = hostfn.New(c.Env, c.Limits.Calls)
		f.Emit = c.Env.Emit
	}
	in.SetMemoryLimit(c.Limits.MemoryBytes)
	begin := time.Now()
	f.Deadline = begin.Add(c.Limits.Wall)
	ctx, cancel := context.WithDeadline(frame.With(ctx, f), f.Deadline)
	defer cancel()

	status, err := in.Call(ctx, c.Entry)
	// Asked before cancel: an instance whose context ended as its call
	// returned may be closed at any moment.
	sound = ctx.Err() == nil && in.Alive()
	res = verdict(ctx, in, f, status, err)
	if res.Class == HostError {
		p.logHostError(c.Entry, err)
	}
	res.Usage.Wall = time.Since(begin)
	res.Usage.Memory = in.MemorySize()
	res.logs(f)
	if f.Caps != nil {
		res.Usage.HostCalls = f.Caps.Calls()
		if res.Class == OK {
			res.Puts = f.Caps.Puts()
		}
	}
	return res, sound && res.Class == OK
}

// notStarted is the result of a call whose instance did not start.
func (p *Plugin) notStarted(ctx context.Context, f *frame.Frame, err error) Result {
	var res Result
	switch {
	case ctx.Err() != nil:
		res = stopped(ctx)
	case errors.Is(err, engine.ErrMemory):
		res = died(Memory, "", err)
	case isHostError(err):
		p.logHostError(abi.ExportInitialize, err)
		res = ended(Unavailable, hostDetail)
	default:
		res = died(Unavailable, "", err)
	}
	res.logs(f)
	return res
}

// logHostError tells the operator what the plugin's owner is not told.
func (p *Plugin) logHostError(entry string, err error) {
	p.m.log.Error("host failed in a plugin call", "plugin", p.name, "entry", entry, "error", hostCause(err))
}

func (r *Result) logs(f *frame.Frame) {
	for _, l := range f.Log.Lines() {
		r.Logs = append(r.Logs, LogLine{Level: l.Level, Text: l.Text})
	}
	r.Usage.LogsDropped = f.Log.Dropped()
}
