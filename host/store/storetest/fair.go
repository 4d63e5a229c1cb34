package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var fairCases = []testCase{
	{"FairWithinOneQuantum", testFairQuantum},
	{"FairWithinOneQuantumByWeight", testFairWeights},
	{"LoneTenantGetsAll", testLone},
	{"WhaleOfTenThousand", testBigWhale},
	{"EarlierDeadlineFirst", testDeadlineOrder},
	{"WokenLaneStartsAtTheMinimum", testWokenAtMinimum},
	{"NothingIsLeftWhileWorkWaits", testWorkConserving},
	{"EveryModelGetsItsTurn", testModelTurns},
}

// quantum is the most that one of k equal lanes is served at once by a claim of n.
func quantum(n, k int) int { return max((n+k-1)/k, min(n, 5)) }

// testFairQuantum: what equal tenants that always have work were served differs
// by one quantum at most, after each claim and whatever the claims' sizes.
func testFairQuantum(h *harness) {
	const k = 4
	w := h.worker()
	for i := range k {
		h.enqueueMany(150, of(fmt.Sprint("equal-", i), model))
	}
	served := map[string]int{}
	most := 0
	for total := 0; total < 400; {
		n := []int{1, 1, 3, 7, 20}[rand.IntN(5)]
		most = max(most, quantum(n, k))
		claims := h.wantClaims("a backlog", w, n, n)
		total += len(claims)
		for _, c := range claims {
			served[c.Tenant]++
		}
		least, top := 400, 0
		for i := range k {
			got := served[fmt.Sprint("equal-", i)]
			least, top = min(least, got), max(top, got)
		}
		if top-least > most {
			h.Fatalf("after a claim of %d: got %v, want them apart by %d at most", n, served, most)
		}
	}
}

// testFairWeights: the same, of virtual time, for lanes of any weight.
func testFairWeights(h *harness) {
	weights := map[string]float64{"light": 1, "middle": 2, "heavy": 5}
	w := h.worker()
	for name, weight := range weights {
		h.setLanes(queue.Lane{Tenant: name, Model: model, Weight: weight})
		h.enqueueMany(300, of(name, model))
	}
	served := map[string]float64{}
	for range 40 {
		for name, n := range tally(h.wantClaims("a backlog", w, 8, 8)) {
			served[name] += float64(n) / weights[name]
		}
		values := []float64{served["light"], served["middle"], served["heavy"]}
		if apart := slices.Max(values) - slices.Min(values); apart > 5 {
			h.Fatalf("got a normalized service of %v, apart by %g", served, apart)
		}
	}
}

func testLone(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: "lone", Model: model, Weight: 0.01})
	h.enqueueMany(2, of("gone", model))
	h.claimN(w, 2)
	h.enqueueMany(60, of("lone", model))
	for _, n := range []int{1, 9, 50} {
		h.wantClaims("alone", w, n, n)
	}
	h.wantClaims("nothing left", w, 5, 0)
}

// testBigWhale: a backlog of one tenant, however long, does not delay another.
func testBigWhale(h *harness) {
	w := h.worker()
	h.enqueueMany(10_000, of("whale", model))
	for i, n := range []int{5, 2, 20} {
		h.claimN(w, 50)
		minnow := h.enqueue(of(fmt.Sprint("minnow-", i), model))
		if got := h.claimN(w, n); !slices.ContainsFunc(got, func(c queue.Claim) bool { return c.ID == minnow }) {
			h.Errorf("a claim of %d: got %v without the first request of a fresh tenant", n, tally(got))
		}
	}
}

