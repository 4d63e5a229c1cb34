package sqlite

import (
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func (d *driver) pages(t *testing.T) (all, free int) {
	t.Helper()
	err := d.view(t.Context(), "pages", func(s *snapshot) error { return s.one(selectFree, nil, &free, &all) })
	if err != nil {
		t.Fatal(err)
	}
	return all, free
}

func (d *driver) sweepAll(t *testing.T) {
	t.Helper()
	// What ended has to be older than a millisecond by the database's clock.
	for begun := time.Now(); ; {
		s, err := d.Sweep(t.Context(), store.SweepRequest{Keep: time.Millisecond})
		if err != nil || time.Since(begun) > 30*time.Second {
			t.Fatalf("Sweep: got %+v, %v", s, err)
		}
		var left int
		if err := d.view(t.Context(), "count", func(v *snapshot) error {
			return v.one(`select count(*) from request where finished is not null`, nil, &left)
		}); err != nil {
			t.Fatal(err)
		}
		if left == 0 {
			return
		}
	}
}

func (d *driver) cancel(t *testing.T, id queue.ID) {
	t.Helper()
	if _, did, err := d.Cancel(t.Context(), "", id, ""); err != nil || !did {
		t.Fatal(did, err)
	}
}

// TestRemovedSpaceIsUsedAgain: a file whose requests come and go does not grow.
func TestRemovedSpaceIsUsedAgain(t *testing.T) {
	d := opened(t)
	most := 0
	for round := range 5 {
		for range 20 {
			d.cancel(t, d.enqueue(t, 1<<18))
		}
		all, _ := d.pages(t)
		if round == 0 {
			most = all + all/10
		}
		if all > most {
			t.Fatalf("round %d: got %d pages, want at most %d", round, all, most)
		}
		d.sweepAll(t)
	}
}

// TestFileShrinks when more than half of a large file is free, a little at each
// sweep.
func TestFileShrinks(t *testing.T) {
	d := opened(t)
	d.cancel(t, d.enqueue(t, (spareFree+4*giveBackPages)*4096))
	before, _ := d.pages(t)
	d.sweepAll(t)
	mid, _ := d.pages(t)
	for range 10 {
		if _, err := d.Sweep(t.Context(), store.SweepRequest{Keep: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	all, free := d.pages(t)
	if mid < before-2*giveBackPages || all > before-4*giveBackPages || free < spareFree-giveBackPages {
		t.Errorf("got %d pages, then %d, then %d with %d free", before, mid, all, free)
	}
}

// TestIdempotencyKeysGo a day after they came.
func TestIdempotencyKeysGo(t *testing.T) {
	d := opened(t)
	err := d.update(t.Context(), "test", func(t *tx) error {
		for key, age := range map[string]time.Duration{"old": 25 * time.Hour, "young": 23 * time.Hour} {
			_, err := t.exec(`insert into idempotency values ('t', ?, x'', x'', ?)`, key, t.now-age.Milliseconds())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	var key string
	err = d.view(t.Context(), "test", func(s *snapshot) error {
		return s.one(`select group_concat(key) from idempotency`, nil, &key)
	})
	if err != nil || key != "young" {
		t.Errorf("got keys %q, %v, want young", key, err)
	}
}

// TestRemovingIsDoneInParts: one transaction does not remove more than the limit.
func TestRemovingIsDoneInParts(t *testing.T) {
	d := opened(t)
	for range 7 {
		d.cancel(t, d.enqueue(t, 10))
	}
	for _, want := range []int{3, 3, 1, 0} {
		var n int
		var more bool
		err := d.update(t.Context(), "test", func(t *tx) (err error) {
			n, more, err = t.removeEnded(t.now+1, 3)
			return err
		})
		if err != nil || n > want || more != (n == 3 || n < want) {
			t.Errorf("got %d, more %t, %v, want %d", n, more, err, want)
		}
	}
}
