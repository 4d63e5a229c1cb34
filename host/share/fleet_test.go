package share_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
	"github.com/casemate/casemate/host/store"
)

const upstream = "up/model"

var errAway = errors.New("database is away")

// fleet is one target's limit, as a database shares it out, and what really is
// under way.
type fleet struct {
	t     *testing.T
	limit int
	plain bool // answers what is stored, though a holder is entitled to less

	mu     sync.Mutex
	rows   map[int]holding
	flying int // calls
	most   int
	beats  int
}

type holding struct{ slots, want int }

func newFleet(t *testing.T, limit int) *fleet {
	return &fleet{t: t, limit: limit, rows: map[int]holding{}}
}

// beat stores what one worker says, and returns what it is answered.
func (f *fleet) beat(worker int, u store.TargetUse) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.beats++
	own := f.rows[worker]
	free := f.limit
	for w, h := range f.rows {
		if w != worker {
			free -= h.slots
		}
	}
	own.want = u.Want
	f.rows[worker] = own
	part := f.entitled()[worker]
	own.slots = max(min(u.Keep, own.slots), min(part, free), 0)
	f.rows[worker] = own
	sum := 0
	for _, h := range f.rows {
		sum += h.slots
	}
	if sum > f.limit {
		f.t.Errorf("the model gave %d slots of %d", sum, f.limit)
	}
	if f.plain {
		return own.slots
	}
	return min(own.slots, part)
}

// entitled gives the limit out one slot at a time to those who want more, the
// holders of most first.
func (f *fleet) entitled() map[int]int {
	workers := slices.SortedFunc(maps.Keys(f.rows), func(a, b int) int {
		return cmp.Or(cmp.Compare(f.rows[b].slots, f.rows[a].slots), cmp.Compare(a, b))
	})
	part := map[int]int{}
	for left := f.limit; left > 0; {
		before := left
		for _, w := range workers {
			if left > 0 && part[w] < f.rows[w].want {
				part[w]++
				left--
			}
		}
		if left == before {
			break
		}
	}
	return part
}

// leave ends a worker, as leaving or being reaped does.
func (f *fleet) leave(worker int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rows, worker)
}

// call counts a call that is under way until end.
func (f *fleet) call() (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.flying++
	f.most = max(f.most, f.flying)
	if f.flying > f.limit {
		f.t.Errorf("%d calls are under way; the limit is %d", f.flying, f.limit)
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.flying--
	}
}

// heartbeats returns how many came so far.
func (f *fleet) heartbeats() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.beats
}

// host is a keeper with heartbeats of its own, one at a time.
type host struct {
	*share.Keeper
	f      *fleet
	worker int
	delay  func() time.Duration // of the way there, and of the way back
	lose   func() bool          // whether something is lost on the way

	turn  chan struct{} // is full while a heartbeat is under way
	count sync.Mutex
	calls int // that want a slot or have one
}

func (h *host) running(n int) {
	h.count.Lock()
	defer h.count.Unlock()
	h.calls += n
}

func (h *host) idle() bool {
	h.count.Lock()
	defer h.count.Unlock()
	return h.calls == 0
}

// join starts a host with a worker of its own; it runs until ctx ends.
func (f *fleet) join(ctx context.Context, wg *sync.WaitGroup, worker int, change func(*host, *share.Options)) *host {
	h := &host{
		f: f, worker: worker, turn: make(chan struct{}, 1),
		delay: func() time.Duration { return time.Millisecond },
		lose:  func() bool { return false },
	}
	o := share.Options{Limits: map[string]int{upstream: f.limit, "up/free": 0}, Ask: h.beat}
	if change != nil {
		change(h, &o)
	}
	h.Keeper = share.New(o)
	_ = h.beat(ctx)
	wg.Go(func() {
		if err := h.Run(ctx); err != nil {
			f.t.Error(err)
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(5 * time.Second):
				_ = h.beat(ctx)
			}
		}
	})
	return h
}

// beat is one heartbeat: there, back, or lost on the way.
func (h *host) beat(context.Context) error {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	uses := h.Uses()
	<-time.After(h.delay())
	if h.lose() {
		h.Settle(nil, errAway)
		return errAway
	}
	var shares []store.TargetShare
	for _, u := range uses {
		s := store.TargetShare{Target: u.Target}
		if u.Limit > 0 {
			s.Slots = h.f.beat(h.worker, u)
		}
		shares = append(shares, s)
	}
	<-time.After(h.delay())
	if h.lose() {
		h.Settle(nil, errAway)
		return errAway
	}
	h.Settle(shares, nil)
	return nil
}

// renew gives the host a new worker, after the old one was reaped.
func (h *host) renew(worker int) {
	h.turn <- struct{}{}
	defer func() { <-h.turn }()
	h.Settle(nil, queue.ErrLeaseLost)
	h.f.leave(h.worker)
	h.worker = worker
}

// run makes one call of length d, and reports whether it was admitted.
func (h *host) run(ctx context.Context, realtime bool, d time.Duration) bool {
	release, err := h.Acquire(ctx, upstream, realtime)
	if err != nil {
		return false
	}
	end := h.f.call()
	<-time.After(d)
	end()
	release()
	return true
}

// some returns how long something takes: mostly a moment, at times long.
func some(r *rand.Rand) time.Duration {
	if r.IntN(10) == 0 {
		return time.Duration(r.IntN(3000)) * time.Millisecond
	}
	return time.Duration(r.IntN(20)) * time.Millisecond
}
