package share_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
)

// served counts the calls of each kind that were made.
type served struct{ realtime, queued atomic.Int64 }

// call makes one call of a kind, and reports whether it was admitted.
func (s *served) call(ctx context.Context, k *share.Keeper, realtime bool) bool {
	release, err := k.Acquire(ctx, upstream, realtime)
	if err != nil {
		return false
	}
	defer release()
	<-time.After(370 * time.Millisecond)
	if realtime {
		s.realtime.Add(1)
	} else {
		s.queued.Add(1)
	}
	return true
}

// Realtime calls that take every slot as soon as it is free leave queued ones
// their turn, though those are claimed only where there is room.
func TestRealtimeCallsDoNotStarveQueuedOnes(t *testing.T) {
	for _, c := range []struct {
		limit   int
		reserve queue.Reserve
		least   int64 // in 30 s, of which each call takes 370 ms
	}{{1, queue.Reserve{}, 20}, {4, queue.Reserve{}, 30}, {4, queue.Reserve{Queued: 2}, 60}, {4, queue.Reserve{Realtime: 3}, 30}} {
		synctest.Test(t, func(t *testing.T) {
			k := share.New(share.Options{Limits: map[string]int{upstream: c.limit}, Reserve: map[string]queue.Reserve{upstream: c.reserve}})
			answer(k, c.limit)
			var s served
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			for range 3 * c.limit {
				go func() {
					for ctx.Err() == nil {
						if !s.call(ctx, k, true) {
							time.Sleep(10 * time.Millisecond)
						}
					}
				}()
			}
			time.Sleep(time.Second)
			for ctx.Err() == nil {
				for range k.Room(upstream) {
					go s.call(ctx, k, false)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if got := s.queued.Load(); got < c.least || s.realtime.Load() < got/3 {
				t.Errorf("limit %d, %+v: got %d queued and %d realtime calls, want at least %d queued ones and more than a few of the other",
					c.limit, c.reserve, got, s.realtime.Load(), c.least)
			}
			time.Sleep(time.Second)
		})
	}
}

// A share of one slot cannot be parted, so where realtime calls have a reserve
// the kinds take turns on it: a realtime call that was refused gets the slot
// when it comes again, and when it does not, queued ones go on.
func TestTheOnlySlotIsSharedInTurn(t *testing.T) {
	for _, c := range []struct {
		name                       string
		reserve                    queue.Reserve
		comes                      bool
		leastRealtime, leastQueued int64
		mostRealtime               int64
	}{
		{"reserved", queue.Reserve{Realtime: 3}, true, 10, 15, 40},
		{"reserved for nobody", queue.Reserve{Realtime: 3}, false, 0, 60, 0},
		{"not reserved", queue.Reserve{Queued: 1}, true, 0, 60, 40},
	} {
		synctest.Test(t, func(t *testing.T) {
			var k *share.Keeper
			k = keeper(1, func(o *share.Options) {
				o.Reserve = map[string]queue.Reserve{upstream: c.reserve}
				o.Ask = func(context.Context) error { answer(k, 1); return nil }
			})
			end := running(t, k)
			var s served
			ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
			defer stop()
			for range 4 {
				go func() {
					for ctx.Err() == nil {
						s.call(ctx, k, false)
					}
				}()
			}
			for c.comes && ctx.Err() == nil {
				s.call(ctx, k, true)
				time.Sleep(time.Second) // what a client is told to wait
			}
			<-ctx.Done()
			realtime, queued := s.realtime.Load(), s.queued.Load()
			if realtime < c.leastRealtime || realtime > c.mostRealtime || queued < c.leastQueued {
				t.Errorf("%s: got %d realtime and %d queued calls; want %d to %d and at least %d", c.name, realtime, queued, c.leastRealtime, c.mostRealtime, c.leastQueued)
			}
			time.Sleep(time.Second)
			end()
		})
	}
}

// A reserve of the whole limit leaves the other kind a slot.
func TestReserveOfAll(t *testing.T) {
	k := keeper(10, func(o *share.Options) { o.Reserve = map[string]queue.Reserve{upstream: {Realtime: 10, Queued: 10}} })
	holds(t, k, false, 1)
	if u := answer(k, 10); u.Want < 1 || u.Want > 10 {
		t.Errorf("got %d wanted, want from 1 to 10", u.Want)
	}
	holds(t, k, true, 9)
}
