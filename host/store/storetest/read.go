package storetest

import (
	"errors"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var readCases = []testCase{
	{"GetParts", testGetParts},
	{"GetNotFound", testGetNotFound},
	{"BytesRoundTrip", testBytes},
	{"EventsTail", testTail},
	{"Delete", testDelete},
	{"DeleteCanceledBeforeLetGo", testDeleteCanceled},
	{"Stats", testStats},
}

func testGetParts(h *harness) {
	c := h.running(h.worker())
	w := full(c.Fence())
	w.Events = []response.Event{{Seq: 0, Data: []byte("e")}}
	h.must(w)
	r, err := h.d.Get(h.Context(), tenant, c.ID, store.Parts{})
	if err != nil || r.Body != nil || r.Result != nil || r.Steps != nil || r.Events != nil || r.Decisions != nil || r.Usage != nil {
		h.Errorf("Get without parts: got %+v, %v", r, err)
	}
	r = h.get(c.ID)
	if r.Body == nil || r.Result == nil || len(r.Steps) != 1 || len(r.Events) != 1 || len(r.Decisions) != 1 || len(r.Usage) != 1 {
		h.Errorf("Get with all parts: got %+v", r)
	}
}

func testGetNotFound(h *harness) {
	id := h.enqueue()
	if _, err := h.d.Get(h.Context(), "other", id, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("another tenant: got %v, want ErrNotFound", err)
	}
	if _, err := h.d.Get(h.Context(), "", queue.NewID(), store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("unknown id: got %v, want ErrNotFound", err)
	}
	if _, _, err := h.d.Cancel(h.Context(), "", queue.NewID(), ""); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Cancel: got %v, want ErrNotFound", err)
	}
	if err := h.d.Delete(h.Context(), "other", id); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Delete: got %v, want ErrNotFound", err)
	}
}

func testBytes(h *harness) {
	w := h.worker()
	for _, body := range [][]byte{{}, {0}, []byte("a\x00b\xff\xfe"), big()} {
		c := h.running(w, func(n *queue.New) { n.Body = body })
		same(h.T, "claimed body", c.Body, body)
		done := complete(c.Fence())
		done.Move.Result.Body = body
		done.Events = []response.Event{{Seq: 0, Data: body}}
		done.Steps = []response.Step{{Kind: response.ToolCall, State: response.Completed, Input: body, Output: body}}
		h.must(done)
		r := h.get(c.ID)
		same(h.T, "body", r.Body, body)
		same(h.T, "result", r.Result.Body, body)
		same(h.T, "event", r.Events[0].Data, body)
		same(h.T, "step input", r.Steps[0].Input, body)
		same(h.T, "step output", r.Steps[0].Output, body)
	}
}

func testTail(h *harness) {
	w := h.worker()
	a, b := h.running(w), h.running(w)
	silent := h.enqueue()
	for seq := range int64(5) {
		h.must(store.Write{Fence: a.Fence(), Events: []response.Event{{Seq: seq, Data: []byte{byte(seq)}}}})
	}
	h.must(store.Write{Fence: b.Fence(), Events: []response.Event{{Seq: 0, Data: []byte("b")}}})
	unknown := queue.NewID()
	tails, err := h.d.Events(h.Context(), []store.Cursor{{ID: a.ID, After: 1}, {ID: b.ID, After: -1}, {ID: silent, After: -1}, {ID: unknown, After: -1}}, 2)
	if err != nil {
		h.Fatalf("Events: %v", err)
	}
	if len(tails) != 3 {
		h.Errorf("got %d tails, want 3", len(tails))
	}
	ta := tails[a.ID]
	if ta.State != queue.Processing || len(ta.Events) != 2 || ta.Events[0].Seq != 2 || ta.Events[1].Seq != 3 || ta.Events[0].Data[0] != 2 {
		h.Errorf("tail a: got %+v", ta)
	}
	if tb := tails[b.ID]; len(tb.Events) != 1 || string(tb.Events[0].Data) != "b" {
		h.Errorf("tail b: got %+v", tb)
	}
	if ts := tails[silent]; ts.State != queue.Pending || len(ts.Events) != 0 {
		h.Errorf("silent tail: got %+v", ts)
	}
	done := complete(a.Fence())
	done.Events = []response.Event{{Seq: 5, Data: []byte("last")}}
	h.must(done)
	tails, err = h.d.Events(h.Context(), []store.Cursor{{ID: a.ID, After: 3}}, 10)
	if ta := tails[a.ID]; err != nil || ta.State != queue.Completed || len(ta.Events) != 2 || string(ta.Events[1].Data) != "last" {
		h.Errorf("final tail: got %+v, %v", ta, err)
	}
	if tails, err = h.d.Events(h.Context(), []store.Cursor{{ID: a.ID, After: 5}}, 10); err != nil || len(tails[a.ID].Events) != 0 {
		h.Errorf("read to the end: got %+v, %v", tails, err)
	}
}

