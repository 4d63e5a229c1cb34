package storetest

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var sweepCases = []testCase{
	{"PromoteOnlyWhatIsDue", testPromote},
	{"PromoteAtMostLimit", testPromoteLimit},
	{"Expire", testExpire},
	{"ExpireMany", testExpireMany},
	{"ReapOnlyDeadWorkers", testReapDead},
	{"ReapAfterGrace", testReapGrace},
	{"ReapLetsGoOfCanceled", testReapCanceled},
	{"ReapFreesSlots", testReapSlots},
	{"WorkerIDsAreNeverReused", testWorkerIDs},
	{"HeartbeatAfterReap", testBeatAfterReap},
	{"HeartbeatTellsWhatIsHeld", testBeatHeld},
	{"SweepByManyHosts", testSweepMany},
}

func testPromote(h *harness) {
	w := h.worker()
	due, later := h.running(w), h.running(w)
	h.must(move(due.Fence(), queue.Waiting, queue.ByRetry))
	late := move(later.Fence(), queue.Waiting, queue.ByRetry)
	late.Move.Delay = forever
	h.must(late)
	if got := h.claimN(w, 2); len(got) != 0 {
		h.Errorf("claimed %d waiting requests", len(got))
	}
	if s := h.sweep(); s.Promoted != 1 || s.Expired+s.Reaped+s.Lost != 0 {
		h.Errorf("Sweep: got %+v", s)
	}
	if r := h.wantState(due.ID, queue.Pending); !r.NotBefore.IsZero() {
		h.Errorf("not-before: got %v, want none", r.NotBefore)
	}
	h.wantState(later.ID, queue.Waiting)
	if c := h.claim(w); c.ID != due.ID || c.Attempt != 2 {
		h.Errorf("claim: got %+v", c)
	}
}

func testPromoteLimit(h *harness) {
	w := h.worker()
	for range 5 {
		h.must(move(h.running(w).Fence(), queue.Waiting, queue.ByRetry))
	}
	total := 0
	for range 5 {
		s, err := h.d.Sweep(h.Context(), store.SweepRequest{Limit: 2})
		if err != nil || s.Promoted > 2 {
			h.Fatalf("Sweep: got %+v, %v", s, err)
		}
		total += s.Promoted
	}
	if total != 5 {
		h.Errorf("promoted %d, want 5", total)
	}
}

func testExpire(h *harness) {
	w := h.worker()
	soon := func(n *queue.New) { n.DeadlineIn = time.Millisecond }
	c := h.running(w, func(n *queue.New) { n.DeadlineIn = forever })
	pending := []queue.ID{h.enqueue(soon), h.enqueue(soon, unstored)}
	realtime := h.enqueue(soon, by(w))
	for total, begin := 0, time.Now(); total < 2; {
		total += h.sweep().Expired
		if time.Since(begin) > patience {
			h.Fatalf("expired %d, want 2", total)
		}
	}
	for _, id := range pending {
		if r := h.wantState(id, queue.Expired); r.Class != queue.ClassDeadline || r.Finished.IsZero() || (r.Body == nil) == r.Store {
			h.Errorf("expired: got class %q, finished %v, body %q, store %t", r.Class, r.Finished, r.Body, r.Store)
		}
	}
	h.wantState(c.ID, queue.Processing)
	h.wantState(realtime, queue.Processing) // its processor ends it
	if got := h.claimN(w, 5); len(got) != 0 {
		h.Errorf("claimed %d expired requests", len(got))
	}
}

