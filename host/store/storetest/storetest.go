// Package storetest is the suite that every store.Driver passes, and the
// benchmarks that compare them. It opens no database itself.
package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Run runs the suite. open returns a driver on a fresh database each time it is
// called; the suite closes it.
func Run(t *testing.T, open func(t *testing.T) store.Driver) {
	t.Helper()
	run(t, open, [][]testCase{
		writeCases, stepCases, kvCases, kvLifeCases, readCases,
		claimCases, beginCases, fairCases, urgentCases, wakeCases,
		capCases, gateCases, gateFireCases, reserveCases, parkCases, escalateCases, targetCases,
		fileCases, batchCases,
		sweepCases, retainCases, inspectCases, raceCases, fenceCases, seedCases, modelCases,
		onceCases, onceRaceCases, secretCases, talkCases, talkRaceCases, talkModelCases,
	})
}

// Modes runs the part of the suite in which the way to talk to the database
// matters: for a driver that has more than one.
func Modes(t *testing.T, open func(t *testing.T) store.Driver) {
	t.Helper()
	run(t, open, [][]testCase{writeCases, stepCases, readCases, claimCases, capCases, gateFireCases, sweepCases, raceCases, modelCases, onceCases, secretCases, talkCases})
}

func run(t *testing.T, open func(t *testing.T) store.Driver, groups [][]testCase) {
	t.Helper()
	for _, group := range groups {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				d := open(t)
				t.Cleanup(func() {
					if err := d.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
				})
				c.run(&harness{T: t, d: d})
			})
		}
	}
}

type testCase struct {
	name string
	run  func(*harness)
}

const (
	tenant  = "tenant-a"
	model   = "model-a"
	forever = time.Hour
	// patience is how long a test waits for what must happen; it is never used
	// up by a driver that works.
	patience = 30 * time.Second
)

// harness is one test's view of its driver; what must not fail ends the test.
type harness struct {
	*testing.T
	d store.Driver
}

// worker starts a worker whose lease outlasts the test.
func (h *harness) worker() int64 {
	h.Helper()
	return h.beat(store.Beat{Host: "h", Version: "v", Lease: forever}).Worker
}

func (h *harness) beat(b store.Beat) store.Pulse {
	h.Helper()
	p, err := h.d.Heartbeat(h.Context(), b)
	if err != nil {
		h.Fatalf("Heartbeat(%+v): %v", b, err)
	}
	return p
}

// kill makes a worker's lease one that ran out a second ago.
func (h *harness) kill(worker int64) {
	h.Helper()
	h.beat(store.Beat{Worker: worker, Lease: -time.Second})
}

// request returns a request of the default lane, stored, on a path whose
// requests survive their worker.
func request(change ...func(*queue.New)) *queue.New {
	n := &queue.New{ID: queue.NewID(), Tenant: tenant, Model: model, Path: "/v1/responses", Tier: "default", Store: true, Body: []byte(`{}`)}
	for _, f := range change {
		f(n)
	}
	return n
}

func of(tenant, model string) func(*queue.New) {
	return func(n *queue.New) { n.Tenant, n.Model = tenant, model }
}

func by(worker int64) func(*queue.New) { return func(n *queue.New) { n.Worker = worker } }

func unstored(n *queue.New) { n.Store = false }

func path(p string) func(*queue.New) { return func(n *queue.New) { n.Path = p } }

// write returns the result of one write.
func (h *harness) write(w store.Write) error {
	h.Helper()
	results, err := h.d.Write(h.Context(), []store.Write{w})
	if err != nil {
		h.Fatalf("Write: %v", err)
	}
	if len(results) != 1 {
		h.Fatalf("Write: got %d results, want 1", len(results))
	}
	return results[0]
}

// try is write for goroutines, which must not end the test.
func (h *harness) try(w store.Write) error {
	results, err := h.d.Write(h.Context(), []store.Write{w})
	return errors.Join(append(results, err)...)
}

// must writes what nothing refuses.
func (h *harness) must(w store.Write) {
	h.Helper()
	if err := h.write(w); err != nil {
		h.Fatalf("Write: %v", err)
	}
}

// lost writes what a fence must refuse.
func (h *harness) lost(w store.Write) {
	h.Helper()
	err := h.write(w)
	var lost *store.LeaseLost
	if !errors.Is(err, queue.ErrLeaseLost) || !errors.As(err, &lost) {
		h.Fatalf("Write: got %v, want a *LeaseLost", err)
	}
}

// enqueue inserts a request and returns its id.
func (h *harness) enqueue(change ...func(*queue.New)) queue.ID {
	h.Helper()
	n := request(change...)
	h.must(store.Write{Insert: n})
	return n.ID
}

// enqueueMany inserts n requests in batches.
func (h *harness) enqueueMany(n int, change ...func(*queue.New)) {
	h.Helper()
	for n > 0 {
		writes := make([]store.Write, min(n, 200))
		for i := range writes {
			writes[i] = store.Write{Insert: request(change...)}
		}
		n -= len(writes)
		results, err := h.d.Write(h.Context(), writes)
		if err = errors.Join(append(results, err)...); err != nil {
			h.Fatalf("Write: %v", err)
		}
	}
}

func (h *harness) claimN(worker int64, n int, models ...string) []queue.Claim {
	h.Helper()
	if len(models) == 0 {
		models = []string{model}
	}
	claims, err := h.d.Claim(h.Context(), store.ClaimRequest{Worker: worker, Models: models, N: n})
	if err != nil {
		h.Fatalf("Claim: %v", err)
	}
	return claims
}

