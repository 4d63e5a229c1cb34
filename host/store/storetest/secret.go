package storetest

import (
	"errors"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

var secretCases = []testCase{
	{"SecretGoesToTheClaim", testSecret},
	{"SecretOfARetry", testSecretRetry},
	{"LineOfABatch", testLine},
	{"UsageWithoutARow", testRowless},
	{"RecordedWhenItHasEnded", testRecorded},
	{"RecordedAndStored", testRecordedStored},
	{"RecordedPastCaps", testRecordedCaps},
	{"RecordedParks", testRecordedParks},
	{"RecordedParksRaced", testRecordedParksRaced},
}

func secret(s string) func(*queue.New) { return func(n *queue.New) { n.Secret = []byte(s) } }

// testSecret: rows with a secret beside rows without, in any order.
func testSecret(h *harness) {
	w := h.worker()
	var writes []store.Write
	want := map[queue.ID]string{}
	for _, s := range []string{"", "one", "", "", "two\x00", ""} {
		n := request()
		if s != "" {
			secret(s)(n)
		}
		want[n.ID] = s
		writes = append(writes, store.Write{Insert: n})
	}
	results, err := h.d.Write(h.Context(), writes)
	if err := errors.Join(append(results, err)...); err != nil {
		h.Fatal(err)
	}
	for _, c := range h.claimN(w, len(writes)) {
		if string(c.Secret) != want[c.ID] || (c.Secret != nil) != (want[c.ID] != "") {
			h.Errorf("%s: got secret %q, want %q", c.ID, c.Secret, want[c.ID])
		}
	}
}

// testSecretRetry: a secret lasts as long as the request.
func testSecretRetry(h *harness) {
	w := h.worker()
	c := h.running(w, secret("s"))
	h.must(move(c.Fence(), queue.Waiting, queue.ByRetry))
	h.sweep()
	c = h.start(h.claim(w))
	h.must(move(c.Fence(), queue.Pending, queue.ByHandBack))
	if c = h.claim(w); string(c.Secret) != "s" {
		h.Errorf("third claim: got secret %q, want it kept", c.Secret)
	}
}

func testLine(h *harness) {
	batch := queue.NewID()
	line := func(i int) func(*queue.New) { return func(n *queue.New) { n.Batch, n.Line = batch, i } }
	none, zeroth, seventh := request(), request(line(0)), request(line(7))
	results, err := h.d.Write(h.Context(), []store.Write{{Insert: zeroth}, {Insert: none}, {Insert: seventh}})
	if err := errors.Join(append(results, err)...); err != nil {
		h.Fatal(err)
	}
	for _, n := range []*queue.New{none, zeroth, seventh} {
		if r := h.get(n.ID); r.Batch != n.Batch || r.Line != n.Line {
			h.Errorf("got line %d of %s, want %d of %s", r.Line, r.Batch, n.Line, n.Batch)
		}
	}
}

func testRowless(h *harness) {
	n := request(of("elsewhere", "other"))
	u := store.Usage{Target: "up/m", Tokens: response.Usage{Input: 7}, Tenant: tenant, Model: model}
	w := store.Write{Rowless: true, Fence: queue.Fence{ID: n.ID, Attempt: 1, State: queue.Processing}, Usage: []store.Usage{u}}
	h.must(w)
	h.must(w)
	h.wantNone(n.ID)
	h.must(store.Write{Insert: n})
	if r := h.get(n.ID); len(r.Usage) != 1 || r.Usage[0] != u {
		h.Errorf("got usage %+v, want %+v", r.Usage, u)
	}
}

// recorded is a request that ran without a row.
func recorded(worker int64, change ...func(*queue.New)) store.Write {
	w := full(queue.Fence{})
	w.Insert = request(append(change, by(worker))...)
	w.Took, w.KV, w.Failures = 3*time.Second, nil, 0
	return w
}

func testRecorded(h *harness) {
	w := h.worker()
	for _, to := range []queue.State{queue.Completed, queue.Failed, queue.Canceled} {
		wr := recorded(w, unstored, secret("s"))
		wr.Events = []response.Event{{Seq: 0, Data: []byte("what it said")}}
		wr.Move.To = to
		if to == queue.Canceled {
			wr.Move.By, wr.Move.Result = queue.ByCancel, nil
		}
		h.must(wr)
		r := h.wantState(wr.Insert.ID, to)
		if r.Worker != 0 || r.Attempt != 1 || !r.Realtime || r.Class != wr.Move.Class || r.Finished.IsZero() {
			h.Errorf("%s: got %+v", to, r)
		}
		if took := r.Finished.Sub(r.Created); took != 3*time.Second || !r.Started.Equal(r.Created) {
			h.Errorf("%s: took %s, started %s, want 3 s from its creation", to, took, r.Started)
		}
		if r.Body != nil || r.Result != nil || len(r.Steps)+len(r.Events) != 0 {
			h.Errorf("%s: kept %+v of what is not stored", to, r)
		}
		if len(r.Usage) != 1 || len(r.Decisions) != 1 || string(r.Decisions[0].Question) != "{}" {
			h.Errorf("%s: got usage %+v, decisions %+v, want one each without a question", to, r.Usage, r.Decisions)
		}
		if err := h.write(wr); !errors.Is(err, store.ErrExists) {
			h.Errorf("%s: again: got %v, want ErrExists", to, err)
		}
	}
	if n := len(h.beat(store.Beat{Worker: w, Lease: forever}).Held); n != 0 {
		h.Errorf("the worker holds %d requests, want none", n)
	}
}

func testRecordedStored(h *harness) {
	w := recorded(h.worker())
	w.Events = []response.Event{{Seq: 0, Data: []byte("e")}}
	h.must(w)
	r := h.get(w.Insert.ID)
	if string(r.Body) != "{}" || r.Result == nil || len(r.Steps) != 1 || len(r.Events) != 1 || string(r.Decisions[0].Question) == "{}" {
		h.Errorf("got %+v, want all of it", r)
	}
}

// testRecordedCaps: what has run already is not refused, and counts nowhere.
func testRecordedCaps(h *harness) {
	h.capped(1)
	h.gated(1)
	w := h.worker()
	h.must(store.Write{Insert: request(by(w))})
	h.must(recorded(w, unstored))
	h.must(recorded(w+99, unstored))
	h.wantExact()
	if l := h.lane(); l.Running != 1 {
		h.Errorf("the lane counts %d, want 1", l.Running)
	}
}

func testRecordedParks(h *harness) {
	worker := h.worker()
	w := recorded(worker, unstored)
	w.Move.To, w.Move.Park = queue.Failed, forever
	h.must(w)
	var at *store.AtCap
	if err := h.write(store.Write{Insert: request(by(worker))}); !errors.As(err, &at) || at.Wait < forever-patience {
		h.Errorf("after it: got %v, want the lane parked", err)
	}
}

// testRecordedParksRaced has each of two park the lane that the other takes a
// slot of: nobody waits in a circle.
func testRecordedParksRaced(h *harness) {
	h.setLanes(
		queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: 1000},
		queue.Lane{Tenant: tenant, Model: "other", Weight: 1, Cap: 1000})
	worker := h.worker()
	both := func(taken, parked string) {
		for range rounds {
			w := recorded(worker, unstored, of(tenant, parked))
			w.Move.To, w.Move.Park = queue.Failed, time.Millisecond
			results, err := h.d.Write(h.Context(), []store.Write{{Insert: request(of(tenant, taken), by(worker))}, w})
			if err != nil || results[1] != nil {
				h.Errorf("Write: %v, %v", results, err)
				return
			}
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() { both(model, "other") })
	wg.Go(func() { both("other", model) })
	wg.Wait()
	h.wantExact()
}