// testExpireMany: requests past their deadline keep nobody from claiming those
// behind and beside them, even before a sweep has ended them.
func testExpireMany(h *harness) {
	const many, few = 3000, 10
	w := h.worker()
	soon := func(n *queue.New) { n.DeadlineIn = time.Millisecond }
	for i := range 3 {
		h.enqueueMany(few, of(fmt.Sprint("dead-", i), model), soon)
	}
	h.enqueueMany(many, soon)
	h.past(h.enqueue(soon))
	behind, beside := h.enqueue(), h.enqueue(of("beside", model))
	got := map[queue.ID]bool{h.claim(w).ID: true, h.claim(w).ID: true}
	if !got[behind] || !got[beside] {
		h.Errorf("claimed %v, want the two that live", got)
	}
	if got := h.claimN(w, 5); len(got) != 0 {
		h.Errorf("claimed %d expired requests", len(got))
	}
	const limit = 7
	s, err := h.d.Sweep(h.Context(), store.SweepRequest{Limit: limit})
	if err != nil || s.Expired != limit*store.ExpireRounds {
		h.Errorf("Sweep: got %+v, %v, want %d expired", s, err, limit*store.ExpireRounds)
	}
	for _, l := range h.stats().Lanes {
		if l.Ready && l.Model == model {
			h.Errorf("lane %s has nothing to claim and is ready", l.Tenant)
		}
	}
	if got := h.sweep().Expired; got != many+1+3*few-s.Expired {
		h.Errorf("second Sweep: expired %d, want the rest", got)
	}
}

func testReapDead(h *harness) {
	alive, dead := h.worker(), h.worker()
	kept := h.running(alive)
	lost := h.running(dead)
	h.enqueue()
	claimed := h.claim(dead)
	h.kill(dead)
	n := 0
	h.reapUntil("returned two requests", 3, func(s store.Swept) bool { n += s.Reaped; return n >= 2 })
	h.wantState(kept.ID, queue.Processing)
	for _, c := range []queue.Claim{lost, claimed} {
		r := h.get(c.ID)
		if r.State != queue.Waiting && r.State != queue.Pending || r.Reaps != 1 || r.Failures != 0 || r.Worker != 0 {
			h.Errorf("reaped: got %s, reaps %d, failures %d, worker %d", r.State, r.Reaps, r.Failures, r.Worker)
		}
	}
	h.lost(complete(lost.Fence()))
	h.sweep()
	for _, c := range h.claimN(alive, 5) {
		if c.Attempt != 2 || c.Reaps != 1 {
			h.Errorf("claim: got attempt %d, reaps %d", c.Attempt, c.Reaps)
		}
	}
}

func testReapGrace(h *harness) {
	w := h.worker()
	c := h.running(w)
	h.kill(w)
	for _, r := range []store.SweepRequest{{Reap: true, Grace: forever, MaxReaps: 3}, {Reap: false, MaxReaps: 3}} {
		for range 3 {
			if s, err := h.d.Sweep(h.Context(), r); err != nil || s.Reaped+s.Lost != 0 {
				h.Fatalf("Sweep(%+v): got %+v, %v", r, s, err)
			}
		}
	}
	h.wantState(c.ID, queue.Processing)
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); p.Lost {
		h.Error("a worker that was not reaped is lost")
	}
	h.must(complete(c.Fence()))
}

func testReapCanceled(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	h.cancel(c.ID)
	h.kill(w)
	h.reapUntil("let go", 3, func(s store.Swept) bool {
		if s.Reaped+s.Lost != 0 {
			h.Fatalf("Sweep: got %+v for a canceled request", s)
		}
		return h.get(c.ID).Worker == 0
	})
	if r := h.wantState(c.ID, queue.Canceled); r.Reaps != 0 {
		h.Errorf("reaps: got %d, want 0", r.Reaps)
	}
	h.wantExact()
	h.lost(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	h.wantExact()
}

func testReapSlots(h *harness) {
	h.setLanes(queue.Lane{Tenant: "a", Model: model, Weight: 1, Cap: 2}, queue.Lane{Tenant: "b", Model: model, Weight: 1, Cap: 2})
	w := h.worker()
	for range 3 {
		h.enqueue(of("a", model))
		h.enqueue(of("b", model))
	}
	if got := h.claimN(w, 10); len(got) != 4 {
		h.Fatalf("got %d claims, want 4", len(got))
	}
	h.kill(w)
	n := 0
	h.reapUntil("returned four requests", 3, func(s store.Swept) bool { n += s.Reaped; return n >= 4 })
	h.wantExact()
	h.sweep()
	if got := h.claimN(h.worker(), 10); len(got) != 4 {
		h.Errorf("after the reap: got %d claims, want 4", len(got))
	}
	h.wantExact()
}

func testWorkerIDs(h *harness) {
	seen := map[int64]bool{}
	for range 3 {
		w := h.worker()
		if w == 0 || seen[w] {
			h.Fatalf("worker id %d again", w)
		}
		seen[w] = true
		h.reapUntil("removed the worker", 0, func(store.Swept) bool { return h.beat(store.Beat{Worker: w, Leave: true}).Lost })
	}
}

func testBeatAfterReap(h *harness) {
	w := h.worker()
	c := h.running(w)
	h.kill(w)
	h.reap(3)
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); !p.Lost {
		h.Errorf("pulse: got %+v, want lost", p)
	}
	h.lost(complete(c.Fence()))
	h.lost(store.Write{Insert: request(by(w))})
	if p := h.beat(store.Beat{Worker: 1 << 40, Lease: forever}); !p.Lost {
		h.Errorf("unknown worker: got %+v, want lost", p)
	}
}

