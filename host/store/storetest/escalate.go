package storetest

import (
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var escalateCases = []testCase{
	{"EscalateNearTheDeadline", testEscalate},
	{"EscalateCountsInBothLanes", testEscalateBoth},
	{"EscalateOnlyWithRoom", testEscalateRoom},
	{"OnlyEscalateLeavesTheRest", testOnlyEscalate},
	{"EscalationEndsWithTheAttempt", testEscalateEnds},
	{"EscalationIsDecidedAnew", testEscalateAnew},
	{"EscalationIsRecounted", testEscalateRecount},
}

// escalation is what a host asks for that may run other in place of model in
// the last hour before the deadline.
func escalation(w int64, n int, only ...string) store.ClaimRequest {
	return store.ClaimRequest{
		Worker: w, N: n, Models: []string{model}, OnlyEscalate: only,
		Escalate: map[string]queue.Escalation{model: {To: other, Within: time.Hour}},
	}
}

// escalated claims exactly one request, for the other model.
func (h *harness) escalated(w int64) queue.Claim {
	h.Helper()
	got := h.ask(escalation(w, 1))
	if len(got) != 1 || got[0].Escalated != other || got[0].Model != model || got[0].Served() != other {
		h.Fatalf("got %+v, want one claim of %s for %s", got, model, other)
	}
	return got[0]
}

func testEscalate(h *harness) {
	w := h.worker()
	near := h.enqueue(within(30 * time.Minute))
	far := h.enqueue(within(3 * time.Hour))
	never := h.enqueue()
	elsewhere := h.enqueue(of(tenant, "model-c"), within(time.Minute))
	ask := escalation(w, 9)
	ask.Models = append(ask.Models, "model-c")
	got := map[queue.ID]string{}
	for _, c := range h.ask(ask) {
		got[c.ID] = c.Escalated
	}
	for id, want := range map[queue.ID]string{near: other, far: "", never: "", elsewhere: ""} {
		is, ok := got[id]
		if !ok || is != want {
			h.Errorf("%s: got claimed %t for %q, want %q", id, ok, is, want)
		}
	}
	if r := h.get(near); r.Escalated != other || r.Model != model {
		h.Errorf("record: got model %q, escalated %q", r.Model, r.Escalated)
	}
	if r := h.get(far); r.Escalated != "" {
		h.Errorf("record of the other: got escalated %q", r.Escalated)
	}
	if l := h.laneOf(tenant, other); l.Owned != 1 {
		h.Errorf("lane of %s: got %+v, want one row in it", other, l)
	}
}

func testEscalateBoth(h *harness) {
	w := h.worker()
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: tenant, Model: model, Weight: 1, Cap: 5}, {Tenant: tenant, Model: other, Weight: 0.5, Cap: 1}},
		Gates: []queue.Gate{{Tenant: tenant, Cap: 2}},
	})
	h.enqueue(of(tenant, other))
	h.enqueue(within(time.Minute))
	c := h.escalated(w)
	a, b := h.lane(), h.laneOf(tenant, other)
	if a.Running != 1 || b.Running != 1 || a.Owned != 1 || b.Owned != 1 {
		h.Errorf("got running %d and %d, owned %d and %d, want one in both", a.Running, b.Running, a.Owned, b.Owned)
	}
	if a.VTime != 1 || b.VTime != 2 {
		h.Errorf("got virtual times %g and %g, want 1 and 2", a.VTime, b.VTime)
	}
	if g := h.gate(); g.Running != 1 {
		h.Errorf("gate: got %d running, want the request counted once", g.Running)
	}
	h.wantExact()
	h.wantClaims("the other lane is full", w, 9, 0, other)
	if at := h.refused(w, other); at.Gate || at.Model != other {
		h.Errorf("realtime: got %+v, want the other lane", at)
	}
	h.mustAdmit(w, model)
	if at := h.refused(w, model); !at.Gate {
		h.Errorf("realtime: got %+v, want the gate", at)
	}
	h.finish(c)
	h.wantExact()
	h.wantClaims("both are free", w, 9, 1, other)
	h.wantExact()
}

