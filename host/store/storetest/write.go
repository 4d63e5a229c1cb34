package storetest

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var writeCases = []testCase{
	{"InsertPending", testInsertPending},
	{"InsertRealtime", testInsertRealtime},
	{"InsertTwice", testInsertTwice},
	{"InsertByUnknownWorker", testInsertByUnknownWorker},
	{"InsertAndFinishInOneWrite", testInsertAndFinish},
	{"LifeOfARequest", testLife},
	{"OneRequestManyWritesInABatch", testChainInBatch},
	{"BatchKeepsTheGoodWrites", testMixedBatch},
	{"FenceByAttempt", testFenceByAttempt},
	{"FenceByState", testFenceByState},
	{"FenceGone", testFenceGone},
	{"Retry", testRetry},
	{"HandBack", testHandBack},
	{"CancelAndLetGo", testCancelAndLetGo},
	{"CancelWhileNotOwned", testCancelNotOwned},
	{"CancelByWrite", testCancelByWrite},
	{"UnstoredLeavesOnlyTheRow", testUnstored},
}

func testInsertPending(h *harness) {
	n := request(func(n *queue.New) { n.Tier, n.Stream, n.Background, n.DeadlineIn = "flex", true, true, time.Hour })
	h.must(store.Write{Insert: n, Events: []response.Event{{Seq: 0, Data: []byte(`{"type":"a"}`)}}})
	r := h.wantState(n.ID, queue.Pending)
	if r.Tenant != tenant || r.Model != model || r.Path != "/v1/responses" || r.Tier != "flex" || !r.Stream || !r.Background || !r.Store || r.Realtime {
		h.Errorf("record: got %+v", r)
	}
	if r.Attempt != 0 || r.Worker != 0 || !r.Started.IsZero() || !r.Finished.IsZero() || !r.NotBefore.IsZero() {
		h.Errorf("record: got attempt %d, worker %d, started %v", r.Attempt, r.Worker, r.Started)
	}
	if got := r.Deadline.Sub(r.Created); got != time.Hour {
		h.Errorf("deadline after creation: got %s, want 1h", got)
	}
	if string(r.Body) != "{}" || len(r.Events) != 1 {
		h.Errorf("got body %q and %d events", r.Body, len(r.Events))
	}
	if l := h.lane(); !l.Ready || l.Pending != 1 || l.Weight != 1 || l.Cap != 0 {
		h.Errorf("lane: got %+v", l)
	}
}

func testInsertRealtime(h *harness) {
	w := h.worker()
	id := h.enqueue(by(w))
	r := h.wantState(id, queue.Processing)
	if r.Attempt != 1 || r.Worker != w || r.Started.IsZero() || !r.Realtime {
		h.Errorf("record: got attempt %d, worker %d, started %v, realtime %t", r.Attempt, r.Worker, r.Started, r.Realtime)
	}
	if got := h.claimN(w, 10); len(got) != 0 {
		h.Errorf("Claim: got %d claims of a realtime request, want 0", len(got))
	}
	h.must(complete(queue.Fence{ID: id, Attempt: 1, State: queue.Processing}))
	h.wantState(id, queue.Completed)
}

func testInsertTwice(h *harness) {
	n := request()
	h.must(store.Write{Insert: n})
	if err := h.write(store.Write{Insert: n, Usage: []store.Usage{{Target: "t"}}}); !errors.Is(err, store.ErrExists) {
		h.Errorf("second insert: got %v, want ErrExists", err)
	}
	m := request()
	results, err := h.d.Write(h.Context(), []store.Write{{Insert: m}, {Insert: m}})
	if err != nil || results[0] != nil || !errors.Is(results[1], store.ErrExists) {
		h.Errorf("twice in a batch: got %v, %v", results, err)
	}
	if got := h.claimN(h.worker(), 10); len(got) != 2 {
		h.Errorf("Claim: got %d, want 2", len(got))
	}
}

func testInsertByUnknownWorker(h *harness) {
	n := request(by(987654))
	h.lost(store.Write{Insert: n})
	if _, err := h.d.Get(h.Context(), "", n.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("Get: got %v, want ErrNotFound", err)
	}
	if _, err := h.d.Claim(h.Context(), store.ClaimRequest{Worker: 987654, Models: []string{model}, N: 1}); !errors.Is(err, queue.ErrLeaseLost) {
		h.Errorf("Claim: got %v, want ErrLeaseLost", err)
	}
}

