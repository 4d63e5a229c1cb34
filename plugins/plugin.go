package plugins

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
	"github.com/casemate/casemate/sdk/abi"
)

// Plugin is one loaded module. It is safe for concurrent use.
//
// Each call runs on an instance that nobody else uses and that holds what the
// module held after its start and warm-up: no call sees what another one left
// behind. Instances are restored to that image between calls, and one only
// ever works for one tenant. A module that changes what cannot be restored,
// its tables above all, gets a fresh instance for each call instead, whose start
// the call pays for.
type Plugin struct {
	m         *Manager
	name      string // what messages call it
	digest    string
	desc      abi.Descriptor
	manifest  []byte // what describe returned
	code      *engine.Code
	starts    []string      // exports to be called before the snapshot, in order
	onRestore bool          // exports on_restore
	image     *engine.Image // nil: a fresh instance for each call
	clock     *frame.Clock  // as the image was taken
	tables    uint64        // bytes that those of an instance take
	breakers  breakers

	mu     sync.Mutex
	calls  int
	closed bool
	freed  chan struct{}
	gates  map[gateKey]*gate
}

// gateKey names a bound on calls at once.
type gateKey struct {
	tenant string
	pure   bool
}

// gateOf returns the gate that a call has to pass.
func (p *Plugin) gateOf(c Call) *gate {
	key := gateKey{c.Env.Tenant, pure(c.Entry)}
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.gates[key]
	if g == nil {
		g = &gate{}
		p.gates[key] = g
	}
	return g
}

// Name returns the name that Load was given.
func (p *Plugin) Name() string { return p.name }

// Descriptor returns what the plugin says of itself. A tool that declares no
// effects has abi.EffectsOnce. The caller must not change what it points to.
func (p *Plugin) Descriptor() abi.Descriptor { return p.desc }

// Unrestorable returns nil when instances are restored after each call, else why
// each call gets a fresh one: the names of what the module does that cannot be
// undone.
func (p *Plugin) Unrestorable() []string { return p.code.Unrestorable() }

// Digest returns "sha256:" and the hex digest of the module's bytes.
func (p *Plugin) Digest() string { return p.digest }

// has reports whether the plugin answers entry.
func (p *Plugin) has(entry string) bool {
	if entry == abi.ExportDescribe {
		return true
	}
	kind, ok := entryKinds[entry]
	return ok && slices.Contains(p.desc.Kinds, kind)
}

// entryKinds holds the export of each kind.
var entryKinds = map[string]string{
	abi.ExportToolCall: abi.KindTool,
	abi.ExportRoute:    abi.KindRoute,
	abi.ExportRetry:    abi.KindRetry,
}

// Close refuses new calls, waits for those in flight, which end as if nothing
// had happened, and frees the plugin. When ctx is done first it returns ctx's
// error, and the last call frees the plugin. A second Close waits like the
// first.
func (p *Plugin) Close(ctx context.Context) error {
	p.shut()
	select {
	case <-p.freed:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("plugins: %s: close: calls still run: %w", p.name, ctx.Err())
	}
}

// shut refuses new calls and frees the plugin if none is in flight.
func (p *Plugin) shut() {
	p.mu.Lock()
	free := !p.closed && p.calls == 0
	p.closed = true
	p.mu.Unlock()
	if free {
		p.free()
	}
}

// begin reserves the plugin for one call, unless it is closed.
func (p *Plugin) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.calls++
	return true
}

func (p *Plugin) end() {
	p.mu.Lock()
	p.calls--
	free := p.closed && p.calls == 0
	p.mu.Unlock()
	if free {
		p.free()
	}
}

// free runs once: after shut no call begins, so there is one last.
func (p *Plugin) free() {
	p.discard(context.Background())
	p.m.forget(p)
	close(p.freed)
}
