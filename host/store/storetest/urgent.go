package storetest

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var urgentCases = []testCase{
	{"UrgentByDeadline", testUrgent},
	{"UrgentOnlyWithinTheWindow", testUrgentWindow},
	{"UrgentCountsPatience", testUrgentPatience},
	{"UrgentIsCharged", testUrgentCharged},
	{"UrgentIsNoSecondShare", testUrgentShare},
	{"UrgentKeepsCaps", testUrgentCaps},
}

// behind makes a lane that fairness does not serve for long: its weight is tiny
// and it was served once. It has n requests, due in d, left.
func (h *harness) behind(w int64, name string, n int, d time.Duration) {
	h.Helper()
	h.setLanes(queue.Lane{Tenant: name, Model: model, Weight: 0.001})
	h.enqueueMany(n+1, of(name, model), within(d))
	for _, c := range h.claimN(w, 1) {
		if c.Tenant != name {
			h.Fatalf("claimed %s, want %s", c.Tenant, name)
		}
	}
}

func testUrgent(h *harness) {
	w := h.worker()
	h.behind(w, "late", 20, 3*time.Minute)
	for i := range 4 {
		h.setLanes(queue.Lane{Tenant: fmt.Sprint("fair-", i), Model: model, Weight: 1000})
		h.enqueueMany(60, of(fmt.Sprint("fair-", i), model))
	}
	h.claimN(w, 8) // what is new begins beside the late one; from here on it is ahead
	for _, c := range []struct{ n, urgent, want int }{{10, 0, 0}, {10, 2, 2}, {1, 1, 1}, {5, 1, 1}, {20, 4, 4}, {1, 0, 0}} {
		claims := h.ask(store.ClaimRequest{Worker: w, N: c.n, Urgent: c.urgent, Window: 10 * time.Minute})
		if got := tally(claims); got["late"] != c.want || len(claims) != c.n {
			h.Errorf("claim of %d, %d urgent: got %v, want %d late", c.n, c.urgent, got, c.want)
		}
	}
	soon := h.enqueue(of("sooner", model), within(time.Minute))
	claims := h.ask(store.ClaimRequest{Worker: w, N: 1, Urgent: 1, Window: 10 * time.Minute})
	if len(claims) != 1 || claims[0].ID != soon {
		h.Errorf("got %v, want the lane whose head is due first", tally(claims))
	}
}

// testUrgentWindow: what the urgent share does not use goes by fairness.
func testUrgentWindow(h *harness) {
	w := h.worker()
	h.behind(w, "later", 10, 30*time.Minute)
	h.setLanes(queue.Lane{Tenant: "fair", Model: model, Weight: 1000})
	h.enqueueMany(60, of("fair", model))
	h.claimN(w, 2)
	if got := tally(h.ask(store.ClaimRequest{Worker: w, N: 5, Urgent: 2, Window: 10 * time.Minute})); got["later"] != 0 || got["fair"] != 5 {
		h.Errorf("due after the window: got %v, want 5 fair", got)
	}
	if got := tally(h.ask(store.ClaimRequest{Worker: w, N: 5, Urgent: 2, Window: time.Hour})); got["later"] != 2 || got["fair"] != 3 {
		h.Errorf("due in the window: got %v, want 2 later and 3 fair", got)
	}
}

// testUrgentPatience: a request without a deadline is due an hour after it came.
func testUrgentPatience(h *harness) {
	w := h.worker()
	last := h.enqueue(of("last", model), within(90*time.Minute))
	none := h.enqueue(of("none", model))
	first := h.enqueue(of("first", model), within(30*time.Minute))
	for i, want := range []queue.ID{first, none, last} {
		claims := h.ask(store.ClaimRequest{Worker: w, N: 1, Urgent: 1, Window: 2 * time.Hour})
		if len(claims) != 1 || claims[0].ID != want {
			h.Errorf("claim %d: got %v, want %s", i, tally(claims), want)
		}
	}
}

func testUrgentCharged(h *harness) {
	w := h.worker()
	h.setLanes(queue.Lane{Tenant: "urgent", Model: model, Weight: 0.5})
	h.enqueueMany(10, of("urgent", model), within(time.Minute))
	before := h.laneOf("urgent", model).VTime
	claims := h.ask(store.ClaimRequest{Worker: w, N: 3, Urgent: 3, Window: 10 * time.Minute})
	if got := h.laneOf("urgent", model).VTime - before; len(claims) != 3 || got != 6 {
		h.Errorf("%d claims: got a charge of %g, want 3 at a weight of a half", len(claims), got)
	}
}

// testUrgentShare: who is served early by deadline is served later by fairness.
func testUrgentShare(h *harness) {
	w := h.worker()
	h.enqueueMany(150, of("urgent", model), within(5*time.Minute))
	h.enqueueMany(150, of("calm", model))
	served := map[string]int{}
	for range 40 {
		for name, n := range tally(h.ask(store.ClaimRequest{Worker: w, N: 5, Urgent: 1, Window: 10 * time.Minute})) {
			served[name] += n
		}
		if apart := served["urgent"] - served["calm"]; apart > 6 || apart < -6 {
			h.Fatalf("got %v, want them apart by about a quantum", served)
		}
	}
}

// testUrgentCaps: urgency opens no cap.
func testUrgentCaps(h *harness) {
	w := h.worker()
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: "capped", Model: model, Weight: 1, Cap: 4, Reserve: queue.Reserve{Realtime: 2}}},
		Gates: []queue.Gate{{Tenant: "gated", Cap: 1}},
	})
	h.enqueueMany(10, of("capped", model), within(time.Minute))
	h.enqueueMany(10, of("gated", model), within(time.Minute))
	h.enqueueMany(10, of("free", model))
	got := tally(h.ask(store.ClaimRequest{Worker: w, N: 10, Urgent: 10, Window: 10 * time.Minute}))
	if got["capped"] != 2 || got["gated"] != 1 || got["free"] != 7 {
		h.Errorf("got %v, want 2 capped, 1 gated, the rest free", got)
	}
	h.wantExact()
}
