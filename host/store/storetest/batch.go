package storetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var batchCases = []testCase{
	{"BatchLife", testBatchLife},
	{"BatchList", testBatchList},
	{"BatchOfAnother", testBatchForeign},
	{"BatchIsHeldByOne", testBatchHold},
	{"BatchStepIsOfItsVersion", testBatchVersion},
	{"BatchStepIsAllOrNothing", testBatchAtomic},
	{"BatchStepRaced", testBatchRace},
	{"BatchStepRacedAgainstCancel", testBatchRaceCancel},
	{"BatchIsRemoved", testBatchRemoved},
	{"U14BatchIsLookedAtByOneHost", testU14},
}

func newBatch(input queue.ID) store.Batch {
	return store.Batch{ID: queue.NewID(), Tenant: tenant, Endpoint: "/v1/responses", Window: "24h", Input: input, Metadata: []byte(`{"a":"b"}`)}
}

// batch stores a batch of an input.
func (h *harness) batch(input queue.ID) store.Batch {
	h.Helper()
	b, err := h.d.CreateBatch(h.Context(), newBatch(input), 24*time.Hour)
	if err != nil {
		h.Fatalf("CreateBatch: %v", err)
	}
	return b
}

// step makes a step of a batch as it was read, and returns it as it is then read.
func (h *harness) step(s store.BatchStep) store.Batch {
	h.Helper()
	if err := h.d.StepBatch(h.Context(), s); err != nil {
		h.Fatalf("StepBatch: %v", err)
	}
	return h.batchOf(s.Batch.ID)
}

func (h *harness) batchOf(id queue.ID) store.Batch {
	h.Helper()
	b, err := h.d.Batch(h.Context(), tenant, id)
	if err != nil {
		h.Fatalf("Batch: %v", err)
	}
	return b
}

// line is the n-th line of a batch, and the insert of its request.
func line(b store.Batch, n int) (store.Line, store.Write) {
	insert := request(func(r *queue.New) { r.Batch, r.Line = b.ID, n })
	return store.Line{
		Line: n, CustomID: fmt.Sprint("line ", n), Offset: int64(100 * n), Size: 99, Request: insert.ID,
	}, store.Write{Insert: insert}
}

// running makes a batch with so many lines, all of them requests.
func (h *harness) runningBatch(n int) (store.Batch, []queue.ID) {
	h.Helper()
	b := h.batch(h.upload("batch", "x").ID)
	s := store.BatchStep{Batch: b, Again: time.Hour}
	var ids []queue.ID
	for i := range n {
		l, w := line(b, i+1)
		s.Lines, s.Made, s.Requests = append(s.Lines, l), append(s.Made, l), append(s.Requests, w)
		ids = append(ids, w.Insert.ID)
	}
	s.Batch.State, s.Batch.Line, s.Batch.Total = store.BatchRunning, n, n
	s.Batch.Output, s.Batch.Errors = queue.NewID(), queue.NewID()
	for _, id := range []queue.ID{s.Batch.Output, s.Batch.Errors} {
		s.Grow = append(s.Grow, store.File{ID: id, Tenant: tenant, Name: "out.jsonl", Purpose: "batch_output", Batch: b.ID})
	}
	return h.step(s), ids
}

func (h *harness) wantOpen(id queue.ID, want bool) {
	h.Helper()
	if open, err := h.d.OpenLines(h.Context(), id); err != nil || open != want {
		h.Errorf("OpenLines: got %t, %v, want %t", open, err, want)
	}
}

