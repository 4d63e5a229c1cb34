package plugins

import (
	"container/list"
	"context"
	"sync"
)

// poolKey names the instances that a call may use: those of one plugin that
// have only ever worked for one tenant.
type poolKey struct {
	plugin *Plugin
	tenant string
}

// idleSet holds the instances of all plugins that wait for a call, under one
// cap of bytes: those that have waited longest go first.
type idleSet struct {
	most uint64 // bytes

	mu    sync.Mutex
	bytes uint64
	age   list.List // of *instance, the longest idle first
	pools map[poolKey][]*list.Element
}

func newIdleSet(most uint64) *idleSet {
	return &idleSet{most: most, pools: map[poolKey][]*list.Element{}}
}

// take returns the instance of key that has waited shortest, whose pages are
// the warmest, or nil.
func (s *idleSet) take(key poolKey) *instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := s.pools[key]
	if len(pool) == 0 {
		return nil
	}
	last := pool[len(pool)-1]
	pool[len(pool)-1] = nil
	s.pools[key] = pool[:len(pool)-1]
	return s.remove(last)
}

// put makes a restored instance idle, and closes those that are too many then.
func (s *idleSet) put(ctx context.Context, in *instance) {
	s.mu.Lock()
	s.bytes += in.held
	s.pools[in.key] = append(s.pools[in.key], s.age.PushBack(in))
	var over []*instance
	for s.bytes > s.most {
		over = append(over, s.evict())
	}
	s.mu.Unlock()
	closeAll(ctx, over)
}

// evict removes the instance that has waited longest. In the pool of its key
// it is the first, since pools are used from their end.
func (s *idleSet) evict() *instance {
	oldest := s.age.Front()
	key := oldest.Value.(*instance).key
	pool := s.pools[key]
	copy(pool, pool[1:])
	pool[len(pool)-1] = nil
	if pool = pool[:len(pool)-1]; len(pool) == 0 {
		delete(s.pools, key)
	} else {
		s.pools[key] = pool
	}
	return s.remove(oldest)
}

func (s *idleSet) remove(e *list.Element) *instance {
	in := s.age.Remove(e).(*instance)
	s.bytes -= in.held
	return in
}

// drop closes the idle instances of p. No call of p may run.
func (s *idleSet) drop(ctx context.Context, p *Plugin) {
	s.mu.Lock()
	var gone []*instance
	for key, pool := range s.pools {
		if key.plugin != p {
			continue
		}
		for _, e := range pool {
			gone = append(gone, s.remove(e))
		}
		delete(s.pools, key)
	}
	s.mu.Unlock()
	closeAll(ctx, gone)
}

// size returns how many instances are idle, and about how many bytes they hold.
func (s *idleSet) size() (instances int, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.age.Len(), s.bytes
}

func closeAll(ctx context.Context, all []*instance) {
	for _, in := range all {
		in.Close(ctx)
	}
}
