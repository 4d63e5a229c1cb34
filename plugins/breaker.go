package plugins

import (
	"sync"
	"sync/atomic"
	"time"
)

// Breaker says when a plugin that keeps dying is not called any more for a
// tenant. Zero fields take the defaults.
type Breaker struct {
	Deaths int           // within Window open it; 10; negative: never
	Window time.Duration // 1 min
	Open   time.Duration // how long it stays open before one call is let through, 30 s
}

func (b Breaker) withDefaults() Breaker {
	fill(&b.Deaths, 10)
	fill(&b.Window, time.Minute)
	fill(&b.Open, 30*time.Second)
	return b
}

// deadly reports whether a call that ended so counts: the guest broke. That an
// input costs more fuel or time than there is says nothing of the plugin.
func deadly(c Class) bool { return c == Trap || c == Memory || c == Depth }

// telling reports whether a call that ended so tells if the plugin lives: it
// came to an end of its own.
func telling(c Class) bool {
	return deadly(c) || c == OK || c == Failed || c == Output || c == InvalidOutput
}

// breakers are those of one plugin, by tenant.
type breakers struct {
	rule Breaker

	// any is set with the first death: plugins that never die pay a load.
	any atomic.Bool
	mu  sync.Mutex
	by  map[string]*breaker
}

// breaker counts the deaths of one plugin for one tenant.
type breaker struct {
	deaths []time.Time // within the window, oldest first; fewer than rule.Deaths
	until  time.Time   // open until then; zero: closed
	trial  bool        // one call was let through to see
}

// allow reports whether a call may be made. After a time in the open it lets
// one call through, which closes the breaker or opens it again.
func (b *breakers) allow(tenant string) bool {
	if !b.any.Load() {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.by[tenant]
	switch {
	case t == nil || t.until.IsZero():
		return true
	case time.Now().Before(t.until) || t.trial:
		return false
	}
	t.trial = true
	return true
}

// note counts how a call ended and reports whether that opened the breaker.
func (b *breakers) note(tenant string, class Class) (opened bool) {
	died := deadly(class) && b.rule.Deaths > 0
	if !died && !b.any.Load() {
		return false
	}
	now := time.Now()
	b.any.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.by[tenant]
	switch {
	case t == nil && !died:
		return false
	case t == nil:
		t = &breaker{}
		if b.by == nil {
			b.by = map[string]*breaker{}
		}
		b.by[tenant] = t
	}
	if t.trial {
		return t.judge(b.rule, class, now)
	}
	if !died || !t.until.IsZero() {
		return false
	}
	for len(t.deaths) > 0 && now.Sub(t.deaths[0]) > b.rule.Window {
		t.deaths = t.deaths[1:]
	}
	t.deaths = append(t.deaths, now)
	if len(t.deaths) < b.rule.Deaths {
		return false
	}
	t.deaths, t.until = nil, now.Add(b.rule.Open)
	return true
}

// judge ends a trial. Calls from before the breaker opened may end it too:
// they tell as much. After one that tells nothing, the next call is the trial.
func (t *breaker) judge(rule Breaker, class Class, now time.Time) (opened bool) {
	t.trial = false
	if !telling(class) {
		return false
	}
	t.until = time.Time{}
	if deadly(class) {
		t.until = now.Add(rule.Open)
	}
	return deadly(class)
}