func testInsertAndFinish(h *harness) {
	h.capped(1)
	w := h.worker()
	for range 3 {
		n := request(by(w), path("/v1/chat/completions"))
		done := complete(queue.Fence{})
		done.Insert, done.Usage = n, []store.Usage{{Target: "up/m", Tokens: response.Usage{Input: 3, Output: 4}}}
		h.must(done)
		r := h.wantState(n.ID, queue.Completed)
		if r.Worker != 0 || r.Started.IsZero() || r.Finished.IsZero() || len(r.Usage) != 1 || r.Result == nil {
			h.Errorf("record: got %+v", r)
		}
	}
	h.wantExact()
}

func testLife(h *harness) {
	w := h.worker()
	id := h.enqueue(func(n *queue.New) { n.Body = []byte("payload") })
	c := h.claim(w)
	if c.ID != id || c.Tenant != tenant || c.Model != model || c.Attempt != 1 || c.State != queue.Claimed || string(c.Body) != "payload" || c.Realtime || !c.Store {
		h.Fatalf("claim: got %+v", c)
	}
	if c.Age < 0 || c.Remaining != 0 || c.Created.IsZero() {
		h.Errorf("claim: got age %s, remaining %s", c.Age, c.Remaining)
	}
	if r := h.wantState(id, queue.Claimed); r.Worker != w || !r.Started.IsZero() {
		h.Errorf("claimed: got worker %d, started %v", r.Worker, r.Started)
	}
	c = h.start(c)
	if r := h.wantState(id, queue.Processing); r.Started.IsZero() || r.Worker != w {
		h.Errorf("processing: got worker %d, started %v", r.Worker, r.Started)
	}
	done := complete(c.Fence())
	done.Failures = 2
	h.must(done)
	r := h.wantState(id, queue.Completed)
	if r.Worker != 0 || r.Finished.IsZero() || r.Class != queue.OK || r.Failures != 2 {
		h.Errorf("completed: got %+v", r)
	}
	if r.Result == nil || r.Result.Status != 200 || r.Result.ContentType != "application/json" || string(r.Result.Body) != `{"ok":true}` {
		h.Errorf("result: got %+v", r.Result)
	}
	h.lost(complete(c.Fence()))
}

// testChainInBatch: what a write does is seen by the next one of its batch.
func testChainInBatch(h *harness) {
	h.capped(1)
	w := h.worker()
	n := request()
	h.must(store.Write{Insert: n})
	c := h.claim(w)
	running := c.Fence()
	running.State = queue.Processing
	step := response.Step{Kind: response.ModelCall, State: response.Planned}
	settled := step
	settled.State, settled.Output = response.Completed, []byte("first")
	again := settled
	again.Output = []byte("second")
	next := request(by(w))
	results, err := h.d.Write(h.Context(), []store.Write{
		move(c.Fence(), queue.Processing, queue.ByStart),
		{Fence: running, Steps: []response.Step{step}, Events: []response.Event{{Seq: 0}, {Seq: 1}}, KV: []store.KVPut{{Plugin: "p", Key: "k", Value: []byte("1")}}},
		{Fence: c.Fence(), Steps: []response.Step{settled}}, // stale by now
		{Fence: running, Steps: []response.Step{settled}, Events: []response.Event{{Seq: 2}}, KV: []store.KVPut{{Plugin: "p", Key: "k", Value: []byte("2")}}},
		{Fence: running, Steps: []response.Step{again}},
		{Fence: running, Events: []response.Event{{Seq: 2}}}, // a duplicate
		complete(running),
		{Fence: running, Events: []response.Event{{Seq: 3}}}, // too late
		{Insert: next}, // the slot is free by now
	})
	if err != nil {
		h.Fatalf("Write: %v", err)
	}
	for i, want := range []error{nil, nil, queue.ErrLeaseLost, nil, nil, store.ErrExists, nil, queue.ErrLeaseLost, nil} {
		if !errors.Is(results[i], want) {
			h.Errorf("write %d: got %v, want %v", i, results[i], want)
		}
	}
	r := h.wantState(n.ID, queue.Completed)
	if len(r.Events) != 3 || len(r.Steps) != 1 || string(r.Steps[0].Output) != "first" {
		h.Errorf("got %d events, steps %+v", len(r.Events), r.Steps)
	}
	if v, ok, err := h.d.KVGet(h.Context(), tenant, "p", "k"); string(v) != "2" || !ok || err != nil {
		h.Errorf("KVGet: got %q, %t, %v", v, ok, err)
	}
	h.wantState(next.ID, queue.Processing)
	h.wantExact()
}

