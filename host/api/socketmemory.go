package api

import (
	lru "container/list"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/casemate/casemate/host/response"
)

const (
	// The most that a connection keeps for its next turns.
	maxKept      = 64
	maxKeptBytes = 32 << 20
	// maxKeptTotal is how many bytes all connections of a host keep together.
	maxKeptTotal = 256 << 20
	// maxSockets is how many connections a tenant may have open on a host.
	maxSockets = 1000
)

// memories is what all connections of a host keep. The zero value is empty.
type memories struct {
	mu    sync.Mutex
	order lru.List // of *kept, the least recently used first
	bytes int
}

// memory holds the contexts that the responses of one connection hand to their
// children, the least recently used first. What a context shares with others
// counts in each. Another connection may need the room: what is in here can be
// gone at any time.
type memory struct {
	of    *memories
	list  []*kept
	bytes int
}

type kept struct {
	id    string
	items []response.Item
	bytes int
	in    *memory
	place *lru.Element
}

// get returns the context that the response id hands to its child.
func (m *memory) get(id string) ([]response.Item, bool) {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	i := m.index(id)
	if i < 0 {
		return nil, false
	}
	k := m.list[i]
	m.list = append(slices.Delete(m.list, i, i+1), k)
	m.of.order.MoveToBack(k.place)
	return k.items, true
}

// add keeps a context, and lets go of those used least recently where they are
// too many, here or on the host. The last one is kept however large it is.
func (m *memory) add(id string, items []response.Item) {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	k := &kept{id: id, items: items, in: m}
	for _, it := range items {
		k.bytes += len(it.Raw)
	}
	k.place = m.of.order.PushBack(k)
	m.list = append(m.list, k)
	m.bytes, m.of.bytes = m.bytes+k.bytes, m.of.bytes+k.bytes
	for len(m.list) > maxKept || m.bytes > maxKeptBytes && len(m.list) > 1 {
		m.remove(0)
	}
	for m.of.bytes > maxKeptTotal && m.of.order.Len() > 1 {
		if old, ok := m.of.order.Front().Value.(*kept); ok {
			old.in.remove(old.in.index(old.id))
		}
	}
}

// drop forgets a context, if it is there.
func (m *memory) drop(id string) {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	if i := m.index(id); i >= 0 {
		m.remove(i)
	}
}

// close forgets all.
func (m *memory) close() {
	m.of.mu.Lock()
	defer m.of.mu.Unlock()
	for len(m.list) > 0 {
		m.remove(0)
	}
}

func (m *memory) index(id string) int {
	return slices.IndexFunc(m.list, func(k *kept) bool { return k.id == id })
}

func (m *memory) remove(i int) {
	k := m.list[i]
	m.list = slices.Delete(m.list, i, i+1)
	m.bytes, m.of.bytes = m.bytes-k.bytes, m.of.bytes-k.bytes
	m.of.order.Remove(k.place)
}

// census counts the open connections of each tenant. The zero value has none.
type census struct {
	mu   sync.Mutex
	open map[string]int
}

// enter counts one more connection, if there may be one; leave ends it.
func (c *census) enter(tenant string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[tenant] >= maxSockets {
		return &Error{
			Status: http.StatusTooManyRequests, Code: "too_many_connections", RetryAfter: 5 * time.Second,
			Message: "As many WebSocket connections are open as this key may have: close one.",
		}
	}
	if c.open == nil {
		c.open = map[string]int{}
	}
	c.open[tenant]++
	return nil
}

func (c *census) leave(tenant string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[tenant]--; c.open[tenant] == 0 {
		delete(c.open, tenant)
	}
}
