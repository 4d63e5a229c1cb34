package storetest

import (
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func testBatchVersion(h *harness) {
	b := h.batch(h.upload("batch", "x").ID)
	s := store.BatchStep{Batch: b}
	s.Batch.Line = 1
	h.step(s)
	l, w := line(b, 1)
	s.Lines, s.Requests, s.Batch.Line = []store.Line{l}, []store.Write{w}, 2
	if err := h.d.StepBatch(h.Context(), s); !errors.Is(err, store.ErrConflict) {
		h.Errorf("StepBatch of an old version: got %v", err)
	}
	if got := h.batchOf(b.ID); got.Line != 1 || got.Version != b.Version+1 {
		h.Errorf("got %+v", got)
	}
	h.wantOpen(b.ID, false)
	if lines, err := h.d.Lines(h.Context(), b.ID, 0, 9); err != nil || len(lines) != 0 {
		h.Errorf("Lines: got %v, %v", lines, err)
	}
}

// testBatchAtomic: a step of which one thing is refused leaves nothing behind.
func testBatchAtomic(h *harness) {
	b := h.batch(h.upload("batch", "x").ID)
	taken := h.enqueue()
	for name, broken := range map[string]func(*store.BatchStep){
		"request": func(s *store.BatchStep) { s.Requests[1].Insert.ID = taken },
		"line":    func(s *store.BatchStep) { s.Lines[1].CustomID = s.Lines[0].CustomID },
		"version": func(s *store.BatchStep) { s.Batch.Version++ },
	} {
		s := store.BatchStep{Batch: b, Grow: []store.File{{ID: queue.NewID(), Tenant: tenant, Batch: b.ID}}}
		for n := range 2 {
			l, w := line(b, n+1)
			s.Lines, s.Requests = append(s.Lines, l), append(s.Requests, w)
		}
		broken(&s)
		if err := h.d.StepBatch(h.Context(), s); err == nil {
			h.Errorf("%s: got no error", name)
		}
		h.wantFile(tenant, s.Grow[0].ID, false)
		h.wantOpen(b.ID, false)
		if got := h.batchOf(b.ID); got.Version != b.Version {
			h.Errorf("%s: got version %d, want %d", name, got.Version, b.Version)
		}
	}
	if s := h.stats(); len(s.Lanes) != 1 {
		h.Errorf("lanes: got %+v", s.Lanes)
	}
}

// testBatchRace: of two hosts that load the same lines, one does.
func testBatchRace(h *harness) {
	in := h.upload("batch", "x").ID
	for round := range rounds {
		b := h.batch(in)
		var ids [2]queue.ID
		var errs [2]error
		load := func(i int) func() {
			return func() {
				s := store.BatchStep{Batch: b, Again: time.Hour}
				l, w := line(b, 1)
				ids[i] = w.Insert.ID
				s.Lines, s.Made, s.Requests = []store.Line{l}, []store.Line{l}, []store.Write{w}
				s.Batch.Line = 1
				errs[i] = h.d.StepBatch(h.Context(), s)
			}
		}
		race(round, load(0), load(1))
		won := 0
		if errs[0] != nil {
			won = 1
		}
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errs[1-won], store.ErrConflict) {
			h.Fatalf("round %d: got %v and %v, want one winner", round, errs[0], errs[1])
		}
		lines, err := h.d.Lines(h.Context(), b.ID, 0, 9)
		if err != nil || len(lines) != 1 || lines[0].Request != ids[won] || lines[0].Lost {
			h.Fatalf("round %d: got %+v, %v", round, lines, err)
		}
		if _, err := h.d.Get(h.Context(), "", ids[1-won], store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
			h.Fatalf("round %d: the loser's request: got %v", round, err)
		}
	}
}