func testMixedBatch(h *harness) {
	w := h.worker()
	good, stale := h.running(w), h.running(w)
	old := stale.Fence()
	old.Attempt = 9
	results, err := h.d.Write(h.Context(), []store.Write{complete(old), complete(good.Fence())})
	if err != nil {
		h.Fatalf("Write: %v", err)
	}
	if !errors.Is(results[0], queue.ErrLeaseLost) || results[1] != nil {
		h.Errorf("results: got %v", results)
	}
	h.wantState(good.ID, queue.Completed)
	h.wantState(stale.ID, queue.Processing)
}

// full is a write of every kind under a fence.
func full(f queue.Fence) store.Write {
	w := complete(f)
	w.Steps = []response.Step{{Kind: response.ModelCall, State: response.Completed, Output: []byte("late")}}
	w.Events = []response.Event{{Seq: 0, Data: []byte("late")}}
	w.Decisions = []store.Decision{{Step: "/0", Kind: "route"}}
	w.KV = []store.KVPut{{Plugin: "p", Key: "late", Value: []byte("late")}}
	w.Failures = 5
	w.Usage = []store.Usage{{Ordinal: 3, Try: f.Attempt, Target: "up/m", Tokens: response.Usage{Input: 7}}}
	return w
}

// wantNothing checks that a refused full write left only its usage, of attempt 1.
func (h *harness) wantNothing(id queue.ID) {
	h.Helper()
	r := h.get(id)
	if len(r.Steps)+len(r.Events)+len(r.Decisions)+r.Failures != 0 || r.Result != nil {
		h.Errorf("a refused write left %d steps, %d events, %d decisions, %d failures, result %v",
			len(r.Steps), len(r.Events), len(r.Decisions), r.Failures, r.Result)
	}
	if _, ok, err := h.d.KVGet(h.Context(), r.Tenant, "p", "late"); ok || err != nil {
		h.Errorf("KVGet: got %t, %v, want nothing", ok, err)
	}
	for _, u := range r.Usage {
		if u.Try == 1 && u.Tokens.Input == 7 {
			return
		}
	}
	h.Errorf("usage of a refused write: got %+v, want it kept", r.Usage)
}

func testFenceByAttempt(h *harness) {
	w1, w2 := h.worker(), h.worker()
	c1 := h.running(w1)
	h.kill(w1)
	h.reap(3)
	h.sweep()
	c2 := h.start(h.claim(w2))
	if c2.ID != c1.ID || c2.Attempt != 2 {
		h.Fatalf("claim: got %s attempt %d, want %s attempt 2", c2.ID, c2.Attempt, c1.ID)
	}
	h.lost(full(c1.Fence()))
	h.wantState(c1.ID, queue.Processing)
	h.wantNothing(c1.ID)
	h.must(full(c2.Fence()))
	h.wantState(c1.ID, queue.Completed)
}

func testFenceByState(h *harness) {
	w := h.worker()
	h.enqueue()
	c := h.claim(w)
	early := c
	early.State = queue.Processing
	h.lost(full(early.Fence()))
	h.wantState(c.ID, queue.Claimed)
	h.wantNothing(c.ID)
	c = h.start(c)
	h.cancel(c.ID)
	var lost *store.LeaseLost
	if err := h.write(full(c.Fence())); !errors.As(err, &lost) || lost.State != queue.Canceled || lost.Attempt != 1 || lost.ID != c.ID {
		h.Errorf("after cancel: got %v", lost)
	}
	h.wantNothing(c.ID)
}

