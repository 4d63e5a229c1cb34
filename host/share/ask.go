package share

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Before a question, so that calls that come together are asked for together;
// and between two questions: as long as they bring slots for all who wait, while
// realtime calls wait, and at most.
const (
	gathering     = 2 * time.Millisecond
	leastPause    = 25 * time.Millisecond
	realtimePause = 100 * time.Millisecond
	longestPause  = time.Second
)

// Run asks for slots while calls wait for them, and gives back what is spare,
// until ctx ends; then it returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	if k.opt.Ask == nil {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, ok := k.next()
		var tick <-chan time.Time
		if ok {
			timer.Reset(time.Until(due))
			tick = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.kick:
		case <-tick:
			k.ask(ctx)
		}
	}
}

// poke makes Run look again.
func (k *Keeper) poke() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// next returns when to ask, if there is something to ask for or to give back.
func (k *Keeper) next() (due time.Time, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.targets {
		at := t.due(k.opt.Linger)
		if !at.IsZero() && (!ok || at.Before(due)) {
			due, ok = at, true
		}
	}
	return due, ok
}

// due returns when to ask on account of t; zero: there is no need.
func (t *target) due(linger time.Duration) time.Time {
	switch grow := t.slots < t.limit; {
	case grow && len(t.waiting[realtime]) > 0:
		return latest(t.waiting[realtime][0].came.Add(gathering), t.asked.Add(min(t.pause, realtimePause)))
	case grow && len(t.waiting[queued]) > 0:
		return latest(t.waiting[queued][0].came.Add(gathering), t.asked.Add(t.pause))
	case !t.spare.IsZero():
		return t.spare.Add(linger)
	}
	return time.Time{}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ask sends one question for all targets. Realtime calls that came before it and
// got nothing are refused.
func (k *Keeper) ask(ctx context.Context) {
	k.mu.Lock()
	k.asks++
	number := k.asks
	k.mu.Unlock()
	_ = k.opt.Ask(ctx) // who sends heartbeats logs what fails
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, t := range k.targets {
		t.concluded(number, now)
	}
}

// concluded takes note of how question number left t.
func (t *target) concluded(number int, now time.Time) {
	t.asked = now
	t.lacking = t.refuse(number) || len(t.waiting[queued]) > 0
	if t.lacking {
		t.pause = min(2*t.pause, longestPause)
	} else {
		t.pause = leastPause
	}
	t.spare = time.Time{}
	t.note(now) // less may be wanted already than was said
}

// settle is Settle with k.mu held.
func (k *Keeper) settle(shares []store.TargetShare, err error) {
	slots := map[string]int{}
	for _, s := range shares {
		slots[s.Target] = s.Slots
	}
	for name, t := range k.targets {
		switch {
		case err == nil:
			t.answered(slots[name])
		case errors.Is(err, queue.ErrLeaseLost):
			t.slots, t.held, t.keep = 0, 0, -1
		case errors.Is(err, queue.ErrFenced):
			t.slots = 0 // a heartbeat that is under way still may be answered
		default:
			t.unanswered()
		}
		k.serve(t)
		if t.keep < 0 && t.slots >= t.limit {
			t.refuse(k.asks + 1)
		}
	}
}
