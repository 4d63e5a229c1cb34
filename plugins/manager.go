package plugins

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
	// IdleBytes is about how much memory instances may hold while they wait for
	// a call, those of all plugins together; 0 is 256 MiB. Who waited longest
	// goes first.
	IdleBytes uint64
	// TenantLimits tells the bounds of a tenant; it is asked before each call.
	// Nil: there are none.
	TenantLimits func(tenant string) TenantLimits
	// Breaker is the rule for plugins that keep dying.
	Breaker Breaker
	// Observe is told of each call after it ended, from the goroutine of the
	// call. Nil drops it.
	Observe func(Observation)

	portable bool // see engine.Options
}

// defaultIdleBytes is the default of Options.IdleBytes.
const defaultIdleBytes = 256 << 20

// checkEvery is how many answers of policies there are for each that is asked
// for again, to see whether the policy is a function of its question.
const checkEvery = 1000

// Manager loads plugins and holds what they share. It is safe for concurrent
// use.
type Manager struct {
	log    hclog.Logger
	engine *engine.Engine
	offers map[string]map[string]wasmbin.Signature // import module → name → signature

	idle    *idleSet
	tenants tenants
	breaker Breaker
	observe func(Observation)
	count   counters

	// compiling holds a token while a module is compiled.
	compiling chan struct{}

	calls       context.Context // done when calls are cut short; never given to a guest
	cancelCalls context.CancelCauseFunc
	cut         atomic.Bool // set with it: asked on the path of every call

	mu      sync.Mutex
	plugins map[*Plugin]struct{} // not freed
	users   int                  // plugins not freed and loads in progress: who needs the engine
	closed  bool
	done    chan struct{} // closed when the engine is
	err     error         // of closing the engine; read after done
}

// counters count since the start.
type counters struct{ made, restored, lost, answers atomic.Uint64 }

// Stats returns the state of the instances.
func (m *Manager) Stats() Stats {
	idle, bytes := m.idle.size()
	return Stats{
		Idle: idle, IdleBytes: bytes,
		Made: m.count.made.Load(), Restored: m.count.restored.Load(), Lost: m.count.lost.Load(),
	}
}

// toCheck reports whether the answer that a policy just gave is one of those
// that are asked for again.
func (m *Manager) toCheck() bool { return m.count.answers.Add(1)%checkEvery == 0 }

// New returns a manager without plugins.
func New(ctx context.Context, o Options) (*Manager, error) {
	fill(&o.IdleBytes, defaultIdleBytes)
	log := o.Logger
	if log == nil {
		log = hclog.NewNullLogger()
	}
	host := []engine.HostModule{native.Module(), wasip1.Module(), wasip1.Env()}
	eng, err := engine.New(ctx, engine.Options{CacheDir: o.CacheDir, Host: host, Portable: o.portable})
	if err != nil {
		return nil, fmt.Errorf("plugins: start: %w", err)
	}
	m := &Manager{
		log:     log,
		engine:  eng,
		offers:  map[string]map[string]wasmbin.Signature{},
		idle:    newIdleSet(o.IdleBytes),
		tenants: tenants{limits: o.TenantLimits, by: map[string]*tenantUse{}},
		breaker: o.Breaker.withDefaults(),
		observe: o.Observe,

		compiling: make(chan struct{}, 1),
		plugins:   map[*Plugin]struct{}{},
		done:      make(chan struct{}),
	}
	for _, h := range host {
		offers := make(map[string]wasmbin.Signature, len(h.Funcs))
		for _, f := range h.Funcs {
			offers[f.Name] = f.Sig
		}
		m.offers[h.Name] = offers
	}
	m.calls, m.cancelCalls = context.WithCancelCause(context.WithoutCancel(ctx))
	return m, nil
}

// Close refuses new plugins and calls, waits for the calls in flight and frees
// everything. When ctx is done first, it cancels them, which a guest cannot
// delay, and waits a little longer. If a call is still
// running then, Close returns ctx's error and the last call frees the rest.
// A second Close waits like the first.
func (m *Manager) Close(ctx context.Context) error {
	m.shut()
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
	}
	m.cutCalls()
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
		m.cutCalls()
		close(m.done)
	}
}

// cutCalls ends the calls that run and the waits of those that do not yet.
func (m *Manager) cutCalls() {
	m.cut.Store(true)
	m.cancelCalls(errClosing)
}

// loadContext returns the context of a load, which also ends when the manager
// cuts calls short.
func (m *Manager) loadContext(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(m.calls, func() { cancel(errClosing) })
	return ctx, func() {
		unlink()
		cancel(nil)
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
