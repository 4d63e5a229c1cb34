package share_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
	"github.com/casemate/casemate/host/store"
)

// keeper returns a Keeper whose only target has a limit of 10, and a share.
func keeper(slots int, change ...func(*share.Options)) *share.Keeper {
	o := share.Options{Limits: map[string]int{upstream: 10}}
	for _, f := range change {
		f(&o)
	}
	k := share.New(o)
	answer(k, slots)
	return k
}

// answer is a heartbeat that is answered with so many slots; it returns what was
// said of the target.
func answer(k *share.Keeper, slots int) store.TargetUse {
	u := k.Uses()[0]
	k.Settle([]store.TargetShare{{Target: u.Target, Slots: slots}}, nil)
	return u
}

// holds takes n slots at once.
func holds(t *testing.T, k *share.Keeper, realtime bool, n int) (release []func()) {
	t.Helper()
	for range n {
		r, err := k.Acquire(t.Context(), upstream, realtime)
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}
	return release
}

// full reports whether there is no slot: a queued call would wait.
func full(k *share.Keeper) bool {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan bool, 1)
	go func() {
		release, err := k.Acquire(ctx, upstream, false)
		if err == nil {
			release()
		}
		done <- err != nil
	}()
	synctest.Wait()
	cancel()
	return <-done
}

func TestWithoutALimit(t *testing.T) {
	k := share.New(share.Options{Limits: map[string]int{"up/any": 0}})
	for _, name := range []string{"up/any", "up/unknown"} {
		if release, err := k.Acquire(t.Context(), name, true); err != nil {
			t.Errorf("%s: got %v, want a slot at once", name, err)
		} else {
			release()
		}
		if got := k.Room(name); got != -1 || !k.Open(name) {
			t.Errorf("%s: got room %d, want -1, and open", name, got)
		}
	}
}

func TestSharesStartAtZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := share.New(share.Options{Limits: map[string]int{upstream: 10}})
		began := time.Now()
		_, err := k.Acquire(t.Context(), upstream, false)
		var refused *share.Full
		if !errors.As(err, &refused) || refused.RetryAfter() < time.Second || refused.Target != upstream {
			t.Errorf("got %v, want a *Full with a time to wait", err)
		}
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("refused after %s; want 2 s", d)
		}
		if u := k.Uses()[0]; u.Keep != 0 {
			t.Errorf("got %+v; want nothing kept", u)
		}
	})
}

func TestReleaseMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeper(2)
		release := holds(t, k, false, 2)
		release[0]()
		release[0]()
		holds(t, k, false, 1)
		if !full(k) {
			t.Error("a slot that was released twice was given twice")
		}
	})
}

// A heartbeat may make the share as small as it says is used: until it is
// answered, and for ever when the answer is lost, no more is used.
func TestFrozenWhileAHeartbeatIsUnderWay(t *testing.T) {
	tests := []struct {
		name   string
		settle func(*share.Keeper)
		room   int
	}{
		{"under way", func(*share.Keeper) {}, 0},
		{"answered", func(k *share.Keeper) { k.Settle([]store.TargetShare{{Target: upstream, Slots: 6}}, nil) }, 3},
		{"answer lost", func(k *share.Keeper) { k.Settle(nil, errAway) }, 0},
		{"not in the answer", func(k *share.Keeper) { k.Settle(nil, nil) }, -3},
		{"fenced", func(k *share.Keeper) { k.Settle(nil, queue.ErrFenced) }, -3},
		{"worker gone", func(k *share.Keeper) { k.Settle(nil, queue.ErrLeaseLost) }, -3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := keeper(5)
				release := holds(t, k, false, 3)
				if u := k.Uses()[0]; u.Keep != 3 || u.Limit != 10 {
					t.Errorf("got %+v; want 3 of 10 kept", u)
				}
				tt.settle(k)
				n := 0
				for ; !full(k) && n < 10; n++ {
					holds(t, k, false, 1)
				}
				if n != max(tt.room, 0) {
					t.Errorf("%d more began; want %d", n, max(tt.room, 0))
				}
				for range -tt.room {
					release[0]()
					release = release[1:]
					if !full(k) {
						t.Error("a call began though there is no share")
					}
				}
			})
		})
	}
}