func testFenceGone(h *harness) {
	id := queue.NewID()
	var lost *store.LeaseLost
	if err := h.write(full(queue.Fence{ID: id, Attempt: 1, State: queue.Processing})); !errors.As(err, &lost) || !lost.Gone {
		h.Errorf("got %v, want it gone", err)
	}
}

func testRetry(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	h.must(store.Write{
		Fence: c.Fence(), Failures: 1,
		Steps: []response.Step{{Kind: response.ModelCall, State: response.Planned, Tries: 1}},
		Move:  &store.Move{To: queue.Waiting, By: queue.ByRetry, Delay: forever, Class: queue.UpstreamStatus},
	})
	r := h.wantState(c.ID, queue.Waiting)
	if r.Worker != 0 || r.Failures != 1 || r.Class != "" || len(r.Steps) != 1 {
		h.Errorf("waiting: got worker %d, failures %d, class %q, %d steps", r.Worker, r.Failures, r.Class, len(r.Steps))
	}
	if got := r.NotBefore.Sub(r.Started); got < forever-time.Minute || got > forever+time.Minute {
		h.Errorf("not-before: got %s from the start", got)
	}
	if s := h.sweep(); s.Promoted != 0 {
		h.Errorf("Sweep: promoted %d before not-before", s.Promoted)
	}
	h.wantExact()
	c2 := h.running(w) // the slot is free
	h.must(move(c2.Fence(), queue.Waiting, queue.ByRetry))
	if s := h.sweep(); s.Promoted != 1 {
		h.Errorf("Sweep: promoted %d, want 1", s.Promoted)
	}
	if c3 := h.claim(w); c3.ID != c2.ID || c3.Attempt != 2 || c3.State != queue.Claimed {
		h.Errorf("claim: got %+v", c3)
	}
	h.wantExact()
}

func testHandBack(h *harness) {
	h.capped(2)
	w := h.worker()
	a := h.running(w)
	h.enqueue()
	b := h.claim(w)
	h.must(move(a.Fence(), queue.Pending, queue.ByHandBack))
	h.must(move(b.Fence(), queue.Pending, queue.ByHandBack))
	for _, c := range []queue.Claim{a, b} {
		if r := h.wantState(c.ID, queue.Pending); r.Worker != 0 || r.Failures != 0 || r.Reaps != 0 {
			h.Errorf("handed back: got worker %d, failures %d, reaps %d", r.Worker, r.Failures, r.Reaps)
		}
	}
	h.wantExact()
	again := h.claimN(w, 5)
	if len(again) != 2 || again[0].Attempt != 2 || again[1].Attempt != 2 {
		h.Errorf("claims: got %+v", again)
	}
	h.lost(complete(a.Fence()))
	h.wantExact()
}

func testCancelAndLetGo(h *harness) {
	h.capped(1)
	w := h.worker()
	c := h.running(w)
	h.enqueue()
	r, did, err := h.d.Cancel(h.Context(), tenant, c.ID, queue.CodeClientGone)
	if err != nil || !did || r.State != queue.Canceled || r.Worker != w || r.Class != queue.ClassCanceled || r.Code != queue.CodeClientGone || r.Finished.IsZero() {
		h.Fatalf("Cancel: got %+v, %t, %v", r, did, err)
	}
	if h.cancel(c.ID) {
		h.Error("second Cancel: got did")
	}
	if got := h.claimN(w, 1); len(got) != 0 {
		h.Error("the slot of a canceled request was given away before its worker let go")
	}
	h.wantExact()
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 1 || p.Held[0].Fence != (queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}) || p.Lost {
		h.Errorf("pulse: got %+v", p)
	}
	gone := store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true, Usage: []store.Usage{{Target: "t"}}}
	h.must(gone)
	h.lost(gone)
	h.wantExact()
	if r := h.get(c.ID); r.Worker != 0 || len(r.Usage) != 1 {
		h.Errorf("let go: got worker %d, usage %v", r.Worker, r.Usage)
	}
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 0 {
		h.Errorf("pulse: got %+v", p)
	}
	if got := h.claimN(w, 1); len(got) != 1 {
		h.Error("the slot was not freed")
	}
}