// testBatchRaceCancel: what is loaded is canceled, whichever comes first.
func testBatchRaceCancel(h *harness) {
	in := h.upload("batch", "x").ID
	for round := range rounds {
		b := h.batch(in)
		var stepped, canceled error
		race(round,
			func() {
				s := store.BatchStep{Batch: b, Again: time.Hour}
				l, w := line(b, 1)
				s.Lines, s.Made, s.Requests = []store.Line{l}, []store.Line{l}, []store.Write{w}
				s.Batch.State = store.BatchRunning
				stepped = h.d.StepBatch(h.Context(), s)
			},
			func() { _, canceled = h.d.CancelBatch(h.Context(), tenant, b.ID) })
		if canceled != nil || (stepped != nil && !errors.Is(stepped, store.ErrConflict)) {
			h.Fatalf("round %d: got %v, %v", round, stepped, canceled)
		}
		if b = h.batchOf(b.ID); b.State != store.BatchCanceling {
			h.Fatalf("round %d: it is %s", round, b.State)
		}
		h.wantOpen(b.ID, stepped == nil)
		if _, err := h.d.CancelLines(h.Context(), b.ID, 9); err != nil {
			h.Fatal(err)
		}
		h.wantOpen(b.ID, false)
	}
}

func testBatchRemoved(h *harness) {
	b, _ := h.runningBatch(3)
	if _, err := h.d.CancelLines(h.Context(), b.ID, 9); err != nil {
		h.Fatal(err)
	}
	b.State = store.BatchFinalizing
	b = h.step(store.BatchStep{Batch: b, Again: time.Hour})
	b.State, b.Settled = store.BatchCompleted, true
	b = h.step(store.BatchStep{Batch: b})
	if t, err := h.d.Tidy(h.Context(), store.TidyRequest{}); err != nil || t.Batches != 0 {
		h.Errorf("Tidy: got %+v, %v", t, err)
	}
	retry := newBatch(b.Input)
	retry.Parent = b.ID
	retry, err := h.d.CreateBatch(h.Context(), retry, time.Hour)
	if err != nil {
		h.Fatal(err)
	}
	for range 20 {
		if t, err := h.d.Tidy(h.Context(), store.TidyRequest{KeepBatches: time.Millisecond}); err != nil || t.Batches != 0 || t.More {
			h.Fatalf("Tidy while a retry reads its lines: got %+v, %v", t, err)
		}
	}
	if _, err := h.d.CancelBatch(h.Context(), tenant, retry.ID); err != nil {
		h.Fatal(err)
	}
	h.tidy(store.TidyRequest{KeepBatches: time.Millisecond, Limit: 2}, "removed the batch", func(t store.Tidied) bool { return t.Batches == 1 })
	if _, err := h.d.Batch(h.Context(), tenant, b.ID); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Batch: got %v", err)
	}
	if lines, err := h.d.Lines(h.Context(), b.ID, 0, 9); err != nil || len(lines) != 0 {
		h.Errorf("Lines: got %v, %v", lines, err)
	}
}

// testU14: of a batch whose requests run, a host that asks is told once in a
// while, whatever the number of hosts, and nothing is counted for it.
func testU14(h *harness) {
	b, _ := h.runningBatch(2)
	h.must(complete(h.start(h.claim(h.worker())).Fence()))
	h.step(store.BatchStep{Batch: b}) // due at once
	held, ok, err := h.d.HoldBatch(h.Context(), time.Hour)
	if err != nil || !ok || held.ID != b.ID || held.Completed != 0 {
		h.Fatalf("HoldBatch: got %+v, %t, %v, want it uncounted", held, ok, err)
	}
	if seen := h.batchOf(b.ID); seen.Completed != 1 {
		h.Errorf("Batch: got %d completed, want 1", seen.Completed)
	}
	for range 2 {
		h.runningBatch(1)
	}
	for range 10 {
		if b, ok, err := h.d.HoldBatch(h.Context(), time.Hour); err != nil || ok {
			h.Fatalf("HoldBatch: got %+v, %t, %v, want none", b, ok, err)
		}
	}
}