// What a lost worker held is not kept by the next one; what a fenced one held is,
// until somebody else may count it.
func TestKeptAfterTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeper(5)
		holds(t, k, false, 3)
		k.Settle(nil, queue.ErrFenced)
		if u := answer(k, 4); u.Keep != 3 {
			t.Errorf("after a fence: got %+v; want 3 kept", u)
		}
		k.Settle(nil, queue.ErrLeaseLost)
		if u := answer(k, 4); u.Keep != 0 {
			t.Errorf("after the worker went: got %+v; want nothing kept", u)
		}
		holds(t, k, false, 1)
		if !full(k) {
			t.Error("calls of the worker before were not counted")
		}
	})
}

func TestNoShareWithoutALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := true
		k := keeper(5, func(o *share.Options) { o.Live = func() bool { return live } })
		holds(t, k, false, 1)
		live = false
		if !full(k) || k.Open(upstream) {
			t.Error("a call may begin without a lease")
		}
	})
}

// An answer below what is used: what runs goes on, nothing begins before so many
// have ended, and these are given back soon.
func TestGivesWayToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan store.TargetUse, 10)
		var k *share.Keeper
		k = keeper(10, func(o *share.Options) {
			o.Ask = func(context.Context) error { asked <- answer(k, 5); return nil }
		})
		stop := running(t, k)
		release := holds(t, k, false, 10)
		answer(k, 5)
		release[0]()
		if k.Open(upstream) {
			t.Error("more is claimed for a target of which the host has too much")
		}
		time.Sleep(300 * time.Millisecond)
		select {
		case u := <-asked:
			if u.Keep != 9 {
				t.Errorf("got %+v; want the slot given back", u)
			}
		default:
			t.Error("the slot was not given back")
		}
		if !full(k) {
			t.Error("a call began beyond what the host is entitled to")
		}
		stop()
	})
}

// running runs k until stop is called.
func running(t *testing.T, k *share.Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := k.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

func TestReleasedSlotServesWhoWaitsInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The question is under way all the time, so realtime calls wait as well.
		k := keeper(1, func(o *share.Options) {
			o.Ask = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		stop := running(t, k)
		first := holds(t, k, false, 1)
		got := make(chan bool, 6)
		var wg sync.WaitGroup
		for _, realtime := range []bool{true, true, true, false, false, false} {
			wg.Go(func() {
				release, err := k.Acquire(t.Context(), upstream, realtime)
				if err != nil {
					t.Error(err)
					return
				}
				got <- realtime
				release()
			})
		}
		synctest.Wait()
		began := time.Now()
		first[0]()
		wg.Wait()
		if d := time.Since(began); d != 0 {
			t.Errorf("it took %s; want released slots to serve at once", d)
		}
		last := <-got
		for range 5 {
			next := <-got
			if next == last {
				t.Errorf("realtime %t twice in a row while the other kind waited", next)
			}
			last = next
		}
		stop()
	})
}

