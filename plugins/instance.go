package plugins

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/sdk/abi"
)

// instance is an instance that waits for a call or runs one.
type instance struct {
	*engine.Instance
	key poolKey
	// clock is what the guest's clock showed last before its calls; none of
	// them may see it go back.
	clock *frame.Clock
	held  uint64 // bytes while idle, about
}

// acquire returns an instance for a call: an idle one of the tenant's, else one
// made from the image, else a fresh one, whose start is on the budget of the
// call: it takes place for each.
func (p *Plugin) acquire(ctx context.Context, c Call, fuel *budget) (*instance, error) {
	key := poolKey{p, c.Env.Tenant}
	if p.image == nil {
		f := newBootFrame()
		f.Fuel, f.Wall, f.Deadline = c.Limits.Fuel, c.Limits.Wall, time.Now().Add(c.Limits.Wall)
		in, err := p.fresh(ctx, c.Limits.MemoryBytes, f, fuel)
		if err != nil {
			return nil, err
		}
		return &instance{Instance: in, key: key, clock: f.Clock}, nil
	}
	if size := p.image.Size(); size > c.Limits.MemoryBytes {
		return nil, &startError{"image", fmt.Errorf("%w: %d bytes after its start, the limit is %d", engine.ErrMemory, size, c.Limits.MemoryBytes)}
	}
	if in := p.m.idle.take(key); in != nil {
		return in, nil
	}
	in, err := p.image.Instantiate(ctx, c.Limits.MemoryBytes)
	if err != nil {
		return nil, &startError{"image", err}
	}
	p.m.count.made.Add(1)
	return &instance{Instance: in, key: key, clock: p.clock}, nil
}

// release makes an instance ready for the next call, or closes it.
func (p *Plugin) release(ctx context.Context, in *instance) {
	ctx = context.WithoutCancel(ctx)
	if p.image == nil || !in.Restorable() {
		in.Close(ctx)
		return
	}
	if err := in.Restore(); err != nil {
		p.m.log.Error("plugin instance not restored: closed", "plugin", p.name, "error", err)
		p.m.count.lost.Add(1)
		in.Close(ctx)
		return
	}
	p.m.count.restored.Add(1)
	in.held = in.Resident() + p.tables
	p.m.idle.put(ctx, in)
}

// fresh returns a new instance whose start function and _initialize have run,
// as part of no call: without input, powers, or any knowledge of a tenant, and
// under the same clock and entropy on every host. They may use what is left of
// fuel, until f's deadline.
func (p *Plugin) fresh(ctx context.Context, memory uint64, f *frame.Frame, fuel *budget) (*engine.Instance, error) {
	in, err := p.code.Instantiate(ctx, memory)
	if err != nil {
		return nil, &startError{"instantiate", err}
	}
	for _, export := range p.starts {
		_, err := in.Call(ctx, export, fuel.run(f))
		fuel.settle(in.FuelUsed())
		if err != nil {
			if in.GrowRefused() {
				err = fmt.Errorf("%w: %w", engine.ErrMemory, err)
			}
			in.Close(context.WithoutCancel(ctx))
			return nil, &startError{partName(export), err}
		}
	}
	return in, nil
}

// partName is what messages call an export that runs before the snapshot.
func partName(export string) string {
	if export == rewrite.StartExport {
		return "start section"
	}
	return export
}

// newBootFrame returns the frame of what runs before the snapshot. Its guest has
// no powers, and finds the same on every host.
func newBootFrame() *frame.Frame {
	return &frame.Frame{
		Pure:      true,
		Powerless: true,
		Clock:     frame.NewPureClock(),
		Rand:      frame.NewRand(frame.InitSeed),
		Log:       frame.NewLog(bootLogLines, bootLogBytes),
		Fuel:      startFuel,
		Wall:      startWall,
	}
}

// What is kept of a start's log, for its owner.
const (
	bootLogLines = 50
	bootLogBytes = 8 << 10
)

// startsOf returns what is called before the snapshot, in order.
func startsOf(start string, initialize bool) (exports []string) {
	if start != "" {
		exports = append(exports, start)
	}
	if initialize {
		exports = append(exports, abi.ExportInitialize)
	}
	return exports
}
