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
	"github.com/casemate/casemate/plugins/internal/wasmbin"
	"github.com/casemate/casemate/plugins/manifest"
	"github.com/casemate/casemate/sdk/abi"
)

// describeLimits bound describe at load.
var describeLimits = Limits{
	Wall:        10 * time.Second,
	MemoryBytes: toolMemory,
	OutputBytes: manifest.MaxDescriptor,
	LogLines:    50,
	LogBytes:    8 << 10,
}

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
	ctx, stop := m.callContext(ctx)
	defer stop(nil)
	limited, err := wasmbin.LimitTables(wasm, maxGrown)
	if err != nil {
		return nil, refused("%w", err)
	}
	code, err := m.engine.Compile(ctx, limited)
	switch {
	case errors.Is(err, engine.ErrCompile):
		return nil, refused("%w", err)
	case err != nil:
		return nil, cutShort(ctx, err)
	}
	_, starts := mod.Export(abi.ExportInitialize)
	sum := sha256.Sum256(wasm)
	p := &Plugin{
		m: m, name: name, digest: "sha256:" + hex.EncodeToString(sum[:]),
		code: code, starts: starts, freed: make(chan struct{}),
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

// discard frees a plugin that nobody was given.
func (p *Plugin) discard(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	if p.pool != nil {
		p.pool.close(ctx)
	}
	if err := p.code.Close(ctx); err != nil {
		p.m.log.Error("plugin not freed", "plugin", p.name, "error", err)
	}
}

// ready learns what the plugin is and checks that it can do it.
func (p *Plugin) ready(ctx context.Context, mod *wasmbin.Module, wasm []byte, packed bool) error {
	if err := p.describe(ctx); err != nil {
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
	if slices.Contains(p.desc.Kinds, abi.KindRoute) || slices.Contains(p.desc.Kinds, abi.KindRetry) {
		p.pool = newPool()
		return p.startPolicy(ctx)
	}
	return nil
}

// describe calls the guest's describe and checks what it says.
func (p *Plugin) describe(ctx context.Context) error {
	c := Call{Entry: abi.ExportDescribe, Limits: describeLimits.withDefaults(abi.ExportDescribe)}
	res := p.callFresh(ctx, c)
	if res.Class != OK {
		return p.notReady(ctx, abi.ExportDescribe, res)
	}
	desc, err := manifest.Parse(res.Output)
	if err != nil {
		return refused("%s: %w", abi.ExportDescribe, err)
	}
	p.desc, p.manifest = desc, res.Output
	return nil
}

// startPolicy puts a first instance into the pool, so that the first question
// does not wait for one, and a module that cannot start within a policy's
// limits is known now.
func (p *Plugin) startPolicy(ctx context.Context) error {
	c := Call{Entry: abi.ExportRoute}
	c.Limits = c.Limits.withDefaults(c.Entry)
	f := p.newFrame(c)
	in, err := p.start(ctx, f, c.Limits.MemoryBytes)
	if err != nil {
		return p.notReady(ctx, "start as a policy", p.notStarted(ctx, f, err))
	}
	p.pool.add(in)
	return nil
}

// notReady is the error of a module that did not get through what.
func (p *Plugin) notReady(ctx context.Context, what string, res Result) error {
	if ctx.Err() != nil {
		return cutShort(ctx, fmt.Errorf("%s: %w", what, ctx.Err()))
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