// testSweepMany: hosts that sweep at once move each request once.
func testSweepMany(h *harness) {
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 100})
	w := h.worker()
	const n = 30
	for i := range n {
		h.enqueue(of(tenant, model), func(n *queue.New) { n.Path = []string{"/v1/responses", fmt.Sprintf("/v1/%d", i)}[i%2] })
	}
	if got := h.claimN(w, n); len(got) != n {
		h.Fatalf("got %d claims, want %d", len(got), n)
	}
	h.kill(w)
	reaped := make(chan int)
	for range 4 {
		go func() {
			sum := 0
			for range 8 {
				s, err := h.d.Sweep(h.Context(), store.SweepRequest{Reap: true, MaxReaps: 1, Limit: 7})
				if err != nil {
					h.Errorf("Sweep: %v", err)
				}
				sum += s.Reaped + s.Lost
			}
			reaped <- sum
		}()
	}
	sum := 0
	for range 4 {
		sum += <-reaped
	}
	if sum > n {
		h.Errorf("reaped %d times, want at most %d", sum, n)
	}
	h.wantExact()
	if sum < n {
		h.reapUntil("returned the rest", 1, func(s store.Swept) bool { sum += s.Reaped + s.Lost; return sum >= n })
	}
	h.wantExact()
}

// testBeatHeld checks that a worker is told every row that names it, so that
// it can end those that it does not know of.
func testBeatHeld(h *harness) {
	w := h.worker()
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); p.Lost || len(p.Held) != 0 {
		h.Errorf("a fresh worker: got %+v, want nothing held", p)
	}
	h.enqueue()
	claimed, running, canceled := h.claim(w), h.running(w), h.running(w)
	h.cancel(canceled.ID)
	alone := request(func(n *queue.New) { n.Worker, n.Store = w, false })
	stored := request(func(n *queue.New) { n.Worker, n.Store, n.Path = w, true, "/v1/responses" })
	h.must(store.Write{Insert: alone})
	h.must(store.Write{Insert: stored})
	h.enqueue() // nobody's
	want := map[queue.ID]store.Held{
		claimed.ID:  {Fence: queue.Fence{ID: claimed.ID, Attempt: 1, State: queue.Claimed}},
		running.ID:  {Fence: queue.Fence{ID: running.ID, Attempt: 1, State: queue.Processing}},
		canceled.ID: {Fence: queue.Fence{ID: canceled.ID, Attempt: 1, State: queue.Canceled}},
		alone.ID:    {Fence: queue.Fence{ID: alone.ID, Attempt: 1, State: queue.Processing}, Alone: true},
		stored.ID:   {Fence: queue.Fence{ID: stored.ID, Attempt: 1, State: queue.Processing}},
	}
	p := h.beat(store.Beat{Worker: w, Lease: forever})
	if len(p.Held) != len(want) {
		h.Errorf("got %d rows, want %d", len(p.Held), len(want))
	}
	for _, held := range p.Held {
		if held != want[held.ID] {
			h.Errorf("got %+v, want %+v", held, want[held.ID])
		}
	}
}
