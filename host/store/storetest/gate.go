package storetest

import (
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var gateCases = []testCase{
	{"GateHoldsAcrossLanes", testGateLanes},
	{"GateSlotFreedWakesItsLanes", testGateWakes},
	{"GateRefusesRealtime", testGateRealtime},
	{"GateFullCostsNothing", testGateParked},
	{"GateIsReaped", testGateReaped},
	{"GateSetWhileWorkRuns", testGateSetLater},
	{"GateAndLaneCap", testGateAndCap},
	{"GateOfDeletedRequest", testGateDeleted},
}

const other = "model-b"

func testGateLanes(h *harness) {
	h.gated(3)
	w := h.worker()
	h.enqueueMany(5)
	h.enqueueMany(5, of(tenant, other))
	h.enqueueMany(2, of("neighbour", model))
	if got := tally(h.claimN(w, 20, model, other)); got[tenant] != 3 || got["neighbour"] != 2 {
		h.Errorf("got %v, want 3 of the gated tenant and all of its neighbour", got)
	}
	h.wantClaims("at the gate", w, 20, 0, model, other)
	if g := h.gate(); g.Running != 3 || g.Owned != 3 || g.Cap != 3 || g.Realtime != 0 {
		h.Errorf("gate: got %+v", g)
	}
	h.wantExact()
}

// testGateWakes: in whatever way a slot is freed, the next claim finds it,
// without a sweep.
func testGateWakes(h *harness) {
	const limit = 2
	h.gated(limit)
	w := h.worker()
	h.enqueueMany(20)
	h.enqueueMany(20, of(tenant, other))
	claims := h.wantClaims("first", w, 9, limit, model, other)
	for _, free := range []struct {
		name string
		run  func(c queue.Claim)
	}{
		{"completed", h.finish},
		{"failed", func(c queue.Claim) { h.must(move(h.start(c).Fence(), queue.Failed, queue.ByOutcome)) }},
		{"handed back when claimed", func(c queue.Claim) { h.must(move(c.Fence(), queue.Pending, queue.ByHandBack)) }},
		{"handed back", func(c queue.Claim) { h.must(move(h.start(c).Fence(), queue.Pending, queue.ByHandBack)) }},
		{"put off", func(c queue.Claim) {
			w := move(h.start(c).Fence(), queue.Waiting, queue.ByRetry)
			w.Move.Delay = forever
			h.must(w)
		}},
		{"let go", func(c queue.Claim) {
			h.cancel(c.ID)
			h.wantClaims("canceled and not let go", w, 9, 0, model, other)
			h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Canceled}, LetGo: true})
		}},
	} {
		h.wantClaims("full", w, 9, 0, model, other)
		free.run(claims[0])
		claims = append(claims[1:], h.wantClaims(free.name, w, 9, 1, model, other)...)
		h.wantExact()
		if h.Failed() {
			return
		}
	}
}

func testGateRealtime(h *harness) {
	h.gated(3)
	w := h.worker()
	a := h.mustAdmit(w, model)
	h.enqueue(of(tenant, other))
	h.wantClaims("beside a realtime request", w, 9, 1, other)
	h.mustAdmit(w, other)
	if at := h.refused(w, model); !at.Gate || at.Tenant != tenant || at.Wait != 0 {
		h.Errorf("got %+v, want the gate", at)
	}
	if g := h.gate(); g.Running != 3 || g.Realtime != 2 || g.OwnedRealtime != 2 {
		h.Errorf("gate: got %+v", g)
	}
	h.must(complete(a))
	b := h.mustAdmit(w, other)
	h.wantExact()
	// One of another tenant, and one that is over in the write that begins it.
	h.must(store.Write{Insert: request(of("neighbour", model), by(w))})
	h.must(complete(b))
	over := complete(queue.Fence{})
	over.Insert = request(by(w))
	h.must(over)
	h.wantExact()
	h.enqueue()
	h.wantClaims("the slot of the last", w, 9, 1)
	two := []store.Write{{Insert: request(by(w))}, {Insert: request(of(tenant, other), by(w))}}
	results, err := h.d.Write(h.Context(), two)
	if err != nil || results[0] == nil || results[1] == nil {
		h.Errorf("two in a batch at a full gate: got %v, %v", results, err)
	}
	h.wantExact()
}