// claim claims exactly one request.
func (h *harness) claim(worker int64) queue.Claim {
	h.Helper()
	claims := h.claimN(worker, 1)
	if len(claims) != 1 {
		h.Fatalf("Claim: got %d claims, want 1", len(claims))
	}
	return claims[0]
}

// start moves a claim to Processing.
func (h *harness) start(c queue.Claim) queue.Claim {
	h.Helper()
	h.must(store.Write{Fence: c.Fence(), Move: &store.Move{To: queue.Processing, By: queue.ByStart}})
	c.State = queue.Processing
	return c
}

// running enqueues a request, claims and starts it.
func (h *harness) running(worker int64, change ...func(*queue.New)) queue.Claim {
	h.Helper()
	id := h.enqueue(change...)
	c := h.start(h.claim(worker))
	if c.ID != id {
		h.Fatalf("Claim: got %s, want %s", c.ID, id)
	}
	return c
}

// move writes one move.
func move(f queue.Fence, to queue.State, by queue.Cause) store.Write {
	return store.Write{Fence: f, Move: &store.Move{To: to, By: by}}
}

// complete is the last write of a successful attempt.
func complete(f queue.Fence) store.Write {
	w := move(f, queue.Completed, queue.ByOutcome)
	w.Move.Class = queue.OK
	w.Move.Result = &store.Result{Status: 200, ContentType: "application/json", Body: []byte(`{"ok":true}`)}
	return w
}

var everything = store.Parts{Body: true, Result: true, Steps: true, Events: true, Decisions: true, Usage: true}

func (h *harness) get(id queue.ID) store.Record {
	h.Helper()
	r, err := h.d.Get(h.Context(), "", id, everything)
	if err != nil {
		h.Fatalf("Get(%s): %v", id, err)
	}
	return r
}

func (h *harness) wantState(id queue.ID, want queue.State) store.Record {
	h.Helper()
	r := h.get(id)
	if r.State != want {
		h.Fatalf("state of %s: got %s, want %s", id, r.State, want)
	}
	return r
}

// past returns when the request's deadline has passed on the database's clock.
func (h *harness) past(id queue.ID) {
	h.Helper()
	deadline := h.get(id).Deadline
	for begin := time.Now(); ; {
		if h.get(h.enqueue(of("clock", "clock"))).Created.After(deadline) {
			return
		}
		if time.Since(begin) > patience {
			h.Fatalf("the deadline %s of %s did not pass in %s", deadline, id, patience)
		}
	}
}

func (h *harness) sweep() store.Swept {
	h.Helper()
	s, err := h.d.Sweep(h.Context(), store.SweepRequest{})
	if err != nil {
		h.Fatalf("Sweep: %v", err)
	}
	return s
}

func (h *harness) cancel(id queue.ID) bool {
	h.Helper()
	_, did, err := h.d.Cancel(h.Context(), "", id, "")
	if err != nil {
		h.Errorf("Cancel(%s): %v", id, err)
	}
	return did
}

func (h *harness) reapOnce(maxReaps int) store.Swept {
	h.Helper()
	s, err := h.d.Sweep(h.Context(), store.SweepRequest{Reap: true, MaxReaps: maxReaps})
	if err != nil {
		h.Errorf("Sweep: %v", err)
	}
	return s
}

// reapUntil sweeps until done says so; a lease of the database's clock has to
// run out first.
func (h *harness) reapUntil(what string, maxReaps int, done func(store.Swept) bool) {
	h.Helper()
	for begin := time.Now(); ; {
		if done(h.reapOnce(maxReaps)) {
			return
		}
		if time.Since(begin) > patience {
			h.Fatalf("no sweep in %s: %s", patience, what)
		}
	}
}

// reap sweeps until the dead workers' requests were returned.
func (h *harness) reap(maxReaps int) {
	h.Helper()
	h.reapUntil("returned a request", maxReaps, func(s store.Swept) bool { return s.Reaped+s.Lost > 0 })
}

func (h *harness) setLanes(lanes ...queue.Lane) {
	h.Helper()
	if err := h.d.SetLimits(h.Context(), store.Limits{Lanes: lanes}); err != nil {
		h.Fatalf("SetLimits: %v", err)
	}
}

// capped gives the default lane a cap.
func (h *harness) capped(n int) {
	h.Helper()
	h.setLanes(queue.Lane{Tenant: tenant, Model: model, Weight: 1, Cap: n})
}

func (h *harness) stats() store.Stats {
	h.Helper()
	s, err := h.d.Stats(h.Context())
	if err != nil {
		h.Fatalf("Stats: %v", err)
	}
	return s
}

// lane returns the default lane's counters; they are zero before its first use.
func (h *harness) lane() store.LaneStat {
	h.Helper()
	for _, l := range h.stats().Lanes {
		if l.Tenant == tenant && l.Model == model {
			return l
		}
	}
	return store.LaneStat{}
}

// wantExact checks that the counters of lanes and gates say what the rows say.
func (h *harness) wantExact() {
	h.Helper()
	if err := allExact(h.stats()); err != nil {
		h.Error(err)
	}
}

func exact(l store.LaneStat) error {
	return slotsExact("lane "+l.Tenant+" "+l.Model, l.Cap, l.Slots)
}
