package storetest

import (
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var parkCases = []testCase{
	{"ParkKeepsTheLane", testPark},
	{"ParkWithEachOutcome", testParkOutcomes},
	{"ParkIsNeverShortened", testParkLonger},
	{"UnparkWhenDue", testUnpark},
	{"UnparkStartsAtTheMinimum", testUnparkTime},
	{"ParkOfALaneWithACap", testParkCap},
}

// parking is the last write of an attempt that was rate limited.
func parking(f queue.Fence, to queue.State, by queue.Cause, d time.Duration) store.Write {
	w := move(f, to, by)
	w.Move.Park = d
	return w
}

func testPark(h *harness) {
	w := h.worker()
	h.enqueueMany(5)
	h.enqueueMany(5, of("neighbour", model))
	h.enqueueMany(5, of(tenant, other))
	for _, c := range h.claimN(w, 2) {
		if c.Tenant == tenant {
			h.must(parking(h.start(c).Fence(), queue.Waiting, queue.ByRetry, forever))
		}
	}
	l := h.lane()
	if !l.Parked || !l.Ready || l.Wait > forever || l.Wait < forever-time.Minute {
		h.Fatalf("lane: got ready %t, parked %t for %s, want it parked for %s", l.Ready, l.Parked, l.Wait, forever)
	}
	for range 3 {
		h.sweep() // it promotes what waits, and does not end the park
		h.enqueue()
		if got := tally(h.claimN(w, 1)); got[tenant] != 0 {
			h.Fatal("a parked lane was claimed from")
		}
	}
	if at := h.refused(w, model); at.Gate || at.Model != model || at.Wait > forever || at.Wait < forever-time.Minute || at.RetryAfter() != at.Wait {
		h.Errorf("realtime: got %+v, want it told to wait for %s", at, forever)
	}
	h.mustAdmit(w, other)
	h.wantClaims("its lane of another model", w, 9, 5, other)
	h.must(store.Write{Insert: request(of("neighbour", model), by(w))})
}

func testParkOutcomes(h *harness) {
	for i, c := range []struct {
		to queue.State
		by queue.Cause
	}{{queue.Waiting, queue.ByRetry}, {queue.Failed, queue.ByOutcome}, {queue.Pending, queue.ByHandBack}} {
		w := h.worker()
		m := []string{"model-x", "model-y", "model-z"}[i]
		h.enqueueMany(3, of(tenant, m))
		claims := h.wantClaims("first", w, 1, 1, m)
		h.must(parking(h.start(claims[0]).Fence(), c.to, c.by, forever))
		h.wantState(claims[0].ID, c.to)
		if l := h.laneOf(tenant, m); !l.Parked || l.Wait <= 0 {
			h.Errorf("%s: got parked %t for %s", c.to, l.Parked, l.Wait)
		}
		h.wantClaims(c.to.String(), w, 9, 0, m)
		f, err := h.admit(w, m)
		if err == nil {
			h.Errorf("%s: realtime request %s was admitted", c.to, f.ID)
		}
	}
	// A realtime request that is told to leave its model alone says so for all.
	w := h.worker()
	h.must(parking(h.mustAdmit(w, model), queue.Failed, queue.ByOutcome, forever))
	if at := h.refused(w, model); at.Wait <= 0 {
		h.Errorf("after a realtime request: got %+v, want a wait", at)
	}
}

func testParkLonger(h *harness) {
	w := h.worker()
	h.enqueueMany(4)
	claims := h.wantClaims("first", w, 3, 3)
	for i, c := range []struct{ park, least time.Duration }{
		{time.Minute, 59 * time.Second}, {time.Hour, 59 * time.Minute}, {time.Second, 59 * time.Minute},
	} {
		h.must(parking(h.start(claims[i]).Fence(), queue.Waiting, queue.ByRetry, c.park))
		if got := h.lane().Wait; got < c.least || got > time.Hour {
			h.Errorf("parked for %s: got %s to wait", c.park, got)
		}
	}
}

// testUnpark: time ends a park, and the sweep tells the claims.
func testUnpark(h *harness) {
	w := h.worker()
	h.enqueueMany(3)
	c := h.start(h.claim(w))
	const park = 30 * time.Millisecond
	before := time.Now()
	h.must(parking(c.Fence(), queue.Waiting, queue.ByRetry, park))
	for begin := time.Now(); ; {
		h.sweep()
		if len(h.claimN(w, 9)) > 0 {
			break
		}
		if time.Since(begin) > patience {
			h.Fatalf("a park of %s was not over in %s", park, patience)
		}
	}
	if took := time.Since(before); took < park-5*time.Millisecond {
		h.Errorf("claimed after %s, want the park of %s kept", took, park)
	}
	h.mustAdmit(w, model)
	if l := h.lane(); l.Parked || l.Wait != 0 {
		h.Errorf("lane: got parked %t for %s", l.Parked, l.Wait)
	}
}

// testUnparkTime: a lane saves no credit while it is parked.
func testUnparkTime(h *harness) {
	w := h.worker()
	h.enqueueMany(60)
	h.enqueueMany(160, of("busy", model))
	for _, c := range h.claimN(w, 2) {
		if c.Tenant == tenant {
			h.must(parking(h.start(c).Fence(), queue.Waiting, queue.ByRetry, 100*time.Millisecond))
		}
	}
	for range 8 {
		h.claimN(w, 10)
	}
	for begin := time.Now(); h.lane().Parked; h.sweep() {
		if time.Since(begin) > patience {
			h.Fatal("the park was not over")
		}
	}
	if own, least := h.lane().VTime, h.laneOf("busy", model).VTime; own < least-1e-9 && least > 60 {
		h.Errorf("got virtual time %g, want %g", own, least)
	}
	got := map[string]int{}
	for range 20 {
		for name, n := range tally(h.claimN(w, 1)) {
			got[name] += n
		}
	}
	if got["busy"] < 7 {
		h.Errorf("after the park: got %v, want about half each", got)
	}
}

// testParkCap: what ends in a parked lane does not end the park, and a park
// that is over does not open a full cap.
func testParkCap(h *harness) {
	h.capped(2)
	w := h.worker()
	h.enqueueMany(9)
	claims := h.wantClaims("first", w, 9, 2)
	h.must(parking(h.start(claims[0]).Fence(), queue.Waiting, queue.ByRetry, forever))
	h.finish(claims[1])
	h.wantExact()
	h.wantClaims("parked and empty", w, 9, 0)
	h.capped(5)
	h.wantClaims("parked and set anew", w, 9, 0)
	h.capped(0)
	h.wantClaims("parked without a cap", w, 9, 0)
	if l := h.lane(); !l.Parked || l.Wait == 0 {
		h.Errorf("lane: got parked %t for %s", l.Parked, l.Wait)
	}
	h.setLanes(queue.Lane{Tenant: "b", Model: model, Weight: 1, Cap: 1})
	h.enqueueMany(3, of("b", model))
	c := h.wantClaims("another lane", w, 9, 1)
	h.enqueue(of("b", model))
	h.must(parking(h.start(c[0]).Fence(), queue.Waiting, queue.ByRetry, time.Millisecond))
	h.must(store.Write{Insert: request(of("c", model))})
	for begin := time.Now(); h.laneOf("b", model).Wait > 0; h.sweep() {
		if time.Since(begin) > patience {
			h.Fatal("the park was not over")
		}
	}
	h.sweep()
	if got := tally(h.claimN(w, 9)); got["b"] != 1 || got["c"] != 1 {
		h.Errorf("a park that is over: got %v, want 1 of b for its cap, and c", got)
	}
	h.wantExact()
}
