package share

import (
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// The kinds of calls, which index what is counted of each.
const (
	realtime = iota
	queued
	kinds
)

func kindOf(rt bool) int {
	if rt {
		return realtime
	}
	return queued
}

// target is this host's part of one target's limit. Keeper.mu guards it.
//
// Two numbers bound it. The database has counted held slots, at least, as this
// worker's: so many calls may be under way. The last answer lets slots of them
// be used by calls that begin now. It is less than held when this host has more
// than its part and others want it: what runs goes on, and what ends is given
// back.
type target struct {
	limit   int
	reserve queue.Reserve
	held    int
	slots   int
	keep    int // while a heartbeat is under way: no more than so many are used; -1: none is
	busy    [kinds]int
	waiting [kinds][]*waiter
	last    int       // kind served last
	peak    int       // most calls wanted at once lately
	spare   time.Time // since when there are slots to give back; zero: there are none
	owed    time.Time // until when a share of one slot waits for a realtime call
	// What the last question brought: asked is when it was answered, lacking that
	// it was too little, pause how long to wait before the next then.
	asked   time.Time
	lacking bool
	pause   time.Duration
}

// waiter is one call that wants a slot.
type waiter struct {
	kind    int
	came    time.Time
	after   int  // questions begun before it came
	granted bool // set before done is closed, and never after
	done    chan struct{}
}

func (w *waiter) grant() {
	w.granted = true
	close(w.done)
}

func (w *waiter) refuse() { close(w.done) }

func (t *target) join(w *waiter) { t.waiting[w.kind] = append(t.waiting[w.kind], w) }

// drop takes w off the line, if it still is in it.
func (t *target) drop(w *waiter) {
	if i := slices.Index(t.waiting[w.kind], w); i >= 0 {
		t.waiting[w.kind] = slices.Delete(t.waiting[w.kind], i, i+1)
	}
}

// refuse refuses the realtime calls that came before question number.
func (t *target) refuse(number int) (refused bool) {
	t.waiting[realtime] = slices.DeleteFunc(t.waiting[realtime], func(w *waiter) bool {
		if w.after >= number {
			return false
		}
		w.refuse()
		refused = true
		return true
	})
	if refused && t.reserve.Realtime > 0 {
		t.owed = time.Now().Add(owing)
	}
	return refused
}

// used is how many calls are under way.
func (t *target) used() int { return t.busy[realtime] + t.busy[queued] }

// wanted is how many calls are under way or wait.
func (t *target) wanted() int {
	return t.used() + len(t.waiting[realtime]) + len(t.waiting[queued])
}

// usable is how many calls may be under way.
func (t *target) usable() int {
	if t.keep >= 0 {
		return min(t.slots, t.keep)
	}
	return t.slots
}

// room is how many calls of a kind may begin.
func (t *target) room(kind int) int {
	usable := t.usable()
	free := usable - t.used()
	if kind == queued {
		return min(free, usable-t.spared()-t.busy[queued])
	}
	if len(t.waiting[queued]) > 0 {
		free = min(free, usable-t.part(t.reserve.Queued)-t.busy[realtime])
	}
	return free
}

// owing is how long a slot is left to a realtime call that was refused: until it
// has come again, as it was told.
const owing = retryAfter + retryAfter/2

// spared is how many slots queued calls leave to realtime ones. One slot cannot
// be parted: the kinds take turns on it.
func (t *target) spared() int {
	if t.slots == 1 && t.last == queued && time.Now().Before(t.owed) {
		return 1
	}
	return t.part(t.reserve.Realtime)
}

// inTurn is how many queued calls may come though there is no slot for them:
// realtime calls leave one only to those that wait for it.
func (t *target) inTurn() int {
	return max(t.part(t.reserve.Queued), 1) - t.busy[queued] - len(t.waiting[queued])
}

// part is this host's part of a reserve, in proportion to its share and rounded
// up; the other kind is always left a slot.
func (t *target) part(reserve int) int {
	return max(min((reserve*t.slots+t.limit-1)/t.limit, t.slots-1), 0)
}

// serve gives free slots to who waits, the kinds in turn.
func (t *target) serve() {
	for {
		kind := 1 - t.last
		if !t.canServe(kind) {
			kind = t.last
		}
		if !t.canServe(kind) {
			return
		}
		w := t.waiting[kind][0]
		t.waiting[kind] = t.waiting[kind][1:]
		t.busy[kind]++
		t.last = kind
		w.grant()
	}
}

func (t *target) canServe(kind int) bool { return len(t.waiting[kind]) > 0 && t.room(kind) > 0 }

// demanded notes how much is wanted now.
func (t *target) demanded() {
	if n := t.wanted(); n > t.peak {
		t.peak = n
		if !t.spare.IsZero() && t.surplus() == 0 {
			t.spare = time.Time{}
		}
	}
}

// want is how many slots the demand asks for: a quarter more than the most that
// was wanted lately, so that a growing load need not ask for each call, and as
// much again as lets queued calls leave the reserve alone.
func (t *target) want() int {
	n := t.peak + t.peak/4
	if q := t.busy[queued] + len(t.waiting[queued]); q > 0 && t.reserve.Realtime > 0 {
		open := t.limit - t.reserve.Realtime
		n = max(n, (q*t.limit+open-1)/open+t.wanted()-q)
	}
	return min(n, t.limit)
}

// freeze bounds the share until the heartbeat is answered, and returns what it
// is to say.
func (t *target) freeze() (keep, want int) {
	t.peak = max(t.peak, t.wanted())
	want = t.want()
	t.keep = min(t.used(), t.held)
	t.peak, t.spare = t.wanted(), time.Time{}
	return t.keep, want
}

// answered takes the answer to the heartbeat: so many slots.
func (t *target) answered(slots int) {
	kept := 0
	if t.keep >= 0 {
		kept = t.keep
	}
	t.slots, t.held, t.keep = slots, max(slots, kept), -1
}

// unanswered bounds the share by what the heartbeat said, should it have been
// heard.
func (t *target) unanswered() {
	if t.keep < 0 {
		return
	}
	t.slots, t.held, t.keep = min(t.slots, t.keep), min(t.held, t.keep), -1
}

// surplus is how many slots could go back to the fleet, 0 when they are not
// worth a heartbeat: a quarter of the share is, and any that others wait for.
func (t *target) surplus() int {
	n := t.held - max(t.used(), min(t.want(), t.slots))
	if n <= 0 || t.slots == t.held && n < max(1, t.held/4) {
		return 0
	}
	return n
}

// note looks, after a call ended, whether slots have become spare.
func (t *target) note(now time.Time) bool {
	if !t.spare.IsZero() || t.keep >= 0 {
		return false
	}
	peak := t.peak
	if t.peak = t.wanted(); t.surplus() == 0 {
		t.peak = peak
		return false
	}
	t.spare = now
	return true
}
