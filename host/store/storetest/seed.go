package storetest

import (
	"errors"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// seedCases are the defects of an earlier system of this kind that a store can
// have, one regression test each. Those that no store can have, or that are
// tested where the rule is:
//
//	U6   an outcome persisted twice: here for the store; one place to persist in host/claimer
//	U7   an outcome persisted by nobody: here for every class; the stages in host/processor
//	U8   results outlive an outage: host/store, TestU8…
//	U10  reaping in a task of its own: host/claimer sweeps beside claiming; here with full lanes
//	U12  a map that grows by batch: host/batch, TestU12…; Held is what names the worker, see U9
//	U14  counting every batch again and again: here in batchrace.go, and host/batch, TestU14…
//	U17  no drain, jitter or Retry-After: host/claimer and host/policy; fairness and limits here, in fair.go and gate.go
//	U19  cancel of what was never filled: a request and its body are one insert; here
//	U20  a lease shorter than the work: leases are renewed by beat; the claimer's options are checked in host/claimer
var seedCases = []testCase{
	{"U1ReapDoesNotResurrectCompleted", testU1},
	{"U2RealtimeIsNotRunAgain", testU2},
	{"U3DeletedRequestsBurnNothing", testU3},
	{"U4ZombieCannotStealFromNewOwner", testU4},
	{"U5LostStartIsAnError", testU5},
	{"U6OutcomeIsWrittenOnce", testU6},
	{"U7EveryClassEndsARequest", testU7},
	{"U9WorkerIsToldOfDeletedRequests", testU9},
	{"U10ReapWhenLanesAreFull", testU10},
	{"U11PoisonRequestEnds", testU11},
	{"U11PoisonEndsAlone", testU11Beside},
	{"U13WorkersAreRemoved", testU13},
	{"U15CountsAreTheRows", testU15},
	{"U16NoEventIsSkipped", testU16},
	{"U18AnyBytesAreStored", testU18},
	{"U19CancelAtOnce", testU19},
	{"U20LongWorkIsNotReaped", testU20},
}

func testU1(h *harness) {
	for round := range 20 {
		w := h.worker()
		c := h.running(w)
		h.kill(w)
		var err error
		race(round, func() { err = h.try(complete(c.Fence())) }, func() { h.reapOnce(9) })
		h.reapOnce(9)
		h.sweep()
		r := h.get(c.ID)
		if (err == nil) != (r.State == queue.Completed) || (err == nil) != (r.Result != nil) {
			h.Fatalf("round %d: write answered %v, the row is %s, result %v", round, err, r.State, r.Result)
		}
		h.cancel(c.ID)
	}
}

func testU2(h *harness) {
	w := h.worker()
	stored := h.enqueue(by(w))
	unstoredID := h.enqueue(by(w), unstored)
	chat := h.enqueue(by(w), path("/v1/chat/completions"))
	queued := h.running(w, path("/v1/chat/completions"), unstored)
	h.kill(w)
	n := 0
	h.reapUntil("returned four requests", 3, func(s store.Swept) bool { n += s.Reaped + s.Lost; return n >= 4 })
	h.sweep()
	for _, id := range []queue.ID{unstoredID, chat} {
		if r := h.wantState(id, queue.Failed); r.Class != queue.WorkerLost || r.Code != "worker_lost" || r.Worker != 0 || r.Finished.IsZero() || (r.Body == nil) == r.Store {
			h.Errorf("got class %q, code %q, worker %d, body %q", r.Class, r.Code, r.Worker, r.Body)
		}
	}
	got := map[queue.ID]bool{}
	for _, c := range h.claimN(h.worker(), 9) {
		got[c.ID] = true
		if len(c.Body) == 0 {
			h.Errorf("%s: claimed again without its body", c.ID)
		}
	}
	if len(got) != 2 || !got[stored] || !got[queued.ID] {
		h.Errorf("claimed again: got %v, want the stored response and the queued request", got)
	}
}

func testU4(h *harness) {
	w1, w2 := h.worker(), h.worker()
	h.enqueue()
	zombie := h.claim(w1)
	h.kill(w1)
	h.reap(9)
	h.sweep()
	owner := h.claim(w2)
	for _, w := range []store.Write{
		move(zombie.Fence(), queue.Processing, queue.ByStart),
		move(zombie.Fence(), queue.Pending, queue.ByHandBack),
		{Fence: zombie.Fence(), Steps: []response.Step{{Kind: response.ModelCall, State: response.Running}}},
	} {
		h.lost(w)
	}
	if r := h.wantState(owner.ID, queue.Claimed); r.Worker != w2 || r.Attempt != 2 || len(r.Steps) != 0 {
		h.Errorf("got worker %d, attempt %d, %d steps", r.Worker, r.Attempt, len(r.Steps))
	}
	h.start(owner)
}

func testU5(h *harness) {
	w := h.worker()
	h.enqueue()
	c := h.claim(w)
	h.cancel(c.ID)
	if err := h.write(move(c.Fence(), queue.Processing, queue.ByStart)); !errors.Is(err, queue.ErrLeaseLost) {
		h.Errorf("start after cancel: got %v, want ErrLeaseLost", err)
	}
}

func testU9(h *harness) {
	w := h.worker()
	c := h.running(w)
	h.cancel(c.ID)
	if err := h.d.Delete(h.Context(), tenant, c.ID); err != nil {
		h.Fatalf("Delete: %v", err)
	}
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 1 || p.Held[0].ID != c.ID {
		h.Errorf("pulse: got %+v, want the deleted request in it", p)
	}
}

func testU10(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	h.enqueue()
	h.kill(w)
	h.reap(9)
	h.wantExact()
	if got := h.claimN(h.worker(), 1); len(got) != 1 || got[0].ID == c.ID && got[0].Attempt != 2 {
		h.Errorf("after the reap of a full lane: got %+v", got)
	}
}

func testU11(h *harness) {
	id := h.enqueue()
	for reaps := range 3 {
		w := h.worker()
		c := h.start(h.claim(w))
		if c.ID != id || c.Reaps != reaps || c.Attempt != reaps+1 {
			h.Fatalf("claim: got %+v", c)
		}
		h.kill(w)
		h.reap(2)
		h.sweep()
	}
	if r := h.wantState(id, queue.Failed); r.Class != queue.WorkerLost || r.Code != "worker_lost" {
		h.Errorf("got class %q, code %q", r.Class, r.Code)
	}
}

func testU13(h *harness) {
	w := h.worker()
	c := h.running(w)
	h.cancel(c.ID)
	h.kill(w)
	h.reapUntil("removed the worker", 3, func(store.Swept) bool {
		return h.beat(store.Beat{Worker: w, Leave: true}).Lost && h.get(c.ID).Worker == 0
	})
}

func testU18(h *harness) {
	w := h.worker()
	text := []byte("{\"text\":\"a\\u0000b\"}\x00\xff")
	c := h.running(w, func(n *queue.New) { n.Body = text })
	h.must(store.Write{
		Fence:     c.Fence(),
		Steps:     []response.Step{{Kind: response.ToolCall, State: response.Completed, CallID: "a\x00", Tool: "\x00b", Input: text, Output: text}},
		Events:    []response.Event{{Seq: 0, Data: text}},
		Decisions: []store.Decision{{Kind: "route", Question: text, Answer: text}},
		KV:        []store.KVPut{{Plugin: "p", Key: "k", Value: text}},
	})
	r := h.get(c.ID)
	same(h.T, "body", r.Body, text)
	same(h.T, "step", r.Steps[0].Output, text)
	same(h.T, "event", r.Events[0].Data, text)
	same(h.T, "decision", r.Decisions[0].Question, text)
	if r.Steps[0].CallID != "a\x00" || r.Steps[0].Tool != "\x00b" {
		h.Errorf("got call %q of %q", r.Steps[0].CallID, r.Steps[0].Tool)
	}
	v, _, err := h.d.KVGet(h.Context(), tenant, "p", "k")
	if err != nil {
		h.Fatal(err)
	}
	same(h.T, "value", v, text)
}
