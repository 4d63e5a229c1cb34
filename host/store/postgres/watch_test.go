package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// hear runs Watch until the test ends.
func hear(t *testing.T, d store.Driver) <-chan store.Hint {
	t.Helper()
	heard := make(chan store.Hint, 10000)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Watch(ctx, func(h store.Hint) { heard <- h }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Watch: %v", err)
		}
	})
	return heard
}

// await returns when a hint arrives that is wanted.
func await(t *testing.T, heard <-chan store.Hint, what string, wanted func(store.Hint) bool) {
	t.Helper()
	for limit := time.After(30 * time.Second); ; {
		select {
		case h := <-heard:
			if wanted(h) {
				return
			}
		case <-limit:
			t.Fatalf("no hint: %s", what)
		}
	}
}

func ready(h store.Hint) bool { return h.Ready }

func enqueue(t *testing.T, d store.Driver) {
	t.Helper()
	errs, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}}})
	if err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
}

// TestWatchOutlivesTheServer: when the server comes back, what may have been
// missed is looked for, and hints arrive again.
func TestWatchOutlivesTheServer(t *testing.T) {
	s := testdb.NewServer(t)
	a, b := open(t, s.URL()), open(t, s.URL())
	defer a.Close()
	defer b.Close()
	w := beat(t, b, store.Beat{Lease: time.Hour}).Worker
	hear(t, a)
	heard := hear(t, b)
	again := func(h store.Hint) bool { return h.Ready && h.Canceled == w }
	await(t, heard, "when listening began", again)
	for _, stop := range []func(){s.Stop, s.Kill} {
		stop()
		s.Start()
		await(t, heard, "after the server came back", again)
		for begin := time.Now(); ; {
			if _, err := a.Stats(t.Context()); err == nil {
				break
			} else if time.Since(begin) > 30*time.Second {
				t.Fatal(err)
			}
		}
		for len(heard) > 0 {
			<-heard
		}
		enqueue(t, a)
		await(t, heard, "of a request", ready)
	}
}

// TestWatchSendsFewStatements: however much is written, hints are gathered.
func TestWatchSendsFewStatements(t *testing.T) {
	u := testdb.Postgres(t)
	d, err := postgres.Open(t.Context(), u, postgres.Options{Listen: "off"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	listener := open(t, u)
	defer listener.Close()
	heard := hear(t, listener)
	await(t, heard, "when listening began", ready)
	hear(t, d)
	begin := time.Now()
	for time.Since(begin) < 300*time.Millisecond {
		enqueue(t, d)
	}
	took := time.Since(begin)
	await(t, heard, "of a request", ready)
	n := 1
	for quiet := false; !quiet; {
		select {
		case <-heard:
			n++
		case <-time.After(300 * time.Millisecond):
			quiet = true
		}
	}
	if most := int(took/(20*time.Millisecond)) + 2; n > most {
		t.Errorf("%d hints in %s, want at most %d", n, took, most)
	}
}

// TestWatchThroughPgBouncer: nothing arrives, Watch finds that out, and neither
// writes nor Watch's end suffer from it.
func TestWatchThroughPgBouncer(t *testing.T) {
	pooled, direct := testdb.PgBouncer(t)
	d := open(t, unprepared(t, pooled))
	defer d.Close()
	heard := hear(t, d)
	enqueue(t, d)
	r, err := d.Inspect(t.Context())
	if err != nil || !strings.Contains(r.Deaf, "pooler") {
		t.Errorf("Inspect: got %q, %v, want a word on the pooler", r.Deaf, err)
	}
	select {
	case h := <-heard:
		t.Errorf("heard %+v", h)
	default:
	}
	beside, err := postgres.Open(t.Context(), unprepared(t, pooled), postgres.Options{Listen: direct})
	if err != nil {
		t.Fatal(err)
	}
	defer beside.Close()
	heard = hear(t, beside)
	await(t, heard, "when listening began", ready)
	enqueue(t, d)
	await(t, heard, "of a request", ready)
	if r, err := beside.Inspect(t.Context()); err != nil || r.Deaf != "" {
		t.Errorf("Inspect: got %q, %v, want that hints arrive", r.Deaf, err)
	}
}

// TestWatchOff listens to nothing and says so.
func TestWatchOff(t *testing.T) {
	d, err := postgres.Open(t.Context(), testdb.Postgres(t), postgres.Options{Listen: "off"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	hear(t, d)
	if r, err := d.Inspect(t.Context()); err != nil || !strings.Contains(r.Deaf, "off") {
		t.Errorf("Inspect: got %q, %v, want that listening is off", r.Deaf, err)
	}
	if _, err := postgres.Open(t.Context(), testdb.Postgres(t), postgres.Options{Listen: "postgres://%"}); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("Open with a bad URL: got %v", err)
	}
}
