package sqlite

import (
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// TestLanesAreExact after each transaction that lets go of what waits, with no
// sweep to heal them: a lane that is ready for nothing would keep realtime
// requests out.
func TestLanesAreExact(t *testing.T) {
	d := opened(t)
	lane := func(what string, ready, parked bool) {
		t.Helper()
		s, err := d.Stats(t.Context())
		if err != nil || len(s.Lanes) != 1 {
			t.Fatalf("%s: got %+v, %v", what, s, err)
		}
		if l := s.Lanes[0]; l.Ready != ready || l.Head.IsZero() == ready || l.Parked != parked {
			t.Errorf("%s: got %+v, want ready %t, parked %t", what, l, ready, parked)
		}
	}
	later := func(f func(*tx) error) {
		t.Helper()
		if err := d.update(t.Context(), "test", func(t *tx) error { t.now += 10_000; return f(t) }); err != nil {
			t.Fatal(err)
		}
	}
	id := d.enqueue(t, 1)
	lane("enqueued", true, false)
	d.cancel(t, id)
	lane("canceled", false, false)
	n := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p", DeadlineIn: 5e9}
	if r, err := d.Write(t.Context(), []store.Write{{Insert: &n}}); err != nil || r[0] != nil {
		t.Fatal(r, err)
	}
	lane("with a deadline", true, false)
	later(func(t *tx) error { _, err := t.expire(9); return err })
	lane("expired", false, false)
	later(func(t *tx) error { _, err := t.exec(parkLane, 1, t.now-1); return err })
	lane("parked", false, true)
	later((*tx).unpark)
	lane("unparked", false, false)
}
