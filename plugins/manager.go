package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/plugins/internal/abi/native"
	"github.com/casemate/casemate/plugins/internal/abi/wasip1"
	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
)

// ErrClosed is wrapped by Load after Close.
var ErrClosed = errors.New("plugins: manager is closed")

// errClosing is the cause of a call that Close cuts short.
var errClosing = errors.New("plugins: manager is closing")

// stopGrace is how long Close waits for calls that it has canceled.
const stopGrace = 3 * time.Second

// Options configure a Manager. The zero value works.
type Options struct {
	// Logger receives what an operator should know; never guest text. Nil
	// drops it.
	Logger hclog.Logger
	// CacheDir keeps compiled code between starts of the process. It is
	// created with mode 0700, and whoever can write to it runs code in this
	// process. Empty keeps code in memory only.
	CacheDir string
}

// Manager loads plugins and holds what they share. It is safe for concurrent
// use.
type Manager struct {
	log    hclog.Logger
	engine *engine.Engine
	offers map[string]map[string]wasmbin.Signature // import module → name → signature
	epoch  time.Time                               // where the monotonic clock of guests begins

	calls       context.Context // done when calls are cut short; never given to a guest
	cancelCalls context.CancelCauseFunc

	mu      sync.Mutex
	plugins map[*Plugin]struct{} // not freed
	users   int                  // plugins not freed and loads in progress: who needs the engine
	closed  bool
	done    chan struct{} // closed when the engine is
	err     error         // of closing the engine; read after done
}

// New returns a manager without plugins.
func New(ctx context.Context, o Options) (*Manager, error) {
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	host := []engine.HostModule{native.Module(), wasip1.Module(), wasip1.Env()}
	eng, err := engine.New(ctx, o.CacheDir, host)
	if err != nil {
		return nil, fmt.Errorf("plugins: start: %w", err)
	}
	m := &Manager{
		log:     log,
		engine:  eng,
		offers:  map[string]map[string]wasmbin.Signature{},
		epoch:   time.Now(),
		plugins: map[*Plugin]struct{}{},
		done:    make(chan struct{}),
	}
	for _, h := range host {
		offers := make(map[string]wasmbin.Signature, len(h.Funcs))
		for _, f := range h.Funcs {
			offers[f.Name] = f.Sig
		}
		m.offers[h.Name] = offers
	}
	m.calls, m.cancelCalls = context.WithCancelCause(context.WithoutCancel(ctx))
	log.Info("plugin deadlines are checked in loops and host functions; " +
		"a guest that only recurses is not stopped until modules are metered")
	return m, nil
}

// Close refuses new plugins and calls, waits for the calls in flight and frees
// everything. When ctx is done first, it cancels them, which a guest cannot
// delay but by pure recursion, and waits a little longer. If a call is still
// running then, Close returns ctx's error and the last call frees the rest.
// A second Close waits like the first.
func (m *Manager) Close(ctx context.Context) error {
	m.shut()
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
	}
	m.cancelCalls(errClosing)
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-m.done:
		return m.err
	case <-grace.C:
		return fmt.Errorf("plugins: close: calls still run: %w", ctx.Err())
	}
}

// shut closes every plugin for new calls, once.
func (m *Manager) shut() {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.closed = true
	m.users++ // until all are told
	plugins := slices.Collect(maps.Keys(m.plugins))
	m.mu.Unlock()
	for _, p := range plugins {
		p.shut()
	}
	m.leave()
}

// enter keeps the engine open until leave.
func (m *Manager) enter() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.users++
	return nil
}

// leave ends what enter began; the last to leave a closed manager closes the
// engine.
func (m *Manager) leave() {
	m.mu.Lock()
	m.users--
	last := m.closed && m.users == 0
	m.mu.Unlock()
	if last {
		m.err = m.engine.Close(context.Background())
		m.cancelCalls(errClosing)
		close(m.done)
	}
}

// keep makes p a plugin of m, which then uses the engine until forget. It
// reports false when m was closed meanwhile.
func (m *Manager) keep(p *Plugin) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.users++
	m.plugins[p] = struct{}{}
	return true
}

// forget is called when p is freed.
func (m *Manager) forget(p *Plugin) {
	m.mu.Lock()
	delete(m.plugins, p)
	m.mu.Unlock()
	m.leave()
}
