package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// fenceCases race a write to each table against each way to lose a claim, and
// try both orders one after the other. race.go does it for whole writes.
var fenceCases = fenceTable()

func fenceTable() []testCase {
	var cases []testCase
	for _, t := range fencedTables {
		cases = append(cases, testCase{"FenceOf/" + t.name, func(h *harness) {
			for _, o := range opponents {
				testFenced(h, t, o)
			}
		}})
	}
	return cases
}

// fencedTable is a table that only the holder of a claim may write to.
type fencedTable struct {
	name string
	add  func(w *store.Write, key string)
	// kept counts what a write left.
	kept func(h *harness, r store.Record, key string) int
}

var fencedTables = []fencedTable{
	{"step", func(w *store.Write, _ string) {
		w.Steps = []response.Step{{Kind: response.ModelCall, State: response.Running}}
	}, func(_ *harness, r store.Record, _ string) int { return len(r.Steps) }},
	{"event", func(w *store.Write, _ string) {
		w.Events = []response.Event{{Seq: 0, Data: []byte("late")}}
	}, func(_ *harness, r store.Record, _ string) int { return len(r.Events) }},
	{"decision", func(w *store.Write, _ string) {
		w.Decisions = []store.Decision{{Kind: "route"}}
	}, func(_ *harness, r store.Record, _ string) int { return len(r.Decisions) }},
	{"kv", func(w *store.Write, key string) {
		w.KV = []store.KVPut{{Plugin: "p", Key: key, Value: []byte("late")}}
	}, func(h *harness, r store.Record, key string) int {
		if _, ok, err := h.d.KVGet(h.Context(), r.Tenant, "p", key); err != nil {
			h.Errorf("KVGet: %v", err)
		} else if ok {
			return 1
		}
		return 0
	}},
	{"failures", func(w *store.Write, _ string) { w.Failures = 1 }, func(_ *harness, r store.Record, _ string) int { return r.Failures }},
	{"result", func(w *store.Write, _ string) { w.Move = complete(w.Fence).Move }, func(_ *harness, r store.Record, _ string) int {
		if r.Result != nil {
			return 1
		}
		return 0
	}},
}

// opponent takes the claim away from its worker, unless the request has ended.
type opponent struct {
	name string
	// prepare makes it possible; what it returns reports whether the claim was
	// taken away.
	prepare func(h *harness, c queue.Claim, worker int64) (run func() bool)
}

var opponents = []opponent{
	{"cancel", func(h *harness, c queue.Claim, _ int64) func() bool {
		return func() bool { return h.cancel(c.ID) }
	}},
	{"reap", func(h *harness, _ queue.Claim, worker int64) func() bool {
		h.kill(worker)
		return func() bool { return h.reapOnce(9).Reaped == 1 }
	}},
	{"claim", func(h *harness, c queue.Claim, worker int64) func() bool {
		next := h.worker()
		h.kill(worker)
		return func() bool {
			if h.reapOnce(9).Reaped != 1 {
				return false
			}
			claims, err := h.claimAgain(next)
			if err != nil || len(claims) != 1 || claims[0].ID != c.ID || claims[0].Attempt != c.Attempt+1 {
				h.Errorf("Claim: got %+v, %v, want the request again", claims, err)
			}
			return true
		}
	}},
}

// claimAgain claims what waits. A sweep passes over a row that somebody else,
// here the write that comes too late, has locked: the next one does not.
func (h *harness) claimAgain(worker int64) (claims []queue.Claim, err error) {
	for begin := time.Now(); err == nil && len(claims) == 0 && time.Since(begin) < patience; {
		if _, err = h.d.Sweep(h.Context(), store.SweepRequest{}); err == nil {
			claims, err = h.d.Claim(h.Context(), store.ClaimRequest{Worker: worker, Models: []string{model}, N: 1})
		}
	}
	return claims, err
}

func testFenced(h *harness, table fencedTable, o opponent) {
	h.capped(3)
	for round := range 6 {
		w := h.worker()
		c := h.running(w)
		key := fmt.Sprint(o.name, round)
		late := store.Write{Fence: c.Fence(), Usage: []store.Usage{{Try: 1, Target: "up/m"}}}
		table.add(&late, key)
		run := o.prepare(h, c, w)
		var err error
		var took bool
		write, take := func() { err = h.try(late) }, func() { took = run() }
		switch round {
		case 0:
			write()
			take()
		case 1:
			take()
			write()
		default:
			race(round, write, take)
		}
		if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
			h.Fatalf("%s, round %d: Write: %v", o.name, round, err)
		}
		if round == 0 && err != nil || round == 1 && err == nil {
			h.Errorf("%s, round %d, one after the other: got %v", o.name, round, err)
		}
		// A reap passes over a row that somebody writes to; a cancel waits.
		if !took && (err != nil || o.name == "cancel" && table.name != "result") {
			h.Errorf("%s, round %d: the claim was not taken, the write got %v", o.name, round, err)
		}
		if took && table.name == "result" && err == nil {
			h.Errorf("%s, round %d: both won", o.name, round)
		}
		r, want := h.get(c.ID), 0
		if err == nil {
			want = 1
		}
		if got := table.kept(h, r, key); got != want {
			h.Errorf("%s, round %d: the write got %v, and left %d, want %d", o.name, round, err, got, want)
		}
		if len(r.Usage) != 1 {
			h.Errorf("%s, round %d: the write got %v, and left %d usage rows, want 1", o.name, round, err, len(r.Usage))
		}
		h.clear(c.ID)
	}
	h.wantExact()
}

// clear makes sure that a request is neither claimed again nor holds a slot.
func (h *harness) clear(id queue.ID) {
	h.Helper()
	h.cancel(id)
	if r := h.get(id); r.Worker != 0 {
		h.must(store.Write{Fence: queue.Fence{ID: id, Attempt: r.Attempt, State: queue.Canceled}, LetGo: true})
	}
}