func testBatchLife(h *harness) {
	in := h.upload("batch", "x")
	b := h.batch(in.ID)
	if b.State != store.BatchValidating || b.Input != in.ID || b.InputBytes != 1 || b.Window != "24h" || string(b.Metadata) != `{"a":"b"}` ||
		b.Created.IsZero() || b.Expires.Sub(b.Created) != 24*time.Hour || b.Left < 23*time.Hour || b.Left > 24*time.Hour || !b.Started.IsZero() {
		h.Errorf("CreateBatch: got %+v", b)
	}
	b, ids := h.runningBatch(4)
	if b.State != store.BatchRunning || b.Started.IsZero() || b.Line != 4 || b.Total != 4 || b.Completed+b.Failed != 0 {
		h.Errorf("running: got %+v", b)
	}
	h.wantOpen(b.ID, true)
	known, err := h.d.KnownIDs(h.Context(), b.ID, []string{"line 1", "line 9", "line 3"})
	if err != nil || len(known) != 2 {
		h.Errorf("KnownIDs: got %v, %v", known, err)
	}
	w := h.worker()
	for range 2 {
		h.must(complete(h.start(h.claim(w)).Fence()))
	}
	if n, err := h.d.CancelLines(h.Context(), b.ID, 1); err != nil || n != 1 {
		h.Errorf("CancelLines: got %d, %v", n, err)
	}
	if n, err := h.d.CancelLines(h.Context(), b.ID, 9); err != nil || n != 1 {
		h.Errorf("CancelLines: got %d, %v", n, err)
	}
	h.wantOpen(b.ID, false)
	h.wantExact()
	if b = h.batchOf(b.ID); b.Completed != 2 || b.Failed != 2 {
		h.Errorf("counts: got %d, %d", b.Completed, b.Failed)
	}
	lines, err := h.d.Lines(h.Context(), b.ID, 1, 9)
	if err != nil || len(lines) != 3 || lines[0].Line != 2 || lines[0].CustomID != "line 2" || lines[0].Offset != 200 || lines[0].Size != 99 ||
		lines[0].Request != ids[1] || lines[0].State != queue.Completed || lines[0].Result == 0 || lines[2].State != queue.Canceled {
		h.Errorf("Lines: got %+v, %v", lines, err)
	}
	results, err := h.d.LineResults(h.Context(), ids)
	if err != nil || len(results) != 2 || string(results[ids[0]].Body) != `{"ok":true}` || results[ids[0]].Status != 200 {
		h.Errorf("LineResults: got %v, %v", results, err)
	}
	h.endBatch(b)
}

// endBatch ends a batch with a file of output and none of errors, and settles it.
func (h *harness) endBatch(b store.Batch) {
	h.Helper()
	if err := h.d.DeleteFile(h.Context(), tenant, b.Output); !errors.Is(err, queue.ErrRunning) {
		h.Errorf("DeleteFile of what grows: got %v", err)
	}
	s := store.BatchStep{Batch: b, Chunks: []store.PartOf{{File: b.Output, Data: []byte("out")}}}
	s.Batch.State, s.Batch.Completed, s.Batch.Failed, s.Batch.Usage = store.BatchCompleted, 1, 3, []byte(`{"total_tokens":5}`)
	s.Grown = []store.GrownFile{{ID: b.Output, FileEnd: store.FileEnd{Bytes: 3, ExpiresIn: time.Hour}}, {ID: b.Errors}}
	b = h.step(s)
	if b.State != store.BatchCompleted || b.Ended.IsZero() || b.Completed != 1 || b.Failed != 3 || b.Settled || string(b.Usage) != `{"total_tokens":5}` {
		h.Errorf("ended: got %+v", b)
	}
	if f, err := h.d.File(h.Context(), tenant, b.Output); err != nil || f.State != store.Ready || f.Bytes != 3 || f.Expires.IsZero() || f.Batch != b.ID {
		h.Errorf("output: got %+v, %v", f, err)
	}
	h.wantFile(tenant, b.Errors, false)
	for after := 0; ; {
		last, err := h.d.SettleLines(h.Context(), b.ID, after, 2)
		if err != nil {
			h.Fatalf("SettleLines: %v", err)
		}
		if last == 0 {
			break
		}
		after = last
	}
	lines, err := h.d.Lines(h.Context(), b.ID, 0, 9)
	if err != nil || len(lines) != 2 || lines[0].Line != 3 {
		h.Errorf("Lines of a settled batch: got %+v, %v", lines, err)
	}
	b.Settled = true
	if b = h.step(store.BatchStep{Batch: b}); !b.Settled {
		h.Errorf("settled: got %+v", b)
	}
	if _, ok, err := h.d.HoldBatch(h.Context(), time.Hour); ok && err == nil {
		if got, _, _ := h.d.HoldBatch(h.Context(), time.Hour); got.ID == b.ID {
			h.Errorf("a settled batch is due")
		}
	}
}

