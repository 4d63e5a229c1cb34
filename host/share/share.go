// Package share keeps this host's part of each upstream target's limit: it says
// how many calls may begin here, asks the fleet for more when they are wanted
// and gives back what is not. It makes no call and sends no heartbeat itself.
package share

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Options of a Keeper. Zero fields take the defaults given.
type Options struct {
	// Limits says of each target ("upstream/model") how many calls the whole fleet
	// may make to it at once; 0: any number, and only cooldowns are shared.
	Limits map[string]int
	// Reserve parts a target's limit between realtime and queued calls. Each host
	// applies it to its own share, in proportion and rounded up; on a share of one
	// slot the kinds take turns.
	Reserve map[string]queue.Reserve
	// Ask sends a heartbeat at once, which calls Uses and Settle; nil: none is
	// sent, and shares change with the periodic ones only.
	Ask func(ctx context.Context) error
	// Live reports whether this host holds its lease, by its own clock: without
	// it there is no share. nil: always.
	Live func() bool
	// Cooldown returns how long this host's targets ask to be left alone yet, and
	// Cool is told what the whole fleet knows. nil: cooldowns are not shared.
	Cooldown func() map[string]time.Duration
	Cool     func(target string, d time.Duration)
	// Wait is how long a queued call waits for a slot, 2 s. A realtime one waits
	// for the answer to one question, and no longer than this.
	Wait time.Duration
	// Linger is how long slots must have been spare before they are given back
	// ahead of the next periodic heartbeat, 250 ms.
	Linger time.Duration
}

// Keeper hands out this host's slots. It is safe for concurrent use. Make one
// with New; Run makes it ask.
type Keeper struct {
	opt   Options
	names []string // of all targets in Limits, in order
	kick  chan struct{}

	mu      sync.Mutex
	targets map[string]*target // those with a limit
	asks    int                // questions begun
}

// New returns a Keeper. It has no slot of any target with a limit before the
// first heartbeat that named it was answered.
func New(o Options) *Keeper {
	if o.Wait <= 0 {
		o.Wait = 2 * time.Second
	}
	if o.Linger <= 0 {
		o.Linger = 250 * time.Millisecond
	}
	if o.Live == nil {
		o.Live = func() bool { return true }
	}
	k := &Keeper{
		opt: o, names: slices.Sorted(maps.Keys(o.Limits)), kick: make(chan struct{}, 1),
		targets: map[string]*target{},
	}
	for name, limit := range o.Limits {
		if limit > 0 {
			k.targets[name] = &target{limit: limit, reserve: within(o.Reserve[name], limit), keep: -1, pause: leastPause}
		}
	}
	return k
}

// within returns the reserve without what would leave the other kind no slot of
// the limit.
func within(r queue.Reserve, limit int) queue.Reserve {
	return queue.Reserve{Realtime: min(r.Realtime, limit-1), Queued: min(r.Queued, limit-1)}
}

// Full refuses a call for which this host has no slot.
type Full struct {
	Target string
	Wait   time.Duration
}

func (e *Full) Error() string {
	return fmt.Sprintf("share: target %q: as many calls are under way as it takes at once", e.Target)
}

// RetryAfter returns how long to wait before another try.
func (e *Full) RetryAfter() time.Duration { return e.Wait }

// retryAfter is told to who is refused: calls end at any time.
const retryAfter = time.Second

// Acquire takes a slot for one call to a target; release gives it back and may
// be called more than once. Without a free slot the fleet is asked for more: a
// realtime call is refused when that brings none, a queued one waits. The error
// is a *Full, or wraps ctx's.
func (k *Keeper) Acquire(ctx context.Context, name string, realtime bool) (release func(), err error) {
	t := k.targets[name]
	if t == nil {
		return func() {}, nil
	}
	w := &waiter{kind: kindOf(realtime), came: time.Now(), done: make(chan struct{})}
	k.mu.Lock()
	w.after = k.asks
	t.join(w)
	k.serve(t)
	if t.keep < 0 && t.slots >= t.limit {
		t.refuse(k.asks + 1) // the whole limit is here: nobody has more
	}
	k.mu.Unlock()
	select {
	case <-w.done:
	default:
		k.poke()
		k.wait(ctx, t, w)
	}
	switch {
	case w.granted:
		var once sync.Once
		return func() { once.Do(func() { k.release(t, w.kind) }) }, nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("share: target %q: %w", name, context.Cause(ctx))
	}
	return nil, &Full{Target: name, Wait: retryAfter}
}

