package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// testU3: what was canceled and deleted is never looked at by a claim, and keeps
// no slot and no lane awake.
func testU3(h *harness) {
	h.capped(2)
	w := h.worker()
	for range 5 {
		id := h.enqueue()
		h.cancel(id)
		if err := h.d.Delete(h.Context(), "", id); err != nil {
			h.Fatalf("Delete: %v", err)
		}
	}
	id := h.enqueue()
	c := h.wantClaims("behind deleted requests", w, 9, 1)
	if len(c) == 1 && c[0].ID != id {
		h.Errorf("got %s, want %s", c[0].ID, id)
	}
	h.sweep()
	h.wantClaims("nothing left", w, 9, 0)
	if l := h.lane(); l.Ready || l.Owned != 1 || l.Pending != 0 {
		h.Errorf("lane: got %+v, want one running and nothing ready", l)
	}
	h.wantExact()
}

// testU6: one write says how an attempt ended; whatever is said after it, by the
// same worker, changes nothing.
func testU6(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	failed := move(c.Fence(), queue.Failed, queue.ByOutcome)
	failed.Move.Class, failed.Move.Code, failed.Failures = queue.HostError, "panic", 1
	h.must(failed)
	for _, to := range []store.Write{move(c.Fence(), queue.Waiting, queue.ByRetry), complete(c.Fence()), failed} {
		h.lost(to)
	}
	if r := h.wantState(c.ID, queue.Failed); r.Failures != 1 || r.Class != queue.HostError || r.Code != "panic" || r.Result != nil {
		h.Errorf("got failures %d, class %q, code %q", r.Failures, r.Class, r.Code)
	}
	h.sweep()
	h.wantClaims("after its end", w, 9, 0)
	h.wantExact()
}

// testU7: whatever the class of a failure is, the request ends by it.
func testU7(h *harness) {
	w := h.worker()
	for _, class := range queue.Classes() {
		c := h.running(w)
		end := move(c.Fence(), queue.Failed, queue.ByOutcome)
		end.Move.Class, end.Move.Code = class, "code\n of "+string(class)
		end.Move.Result = &store.Result{Status: 500, Body: []byte(class)}
		h.must(end)
		if r := h.wantState(c.ID, queue.Failed); r.Class != class || r.Code != end.Move.Code || r.Worker != 0 || r.Finished.IsZero() || r.Result == nil {
			h.Errorf("%s: got class %q, code %q, worker %d, result %v", class, r.Class, r.Code, r.Worker, r.Result)
		}
	}
	if n := len(queue.Classes()); h.stats().States[queue.Failed] != n {
		h.Errorf("states: got %v, want %d failed", h.stats().States, n)
	}
}

// testU11Beside: a poison request takes nothing with it that was claimed beside
// it more often than it has to, and its lane goes on.
func testU11Beside(h *harness) {
	h.limit(store.Limits{Gates: []queue.Gate{{Tenant: tenant, Cap: 2}}, Lanes: []queue.Lane{{Tenant: tenant, Model: model, Weight: 1, Cap: 2}}})
	poison := h.enqueue()
	good := 0
	for range 4 {
		h.enqueue()
		w := h.worker()
		var bad *queue.Claim
		for _, c := range h.claimN(w, 2) {
			if c.ID == poison {
				c = h.start(c)
				bad = &c
				continue
			}
			h.finish(c)
			good++
		}
		if bad != nil {
			h.kill(w)
			h.reap(2)
		}
		h.sweep()
		h.wantExact()
	}
	h.wantState(poison, queue.Failed)
	for range 4 {
		for _, c := range h.claimN(h.worker(), 2) {
			h.finish(c)
			good++
		}
	}
	if good != 4 {
		h.Errorf("got %d other requests served, want 4", good)
	}
	if r := h.get(poison); r.Reaps != 3 || r.Class != queue.WorkerLost {
		h.Errorf("poison: got %d reaps, class %q, want 3 and worker_lost", r.Reaps, r.Class)
	}
	h.wantExact()
}

