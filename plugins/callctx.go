package plugins

import (
	"context"
	"sync"
	"sync/atomic"
)

// callContext is the context of a call: its caller's, which also ends when the
// manager cuts calls short. Most calls only ever ask Err, so that nothing is
// linked before somebody waits.
type callContext struct {
	context.Context
	m *Manager

	once   sync.Once
	linked atomic.Pointer[link]
}

// link is a context that ends with its parent or with the manager's calls.
type link struct {
	context.Context
	unlink func()
}

// Err implements context.Context.
func (c *callContext) Err() error {
	if l := c.linked.Load(); l != nil {
		return l.Err()
	}
	if c.m.cut.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.once.Do(func() {
		ctx, cancel := context.WithCancelCause(c.Context)
		stop := context.AfterFunc(c.m.calls, func() { cancel(errClosing) })
		if c.m.cut.Load() { // Err said so already
			cancel(errClosing)
		}
		c.linked.Store(&link{ctx, func() {
			stop()
			cancel(nil)
		}})
	})
	return c.linked.Load().Done()
}

// Value implements context.Context. It finds the link, so that contexts made
// from this one hang on it and need no goroutine that waits for its end.
func (c *callContext) Value(key any) any {
	if l := c.linked.Load(); l != nil {
		return l.Value(key)
	}
	return c.Context.Value(key)
}

// end frees what Done made; the call is over.
func (c *callContext) end() {
	if l := c.linked.Load(); l != nil {
		l.unlink()
	}
}
