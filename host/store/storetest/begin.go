package storetest

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var beginCases = []testCase{
	{"ClaimBeginsAtOnce", testBegin},
	{"BegunGoesOnFromThere", testBegunGoesOn},
	{"BegunEscalated", testBegunEscalated},
	{"BegunAgainKeepsItsStart", testBegunAgain},
	{"NewTenantIsNext", testNewTenantNext},
}

// begin claims exactly one request that begins at once.
func (h *harness) begin(r store.ClaimRequest) queue.Claim {
	h.Helper()
	r.N, r.Start = 1, true
	if r.Models == nil {
		r.Models = []string{model}
	}
	got := h.ask(r)
	if len(got) != 1 || got[0].State != queue.Processing {
		h.Fatalf("Claim: got %+v, want one that is processing", got)
	}
	return got[0]
}

// testBegin claims one request that begins, then one that does not.
func testBegin(h *harness) {
	w := h.worker()
	h.capped(2)
	first, second := h.enqueue(), h.enqueue()
	c := h.begin(store.ClaimRequest{Worker: w})
	if r := h.wantState(c.ID, queue.Processing); c.ID != first || r.Started.IsZero() || r.Attempt != 1 || r.Worker != w {
		h.Errorf("begun: got %+v, want %s started, attempt 1", r, first)
	}
	if l := h.lane(); l.Running != 1 || l.Owned != 1 {
		h.Errorf("got %d running of %d, want 1", l.Running, l.Owned)
	}
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 1 || p.Held[0].Fence != c.Fence() {
		h.Errorf("held: got %+v, want %+v", p.Held, c.Fence())
	}
	// The fence of a claim that did not begin is no longer that of the row.
	h.lost(move(queue.Fence{ID: c.ID, Attempt: 1, State: queue.Claimed}, queue.Processing, queue.ByStart))
	d := h.claim(w)
	if r := h.wantState(d.ID, queue.Claimed); d.ID != second || d.State != queue.Claimed || !r.Started.IsZero() {
		h.Errorf("claimed: got %+v, want %s not started", r, second)
	}
	h.must(complete(c.Fence()))
	h.wantState(c.ID, queue.Completed)
}

// testBegunGoesOn hands back, cancels and reaps what began with its claim.
func testBegunGoesOn(h *harness) {
	w := h.worker()
	h.capped(1)
	id := h.enqueue()
	c := h.begin(store.ClaimRequest{Worker: w})
	h.must(move(c.Fence(), queue.Pending, queue.ByHandBack))
	h.wantState(id, queue.Pending)

	h.begin(store.ClaimRequest{Worker: w})
	h.kill(w)
	h.reap(5)
	h.wantState(id, queue.Waiting)
	h.sweep()

	w = h.worker()
	c = h.begin(store.ClaimRequest{Worker: w})
	if c.Attempt != 3 || c.Reaps != 1 {
		h.Errorf("got attempt %d, reaped %d times, want 3 and 1", c.Attempt, c.Reaps)
	}
	if !h.cancel(id) {
		h.Error("what began was not canceled")
	}
	h.must(store.Write{Fence: queue.Fence{ID: id, Attempt: 3, State: queue.Canceled}, LetGo: true})
	if l := h.lane(); l.Running != 0 || l.Owned != 0 {
		h.Errorf("got %d running of %d, want none", l.Running, l.Owned)
	}
}

func testBegunEscalated(h *harness) {
	w := h.worker()
	id := h.enqueue(within(30 * time.Minute))
	c := h.begin(escalation(w, 1))
	if r := h.wantState(id, queue.Processing); c.Escalated != other || r.Escalated != other || r.Started.IsZero() {
		h.Errorf("got %q, the record %+v, want it begun for %q", c.Escalated, r, other)
	}
	h.must(complete(c.Fence()))
	if r := h.wantState(id, queue.Completed); r.Escalated != "" || r.Worker != 0 {
		h.Errorf("completed: got %+v, want no slot left", r)
	}
}

// testBegunAgain checks that a later attempt does not change when the request
// first began.
func testBegunAgain(h *harness) {
	w := h.worker()
	id := h.enqueue()
	c := h.begin(store.ClaimRequest{Worker: w})
	first := h.get(id).Started
	h.must(move(c.Fence(), queue.Pending, queue.ByHandBack))
	for begin := time.Now(); !h.get(h.enqueue(of("clock", "clock"))).Created.After(first); {
		if time.Since(begin) > patience {
			h.Fatal("the database's clock stands still")
		}
	}
	h.begin(store.ClaimRequest{Worker: w})
	if again := h.get(id).Started; first.IsZero() || !again.Equal(first) {
		h.Errorf("started: got %s, want %s", again, first)
	}
}

// testNewTenantNext serves tenants in step, all of them equally often: one that
// comes then does not wait for a round of them.
func testNewTenantNext(h *harness) {
	const tenants, each, n = 60, 8, 30
	w := h.worker()
	for i := range tenants {
		h.enqueueMany(each, of(fmt.Sprint("t", i), model))
	}
	got := map[string]int{}
	for claimed := 0; !inStep(got, tenants); {
		claims := h.claimN(w, n)
		if claimed += len(claims); len(claims) == 0 || claimed > tenants*(each-1) {
			h.Fatalf("after %d claims the tenants are not in step: %v", claimed, got)
		}
		for _, c := range claims {
			got[c.Tenant]++
		}
	}
	fresh := h.enqueue(of("fresh", model))
	for range 2 { // marks may be out of date
		for _, c := range h.claimN(w, n) {
			if c.ID == fresh {
				return
			}
		}
	}
	h.Error("a new tenant was not in the next claim beside tenants in step")
}

// inStep reports whether n tenants got equally many.
func inStep(got map[string]int, n int) bool {
	for _, k := range got {
		if k != got["t0"] {
			return false
		}
	}
	return len(got) == n
}