// testEscalateRoom: without room in the lane of the other model a request runs
// on its own, or waits if its own can serve nothing.
func testEscalateRoom(h *harness) {
	w := h.worker()
	for _, full := range []struct {
		name string
		fill func()
		free func()
	}{
		{"capped", func() {
			h.setLanes(queue.Lane{Tenant: tenant, Model: other, Weight: 1, Cap: 2, Reserve: queue.Reserve{Realtime: 1}})
			h.enqueue(of(tenant, other))
			h.wantClaims("fill", w, 1, 1, other)
		}, func() { h.setLanes(queue.Lane{Tenant: tenant, Model: other, Weight: 1}) }},
		{"parked", func() {
			h.enqueue(of(tenant, other))
			c := h.wantClaims("fill", w, 1, 1, other)
			h.must(parking(h.start(c[0]).Fence(), queue.Failed, queue.ByOutcome, forever))
		}, nil},
	} {
		full.fill()
		h.enqueue(within(time.Minute))
		if got := h.ask(escalation(w, 9, model)); len(got) != 0 {
			h.Errorf("%s, only to escalate: got %d claims", full.name, len(got))
		}
		got := h.ask(escalation(w, 9))
		if len(got) != 1 || got[0].Escalated != "" {
			h.Fatalf("%s: got %+v, want it claimed for its own model", full.name, got)
		}
		h.finish(got[0])
		h.wantExact()
		if full.free != nil {
			full.free()
		}
	}
	// Its own lane's cap holds as well.
	h.setLanes(queue.Lane{Tenant: "b", Model: model, Weight: 1, Cap: 1})
	h.enqueue(of("b", model), within(time.Minute))
	h.enqueue(of("b", model), within(2*time.Minute))
	if got := h.ask(escalation(w, 9)); len(got) != 1 || got[0].Escalated != other {
		h.Errorf("own cap of one: got %+v, want one escalated", got)
	}
	h.wantExact()
}

func testOnlyEscalate(h *harness) {
	w := h.worker()
	h.enqueueMany(3)
	h.enqueueMany(3, within(2*time.Hour))
	h.enqueueMany(2, of("b", model))
	h.enqueueMany(2, of("b", "model-c"))
	near := h.enqueue(within(time.Minute))
	ask := escalation(w, 9, model)
	ask.Models = append(ask.Models, "model-c")
	got := h.ask(ask)
	escalated, rest := 0, 0
	for _, c := range got {
		switch {
		case c.ID == near && c.Escalated == other:
			escalated++
		case c.Model == "model-c" && c.Escalated == "":
			rest++
		default:
			h.Errorf("got %+v", c)
		}
	}
	if escalated != 1 || rest != 2 {
		h.Errorf("got %d escalated and %d of the model that serves, want 1 and 2", escalated, rest)
	}
	for range 3 {
		if got := h.ask(escalation(w, 9, model)); len(got) != 0 {
			h.Errorf("again: got %d claims of what is not near its deadline", len(got))
		}
	}
	h.wantClaims("when its model serves again", w, 99, 8)
	h.wantExact()
}

