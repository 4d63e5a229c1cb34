// Package fleet is what a test does to a fleet of hosts from outside: it cuts
// their connections to the database and sets their clocks wrong. Nothing of it
// is in a host.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
)

// Proxy stands between a host and its database and can do to their connections
// what a network does. It is safe for concurrent use.
type Proxy struct {
	listener      net.Listener
	network, addr string
	tasks         sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]bool
	up     gate // to the database
	down   gate // back to the host
}

// gate lets bytes through while it is open.
type gate struct{ opened chan struct{} } // closed while the gate is open

// NewProxy starts a proxy before the PostgreSQL server of a URL.
func NewProxy(database string) (*Proxy, error) {
	network, addr, err := endpoint(database)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fleet: listen: %w", err)
	}
	p := &Proxy{listener: l, network: network, addr: addr, conns: map[net.Conn]bool{}, up: open(), down: open()}
	p.tasks.Go(p.accept)
	return p, nil
}

// endpoint returns where the server of a PostgreSQL URL listens.
func endpoint(database string) (network, addr string, err error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", "", fmt.Errorf("fleet: database: %w", err)
	}
	port := u.Port()
	if port == "" {
		port = "5432"
	}
	if dir := u.Query().Get("host"); dir != "" {
		return "unix", dir + "/.s.PGSQL." + port, nil
	}
	return "tcp", net.JoinHostPort(u.Hostname(), port), nil
}

// URL returns database with this proxy in between.
func (p *Proxy) URL(database string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", fmt.Errorf("fleet: database: %w", err)
	}
	q := u.Query()
	q.Del("host")
	u.RawQuery, u.Host = q.Encode(), p.listener.Addr().String()
	return u.String(), nil
}

// Cut breaks every connection there is; new ones work.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

// cut is Cut; p.mu is held.
func (p *Proxy) cut() {
	for c := range p.conns {
		c.Close()
	}
}

// Hold lets nothing through, either way, until Release: no connection breaks,
// and what is sent meanwhile arrives then.
func (p *Proxy) Hold() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.shut()
	p.down.shut()
}

// HoldAnswers is Hold for what the database answers only: what a host asks for
// happens, and the host does not learn of it.
func (p *Proxy) HoldAnswers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down.shut()
}

// Release ends a Hold.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.up.open()
	p.down.open()
}

// Close breaks every connection and takes no more.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.cut()
	p.up.open()
	p.down.open()
	p.mu.Unlock()
	_ = p.listener.Close() // it is gone either way
	p.tasks.Wait()
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			p.tasks.Go(func() { p.join(c) })
		}
	}
}

// join connects c with the database until either end breaks.
func (p *Proxy) join(c net.Conn) {
	defer p.forget(c)
	if !p.keep(c) {
		return
	}
	s, err := (&net.Dialer{}).DialContext(context.Background(), p.network, p.addr)
	if err != nil {
		return
	}
	defer p.forget(s)
	if !p.keep(s) {
		return
	}
	var ways sync.WaitGroup
	ways.Go(func() { p.pass(c, s, &p.up) })
	ways.Go(func() { p.pass(s, c, &p.down) })
	ways.Wait()
}

// keep notes a connection, so that it can be broken; false: the proxy closed.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	return !p.closed
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

// pass copies from one connection to the other while the gate is open, and
// breaks both when one ends.
func (p *Proxy) pass(from, to net.Conn, g *gate) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		opened := g.opened
		p.mu.Unlock()
		<-opened
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func open() gate {
	g := gate{opened: make(chan struct{})}
	close(g.opened)
	return g
}

// open lets what waits, and what comes, through; the proxy's lock is held.
func (g *gate) open() {
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

// shut lets nothing through; the proxy's lock is held.
func (g *gate) shut() {
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
}