func TestReserve(t *testing.T) {
	reserve := func(o *share.Options) {
		o.Reserve = map[string]queue.Reserve{upstream: {Realtime: 3, Queued: 2}}
	}
	synctest.Test(t, func(t *testing.T) {
		k := keeper(10, reserve)
		holds(t, k, false, 7)
		if !full(k) {
			t.Error("a queued call took a slot that is reserved for realtime ones")
		}
		holds(t, k, true, 3)
		if _, err := k.Acquire(t.Context(), upstream, true); err == nil {
			t.Error("a realtime call got a slot beyond the share")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		k := keeper(9, reserve, func(o *share.Options) {
			o.Ask = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		stop := running(t, k)
		holds(t, k, true, 7)
		queued := holds(t, k, false, 2)
		got := make(chan bool, 2)
		for _, realtime := range []bool{true, false} {
			go func() {
				if _, err := k.Acquire(t.Context(), upstream, realtime); err == nil {
					got <- realtime
				}
			}()
			synctest.Wait()
		}
		queued[0]()
		if <-got {
			t.Error("a realtime call took a slot that is reserved for queued ones, while one waited")
		}
		queued[1]()
		if !<-got {
			t.Error("a slot is kept free for queued calls though none waits")
		}
		stop()
	})
}

// Two hosts with more work than the limit come to have half of it each.
func TestSaturatedHostsComeToHaveTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 20)
		ctx, stop := context.WithCancel(t.Context())
		var parts, load sync.WaitGroup
		busy := func(h *host) {
			for range 40 {
				load.Go(func() {
					for ctx.Err() == nil {
						h.run(ctx, false, 100*time.Millisecond)
					}
				})
			}
		}
		a := f.join(ctx, &parts, 1, nil)
		busy(a)
		time.Sleep(7 * time.Second)
		b := f.join(ctx, &parts, 2, nil)
		busy(b)
		time.Sleep(6 * time.Second)
		f.mu.Lock()
		rows := maps.Clone(f.rows)
		f.mu.Unlock()
		if rows[1].slots != 10 || rows[2].slots != 10 {
			t.Errorf("got %+v; want 10 slots each", rows)
		}
		stop()
		load.Wait()
		parts.Wait()
	})
}

func TestACallThatIsCanceledWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeper(1)
		release := holds(t, k, false, 1)
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(queue.ErrCanceled) })
		if _, err := k.Acquire(ctx, upstream, false); !errors.Is(err, queue.ErrCanceled) {
			t.Errorf("got %v; want the cause", err)
		}
		release[0]()
		if full(k) {
			t.Error("a call that went away holds a slot")
		}
	})
}

func TestCooldowns(t *testing.T) {
	told := map[string]time.Duration{}
	k := share.New(share.Options{
		Limits: map[string]int{upstream: 10, "up/free": 0},
		Cooldown: func() map[string]time.Duration {
			return map[string]time.Duration{"up/free": time.Second, "up/other": time.Minute}
		},
		Cool: func(target string, d time.Duration) { told[target] = d },
	})
	said := map[string]time.Duration{}
	for _, u := range k.Uses() {
		said[u.Target] = u.Cooldown
	}
	if want := (map[string]time.Duration{upstream: 0, "up/free": time.Second, "up/other": time.Minute}); !maps.Equal(said, want) {
		t.Errorf("said %v; want %v", said, want)
	}
	k.Settle([]store.TargetShare{{Target: upstream, Cooldown: time.Hour}, {Target: "up/free"}}, nil)
	k.Settle([]store.TargetShare{{Target: "up/other", Cooldown: time.Hour}}, errAway)
	if want := (map[string]time.Duration{upstream: time.Hour}); !maps.Equal(told, want) {
		t.Errorf("told %v; want %v", told, want)
	}
}

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := keeper(4, func(o *share.Options) { o.Ask = func(context.Context) error { return errAway } })
		if got := k.Room(upstream); got != 10 {
			t.Errorf("got room for %d; want all that may be had, 10", got)
		}
		holds(t, k, false, 4)
		if got := k.Room(upstream); got != 6 {
			t.Errorf("got room for %d; want what may be had yet, 6", got)
		}
		stop := running(t, k)
		if _, err := k.Acquire(t.Context(), upstream, true); err == nil {
			t.Error("got a slot; want none")
		}
		if got := k.Room(upstream); got != 0 || k.Open(upstream) {
			t.Errorf("got room for %d; want none right after the fleet had none", got)
		}
		time.Sleep(time.Second)
		if got := k.Room(upstream); got != 1 {
			t.Errorf("got room for %d; want one to find out", got)
		}
		stop()
	})
}