// testU15: each request is counted once, in one state, whatever it went through.
func testU15(h *harness) {
	w := h.worker()
	want := map[queue.State]int{queue.Pending: 4, queue.Claimed: 1, queue.Processing: 2, queue.Waiting: 1, queue.Completed: 2, queue.Failed: 1, queue.Canceled: 2}
	h.must(complete(h.running(w).Fence()))
	over := complete(queue.Fence{})
	over.Insert = request(by(w))
	h.must(over)
	h.must(move(h.running(w).Fence(), queue.Failed, queue.ByOutcome))
	late := move(h.running(w).Fence(), queue.Waiting, queue.ByRetry)
	late.Move.Delay = forever
	h.must(late)
	h.cancel(h.running(w).ID)
	h.cancel(h.enqueue())
	h.running(w)
	h.enqueue(by(w))
	h.enqueue()
	h.claim(w)
	h.enqueueMany(3)
	h.enqueueMany(1, of("b", other))
	s := h.stats()
	for _, state := range queue.States() {
		if s.States[state] != want[state] {
			h.Errorf("%s: got %d, want %d", state, s.States[state], want[state])
		}
	}
	if l := h.lane(); l.Pending != 3 || l.Waiting != 1 || l.Owned != 4 || l.OwnedRealtime != 1 {
		h.Errorf("lane: got pending %d, waiting %d, owned %d of them realtime %d, want 3, 1, 4, 1", l.Pending, l.Waiting, l.Owned, l.OwnedRealtime)
	}
}

// testU16: a reader that follows a request while it is written, by several
// requests at once, sees each event once and in order.
func testU16(h *harness) {
	const requests, events = 4, 40
	w := h.worker()
	var claims []queue.Claim
	for range requests {
		claims = append(claims, h.running(w))
	}
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for _, c := range claims {
		wg.Go(func() {
			for seq := range int64(events) {
				w := store.Write{Fence: c.Fence(), Events: []response.Event{{Seq: seq, Data: fmt.Append(nil, seq)}}}
				if seq == events-1 {
					w.Move = complete(c.Fence()).Move
				}
				if err := h.try(w); err != nil {
					h.Errorf("event %d: %v", seq, err)
					return
				}
			}
		})
	}
	after := map[queue.ID]int64{}
	for _, c := range claims {
		after[c.ID] = -1
	}
	for left := requests; left > 0 && ctx.Err() == nil; {
		var cursors []store.Cursor
		for id, n := range after {
			cursors = append(cursors, store.Cursor{ID: id, After: n})
		}
		tails, err := h.d.Events(ctx, cursors, 7)
		if err != nil {
			h.Errorf("Events: %v", err)
			break
		}
		for id, tail := range tails {
			for _, e := range tail.Events {
				if e.Seq != after[id]+1 {
					h.Errorf("got event %d after %d", e.Seq, after[id])
				}
				after[id] = e.Seq
			}
			if tail.State.Final() && len(tail.Events) < 7 {
				if after[id] != events-1 {
					h.Errorf("the last tail of %s ends with event %d", id, after[id])
				}
				delete(after, id)
				left--
			}
		}
	}
	wg.Wait()
	if len(after) > 0 {
		h.Errorf("%d requests were not read to the end", len(after))
	}
}

// testU19: a request can be canceled, and deleted, as soon as it is there.
func testU19(h *harness) {
	for round := range 20 {
		n := request()
		var err error
		var did bool
		race(round, func() { err = h.try(store.Write{Insert: n}) }, func() {
			_, canceled, cancelErr := h.d.Cancel(h.Context(), "", n.ID, "")
			if cancelErr != nil && !errors.Is(cancelErr, queue.ErrNotFound) {
				h.Errorf("Cancel: %v", cancelErr)
			}
			did = canceled
		})
		if err != nil {
			h.Fatalf("Write: %v", err)
		}
		if want := map[bool]queue.State{true: queue.Canceled, false: queue.Pending}[did]; h.get(n.ID).State != want {
			h.Errorf("round %d: canceled %t, got %s", round, did, h.get(n.ID).State)
		}
		h.cancel(n.ID)
		if err := h.d.Delete(h.Context(), "", n.ID); err != nil {
			h.Errorf("Delete: %v", err)
		}
	}
	h.sweep()
	if l := h.lane(); l.Pending != 0 || l.Ready {
		h.Errorf("lane: got %+v, want it empty", l)
	}
}

// testU20: work takes as long as it takes; only a lease that ran out, and was
// not renewed before the reap, ends it.
func testU20(h *harness) {
	w := h.worker()
	c := h.running(w)
	for range 5 {
		h.kill(w)                                                                           // it is late
		if p := h.beat(store.Beat{Worker: w, Lease: forever}); p.Lost || len(p.Held) != 1 { // but in time
			h.Fatalf("pulse: got %+v", p)
		}
		for range 3 {
			if s := h.reapOnce(0); s.Reaped+s.Lost != 0 {
				h.Fatalf("Sweep: got %+v", s)
			}
		}
	}
	if r := h.wantState(c.ID, queue.Processing); r.Reaps != 0 || r.Attempt != 1 {
		h.Errorf("got reaps %d, attempt %d", r.Reaps, r.Attempt)
	}
	h.must(complete(c.Fence()))
}
