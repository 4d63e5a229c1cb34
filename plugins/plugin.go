package plugins

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/sdk/abi"
)

// Plugin is one loaded module. It is safe for concurrent use.
//
// Each call of a tool gets a fresh instance of the module: no call sees what
// another one left behind. Calls of a policy share a few instances, one for
// each call at a time, thrown away when a call on them does not end in OK.
// What a policy keeps in its memory is therefore seen by later questions, of
// other tenants too, until instances are restored between calls; the world
// around it is the same for the same question.
type Plugin struct {
	m        *Manager
	name     string // what messages call it
	digest   string
	desc     abi.Descriptor
	manifest []byte // what describe returned
	code     *engine.Code
	starts   bool  // exports _initialize
	pool     *pool // of policies; nil without such a kind

	mu     sync.Mutex
	calls  int
	closed bool
	freed  chan struct{}
}

// Name returns the name that Load was given.
func (p *Plugin) Name() string { return p.name }

// Descriptor returns what the plugin says of itself. A tool that declares no
// effects has abi.EffectsOnce. The caller must not change what it points to.
func (p *Plugin) Descriptor() abi.Descriptor { return p.desc }

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
	ctx := context.Background()
	if p.pool != nil {
		p.pool.close(ctx)
	}
	if err := p.code.Close(ctx); err != nil {
		p.m.log.Error("plugin not freed", "plugin", p.name, "error", err)
	}
	p.m.forget(p)
	close(p.freed)
}
