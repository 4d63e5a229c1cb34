package storetest

import (
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var wakeCases = []testCase{
	{"InsertRacedAgainstLastClaim", testWakeInsert},
	{"HandBackRacedAgainstLastClaim", testWakeHandBack},
	{"SlotFreedRacedAgainstGatedClaim", testWakeGate},
	{"GateLiftedRacedAgainstGatedClaim", testWakeLifted},
	{"NothingSleepsForEver", testWakeSweep},
}

// testWakeInsert: a request that joins a lane while a claim empties it is found
// after one sweep at the latest.
func testWakeInsert(h *harness) {
	w := h.worker()
	for round := range rounds {
		h.enqueue()
		n := request()
		var err error
		var got []queue.Claim
		race(round, func() { err = h.try(store.Write{Insert: n}) }, func() { got, _ = h.d.Claim(h.Context(), store.ClaimRequest{Worker: w, Models: []string{model}, N: 2}) })
		if err != nil {
			h.Fatalf("Write: %v", err)
		}
		h.sweep()
		got = append(got, h.claimN(w, 2)...)
		if len(got) != 2 {
			h.Fatalf("round %d: got %d of 2 claims after a sweep", round, len(got))
		}
	}
}

func testWakeHandBack(h *harness) {
	h.capped(3)
	w := h.worker()
	for round := range rounds {
		c := h.running(w)
		h.enqueue()
		var err error
		var got []queue.Claim
		race(round, func() { err = h.try(move(c.Fence(), queue.Pending, queue.ByHandBack)) }, func() { got, _ = h.d.Claim(h.Context(), store.ClaimRequest{Worker: w, Models: []string{model}, N: 2}) })
		if err != nil {
			h.Fatalf("Write: %v", err)
		}
		h.sweep()
		got = append(got, h.claimN(w, 2)...)
		if len(got) != 2 {
			h.Fatalf("round %d: got %d of 2 claims after a sweep", round, len(got))
		}
		for _, c := range got {
			h.finish(c)
		}
	}
	h.wantExact()
}

// testWakeGate: a slot that is freed while a claim finds the gate full is given
// away after one sweep at the latest.
func testWakeGate(h *harness) {
	h.gated(1)
	w := h.worker()
	models := []string{model, other}
	for round := range rounds {
		h.enqueue(of(tenant, models[round%2]))
		c := h.start(h.wantClaims("first", w, 1, 1, models...)[0])
		h.enqueue(of(tenant, models[(round/2)%2]))
		var err error
		var got []queue.Claim
		race(round, func() { err = h.try(complete(c.Fence())) }, func() { got, _ = h.d.Claim(h.Context(), store.ClaimRequest{Worker: w, Models: models, N: 2}) })
		if err != nil {
			h.Fatalf("Write: %v", err)
		}
		h.sweep()
		got = append(got, h.claimN(w, 2, models...)...)
		if len(got) != 1 {
			h.Fatalf("round %d: got %d claims after a sweep, want 1", round, len(got))
		}
		h.finish(got[0])
	}
	h.wantExact()
}

// testWakeLifted: the same, when it is the gate that goes.
func testWakeLifted(h *harness) {
	w := h.worker()
	for round := range rounds / 2 {
		h.gated(1)
		h.enqueueMany(2)
		var got []queue.Claim
		race(round, func() {
			if err := h.d.SetLimits(h.Context(), store.Limits{Gates: []queue.Gate{{Tenant: tenant}}}); err != nil {
				h.Errorf("SetLimits: %v", err)
			}
		}, func() { got, _ = h.d.Claim(h.Context(), store.ClaimRequest{Worker: w, Models: []string{model}, N: 2}) })
		h.sweep()
		got = append(got, h.claimN(w, 2)...)
		if len(got) != 2 {
			h.Fatalf("round %d: got %d of 2 claims after the gate went", round, len(got))
		}
		for _, c := range got {
			h.finish(c)
		}
	}
	h.wantExact()
}

// testWakeSweep: whatever raced, after one sweep every lane that has a claimable
// request and room is claimed from.
func testWakeSweep(h *harness) {
	h.setLanes(queue.Lane{Tenant: "a", Model: model, Weight: 1, Cap: 2})
	h.limit(store.Limits{Gates: []queue.Gate{{Tenant: "b", Cap: 2}}})
	for round := range 6 {
		w := h.worker()
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				for k := range 4 {
					if err := h.try(store.Write{Insert: request(of([]string{"a", "b", "c"}[(i+k)%3], model))}); err != nil {
						h.Errorf("Write: %v", err)
					}
					claims, err := h.d.Claim(h.Context(), store.ClaimRequest{Worker: w, Models: []string{model}, N: 2})
					if err != nil {
						h.Errorf("Claim: %v", err)
					}
					for _, c := range claims {
						h.end(h.Context(), c, i+k)
					}
				}
			})
		}
		wg.Wait()
		for pending := 1; pending > 0; {
			h.sweep()
			got := h.claimN(w, 100)
			for _, c := range got {
				h.finish(c)
			}
			pending = h.stats().States[queue.Pending]
			if len(got) == 0 && pending > 0 {
				h.Fatalf("round %d: %d requests are pending, and a claim after a sweep got none", round, pending)
			}
		}
		h.wantExact()
	}
}