func testBatchList(h *harness) {
	in := h.upload("batch", "x").ID
	var ids []queue.ID
	for range 3 {
		ids = append(ids, h.batch(in).ID)
	}
	for _, c := range []struct {
		page store.BatchPage
		want []queue.ID
		more bool
	}{
		{store.BatchPage{Limit: 9}, []queue.ID{ids[2], ids[1], ids[0]}, false},
		{store.BatchPage{Limit: 2}, []queue.ID{ids[2], ids[1]}, true},
		{store.BatchPage{Limit: 2, After: ids[1]}, []queue.ID{ids[0]}, false},
	} {
		list, more, err := h.d.ListBatches(h.Context(), tenant, c.page)
		var got []queue.ID
		for _, b := range list {
			got = append(got, b.ID)
		}
		if err != nil || more != c.more || !equal(got, c.want) {
			h.Errorf("ListBatches(%+v): got %v, %t, %v", c.page, got, more, err)
		}
	}
	if _, _, err := h.d.ListBatches(h.Context(), tenant, store.BatchPage{Limit: 1, After: queue.NewID()}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("ListBatches after no batch: got %v", err)
	}
}

func testBatchForeign(h *harness) {
	in := h.upload("batch", "x").ID
	b := newBatch(in)
	b.Tenant = "tenant-b"
	if _, err := h.d.CreateBatch(h.Context(), b, time.Hour); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("CreateBatch of another's file: got %v", err)
	}
	b = h.batch(in)
	if _, err := h.d.Batch(h.Context(), "tenant-b", b.ID); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Batch: got %v", err)
	}
	if _, err := h.d.CancelBatch(h.Context(), "tenant-b", b.ID); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("CancelBatch: got %v", err)
	}
	if list, _, err := h.d.ListBatches(h.Context(), "tenant-b", store.BatchPage{Limit: 9}); err != nil || len(list) != 0 {
		h.Errorf("ListBatches: got %v, %v", list, err)
	}
	if b = h.batchOf(b.ID); b.State != store.BatchValidating {
		h.Errorf("state: got %s", b.State)
	}
}

func testBatchHold(h *harness) {
	in := h.upload("batch", "x").ID
	want := map[queue.ID]bool{h.batch(in).ID: true, h.batch(in).ID: true}
	for range 2 {
		b, ok, err := h.d.HoldBatch(h.Context(), time.Hour)
		if err != nil || !ok || !want[b.ID] {
			h.Fatalf("HoldBatch: got %+v, %t, %v", b, ok, err)
		}
		delete(want, b.ID)
	}
	if _, ok, err := h.d.HoldBatch(h.Context(), time.Hour); err != nil || ok {
		h.Errorf("HoldBatch: got %t, %v, want none", ok, err)
	}
	b, err := h.d.CancelBatch(h.Context(), tenant, h.batch(in).ID)
	if err != nil || b.State != store.BatchCanceling || b.Canceling.IsZero() {
		h.Errorf("CancelBatch: got %+v, %v", b, err)
	}
	if got, ok, err := h.d.HoldBatch(h.Context(), time.Hour); err != nil || !ok || got.ID != b.ID || got.Version != b.Version {
		h.Errorf("HoldBatch: got %+v, %t, %v, want the canceled one", got, ok, err)
	}
}