func testCancelNotOwned(h *harness) {
	w := h.worker()
	pending := h.enqueue()
	if !h.cancel(pending) {
		h.Error("pending: got not canceled")
	}
	if got := h.claimN(w, 1); len(got) != 0 {
		h.Error("a canceled request was claimed")
	}
	c := h.running(w)
	h.must(move(c.Fence(), queue.Waiting, queue.ByRetry))
	if !h.cancel(c.ID) {
		h.Error("waiting: got not canceled")
	}
	if r := h.get(c.ID); r.Worker != 0 || !r.NotBefore.IsZero() {
		h.Errorf("waiting: got worker %d, not-before %v", r.Worker, r.NotBefore)
	}
	h.lost(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	if s := h.sweep(); s.Promoted != 0 {
		h.Errorf("Sweep: promoted %d canceled requests", s.Promoted)
	}
	done := h.running(w)
	h.must(complete(done.Fence()))
	if h.cancel(done.ID) {
		h.Error("a success that committed first was canceled")
	}
	h.wantState(done.ID, queue.Completed)
	if _, _, err := h.d.Cancel(h.Context(), "other", done.ID, ""); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("another tenant: got %v, want ErrNotFound", err)
	}
}

// testCancelByWrite: a front that reports its client gone writes under the claim.
func testCancelByWrite(h *harness) {
	h.capped(1)
	w := h.worker()
	id := h.enqueue(by(w), unstored)
	f := queue.Fence{ID: id, Attempt: 1, State: queue.Processing}
	h.must(move(f, queue.Canceled, queue.ByCancel))
	if r := h.wantState(id, queue.Canceled); r.Worker != w || r.Body != nil {
		h.Errorf("got worker %d, body %q", r.Worker, r.Body)
	}
	h.wantExact()
	f.State = queue.Canceled
	h.must(store.Write{Fence: f, LetGo: true})
	h.wantExact()
}

func testUnstored(h *harness) {
	w := h.worker()
	// A policy is asked with what the client sent along.
	asked := store.Decision{Kind: "route", Question: []byte(`{"metadata":{"name":"secret"}}`), Answer: []byte(`{"a":1}`), Generation: "g", Fallback: "f", Fuel: 7}
	blank := asked
	blank.Question = []byte(`{}`)
	for _, end := range []struct {
		name string
		run  func(c queue.Claim)
	}{
		{"completed", func(c queue.Claim) { h.must(complete(c.Fence())) }},
		{"completed after the question", func(c queue.Claim) {
			done := complete(c.Fence())
			done.Decisions = []store.Decision{asked}
			h.must(done)
		}},
		{"canceled", func(c queue.Claim) { h.cancel(c.ID) }},
		{"expired", func(c queue.Claim) {
			h.past(c.ID)
			h.sweep()
		}},
		{"lost", func(c queue.Claim) {
			h.kill(w)
			h.reapUntil("ended it", 0, func(s store.Swept) bool { return s.Lost > 0 })
			w = h.worker()
		}},
	} {
		var c queue.Claim
		if end.name == "expired" {
			c.ID = h.enqueue(unstored, func(n *queue.New) { n.DeadlineIn = time.Millisecond })
		} else {
			c = h.running(w, unstored)
		}
		h.must(store.Write{
			Fence:     c.Fence(),
			Steps:     []response.Step{{Kind: response.ModelCall, State: response.Running}},
			Events:    []response.Event{{Seq: 0, Data: []byte("x")}},
			Decisions: []store.Decision{asked},
			Usage:     []store.Usage{{Target: "t"}},
		})
		end.run(c)
		r := h.get(c.ID)
		if !r.State.Final() || r.Body != nil || len(r.Steps)+len(r.Events) != 0 || r.Result != nil {
			h.Errorf("%s: got %+v", end.name, r)
		}
		if len(r.Usage) != 1 {
			h.Errorf("%s: got usage %v, want it kept", end.name, r.Usage)
		}
		if len(r.Decisions) != 1 || !reflect.DeepEqual(r.Decisions[0], blank) {
			h.Errorf("%s: got decisions %+v, want one without its question", end.name, r.Decisions)
		}
	}
}

// big is longer than a page of any database.
func big() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 4096) }

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes %q, want %d bytes", what, len(got), strings.ToValidUTF8(string(got[:min(len(got), 40)]), "?"), len(want))
	}
}
