package storetest

import (
	"context"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var hintCases = []testCase{
	{"HintWhenRequestsAreReady", testHintReady},
	{"HintWhenARequestIsCanceled", testHintCanceled},
	{"WatchEndsWithItsContext", testHintEnds},
	{"WithoutHintsAllWorks", testHintless},
}

// watch runs Watch of both hosts until the test ends and returns what comes to
// the second.
func (h *harness) watch() <-chan store.Hint {
	h.Helper()
	hosts, ok := h.d.(*inTurn)
	if !ok {
		h.Fatal("this case needs two hosts")
	}
	first := hosts.Driver
	hints := make(chan store.Hint, 1000)
	ctx, cancel := context.WithCancel(h.Context())
	ended := make(chan error, 2)
	n := 1
	go func() {
		ended <- hosts.other.Watch(ctx, func(hint store.Hint) {
			select {
			case hints <- hint:
			default:
			}
		})
	}()
	if hosts.other != first {
		n = 2
		go func() { ended <- first.Watch(ctx, func(store.Hint) {}) }()
	}
	h.Cleanup(func() {
		cancel()
		for range n {
			if err := <-ended; err != nil {
				h.Errorf("Watch: %v", err)
			}
		}
	})
	return hints
}

// until does something until a hint comes that is wanted: the first may come
// before anybody listens.
func (h *harness) until(hints <-chan store.Hint, do func(), want func(store.Hint) bool) {
	h.Helper()
	for begin := time.Now(); time.Since(begin) < patience; {
		do()
		again := time.After(200 * time.Millisecond)
		for waits := true; waits; {
			select {
			case hint := <-hints:
				if want(hint) {
					return
				}
			case <-again:
				waits = false
			}
		}
	}
	h.Fatalf("no hint in %s", patience)
}

func testHintReady(h *harness) {
	hints := h.watch()
	first := h.d.(*inTurn).Driver
	w := h.worker()
	insert := func() {
		if _, err := first.Write(h.Context(), []store.Write{{Insert: request()}}); err != nil {
			h.Fatalf("Write: %v", err)
		}
	}
	ready := func(hint store.Hint) bool { return hint.Ready }
	h.until(hints, insert, ready)
	for _, again := range []struct {
		name string
		run  func()
	}{
		{"handed back", func() {
			for _, c := range h.claimN(w, 1) {
				results, err := first.Write(h.Context(), []store.Write{move(c.Fence(), queue.Pending, queue.ByHandBack)})
				if err != nil || results[0] != nil {
					h.Fatalf("Write: %v, %v", results, err)
				}
			}
		}},
		{"promoted", func() {
			for _, c := range h.claimN(w, 1) {
				h.must(move(h.start(c).Fence(), queue.Waiting, queue.ByRetry))
			}
			if _, err := first.Sweep(h.Context(), store.SweepRequest{}); err != nil {
				h.Fatalf("Sweep: %v", err)
			}
		}},
	} {
		for len(hints) > 0 {
			<-hints
		}
		h.until(hints, again.run, ready)
		h.Logf("%s: hinted", again.name)
	}
}

func testHintCanceled(h *harness) {
	hints := h.watch()
	first := h.d.(*inTurn).Driver
	w := h.worker()
	h.until(hints, func() {
		c := h.running(w)
		if _, did, err := first.Cancel(h.Context(), "", c.ID, ""); err != nil || !did {
			h.Fatalf("Cancel: got %t, %v", did, err)
		}
	}, func(hint store.Hint) bool {
		if hint.Canceled != 0 && hint.Canceled != w {
			h.Errorf("got a hint for worker %d, want %d", hint.Canceled, w)
		}
		return hint.Canceled == w
	})
	// The other way round, by a write under the claim.
	h.until(hints, func() {
		c := h.running(w)
		results, err := first.Write(h.Context(), []store.Write{move(c.Fence(), queue.Canceled, queue.ByCancel)})
		if err != nil || results[0] != nil {
			h.Fatalf("Write: %v, %v", results, err)
		}
	}, func(hint store.Hint) bool { return hint.Canceled == w })
}

func testHintEnds(h *harness) {
	ctx, cancel := context.WithCancel(h.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.d.Watch(ctx, func(store.Hint) {}) }()
	h.enqueue()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			h.Errorf("Watch: got %v, want nil", err)
		}
	case <-time.After(patience):
		h.Fatal("Watch did not end with its context")
	}
	ctx, cancel = context.WithCancel(h.Context())
	cancel()
	if err := h.d.Watch(ctx, func(store.Hint) {}); err != nil {
		h.Errorf("Watch of what is over: got %v, want nil", err)
	}
}

// testHintless: hints that nobody takes, or sends, stop nothing.
func testHintless(h *harness) {
	w := h.worker()
	for range 300 { // more than any channel would hold
		c := h.running(w)
		h.cancel(c.ID)
		h.must(store.Write{Fence: queue.Fence{ID: c.ID, Attempt: 1, State: queue.Canceled}, LetGo: true})
	}
	if p := h.beat(store.Beat{Worker: w, Lease: forever}); len(p.Held) != 0 {
		h.Errorf("pulse: got %+v, want nothing held", p)
	}
}
