package storetest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var gateFireCases = []testCase{
	{"LimitsUnderFire", func(h *harness) { testFire(h, false) }},
	{"LimitsUnderFireWhileSet", func(h *harness) { testFire(h, true) }},
}

// fire is a fleet that does all at once: claims in several lanes of two tenants,
// some escalated, realtime requests, every way to end, workers that die.
type fire struct {
	*harness
	limits store.Limits
	ended  atomic.Int64
	most   atomic.Int64 // rows seen to own a slot of the gate
	looked atomic.Int64 // how often
	seen   sync.Map     // queue.ID and attempt of each claim
}

// fenced is what may be claimed once.
type fenced struct {
	id      queue.ID
	attempt int
}

var fireModels = []string{model, other}

func (f *fire) limit(of string, n int) {
	f.limits.Gates = append(f.limits.Gates, queue.Gate{Tenant: of, Cap: n, Reserve: queue.Reserve{Realtime: 1, Queued: 1}})
	for _, m := range fireModels {
		f.limits.Lanes = append(f.limits.Lanes, queue.Lane{Tenant: of, Model: m, Weight: 1, Cap: n - 1, Reserve: queue.Reserve{Queued: 1}})
	}
}

// testFire: no sample sees more than a cap running, or a counter that is not
// what the rows say, whatever goes on; nothing is claimed twice under an
// attempt; nothing that waits is left.
func testFire(h *harness, set bool) {
	const workers, each = 6, 25
	f := &fire{harness: h}
	f.limit("a", 5)
	f.limit("b", 3)
	h.limit(f.limits)
	for _, tenant := range []string{"a", "b"} {
		for _, m := range fireModels {
			h.enqueueMany(each, of(tenant, m))
			h.enqueueMany(each/5, of(tenant, m), within(30*time.Minute))
		}
	}
	want := int64(4 * (each + each/5))
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	var wg, side sync.WaitGroup
	side.Go(func() {
		for ctx.Err() == nil {
			f.sample(ctx, set)
		}
	})
	if set {
		side.Go(func() { f.setLimits(ctx) })
	}
	for i := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
			for ctx.Err() == nil && f.ended.Load() < want {
				f.live(ctx, r, want)
			}
		})
	}
	wg.Wait()
	cancel()
	side.Wait()
	if got := f.ended.Load(); got < want {
		h.Errorf("ended %d requests in %s, want %d", got, patience, want)
	}
	if f.most.Load() == 0 && f.looked.Load() > 5 {
		h.Error("no sample saw a request running")
	}
	f.reapAll()
	h.wantExact()
	for _, g := range h.stats().Gates {
		if g.Owned != 0 {
			h.Errorf("at the end: gate %s has %d running", g.Tenant, g.Owned)
		}
	}
}

// reapAll returns what dead workers left and no sweep has come to yet.
func (f *fire) reapAll() {
	f.Helper()
	f.reapUntil("freed all slots", 99, func(store.Swept) bool {
		for _, l := range f.stats().Lanes {
			if l.Owned > 0 {
				return false
			}
		}
		return true
	})
}

func (f *fire) sample(ctx context.Context, set bool) {
	s, err := f.d.Stats(ctx)
	if err != nil {
		return
	}
	f.looked.Add(1)
	if err := allExact(s); err != nil {
		f.Error(err)
	}
	for _, g := range s.Gates {
		f.most.Store(max(f.most.Load(), int64(g.Owned)))
		if !set && g.Owned > g.Cap {
			f.Errorf("gate %s: got %d running at a cap of %d", g.Tenant, g.Owned, g.Cap)
		}
		if queued := g.Owned - g.OwnedRealtime; !set && queued > g.Cap-g.Reserve.Realtime {
			f.Errorf("gate %s: got %d queued requests running, with %d of %d reserved", g.Tenant, queued, g.Reserve.Realtime, g.Cap)
		}
	}
	for _, l := range s.Lanes {
		if !set && l.Cap > 0 && l.Owned > l.Cap {
			f.Errorf("lane %s %s: got %d running at a cap of %d", l.Tenant, l.Model, l.Owned, l.Cap)
		}
	}
	if _, err := f.d.Sweep(ctx, store.SweepRequest{Reap: true, MaxReaps: 99}); err != nil && ctx.Err() == nil {
		f.Errorf("Sweep: %v", err)
	}
}

// setLimits sets, raises, lowers and removes caps and gates all the time.
func (f *fire) setLimits(ctx context.Context) {
	for round := 0; ctx.Err() == nil; round++ {
		l := f.limits
		if round%2 == 0 {
			l = store.Limits{Gates: []queue.Gate{{Tenant: "a", Cap: 2}, {Tenant: "b", Cap: 0}}, Lanes: []queue.Lane{{Tenant: "a", Model: model, Weight: 2}, {Tenant: "b", Model: other, Weight: 1, Cap: 9}}}
		}
		if err := f.d.SetLimits(ctx, l); err != nil && ctx.Err() == nil {
			f.Errorf("SetLimits: %v", err)
		}
	}
}

// live is the life of one worker. It ends by a leave or a death.
func (f *fire) live(ctx context.Context, r *rand.Rand, want int64) {
	p, err := f.d.Heartbeat(ctx, store.Beat{Host: "h", Lease: forever})
	if err != nil {
		return
	}
	for range 5 + r.IntN(15) {
		if ctx.Err() != nil || f.ended.Load() >= want {
			break
		}
		claims, err := f.d.Claim(ctx, store.ClaimRequest{
			Worker: p.Worker, Models: fireModels, N: 1 + r.IntN(4), Urgent: r.IntN(2), Window: forever,
			Escalate: map[string]queue.Escalation{model: {To: other, Within: forever}},
		})
		if err != nil {
			if ctx.Err() == nil {
				f.Errorf("Claim: %v", err)
			}
			return
		}
		for _, c := range claims {
			if _, twice := f.seen.LoadOrStore(fenced{c.ID, c.Attempt}, p.Worker); twice {
				f.Errorf("%s was claimed twice as attempt %d", c.ID, c.Attempt)
			}
			if f.end(ctx, c, r.IntN(8)) {
				f.ended.Add(1)
			}
		}
		f.realtime(ctx, p.Worker, []string{"a", "b"}[r.IntN(2)], fireModels[r.IntN(2)])
	}
	if r.IntN(3) == 0 && ctx.Err() == nil { // it dies, with what it holds
		f.die(ctx, p.Worker)
	}
}

// realtime runs one request as the host of its client does.
func (f *fire) realtime(ctx context.Context, worker int64, tenant, model string) {
	n := request(of(tenant, model), by(worker), path("/v1/embeddings"))
	err := f.try(store.Write{Insert: n})
	if errors.Is(err, queue.ErrAtCap) {
		return
	}
	if err == nil {
		err = f.try(complete(queue.Fence{ID: n.ID, Attempt: 1, State: queue.Processing}))
	}
	if err != nil && ctx.Err() == nil {
		f.Errorf("realtime request: %v", err)
	}
}

// die claims what it will not end, and lets its lease run out.
func (f *fire) die(ctx context.Context, worker int64) {
	claims, err := f.d.Claim(ctx, store.ClaimRequest{Worker: worker, Models: fireModels, N: 2})
	if err != nil {
		return
	}
	for _, c := range claims {
		f.seen.Store(fenced{c.ID, c.Attempt}, worker)
	}
	if _, err := f.d.Heartbeat(ctx, store.Beat{Worker: worker, Lease: -time.Second}); err != nil && ctx.Err() == nil {
		f.Errorf("Heartbeat: %v", err)
	}
}
