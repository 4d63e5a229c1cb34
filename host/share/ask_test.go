package share_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/share"
	"github.com/casemate/casemate/host/store"
)

// A host with the whole limit has nobody to ask; others ask once.
func TestRealtimeIsRefusedAfterOneQuestion(t *testing.T) {
	for _, tt := range []struct{ slots, asks int }{{10, 0}, {4, 1}, {0, 1}} {
		synctest.Test(t, func(t *testing.T) {
			asks := 0
			var k *share.Keeper
			k = keeper(tt.slots, func(o *share.Options) {
				o.Ask = func(context.Context) error { asks++; answer(k, tt.slots); return nil }
			})
			stop := running(t, k)
			holds(t, k, true, tt.slots)
			began := time.Now()
			_, err := k.Acquire(t.Context(), upstream, true)
			var refused *share.Full
			if !errors.As(err, &refused) || asks != tt.asks {
				t.Errorf("%d slots: got %v after %d questions; want a *Full after %d", tt.slots, err, asks, tt.asks)
			}
			if d := time.Since(began); d > 10*time.Millisecond {
				t.Errorf("%d slots: refused after %s", tt.slots, d)
			}
			stop()
		})
	}
}

// A call that comes while a question is under way waits for the next one: the
// first did not ask for it.
func TestEachRealtimeCallIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := 0
		var k *share.Keeper
		k = keeper(0, func(o *share.Options) {
			o.Ask = func(context.Context) error {
				k.Uses()
				time.Sleep(50 * time.Millisecond)
				k.Settle([]store.TargetShare{{Target: upstream, Slots: slots}}, nil)
				slots++
				return nil
			}
		})
		stop := running(t, k)
		first := make(chan error, 1)
		go func() {
			_, err := k.Acquire(t.Context(), upstream, true)
			first <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if _, err := k.Acquire(t.Context(), upstream, true); err != nil {
			t.Errorf("got %v; want the slot that the next question brings", err)
		}
		if err := <-first; err == nil {
			t.Error("the first call got a slot; want it refused by the first answer")
		}
		stop()
	})
}

func TestOneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asks []store.TargetUse
		var k *share.Keeper
		k = keeper(0, func(o *share.Options) {
			o.Ask = func(context.Context) error { asks = append(asks, answer(k, 10)); return nil }
		})
		stop := running(t, k)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { holds(t, k, i%2 == 0, 1) })
			synctest.Wait()
		}
		wg.Wait()
		synctest.Wait()
		if len(asks) != 1 || asks[0].Want != 10 {
			t.Errorf("asked %+v; want once, for the whole limit", asks)
		}
		stop()
	})
}

func TestSpareSlotsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asks []store.TargetUse
		var k *share.Keeper
		k = keeper(8, func(o *share.Options) {
			o.Ask = func(context.Context) error {
				u := k.Uses()[0]
				asks = append(asks, u)
				k.Settle([]store.TargetShare{{Target: upstream, Slots: max(u.Keep, u.Want)}}, nil)
				return nil
			}
		})
		stop := running(t, k)
		for _, release := range holds(t, k, false, 8) {
			release()
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n := len(asks); n == 0 || n > 3 || asks[n-1].Keep+asks[n-1].Want != 0 {
			t.Errorf("asked %+v; want the share given back by a few heartbeats", asks)
		}
		before := len(asks)
		for range 100 { // a load that goes up and down about a mean costs few
			release := holds(t, k, false, 1)
			time.Sleep(10 * time.Millisecond)
			release[0]()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := len(asks) - before; n > 2 {
			t.Errorf("%d heartbeats for a steady load; want at most 2", n)
		}
		stop()
	})
}
