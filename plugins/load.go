package plugins

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/casemate/casemate/plugins/internal/abi/native"
	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/rewrite"
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

// compileWall bounds how long a module may take to compile.
const compileWall = 2 * time.Minute

// Load checks a module, compiles it and asks it to describe itself, without
// any powers; for a policy it also starts the first instance. Nothing of it
// happens on the path of a call. name stands for the module in messages; a
// file's name is best.
//
// An error is a *LoadError. It names the plugin and what to do, and wraps
// ErrRefused when the module is at fault, ErrClosed after Close, or ctx's
// error; else this host is at fault.
func (m *Manager) Load(ctx context.Context, name string, wasm []byte) (*Plugin, error) {
	p, err := m.load(ctx, name, wasm, true)
	if err != nil {
		return nil, loadError(name, err)
	}
	m.log.Debug("plugin loaded", "plugin", name, "name", p.desc.Name, "version", p.desc.Version,
		"kinds", strings.Join(p.desc.Kinds, ","), "digest", p.digest)
	return p, nil
}

// LoadError is why a module was not loaded. Its text may quote, in part, what
// the module declares: names, and the descriptor that a host publishes. It
// holds nothing that the guest said while it ran, so it is fit for a host's
// log and for whoever asks how the host is.
type LoadError struct {
	Name string // of the module, as given to Load
	Err  error
	// GuestText is what the guest said before it ended: how it failed, with
	// names of its functions, and the end of what it printed, line by line. It
	// is for the plugin's owner only; "" when the guest did not run.
	GuestText string
}

// Error returns the name and the cause.
func (e *LoadError) Error() string { return "plugins: " + e.Name + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *LoadError) Unwrap() error { return e.Err }

// loadError names the module in err.
func loadError(name string, err error) error {
	e := &LoadError{Name: name, Err: err}
	var said *guestEnded
	if errors.As(err, &said) {
		e.GuestText = said.text
	}
	return e
}

// guestEnded carries what a guest said past the messages around it.
type guestEnded struct {
	why  string
	text string
}

func (e *guestEnded) Error() string { return e.why }

// load does the work of Load. Without packed the module's own section is not
// compared with what it says.
func (m *Manager) load(ctx context.Context, name string, wasm []byte, packed bool) (*Plugin, error) {
	if err := m.enter(); err != nil {
		return nil, err
	}
	defer m.leave()
	mod, err := parse(wasm)
	if err != nil {
		return nil, err
	}
	if err := m.admit(mod); err != nil {
		return nil, err
	}
	ctx, stop := m.loadContext(ctx)
	defer stop()
	sum := sha256.Sum256(wasm)
	p := &Plugin{
		m: m, name: name, digest: "sha256:" + hex.EncodeToString(sum[:]),
		tables:   tableBytes(mod.Tables),
		breakers: breakers{rule: m.breaker}, freed: make(chan struct{}), gates: map[gateKey]*gate{},
	}
	if err := p.compile(ctx, mod, wasm); err != nil {
		return nil, err
	}
	if err := p.ready(ctx, mod, wasm, packed); err != nil {
		p.discard(ctx)
		return nil, err
	}
	if !m.keep(p) {
		p.discard(ctx)
		return nil, ErrClosed
	}
	return p, nil
}

// compile rewrites and compiles the module, one module at a time: what an
// author sends must not take the processors from the calls of others.
func (p *Plugin) compile(ctx context.Context, mod *wasmbin.Module, wasm []byte) error {
	select {
	case p.m.compiling <- struct{}{}:
		defer func() { <-p.m.compiling }()
	case <-ctx.Done():
		return cutShort(ctx, fmt.Errorf("compile: %w", ctx.Err()))
	}
	ctx, cancel := context.WithTimeout(ctx, compileWall) // the wait is not its own doing
	defer cancel()
	rewritten, err := rewrite.Rewrite(wasm)
	if err != nil {
		return refused("%w", err)
	}
	p.code, err = p.m.engine.Compile(ctx, rewritten)
	switch {
	case errors.Is(err, engine.ErrCompile):
		return refused("%w", err)
	case err != nil:
		return cutShort(ctx, err)
	}
	start := ""
	if rewritten.Start {
		start = rewrite.StartExport
	}
	_, initialize := mod.Export(abi.ExportInitialize)
	_, p.onRestore = mod.Export(abi.ExportOnRestore)
	p.starts = startsOf(start, initialize)
	return nil
}

