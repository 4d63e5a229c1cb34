package storetest

import (
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var reserveCases = []testCase{
	{"LaneReserves", func(h *harness) {
		testReserves(h, func(n int, r queue.Reserve) {
			h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: n, Reserve: r})
		})
	}},
	{"LaneReserveIsLent", testLaneReserveLent},
	{"GateReserves", func(h *harness) { testReserves(h, func(n int, r queue.Reserve) { h.gated(n, r) }) }},
	{"GateReserveCountsAllLanes", testGateReserveLanes},
	{"ReserveSetLater", testReserveSetLater},
	{"ReserveIsNotStarved", testReserveTurns},
}

// testReserves: neither kind of request keeps the other out, and each may use
// what the other does not need.
func testReserves(h *harness, set func(limit int, r queue.Reserve)) {
	w := h.worker()
	set(4, queue.Reserve{Realtime: 2, Queued: 1})
	h.enqueueMany(9)
	queued := h.wantClaims("a full backlog", w, 9, 2)
	a := h.mustAdmit(w, model)
	h.wantClaims("one reserved slot in use", w, 9, 0)
	h.mustAdmit(w, model)
	h.refused(w, model)
	h.wantExact()
	h.must(complete(a))
	h.wantClaims("a reserved slot was freed", w, 9, 0)
	h.finish(queued[0])
	h.wantClaims("a slot of all was freed", w, 9, 1)
	h.mustAdmit(w, model)
	h.refused(w, model)
	h.wantExact()
}

// testLaneReserveLent: realtime requests may take what is reserved for queued
// ones while there are none.
func testLaneReserveLent(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 3, Reserve: queue.Reserve{Queued: 2}})
	full := []queue.Fence{h.mustAdmit(w, model), h.mustAdmit(w, model), h.mustAdmit(w, model)}
	h.refused(w, model)
	h.enqueueMany(3)
	for i, f := range full {
		h.must(complete(f))
		if i < 2 {
			h.refused(w, model) // it is lent no longer
			h.wantClaims("a slot that was lent", w, 9, 1)
		}
	}
	h.mustAdmit(w, model)
	h.refused(w, model)
	h.wantExact()
}

// testGateReserveLanes: a gate keeps slots for what is queued in any of its
// lanes.
func testGateReserveLanes(h *harness) {
	w := h.worker()
	h.gated(3, queue.Reserve{Queued: 1})
	full := []queue.Fence{h.mustAdmit(w, model), h.mustAdmit(w, model), h.mustAdmit(w, other)}
	h.refused(w, model)
	h.must(complete(full[0]))
	f := h.mustAdmit(w, model) // nothing is queued: all slots are for all
	h.enqueue(of(tenant, other))
	h.wantClaims("full", w, 9, 0, model, other)
	h.must(complete(f))
	h.refused(w, model) // the slot is kept for what is queued in the other lane
	h.refused(w, other)
	c := h.wantClaims("the slot that was kept", w, 9, 1, model, other)
	h.refused(w, model)
	if len(c) == 1 {
		h.finish(c[0])
	}
	h.mustAdmit(w, model)
	h.wantExact()
}

func testReserveSetLater(h *harness) {
	w := h.worker()
	h.enqueueMany(9)
	h.mustAdmit(w, model)
	h.mustAdmit(w, model)
	h.wantClaims("no cap", w, 2, 2)
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 6, Reserve: queue.Reserve{Realtime: 3}})
	h.wantExact()
	if l := h.lane(); l.Running != 4 || l.Realtime != 2 || l.Reserve.Realtime != 3 {
		h.Errorf("lane: got %+v", l)
	}
	h.wantClaims("6 less 3 less 2 queued", w, 9, 1)
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 6})
	h.wantClaims("no reserve", w, 9, 1)
	h.wantExact()
}

// testReserveTurns: realtime requests that come without end do not keep what is
// queued from its slot, nor the other way round.
func testReserveTurns(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 3, Reserve: queue.Reserve{Realtime: 1, Queued: 1}})
	var fences []queue.Fence
	for len(fences) < 3 {
		fences = append(fences, h.mustAdmit(w, model))
	}
	h.enqueueMany(10)
	served := 0
	for range 8 {
		h.must(complete(fences[0]))
		fences = fences[1:]
		for {
			f, err := h.admit(w, model)
			if err != nil {
				break
			}
			fences = append(fences, f)
		}
		for _, c := range h.claimN(w, 9) {
			served++
			h.start(c)
			fences = append(fences, queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Processing})
		}
		if l := h.lane(); l.Owned > 3 || l.Owned < 2 {
			h.Fatalf("got %d running of 3", l.Owned)
		}
	}
	if served < 3 {
		h.Errorf("got %d queued requests served in 8 rounds, want about a third", served)
	}
	if l := h.lane(); l.OwnedRealtime < 1 {
		h.Errorf("got %d realtime requests running, want at least one", l.OwnedRealtime)
	}
	h.wantExact()
	h.must(store.Write{Insert: request(of("neighbour", model), by(w))})
}
