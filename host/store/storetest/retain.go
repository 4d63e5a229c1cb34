package storetest

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var retainCases = []testCase{
	{"RetentionRemovesWhatEnded", testRetain},
	{"RetentionKeepsWhatLives", testRetainLive},
	{"RetentionKeepsWhatIsYoung", testRetainYoung},
	{"RetentionOfOldDays", testRetainDays},
	{"RetentionInBatches", testRetainBatches},
	{"RetentionKeepsLinesOfBatches", testRetainLines},
}

// retain sweeps, and keeps nothing, until so many requests were removed.
func (h *harness) retain(limit, want int) {
	h.Helper()
	removed := 0
	for begin := time.Now(); removed < want; {
		s, err := h.d.Sweep(h.Context(), store.SweepRequest{Keep: time.Millisecond, Limit: limit})
		if err != nil {
			h.Fatalf("Sweep: %v", err)
		}
		removed += s.Removed
		if time.Since(begin) > patience {
			h.Fatalf("removed %d requests in %s, want %d", removed, patience, want)
		}
	}
	if removed != want {
		h.Errorf("removed %d requests, want %d", removed, want)
	}
}

// wantGone checks that nothing is left of a request but its usage, by storing
// one anew under its id.
func (h *harness) wantGone(id queue.ID, usage int) {
	h.Helper()
	if _, err := h.d.Get(h.Context(), "", id, everything); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Get(%s): got %v, want ErrNotFound", id, err)
	}
	if tails, err := h.d.Events(h.Context(), []store.Cursor{{ID: id, After: -1}}, 9); err != nil || len(tails) != 0 {
		h.Errorf("Events: got %v, %v, want nothing", tails, err)
	}
	h.must(store.Write{Insert: request(of("again", "again"), func(n *queue.New) { n.ID, n.Body = id, []byte("again") })})
	r := h.get(id)
	if len(r.Steps)+len(r.Events)+len(r.Decisions) != 0 || r.Result != nil || string(r.Body) != "again" {
		h.Errorf("%s: left over: %+v", id, r)
	}
	if len(r.Usage) != usage {
		h.Errorf("%s: got %d usage rows, want %d kept", id, len(r.Usage), usage)
	}
}

// whole ends a request that has something of everything.
func (h *harness) whole(c queue.Claim) {
	h.Helper()
	w := full(c.Fence())
	w.Events = []response.Event{{Seq: 0, Data: []byte("e")}}
	w.KV = []store.KVPut{{Plugin: "p", Key: "kept", Value: []byte("v")}}
	h.must(w)
}

func testRetain(h *harness) {
	w := h.worker()
	done := h.running(w)
	h.whole(done)
	failed := h.running(w)
	h.must(move(failed.Fence(), queue.Failed, queue.ByOutcome))
	canceled := h.enqueue()
	h.cancel(canceled)
	expired := h.enqueue(within(time.Millisecond))
	h.past(expired)
	h.sweep()
	unkept := h.running(w, unstored)
	h.whole(unkept)
	if s, err := h.d.Sweep(h.Context(), store.SweepRequest{}); err != nil || s.Removed != 0 {
		h.Errorf("Sweep for ever: got %+v, %v", s, err)
	}
	h.retain(0, 5)
	for _, id := range []queue.ID{failed.ID, canceled, expired} {
		h.wantGone(id, 0)
	}
	h.wantGone(done.ID, 1)
	h.wantGone(unkept.ID, 1)
	if v, ok, err := h.d.KVGet(h.Context(), tenant, "p", "kept"); string(v) != "v" || !ok || err != nil {
		h.Errorf("a plugin's state: got %q, %t, %v, want it kept", v, ok, err)
	}
	h.wantExact()
}

