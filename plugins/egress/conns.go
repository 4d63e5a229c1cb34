package egress

import (
	"net"
	"sync"
)

// conns knows the connections of a client, so that none outlives it: a pool
// closes those that it takes for idle, which may be late or never.
type conns struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	active int // exchanges
	closed bool
}

// conn is a connection that leaves its conns when it is closed.
type conn struct {
	net.Conn
	all *conns
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// begin counts an exchange; it reports false after close.
func (a *conns) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.active++
	return true
}

// end ends what begin began.
func (a *conns) end() {
	a.mu.Lock()
	a.active--
	a.mu.Unlock()
	a.sweep()
}

// close lets no exchange begin any more.
func (a *conns) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.sweep()
}

// sweep closes every connection once no exchange needs one.
func (a *conns) sweep() {
	a.mu.Lock()
	var left []*conn
	if a.closed && a.active == 0 {
		for c := range a.open {
			left = append(left, c)
		}
	}
	a.mu.Unlock()
	for _, c := range left {
		_ = c.Close() // there is nobody to tell
	}
}

// add counts a new connection. One that nobody waits for any more is closed.
func (a *conns) add(raw net.Conn) (net.Conn, error) {
	c := &conn{Conn: raw, all: a}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed && a.active == 0 {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	if a.open == nil {
		a.open = map[*conn]struct{}{}
	}
	a.open[c] = struct{}{}
	return c, nil
}