// discard frees what the plugin holds. No call may run.
func (p *Plugin) discard(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	p.m.idle.drop(ctx, p)
	var errs []error
	if p.image != nil {
		errs = append(errs, p.image.Close())
	}
	errs = append(errs, p.code.Close(ctx))
	if err := errors.Join(errs...); err != nil {
		p.m.log.Error("plugin not freed", "plugin", p.name, "error", err)
	}
}

// ready learns what the plugin is, checks that it can do it, and takes the
// image that its calls begin with.
func (p *Plugin) ready(ctx context.Context, mod *wasmbin.Module, wasm []byte, packed bool) error {
	b := newBoot(ctx, p)
	defer b.close()
	if err := b.describe(); err != nil {
		return err
	}
	if packed {
		if err := p.checkPacked(wasm); err != nil {
			return err
		}
	}
	for entry, kind := range entryKinds {
		if !slices.Contains(p.desc.Kinds, kind) {
			continue
		}
		if err := native.CheckEntry(mod, entry); err != nil {
			return refused("its descriptor has kind %s, but %w", kind, err)
		}
	}
	if err := b.warmUp(); err != nil {
		return err
	}
	if err := b.snapshot(); err != nil {
		return err
	}
	return p.checkMemory(ctx)
}

// checkMemory makes a first instance for each kind, so that the first call
// does not wait for one, and a module that does not fit into its kind's memory
// is known now.
func (p *Plugin) checkMemory(ctx context.Context) error {
	for _, kind := range []string{abi.KindTool, abi.KindRoute} {
		c := Call{Entry: abi.ExportToolCall}
		if kind != abi.KindTool {
			c.Entry = abi.ExportRoute
		}
		isPolicy := slices.Contains(p.desc.Kinds, abi.KindRoute) || slices.Contains(p.desc.Kinds, abi.KindRetry)
		if kind == abi.KindTool && !slices.Contains(p.desc.Kinds, kind) || kind != abi.KindTool && !isPolicy {
			continue
		}
		c.Limits = c.Limits.Over(DefaultLimits(c.Entry))
		in, err := p.acquire(ctx, c, &budget{left: c.Limits.Fuel})
		if err != nil {
			what := "start as a tool"
			if pure(c.Entry) {
				what = "start as a policy"
			}
			return p.notReady(ctx, what, p.notStarted(&callContext{Context: ctx, m: p.m}, err))
		}
		p.release(ctx, in)
	}
	return nil
}

// notReady is the error of a module that did not get through what.
func (p *Plugin) notReady(ctx context.Context, what string, res Result) error {
	if over := overdue(ctx); over != nil {
		return cutShort(ctx, fmt.Errorf("%s: %w", what, over))
	}
	err := &guestEnded{
		why:  fmt.Sprintf("%s: %s: %s", what, res.Class, res.reason),
		text: res.Detail + lastWords(res.Logs),
	}
	if res.Class == HostError {
		return err
	}
	return refused("%w", err)
}

// overdue returns ctx's error. A guest is stopped at a deadline that the
// context's own timer may only see a moment later.
func overdue(ctx context.Context) error {
	if end, ok := ctx.Deadline(); ok && time.Now().After(end) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// cutShort is the error of a load whose context ended with err.
func cutShort(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errClosing) {
		return ErrClosed
	}
	return err
}

// lastWords holds the end of what a guest printed: a panic's text, mostly.
func lastWords(logs []LogLine) string {
	const most = 10
	var b strings.Builder
	for _, l := range logs[max(0, len(logs)-most):] {
		b.WriteString("\n| " + l.Text)
	}
	return b.String()
}

// checkPacked compares the descriptor in the module with what describe said.
func (p *Plugin) checkPacked(wasm []byte) error {
	data, ok, err := manifest.ReadSection(wasm)
	switch {
	case err != nil:
		return refused("%w", err)
	case ok && !manifest.Equal(data, p.manifest):
		return refused("its custom section %s differs from what describe returns: pack it again (casemate plugin pack)", abi.Section)
	}
	return nil
}
