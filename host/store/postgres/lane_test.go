package postgres_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// TestNobodyWaitsInACircle: writes that free a slot of one lane and wake
// another, in both directions, sweeps that wake both, and claims.
func TestNobodyWaitsInACircle(t *testing.T) {
	const rounds, pairs = 100, 2
	d := open(t, testdb.Postgres(t))
	defer d.Close()
	lanes := []queue.Lane{{Tenant: "a", Model: "m", Weight: 1, Cap: 100}, {Tenant: "b", Model: "m", Weight: 1, Cap: 100}}
	if err := d.SetLimits(t.Context(), store.Limits{Lanes: lanes}); err != nil {
		t.Fatal(err)
	}
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	insert := func(tenant string) store.Write {
		return store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: tenant, Model: "m", Path: "/p"}}
	}
	write := func(writes ...store.Write) {
		results, err := d.Write(t.Context(), writes)
		if err = errors.Join(append(results, err)...); err != nil {
			t.Errorf("Write: %v", err)
		}
	}
	var begin []store.Write
	for range 2 * pairs {
		begin = append(begin, insert("a"), insert("b"))
	}
	write(begin...)
	// Each round ends as many requests as it adds.
	for round := 0; round < rounds && !t.Failed(); round++ {
		claims := map[string][]queue.Claim{}
		for n := 0; n < 4*pairs; {
			got, err := d.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"m"}, N: 100})
			if err != nil {
				t.Fatalf("Claim: %v", err)
			}
			var start []store.Write
			for _, c := range got {
				start = append(start, store.Write{Fence: c.Fence(), Move: &store.Move{To: queue.Processing, By: queue.ByStart}})
				c.State = queue.Processing
				claims[c.Tenant] = append(claims[c.Tenant], c)
			}
			write(start...)
			n += len(got)
		}
		// All lanes sleep now. One request of each waits, and is due.
		var wg sync.WaitGroup
		for _, tenant := range []string{"a", "b"} {
			other := map[string]string{"a": "b", "b": "a"}[tenant]
			mine := claims[tenant]
			write(store.Write{Fence: mine[0].Fence(), Move: &store.Move{To: queue.Waiting, By: queue.ByRetry}})
			for _, c := range mine[1:] {
				wg.Go(func() {
					write(store.Write{Fence: c.Fence(), Move: &store.Move{To: queue.Completed, By: queue.ByOutcome}}, insert(other))
				})
			}
		}
		wg.Go(func() {
			if _, err := d.Sweep(t.Context(), store.SweepRequest{Reap: true, Grace: time.Hour}); err != nil {
				t.Errorf("Sweep: %v", err)
			}
		})
		wg.Wait()
		if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil { // it wakes what was left asleep
			t.Fatalf("Sweep: %v", err)
		}
	}
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.Lanes {
		if l.Running != l.Owned || l.Ready != (l.Pending > 0) {
			t.Errorf("lane %s: got running %d of %d, ready %t with %d pending", l.Tenant, l.Running, l.Owned, l.Ready, l.Pending)
		}
	}
}