// testDeadlineOrder: whatever joins a lane, and in whatever way, the earliest
// deadline is claimed first.
func testDeadlineOrder(h *harness) {
	w := h.worker()
	type due struct {
		id queue.ID
		at time.Duration
	}
	var waits []due
	var running []queue.Claim
	at := map[queue.ID]time.Duration{}
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	for step := range 120 {
		switch {
		case len(running) > 0 && r.IntN(4) == 0: // it comes back with the order it had
			c := running[0]
			running = running[1:]
			h.must(move(c.Fence(), queue.Pending, queue.ByHandBack))
			waits = append(waits, due{c.ID, at[c.ID]})
		case len(running) > 0 && r.IntN(4) == 0:
			c := running[0]
			running = running[1:]
			h.must(move(h.start(c).Fence(), queue.Waiting, queue.ByRetry))
			h.sweep()
			waits = append(waits, due{c.ID, at[c.ID]})
		case r.IntN(2) == 0:
			d := time.Duration(120+r.IntN(10_000)) * time.Minute
			id := h.enqueue(within(d))
			at[id] = d
			waits = append(waits, due{id, d})
		}
		if r.IntN(2) == 0 {
			continue
		}
		slices.SortStableFunc(waits, func(a, b due) int { return int(a.at/time.Minute - b.at/time.Minute) })
		n := 1 + r.IntN(3)
		got := h.wantClaims("a lane", w, n, min(n, len(waits)))
		for i, c := range got {
			if at[c.ID] > waits[len(got)-1].at {
				h.Fatalf("step %d, claim %d of %d: got one due in %s, want %s", step, i, len(got), at[c.ID], waits[i].at)
			}
		}
		running = append(running, got...)
		waits = waits[len(got):]
	}
}

// testWokenAtMinimum: a lane that wakes up takes the least virtual time of
// those that compete, or its own where that is more.
func testWokenAtMinimum(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: "dear", Model: model, Weight: 0.01})
	h.enqueue(of("dear", model))
	h.wantClaims("the dear one", w, 1, 1) // costs 100
	h.enqueueMany(60, of("a", model))
	h.enqueueMany(60, of("b", model))
	h.claimN(w, 50)
	a, b := h.laneOf("a", model).VTime, h.laneOf("b", model).VTime
	least := min(a, b)
	if least < 20 {
		h.Fatalf("got virtual times %g and %g, want about 25 more than at the start", a, b)
	}
	h.enqueue(of("fresh", model))
	if got := h.laneOf("fresh", model).VTime; got < least {
		h.Errorf("fresh lane: got virtual time %g, want %g", got, least)
	}
	before := h.laneOf("dear", model).VTime
	h.enqueue(of("dear", model))
	if got := h.laneOf("dear", model).VTime; got < before || got < least {
		h.Errorf("lane that slept: got virtual time %g, had %g, want at least %g", got, before, least)
	}
}

// testWorkConserving: lanes that may not run leave all of a claim to those that may.
func testWorkConserving(h *harness) {
	w := h.worker()
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: "capped", Model: model, Weight: 50, Cap: 3}, {Tenant: "parked", Model: model, Weight: 50}},
		Gates: []queue.Gate{{Tenant: "gated", Cap: 2}},
	})
	park := move(h.running(w, of("parked", model)).Fence(), queue.Waiting, queue.ByRetry)
	park.Move.Park = forever
	h.must(park)
	for _, name := range []string{"capped", "parked", "gated"} {
		h.enqueueMany(50, of(name, model))
	}
	h.enqueueMany(20, of("gated", "model-b"))
	h.enqueue(of("small", model))
	h.enqueueMany(200, of("free", model))
	got := tally(h.wantClaims("a claim", w, 40, 40, model, "model-b"))
	if got["capped"] != 3 || got["gated"] != 2 || got["parked"] != 0 || got["small"] != 1 || got["free"] != 34 {
		h.Errorf("got %v, want 3 capped, 2 gated, none parked, 1 small and the rest free", got)
	}
	if got := tally(h.wantClaims("the next", w, 40, 40, model, "model-b")); got["free"] != 40 {
		h.Errorf("got %v, want all of the free lane", got)
	}
	h.wantExact()
}

// testModelTurns: a model with many lanes does not keep a host from serving
// another.
func testModelTurns(h *harness) {
	w := h.worker()
	for i := range 30 {
		h.enqueueMany(5, of(fmt.Sprint("t-", i), "model-b"))
	}
	h.enqueueMany(30, of("x", model))
	got := 0
	for range 20 {
		for _, c := range h.claimN(w, 2, model, "model-b") {
			if c.Model == model {
				got++
			}
		}
	}
	if got < 10 || got > 30 {
		h.Errorf("got %d of 40 claims for one of two models, want about half", got)
	}
}