func testEscalateEnds(h *harness) {
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: tenant, Model: model, Weight: 1, Cap: 3}, {Tenant: tenant, Model: other, Weight: 1, Cap: 1}},
		Gates: []queue.Gate{{Tenant: tenant, Cap: 3}},
	})
	w := h.worker()
	letGo := func(c queue.Claim) {
		h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Canceled}, LetGo: true})
	}
	for _, end := range []struct {
		name string
		run  func(c queue.Claim)
	}{
		{"completed", h.finish},
		{"failed", func(c queue.Claim) { h.must(move(h.start(c).Fence(), queue.Failed, queue.ByOutcome)) }},
		{"put off", func(c queue.Claim) {
			w := move(h.start(c).Fence(), queue.Waiting, queue.ByRetry)
			w.Move.Delay = forever
			h.must(w)
		}},
		{"handed back", func(c queue.Claim) {
			h.must(move(c.Fence(), queue.Pending, queue.ByHandBack))
			h.cancel(c.ID)
		}},
		{"canceled", func(c queue.Claim) {
			h.cancel(c.ID)
			if got := h.laneOf(tenant, other); got.Running != 1 || h.get(c.ID).Escalated != other {
				h.Errorf("canceled and not let go: got %d running there, want 1", got.Running)
			}
			letGo(c)
		}},
		{"deleted", func(c queue.Claim) {
			h.cancel(c.ID)
			if err := h.d.Delete(h.Context(), "", c.ID); err != nil {
				h.Errorf("Delete: %v", err)
			}
			h.wantExact()
			letGo(c)
		}},
		{"reaped", func(queue.Claim) {
			h.kill(w)
			h.reapUntil("ended it", 0, func(store.Swept) bool { return h.laneOf(tenant, other).Owned == 0 })
			w = h.worker()
		}},
		{"reaped when canceled", func(c queue.Claim) {
			h.cancel(c.ID)
			h.kill(w)
			h.reapUntil("let go", 0, func(store.Swept) bool { return h.laneOf(tenant, other).Owned == 0 })
			w = h.worker()
		}},
	} {
		id := h.enqueue(within(time.Minute))
		c := h.escalated(w)
		if c.ID != id {
			h.Fatalf("%s: claimed %s, want %s", end.name, c.ID, id)
		}
		end.run(c)
		h.wantExact()
		a, b, g := h.lane(), h.laneOf(tenant, other), h.gate()
		if a.Running != 0 || b.Running != 0 || g.Running != 0 {
			h.Errorf("%s: got running %d, %d and %d at the gate, want none", end.name, a.Running, b.Running, g.Running)
		}
		r, err := h.d.Get(h.Context(), "", id, store.Parts{})
		if end.name != "deleted" && (err != nil || r.Escalated != "" || r.Worker != 0) || end.name == "deleted" && !errors.Is(err, queue.ErrNotFound) {
			h.Errorf("%s: got escalated %q, worker %d, %v", end.name, r.Escalated, r.Worker, err)
		}
		if h.Failed() {
			return
		}
	}
}

func testEscalateAnew(h *harness) {
	w := h.worker()
	h.enqueue(within(30 * time.Minute))
	c := h.escalated(w)
	h.must(move(h.start(c).Fence(), queue.Pending, queue.ByHandBack))
	got := h.claimN(w, 1)
	if len(got) != 1 || got[0].Escalated != "" || got[0].Attempt != 2 {
		h.Fatalf("without escalation: got %+v", got)
	}
	if r := h.get(c.ID); r.Escalated != "" {
		h.Errorf("record: got escalated %q", r.Escalated)
	}
	h.must(move(h.start(got[0]).Fence(), queue.Waiting, queue.ByRetry))
	h.sweep()
	if c := h.escalated(w); c.Attempt != 3 {
		h.Errorf("got attempt %d, want 3", c.Attempt)
	}
	h.wantExact()
}

// testEscalateRecount: a cap that is set while an escalated request runs counts
// it, in both lanes.
func testEscalateRecount(h *harness) {
	w := h.worker()
	h.enqueue(within(time.Minute))
	c := h.escalated(w)
	h.limit(store.Limits{
		Lanes: []queue.Lane{{Tenant: tenant, Model: model, Weight: 1, Cap: 2}, {Tenant: tenant, Model: other, Weight: 1, Cap: 2}},
		Gates: []queue.Gate{{Tenant: tenant, Cap: 4}},
	})
	if a, b := h.lane(), h.laneOf(tenant, other); a.Running != 1 || b.Running != 1 {
		h.Errorf("got running %d and %d, want 1 and 1", a.Running, b.Running)
	}
	h.wantExact()
	h.finish(c)
	h.wantExact()
	if a, b := h.lane(), h.laneOf(tenant, other); a.Running != 0 || b.Running != 0 {
		h.Errorf("at the end: got running %d and %d, want none", a.Running, b.Running)
	}
}
