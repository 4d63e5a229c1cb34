package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var capCases = []testCase{
	{"CapHoldsForClaims", testCapClaims},
	{"CapHoldsForInserts", testCapInserts},
	{"CapSetLater", testCapSetLater},
	{"CapNeverExceeded", testCapNeverExceeded},
	{"CapSetWhileWorkRuns", testCapSetConcurrently},
}

func testCapClaims(h *harness) {
	h.capped(3)
	w := h.worker()
	h.enqueueMany(10)
	claims := h.claimN(w, 10)
	if len(claims) != 3 {
		h.Fatalf("got %d claims, want 3", len(claims))
	}
	if got := h.claimN(w, 10); len(got) != 0 {
		h.Errorf("at the cap: got %d claims", len(got))
	}
	h.wantExact()
	h.must(complete(h.start(claims[0]).Fence()))
	if got := h.claimN(w, 10); len(got) != 1 {
		h.Errorf("one slot free: got %d claims, want 1", len(got))
	}
	h.wantExact()
}

func testCapInserts(h *harness) {
	h.capped(2)
	w := h.worker()
	id := h.enqueue(by(w))
	h.enqueue()
	h.claim(w)
	n := request(by(w))
	if err := h.write(store.Write{Insert: n}); !errors.Is(err, queue.ErrAtCap) {
		h.Fatalf("at the cap: got %v, want ErrAtCap", err)
	}
	if _, err := h.d.Get(h.Context(), "", n.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("a refused insert is there: %v", err)
	}
	h.must(complete(queue.Fence{ID: id, Attempt: 1, State: queue.Processing}))
	a, b := request(by(w)), request(by(w))
	results, err := h.d.Write(h.Context(), []store.Write{{Insert: a}, {Insert: b}})
	if err != nil || results[0] != nil || !errors.Is(results[1], queue.ErrAtCap) {
		h.Errorf("two for one slot: got %v, %v", results, err)
	}
	h.wantExact()
}

func testCapSetLater(h *harness) {
	w := h.worker()
	h.enqueueMany(6)
	claims := h.claimN(w, 4)
	h.cancel(h.start(claims[0]).ID)
	if l := h.lane(); l.Running != 0 || l.Owned != 4 {
		h.Errorf("uncapped: got %+v", l)
	}
	h.capped(4)
	h.wantExact()
	if got := h.claimN(w, 5); len(got) != 0 {
		h.Errorf("got %d claims beyond a cap set later", len(got))
	}
	h.capped(5)
	if got := h.claimN(w, 5); len(got) != 1 {
		h.Errorf("cap raised by one: got %d claims", len(got))
	}
	h.capped(2)
	for _, c := range claims[1:] {
		h.must(complete(h.start(c).Fence()))
	}
	h.wantExact()
	h.capped(0)
	h.wantExact()
	if got := h.claimN(w, 5); len(got) != 1 {
		h.Errorf("cap removed: got %d claims, want the last one", len(got))
	}
	h.must(store.Write{Fence: queue.Fence{ID: claims[0].ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	h.wantExact()
}

// hammer runs workers that claim, start and end requests of the default lane in
// every way, until n were ended.
func (h *harness) hammer(workers, n int, alongside func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	var ended atomic.Int64
	var wg, side sync.WaitGroup
	side.Go(func() {
		for ctx.Err() == nil {
			alongside(ctx)
		}
	})
	for i := range workers {
		w := h.worker()
		wg.Go(func() {
			for round := i; ctx.Err() == nil && ended.Load() < int64(n); round++ {
				claims, err := h.d.Claim(ctx, store.ClaimRequest{Worker: w, Models: []string{model}, N: 3})
				if err != nil {
					h.Errorf("Claim: %v", err)
					return
				}
				for k, c := range claims {
					if h.end(ctx, c, round+k) {
						ended.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	cancel()
	side.Wait()
	if got := ended.Load(); got < int64(n) {
		h.Errorf("ended %d requests in %s, want %d", got, patience, n)
	}
}

// end ends a claim in one of four ways and reports whether the request ended.
func (h *harness) end(ctx context.Context, c queue.Claim, way int) bool {
	running := c.Fence()
	running.State = queue.Processing
	writes := []store.Write{move(c.Fence(), queue.Processing, queue.ByStart)}
	final := false
	switch way % 4 {
	case 0, 1:
		writes, final = append(writes, complete(running)), true
	case 2:
		writes = append(writes, move(running, queue.Pending, queue.ByHandBack))
	case 3:
		if _, _, err := h.d.Cancel(ctx, "", c.ID, ""); err != nil {
			h.Errorf("Cancel: %v", err)
		}
		running.State = queue.Canceled
		writes, final = []store.Write{{Fence: running, LetGo: true}}, true
	}
	results, err := h.d.Write(ctx, writes)
	if err = errors.Join(append(results, err)...); err != nil {
		h.Errorf("Write: %v", err)
	}
	return final
}

func testCapNeverExceeded(h *harness) {
	const limit = 5
	h.capped(limit)
	h.enqueueMany(150)
	most, samples := 0, 0
	h.hammer(8, 150, func(ctx context.Context) {
		s, err := h.d.Stats(ctx)
		if err != nil {
			return
		}
		samples++
		for _, l := range s.Lanes {
			most = max(most, l.Owned)
			if l.Owned > limit {
				h.Errorf("got %d running at a cap of %d", l.Owned, limit)
			}
			if err := exact(l); err != nil {
				h.Error(err)
			}
		}
		if _, err := h.d.Sweep(ctx, store.SweepRequest{Reap: true, Grace: forever}); err != nil && ctx.Err() == nil {
			h.Errorf("Sweep: %v", err)
		}
	})
	if most == 0 && samples > 5 {
		h.Error("no sample saw a request running")
	}
	h.wantExact()
	if l := h.lane(); l.Running != 0 {
		h.Errorf("at the end: got %d running, want 0", l.Running)
	}
}

// testCapSetConcurrently: a cap set while claims and completions are under way
// counts each of them once.
func testCapSetConcurrently(h *harness) {
	h.enqueueMany(120)
	round := 0
	h.hammer(6, 120, func(ctx context.Context) {
		round++
		l := queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: []int{0, 4, 0, 9}[round%4]}
		if err := h.d.SetLimits(ctx, store.Limits{Lanes: []queue.Lane{l}}); err != nil && ctx.Err() == nil {
			h.Errorf("SetLimits: %v", err)
		}
		if _, err := h.d.Sweep(ctx, store.SweepRequest{}); err != nil && ctx.Err() == nil {
			h.Errorf("Sweep: %v", err) // it heals a lane that slept through a hand-back
		}
		s, err := h.d.Stats(ctx)
		if err != nil {
			return
		}
		for _, l := range s.Lanes {
			if err := exact(l); err != nil {
				h.Error(err)
			}
		}
	})
	h.wantExact()
}