func testDelete(h *harness) {
	w := h.worker()
	c := h.running(w)
	for _, f := range []func() error{
		func() error { return h.d.Delete(h.Context(), tenant, h.enqueue()) },
		func() error { return h.d.Delete(h.Context(), tenant, c.ID) },
	} {
		if err := f(); !errors.Is(err, queue.ErrRunning) {
			h.Errorf("not final: got %v, want ErrRunning", err)
		}
	}
	end := full(c.Fence())
	end.Events = []response.Event{{Seq: 0, Data: []byte("e")}}
	h.must(end)
	if err := h.d.Delete(h.Context(), tenant, c.ID); err != nil {
		h.Fatalf("Delete: %v", err)
	}
	if _, err := h.d.Get(h.Context(), "", c.ID, everything); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Get: got %v, want ErrNotFound", err)
	}
	if err := h.d.Delete(h.Context(), tenant, c.ID); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("second Delete: got %v, want ErrNotFound", err)
	}
	tails, err := h.d.Events(h.Context(), []store.Cursor{{ID: c.ID, After: -1}}, 10)
	if err != nil || len(tails) != 0 {
		h.Errorf("Events: got %v, %v, want nothing", tails, err)
	}
	// All but its usage is gone, so the same id can be used again.
	n := request(func(n *queue.New) { n.ID = c.ID })
	h.must(store.Write{Insert: n})
	if r := h.get(c.ID); len(r.Steps)+len(r.Events)+len(r.Decisions) != 0 || r.Result != nil || len(r.Usage) != 1 {
		h.Errorf("left over: got %+v", r)
	}
}

func testDeleteCanceled(h *harness) {
	for _, end := range []string{"let go", "reaped"} {
		h.capped(1)
		w := h.worker()
		c := h.running(w)
		h.cancel(c.ID)
		if err := h.d.Delete(h.Context(), tenant, c.ID); err != nil {
			h.Fatalf("Delete: %v", err)
		}
		if _, err := h.d.Get(h.Context(), "", c.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
			h.Errorf("Get: got %v, want ErrNotFound", err)
		}
		h.wantExact()
		if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 1 {
			h.Errorf("the worker is not told: %+v", p)
		}
		switch end {
		case "let go":
			h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
		case "reaped":
			h.kill(w)
			h.reapUntil("let go", 3, func(store.Swept) bool { return h.lane().Running == 0 })
		}
		if l := h.lane(); l.Running != 0 || l.Owned != 0 {
			h.Errorf("%s: got running %d, owned %d, want 0", end, l.Running, l.Owned)
		}
		h.must(store.Write{Insert: request(func(n *queue.New) { n.ID = c.ID })}) // the row is gone
		h.cancel(c.ID)
	}
}

func testStats(h *harness) {
	h.capped(9)
	w := h.worker()
	h.enqueueMany(3)
	h.claim(w)
	h.must(complete(h.start(h.claim(w)).Fence()))
	s := h.stats()
	if s.States[queue.Pending] != 1 || s.States[queue.Claimed] != 1 || s.States[queue.Completed] != 1 {
		h.Errorf("states: got %v", s.States)
	}
	if l := h.lane(); l.Pending != 1 || l.Owned != 1 || l.Running != 1 || l.Cap != 9 || !l.Ready || l.VTime != 2 {
		h.Errorf("lane: got %+v", l)
	}
}