// testRetainLive: what has not ended stays whole, however old, and so does what
// its worker has not let go of.
func testRetainLive(h *harness) {
	h.capped(9)
	w := h.worker()
	canceled, running, waiting := h.running(w), h.running(w), h.running(w)
	h.must(store.Write{Fence: running.Fence(), Steps: []response.Step{{Kind: response.ModelCall, State: response.Running}}, Events: []response.Event{{Seq: 0}}})
	late := move(waiting.Fence(), queue.Waiting, queue.ByRetry)
	late.Move.Delay = forever
	h.must(late)
	h.cancel(canceled.ID)
	h.enqueue()
	claimed := h.claim(w)
	pending := h.enqueue()
	gone := complete(queue.Fence{})
	gone.Insert = request(by(w))
	h.must(gone)
	h.retain(0, 1)
	h.reapOnce(3)
	for id, want := range map[queue.ID]queue.State{
		canceled.ID: queue.Canceled, running.ID: queue.Processing, waiting.ID: queue.Waiting, claimed.ID: queue.Claimed, pending: queue.Pending,
	} {
		if r := h.wantState(id, want); string(r.Body) != "{}" {
			h.Errorf("%s: got body %q", want, r.Body)
		}
	}
	if r := h.get(running.ID); len(r.Steps) != 1 || len(r.Events) != 1 {
		h.Errorf("running: got %d steps and %d events, want them kept", len(r.Steps), len(r.Events))
	}
	h.wantExact()
	h.must(store.Write{Fence: queue.Fence{ID: canceled.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	h.retain(0, 1)
	h.wantGone(canceled.ID, 0)
	h.must(complete(running.Fence()))
	h.wantExact()
}

// testRetainYoung: the time counts from the end, not from the beginning.
func testRetainYoung(h *harness) {
	w := h.worker()
	id := oldID(9)
	h.enqueue(func(n *queue.New) { n.ID = id })
	c := h.start(h.claim(w))
	h.whole(c)
	for range 3 {
		if s, err := h.d.Sweep(h.Context(), store.SweepRequest{Keep: time.Hour}); err != nil || s.Removed != 0 {
			h.Fatalf("Sweep: got %+v, %v", s, err)
		}
	}
	if r := h.wantState(id, queue.Completed); len(r.Steps) != 1 || len(r.Events) != 1 || len(r.Decisions) != 1 || r.Result == nil || r.Body == nil {
		h.Errorf("ended a moment ago: got %+v, want it whole", r)
	}
}

// oldID returns an id of so many days ago, whose rows are stored with that day's.
func oldID(days int) queue.ID {
	id := queue.NewID()
	at := time.Now().AddDate(0, 0, -days).UnixMilli()
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at))
	copy(id[:6], ms[2:])
	return id
}

// testRetainDays: what lives keeps what belongs to it, though all others of its
// day are gone.
func testRetainDays(h *harness) {
	w := h.worker()
	old := func() func(*queue.New) {
		id := oldID(5)
		return func(n *queue.New) { n.ID = id }
	}
	done, live := h.running(w, old()), h.running(w, old())
	h.whole(done)
	h.must(store.Write{Fence: live.Fence(), Events: []response.Event{{Seq: 0, Data: []byte("live")}}, Decisions: []store.Decision{{Kind: "route"}}})
	h.retain(0, 1)
	for range 3 {
		if _, err := h.d.Sweep(h.Context(), store.SweepRequest{Keep: time.Millisecond}); err != nil {
			h.Fatalf("Sweep: %v", err)
		}
	}
	if r := h.wantState(live.ID, queue.Processing); len(r.Events) != 1 || len(r.Decisions) != 1 || string(r.Body) != "{}" {
		h.Errorf("a live request of an old day: got %d events, %d decisions, body %q", len(r.Events), len(r.Decisions), r.Body)
	}
	h.must(complete(live.Fence()))
	h.retain(0, 1)
	for range 3 {
		if _, err := h.d.Sweep(h.Context(), store.SweepRequest{Keep: time.Millisecond}); err != nil {
			h.Fatalf("Sweep: %v", err)
		}
	}
	h.wantGone(live.ID, 0)
	h.wantGone(done.ID, 1)
	// The day is written to again as if nothing had been removed.
	c := h.running(w, old(), of(tenant, model))
	h.whole(c)
	if r := h.wantState(c.ID, queue.Completed); len(r.Events) != 1 || r.Result == nil {
		h.Errorf("a day that was dropped: got %+v", r)
	}
}

func testRetainBatches(h *harness) {
	w := h.worker()
	const n = 12
	for range n {
		over := complete(queue.Fence{})
		over.Insert = request(by(w))
		h.must(over)
	}
	live := h.enqueue()
	h.retain(5, n)
	h.wantState(live, queue.Pending)
	if s := h.stats(); s.States[queue.Completed] != 0 || s.States[queue.Pending] != 1 {
		h.Errorf("states: got %v", s.States)
	}
}

// testRetainLines: what a batch needs for its files stays until it was settled.
func testRetainLines(h *harness) {
	b, ids := h.runningBatch(2)
	w := h.worker()
	for range 2 {
		h.must(complete(h.start(h.claim(w)).Fence()))
	}
	other := h.running(w)
	h.must(complete(other.Fence()))
	h.retain(9, 1)
	for _, id := range ids {
		h.wantState(id, queue.Completed)
	}
	b.State = store.BatchFinalizing
	b = h.step(store.BatchStep{Batch: b, Again: time.Hour})
	b.State, b.Settled = store.BatchCompleted, true
	h.step(store.BatchStep{Batch: b})
	h.retain(9, 2)
}
