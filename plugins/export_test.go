package plugins

import (
	"context"
	"time"
)

// Portable returns o for a manager that restores instances as is done where the
// system has nothing better.
func Portable(o Options) Options {
	o.portable = true
	return o
}

// Boot calls an export of p n times in one boot, which has fuel and wall for
// all of them together, and returns how the calls ended.
func Boot(ctx context.Context, p *Plugin, export string, n int, fuel uint64, wall time.Duration) (ends []Class) {
	b := newBoot(ctx, p)
	defer b.close()
	b.fuel.left, b.until = fuel, time.Now().Add(wall)
	for range n {
		ends = append(ends, b.call(export, nil).Class)
	}
	return ends
}

// CutOnly does the first half of cutting calls short: the context of calls is
// not done yet.
func CutOnly(m *Manager) { m.cut.Store(true) }

// CallContext returns the context of a call.
func CallContext(ctx context.Context, m *Manager) context.Context {
	return &callContext{Context: ctx, m: m}
}

// HoldCompiler keeps m from compiling until release is called.
func HoldCompiler(m *Manager) (release func()) {
	m.compiling <- struct{}{}
	return func() { <-m.compiling }
}
