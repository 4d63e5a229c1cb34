package share_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
)

// TestNeverBeyondTheLimit runs random loads on several hosts whose heartbeats
// are slow, get lost on either way, and whose workers are reaped: the calls
// under way are never more than the target's limit. At the end, when nothing is
// in the way, one host gets all of it.
func TestNeverBeyondTheLimit(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { schedule(t, seed) })
		})
	}
}

func schedule(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex // of r, which goroutines share
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	long := func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return some(r)
	}
	f := newFleet(t, 1+draw(12))
	f.plain = draw(2) == 0
	ctx, stop := context.WithCancel(t.Context())
	var parts, load sync.WaitGroup
	calm := make(chan struct{})
	calmed := func() bool {
		select {
		case <-calm:
			return true
		default:
			return false
		}
	}
	reserve := queue.Reserve{}
	if f.limit > 2 {
		reserve = queue.Reserve{Realtime: draw(2), Queued: draw(2)}
	}
	hosts := make([]*host, 1+draw(4))
	for i := range hosts {
		hosts[i] = f.join(ctx, &parts, i, func(h *host, o *share.Options) {
			h.delay = func() time.Duration {
				if calmed() {
					return time.Millisecond
				}
				return long()
			}
			h.lose = func() bool { return !calmed() && draw(6) == 0 }
			o.Reserve = map[string]queue.Reserve{upstream: reserve}
		})
		load.Go(func() { hosts[i].work(draw, long) })
	}
	load.Go(func() {
		for worker := 100; worker < 110; worker++ {
			<-time.After(long() * 4)
			h := hosts[draw(len(hosts))]
			if h.idle() { // a host that was reaped had stopped its calls before
				h.renew(worker)
			}
		}
	})
	load.Wait()
	close(calm)
	<-time.After(20 * time.Second) // what nobody wants is given back
	if f.most == 0 {
		t.Error("no call was made")
	}
	var last sync.WaitGroup
	queued := f.limit - reserve.Realtime
	got := make(chan bool, queued)
	before := f.heartbeats()
	for range queued {
		last.Go(func() { got <- hosts[0].run(ctx, false, 30*time.Second) })
	}
	<-time.After(time.Second)
	if after := f.heartbeats(); after-before > 1+len(hosts) { // each may beat by itself meanwhile
		t.Errorf("%d heartbeats for one host to get the whole limit; want one", after-before)
	}
	last.Wait()
	for range queued {
		if !<-got {
			t.Error("a free slot was not given to who wanted it")
		}
	}
	stop()
	parts.Wait()
}

// work makes calls of both kinds, in bursts.
func (h *host) work(draw func(int) int, long func() time.Duration) {
	var wg sync.WaitGroup
	for range 30 {
		for range draw(8) {
			realtime, d := draw(3) == 0, long()
			wg.Go(func() {
				h.running(1)
				defer h.running(-1)
				ctx, cancel := context.WithTimeout(context.Background(), long()*10)
				defer cancel()
				h.run(ctx, realtime, d)
			})
		}
		<-time.After(3 * long())
	}
	wg.Wait()
}