// testGateParked: lanes that wait for their gate are out of the way.
func testGateParked(h *harness) {
	h.gated(1)
	w := h.worker()
	models := []string{model, other, "model-c"}
	for _, m := range models {
		h.enqueueMany(3, of(tenant, m))
	}
	for range 4 {
		h.claimN(w, 9, models...)
	}
	for _, m := range models {
		if l := h.laneOf(tenant, m); !l.Ready || !l.Parked || l.Wait != 0 {
			h.Errorf("lane of %s: got ready %t, parked %t for %s, want it parked for a slot", m, l.Ready, l.Parked, l.Wait)
		}
	}
	h.enqueueMany(1) // what joins a lane that waits does not wake it
	if l := h.lane(); !l.Parked {
		h.Error("an insert woke a gated lane")
	}
	h.sweep()
	if l := h.lane(); !l.Parked {
		h.Error("a sweep woke a gated lane")
	}
	h.wantClaims("full", w, 9, 0, models...)
}

func testGateReaped(h *harness) {
	h.gated(3)
	w := h.worker()
	h.enqueueMany(4)
	h.enqueueMany(4, of(tenant, other))
	held := h.wantClaims("first", w, 9, 3, model, other)
	h.cancel(held[0].ID)
	h.kill(w)
	h.reapUntil("freed the gate", 3, func(store.Swept) bool { return h.gate().Owned == 0 })
	h.wantExact()
	h.sweep()
	h.wantClaims("after the reap", h.worker(), 9, 3, model, other)
	h.wantExact()
}

func testGateSetLater(h *harness) {
	w := h.worker()
	h.enqueueMany(20)
	h.enqueueMany(20, of(tenant, other))
	h.mustAdmit(w, model)
	claims := h.wantClaims("without a gate", w, 5, 5, model, other)
	h.cancel(claims[0].ID)
	h.gated(6)
	if g := h.gate(); g.Running != 6 || g.Realtime != 1 {
		h.Errorf("a gate set later: got %+v, want 6 running, 1 of them realtime", g)
	}
	h.wantExact()
	h.wantClaims("at it", w, 9, 0, model, other)
	h.gated(8)
	claims = append(claims[1:], h.wantClaims("raised by two", w, 9, 2, model, other)...)
	h.gated(2)
	for _, c := range claims[:4] {
		h.finish(c)
		h.wantClaims("above a lowered gate", w, 9, 0, model, other)
	}
	h.wantExact()
	h.gated(0)
	if got := h.stats().Gates; len(got) != 0 {
		h.Errorf("a gate of 0: got %+v, want none", got)
	}
	h.wantClaims("without it", w, 9, 9, model, other)
	h.wantExact()
}

// testGateAndCap: the lower of the two holds, and each is let go of alone.
func testGateAndCap(h *harness) {
	w := h.worker()
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: tenant, Model: model, Weight: 1, Cap: 2}},
		Gates: []queue.Gate{{Tenant: tenant, Cap: 3}},
	})
	h.enqueueMany(9)
	h.enqueueMany(9, of(tenant, other))
	got := h.wantClaims("both", w, 9, 3, model, other)
	n := 0
	for _, c := range got {
		if c.Model == model {
			n++
		}
	}
	if n > 2 {
		h.Errorf("got %d of the capped lane, want 2 at most", n)
	}
	h.gated(0)
	h.wantClaims("only the cap", w, 99, 2-n+9-(3-n), model, other)
	h.wantExact()
	if at := h.refused(w, model); at.Gate || at.Model != model {
		h.Errorf("got %+v, want the lane", at)
	}
}

// testGateDeleted: a request that its user deletes keeps its slot until its
// worker let go.
func testGateDeleted(h *harness) {
	h.gated(1)
	w := h.worker()
	c := h.running(w)
	h.enqueue(of(tenant, other))
	h.cancel(c.ID)
	if err := h.d.Delete(h.Context(), "", c.ID); err != nil {
		h.Fatalf("Delete: %v", err)
	}
	h.wantClaims("deleted and not let go", w, 9, 0, model, other)
	h.wantExact()
	h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	h.wantExact()
	h.wantClaims("let go", w, 9, 1, model, other)
}