// wait blocks until w has an answer, or no more time.
func (k *Keeper) wait(ctx context.Context, t *target, w *waiter) {
	timer := time.NewTimer(k.opt.Wait)
	defer timer.Stop()
	select {
	case <-w.done:
		return
	case <-timer.C:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.drop(w) // what was granted meanwhile stays granted
	k.serve(t)
}

func (k *Keeper) release(t *target, kind int) {
	k.mu.Lock()
	t.busy[kind]--
	k.serve(t)
	spare := t.note(time.Now())
	k.mu.Unlock()
	if spare {
		k.poke()
	}
}

// serve gives free slots to who waits; k.mu is held.
func (k *Keeper) serve(t *target) {
	if len(t.waiting[realtime])+len(t.waiting[queued]) > 0 && k.opt.Live() {
		t.serve()
	}
	t.demanded()
}

// Open reports whether a queued call to a target could begin now, or may after
// the fleet was asked: a model none of whose targets is open is better left to
// other hosts.
func (k *Keeper) Open(name string) bool { return k.Room(name) != 0 }

// Room returns how many more queued calls to a target this host could make soon,
// those that wait for a slot taken off; -1: any number. What the fleet would
// have to be asked for is counted as long as it gave what it was asked for; then
// one call at a time finds out whether it does again. With the whole limit there
// is room for as many as realtime calls have to leave slots to.
func (k *Keeper) Room(name string) int {
	t := k.targets[name]
	if t == nil {
		return -1
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.opt.Live() {
		return 0
	}
	more := t.limit - t.slots
	switch {
	case t.slots < t.held: // it has more than its part already
		more = 0
	case t.lacking && (len(t.waiting[queued]) > 0 || time.Since(t.asked) < t.pause):
		more = 0
	case t.lacking:
		more = min(more, 1)
	}
	n := t.room(queued) + more - len(t.waiting[queued])
	if t.slots >= t.limit {
		n = max(n, t.inTurn())
	}
	return max(n, 0)
}

// Uses returns what a heartbeat says of each target, and freezes each share:
// until Settle, no more than Keep are used.
func (k *Keeper) Uses() []store.TargetUse {
	var cool map[string]time.Duration
	if k.opt.Cooldown != nil {
		cool = k.opt.Cooldown()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	uses := make([]store.TargetUse, 0, len(k.names))
	for _, name := range k.names {
		u := store.TargetUse{Target: name, Limit: k.opt.Limits[name], Cooldown: max(cool[name], 0)}
		if t := k.targets[name]; t != nil {
			u.Keep, u.Want = t.freeze()
		}
		uses = append(uses, u)
	}
	for _, name := range slices.Sorted(maps.Keys(cool)) {
		if _, ok := k.opt.Limits[name]; !ok && cool[name] > 0 {
			uses = append(uses, store.TargetUse{Target: name, Cooldown: cool[name]})
		}
	}
	return uses
}

// Settle says how the heartbeat that Uses was called for ended: with shares, or
// with an error, of which it is not known whether it was heard. One that wraps
// queue.ErrFenced says, at any time, that this host's lease ran out: there is no
// share until the next answer. One that wraps queue.ErrLeaseLost says that the
// worker is gone, and its shares with it.
func (k *Keeper) Settle(shares []store.TargetShare, err error) {
	k.mu.Lock()
	k.settle(shares, err)
	k.mu.Unlock()
	k.poke()
	if err != nil || k.opt.Cool == nil {
		return
	}
	for _, s := range shares {
		if s.Cooldown > 0 {
			k.opt.Cool(s.Target, s.Cooldown)
		}
	}
}
