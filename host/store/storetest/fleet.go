package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Fleet runs the cases that need two hosts on one database, and those in which
// what one host remembers could mislead it about what the other did. open
// returns two drivers on a fresh database, or the same one twice where it takes
// one server only; the suite closes them.
func Fleet(t *testing.T, open func(t *testing.T) (a, b store.Driver)) {
	t.Helper()
	for _, group := range [][]testCase{hintCases, fairCases, urgentCases, gateCases, gateFireCases, reserveCases, parkCases, escalateCases, targetCases, modelCases} {
		for _, c := range group {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				a, b := open(t)
				d := &inTurn{Driver: a, other: b}
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

// inTurn lets two hosts do what a queue does in turn.
type inTurn struct {
	store.Driver
	other store.Driver
	n     atomic.Uint64
}

func (d *inTurn) next() store.Driver {
	if d.n.Add(1)%2 == 0 {
		return d.Driver
	}
	return d.other
}

// Write writes by either host.
func (d *inTurn) Write(ctx context.Context, writes []store.Write) ([]error, error) {
	return d.next().Write(ctx, writes)
}

// Claim claims by either host.
func (d *inTurn) Claim(ctx context.Context, c store.ClaimRequest) ([]queue.Claim, error) {
	return d.next().Claim(ctx, c)
}

// Heartbeat beats by either host.
func (d *inTurn) Heartbeat(ctx context.Context, b store.Beat) (store.Pulse, error) {
	return d.next().Heartbeat(ctx, b)
}

// Sweep sweeps by either host.
func (d *inTurn) Sweep(ctx context.Context, s store.SweepRequest) (store.Swept, error) {
	return d.next().Sweep(ctx, s)
}

// Cancel cancels by either host.
func (d *inTurn) Cancel(ctx context.Context, tenant string, id queue.ID, code string) (store.Record, bool, error) {
	return d.next().Cancel(ctx, tenant, id, code)
}

// SetLimits sets limits by either host.
func (d *inTurn) SetLimits(ctx context.Context, l store.Limits) error {
	return d.next().SetLimits(ctx, l)
}

// Close closes each driver once.
func (d *inTurn) Close() error {
	if d.other == d.Driver {
		return d.Driver.Close()
	}
	return errors.Join(d.Driver.Close(), d.other.Close())
}

// within gives a request a deadline.
func within(d time.Duration) func(*queue.New) {
	return func(n *queue.New) { n.DeadlineIn = d }
}

func (h *harness) ask(c store.ClaimRequest) []queue.Claim {
	h.Helper()
	if len(c.Models) == 0 {
		c.Models = []string{model}
	}
	claims, err := h.d.Claim(h.Context(), c)
	if err != nil {
		h.Fatalf("Claim(%+v): %v", c, err)
	}
	if len(claims) > c.N {
		h.Fatalf("Claim of %d: got %d", c.N, len(claims))
	}
	return claims
}

// wantClaims claims up to n and wants so many.
func (h *harness) wantClaims(what string, worker int64, n, want int, models ...string) []queue.Claim {
	h.Helper()
	got := h.claimN(worker, n, models...)
	if len(got) != want {
		h.Errorf("%s: got %d claims, want %d", what, len(got), want)
	}
	return got
}

func (h *harness) limit(l store.Limits) {
	h.Helper()
	if err := h.d.SetLimits(h.Context(), l); err != nil {
		h.Fatalf("SetLimits(%+v): %v", l, err)
	}
}

// gated gives the default tenant a gate.
func (h *harness) gated(n int, r ...queue.Reserve) {
	h.Helper()
	g := queue.Gate{Tenant: tenant, Cap: n}
	if len(r) > 0 {
		g.Reserve = r[0]
	}
	h.limit(store.Limits{Gates: []queue.Gate{g}})
}

// gate returns the default tenant's gate; it is zero where there is none.
func (h *harness) gate() store.GateStat {
	h.Helper()
	for _, g := range h.stats().Gates {
		if g.Tenant == tenant {
			return g
		}
	}
	return store.GateStat{}
}

func (h *harness) laneOf(tenant, model string) store.LaneStat {
	h.Helper()
	for _, l := range h.stats().Lanes {
		if l.Tenant == tenant && l.Model == model {
			return l
		}
	}
	return store.LaneStat{}
}

// admit inserts a realtime request of the default tenant's.
func (h *harness) admit(worker int64, model string) (queue.Fence, error) {
	h.Helper()
	n := request(of(tenant, model), by(worker))
	return queue.Fence{ID: n.ID, Attempt: 1, State: queue.Processing}, h.write(store.Write{Insert: n})
}

func (h *harness) mustAdmit(worker int64, model string) queue.Fence {
	h.Helper()
	f, err := h.admit(worker, model)
	if err != nil {
		h.Fatalf("realtime request of %s: got %v, want it admitted", model, err)
	}
	return f
}

// refused wants that a realtime request is not admitted and returns why.
func (h *harness) refused(worker int64, model string) store.AtCap {
	h.Helper()
	f, err := h.admit(worker, model)
	var at *store.AtCap
	if !errors.As(err, &at) || !errors.Is(err, queue.ErrAtCap) {
		h.Fatalf("realtime request of %s: got %v, want *AtCap", model, err)
	}
	if _, err := h.d.Get(h.Context(), "", f.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("a refused request is there: %v", err)
	}
	return *at
}

// finish starts and completes a claim.
func (h *harness) finish(c queue.Claim) {
	h.Helper()
	h.must(complete(h.start(c).Fence()))
}

// tally counts claims by tenant.
func tally(claims []queue.Claim) map[string]int {
	n := map[string]int{}
	for _, c := range claims {
		n[c.Tenant]++
	}
	return n
}

// slotsExact compares counters with the rows that they count.
func slotsExact(what string, limit int, s store.Slots) error {
	want, wantRealtime := s.Owned, s.OwnedRealtime
	if limit == 0 {
		want, wantRealtime = 0, 0
	}
	if s.Running != want || s.Realtime != wantRealtime {
		return fmt.Errorf("%s: got running %d of them realtime %d, want %d and %d (cap %d)", what, s.Running, s.Realtime, want, wantRealtime, limit)
	}
	return nil
}

// allExact returns what is wrong with the counters of s.
func allExact(s store.Stats) error {
	var errs []error
	for _, l := range s.Lanes {
		errs = append(errs, exact(l))
	}
	for _, g := range s.Gates {
		errs = append(errs, slotsExact("gate "+g.Tenant, g.Cap, g.Slots))
	}
	return errors.Join(errs...)
}
