package storetest

import (
	"errors"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var raceCases = []testCase{
	{"FenceRacedAgainstCancel", testRaceCancel},
	{"FenceRacedAgainstReap", testRaceReap},
	{"StartRacedAgainstCancel", testRaceStart},
	{"ForgetRacedAgainstWrites", testRaceForget},
}

const rounds = 40

// race runs both at once, beginning with the one or the other in turn.
func race(round int, a, b func()) {
	if round%2 == 1 {
		a, b = b, a
	}
	gate := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { close(gate); a() })
	wg.Go(func() { <-gate; b() })
	wg.Wait()
}

// late is a full write that ends the request, with events from 0.
func late(c queue.Claim) store.Write {
	w := full(c.Fence())
	w.Events = []response.Event{{Seq: 0, Data: []byte("e")}}
	w.KV = nil // the key is shared by all rounds
	w.Failures = 0
	return w
}

// wantWhole checks that a raced write left all or nothing but usage.
func (h *harness) wantWhole(id queue.ID, err error) store.Record {
	h.Helper()
	if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
		h.Fatalf("Write: %v", err)
	}
	r, want := h.get(id), 0
	if err == nil {
		want = 1
	}
	results := 0
	if r.Result != nil {
		results = 1
	}
	if len(r.Steps) != want || len(r.Events) != want || len(r.Decisions) != want || results != want {
		h.Errorf("write answered %v: got %d steps, %d events, %d decisions, %d results, want %d of each",
			err, len(r.Steps), len(r.Events), len(r.Decisions), results, want)
	}
	if len(r.Usage) != 1 {
		h.Errorf("write answered %v: got %d usage rows, want 1", err, len(r.Usage))
	}
	if (err == nil) != (r.State == queue.Completed) {
		h.Errorf("write answered %v: got %s", err, r.State)
	}
	return r
}

func testRaceCancel(h *harness) {
	h.capped(rounds)
	w := h.worker()
	for round := range rounds {
		c := h.running(w)
		var err error
		var did bool
		race(round, func() { err = h.try(late(c)) }, func() { did = h.cancel(c.ID) })
		r := h.wantWhole(c.ID, err)
		if did == (err == nil) {
			h.Errorf("round %d: canceled %t, write answered %v: want one winner", round, did, err)
		}
		if did {
			if r.State != queue.Canceled || r.Worker != w {
				h.Errorf("round %d: got %s, worker %d", round, r.State, r.Worker)
			}
			h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Canceled}, LetGo: true})
		}
	}
	h.wantExact()
}

func testRaceReap(h *harness) {
	h.capped(rounds)
	for round := range rounds {
		w := h.worker()
		c := h.running(w)
		h.kill(w)
		var err error
		var s store.Swept
		race(round, func() { err = h.try(late(c)) }, func() { s = h.reapOnce(9) })
		r := h.wantWhole(c.ID, err)
		if s.Reaped == 1 && (err == nil || r.State != queue.Waiting || r.Reaps != 1) {
			h.Errorf("round %d: reaped, write answered %v, got %s, reaps %d", round, err, r.State, r.Reaps)
		}
		if s.Reaped == 0 && err != nil {
			h.Errorf("round %d: not reaped, write answered %v", round, err)
		}
		// A row that is left in the queue would be claimed by the next round.
		if err != nil && !h.cancel(c.ID) {
			h.Errorf("round %d: Cancel: got not canceled", round)
		}
	}
	h.wantExact()
}

func testRaceStart(h *harness) {
	h.capped(rounds)
	w := h.worker()
	for round := range rounds {
		h.enqueue()
		c := h.claim(w)
		var err error
		var did bool
		race(round, func() { err = h.try(move(c.Fence(), queue.Processing, queue.ByStart)) }, func() { did = h.cancel(c.ID) })
		if !did {
			h.Errorf("round %d: Cancel: got not canceled", round)
		}
		if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
			h.Errorf("round %d: start: %v", round, err)
		}
		h.wantState(c.ID, queue.Canceled)
		h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	}
	h.wantExact()
}

// testRaceForget: what a cancel or a reap ends and nobody stores is gone, with
// what was written while it waited.
func testRaceForget(h *harness) {
	for round := range rounds {
		w := h.worker()
		c := h.running(w, unstored, path("/v1/chat/completions"))
		end := func() { h.cancel(c.ID) }
		if round%4 > 1 {
			h.kill(w)
			end = func() { h.reapOnce(0) }
		}
		race(round, func() {
			for i := range 4 {
				_ = h.try(store.Write{
					Fence: c.Fence(), Steps: []response.Step{{Ordinal: i, Kind: response.ModelCall, State: response.Running}},
					Events: []response.Event{{Seq: int64(i), Data: []byte("e")}},
				})
			}
		}, end)
		r := h.get(c.ID)
		if len(r.Body)+len(r.Steps)+len(r.Events) > 0 && r.State.Final() {
			h.Fatalf("round %d: %s: got a body of %d bytes, %d steps, %d events, want nothing", round, r.State, len(r.Body), len(r.Steps), len(r.Events))
		}
	}
}
