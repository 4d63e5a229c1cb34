package storetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var claimCases = []testCase{
	{"ClaimInOrder", testClaimOrder},
	{"ClaimOnlyModelsAskedFor", testClaimModels},
	{"ClaimRemaining", testClaimRemaining},
	{"ClaimFillsUp", testClaimFillsUp},
	{"ClaimOnceByConcurrentClaimers", testClaimOnce},
	{"ClaimByWeight", testClaimWeight},
	{"WhaleDelaysNobody", testWhale},
	{"IdleLaneSavesNoCredit", testNoCredit},
}

func testClaimOrder(h *harness) {
	w := h.worker()
	late := h.enqueue(func(n *queue.New) { n.DeadlineIn = 3 * time.Hour })
	soon := h.enqueue(func(n *queue.New) { n.DeadlineIn = 2 * time.Hour })
	first, second := h.enqueue(), h.enqueue()
	for i, want := range []queue.ID{first, second, soon, late} {
		if c := h.claim(w); c.ID != want {
			h.Errorf("claim %d: got %s, want %s", i, c.ID, want)
		}
	}
	if l := h.lane(); l.Ready {
		h.Error("an empty lane is ready")
	}
}

func testClaimModels(h *harness) {
	w := h.worker()
	a, b := h.enqueue(of(tenant, "model-b")), h.enqueue(of(tenant, "model-c"))
	h.enqueue()
	got := map[queue.ID]string{}
	for _, c := range h.claimN(w, 10, "model-b", "model-c", "model-d") {
		got[c.ID] = c.Model
	}
	if len(got) != 2 || got[a] != "model-b" || got[b] != "model-c" {
		h.Errorf("got %v", got)
	}
	if got := h.claimN(w, 10, "model-b"); len(got) != 0 {
		h.Errorf("got %d claims, want 0", len(got))
	}
}

func testClaimRemaining(h *harness) {
	h.enqueue(func(n *queue.New) { n.DeadlineIn = time.Hour })
	if c := h.claim(h.worker()); c.Remaining <= 59*time.Minute || c.Remaining > time.Hour || c.Age < 0 || c.Age > time.Minute {
		h.Errorf("got remaining %s, age %s", c.Remaining, c.Age)
	}
}

// testClaimFillsUp: a lane with less than its share leaves the rest to others.
func testClaimFillsUp(h *harness) {
	w := h.worker()
	for i := range 3 {
		h.enqueue(of(fmt.Sprintf("small-%d", i), model))
	}
	h.enqueueMany(50, of("big", model))
	h.enqueueMany(10, of("big", "model-b"))
	if got := h.claimN(w, 40, model, "model-b"); len(got) != 40 {
		h.Errorf("got %d claims, want 40", len(got))
	}
	if got := h.claimN(w, 40, model, "model-b"); len(got) != 23 {
		h.Errorf("got %d claims, want the 23 that were left", len(got))
	}
}

func testClaimOnce(h *harness) {
	const workers, lanes, each = 8, 5, 60
	for i := range lanes {
		h.enqueueMany(each, of(fmt.Sprintf("tenant-%d", i), model))
	}
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	var mu sync.Mutex
	seen := map[queue.ID]int{}
	var wg sync.WaitGroup
	for range workers {
		w := h.worker()
		wg.Go(func() {
			for ctx.Err() == nil {
				claims, err := h.d.Claim(ctx, store.ClaimRequest{Worker: w, Models: []string{model}, N: 7})
				if err != nil {
					h.Errorf("Claim: %v", err)
					return
				}
				mu.Lock()
				for _, c := range claims {
					seen[c.ID]++
				}
				done := len(seen) == lanes*each
				mu.Unlock()
				if done {
					return
				}
				if len(claims) == 0 {
					// A lane that another claim holds is passed over, and one that
					// slept through an insert is healed by the sweep.
					if _, err := h.d.Sweep(ctx, store.SweepRequest{}); err != nil {
						h.Errorf("Sweep: %v", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if len(seen) != lanes*each {
		h.Errorf("got %d requests claimed, want %d", len(seen), lanes*each)
	}
	for id, n := range seen {
		if n != 1 {
			h.Errorf("%s was claimed %d times", id, n)
		}
	}
}

func testClaimWeight(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: "light", Model: model, Weight: 1}, queue.Lane{Tenant: "heavy", Model: model, Weight: 3})
	h.enqueueMany(400, of("light", model))
	h.enqueueMany(400, of("heavy", model))
	for _, n := range []int{1, 3, 10} {
		got := map[string]int{}
		for total := 0; total < 120; {
			claims := h.claimN(w, n)
			if len(claims) == 0 {
				h.Fatal("Claim: got nothing")
			}
			for _, c := range claims {
				got[c.Tenant]++
			}
			total += len(claims)
		}
		if share := float64(got["heavy"]) / float64(got["light"]+got["heavy"]); share < 0.68 || share > 0.82 {
			h.Errorf("claims of %d: got %v, want heavy to have 3 of 4", n, got)
		}
	}
}

func testWhale(h *harness) {
	w := h.worker()
	h.enqueueMany(500, of("whale", model))
	h.claimN(w, 50)
	minnow := h.enqueue(of("minnow", model))
	for _, c := range h.claimN(w, 5) {
		if c.ID == minnow {
			return
		}
	}
	h.Error("a fresh tenant's first request was not in the next claim")
}

// testNoCredit: a lane that was idle while others were served does not then
// keep them from being served.
func testNoCredit(h *harness) {
	w := h.worker()
	for range 5 {
		h.enqueueMany(40, of("busy", model))
		h.claimN(w, 40)
	}
	h.enqueueMany(200, of("fresh", model))
	h.enqueueMany(20, of("busy", model))
	got := map[string]int{}
	for range 30 {
		got[h.claim(w).Tenant]++
	}
	if got["busy"] < 12 {
		h.Errorf("got %v, want about half each", got)
	}
}
