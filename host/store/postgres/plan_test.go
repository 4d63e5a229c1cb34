package postgres_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	_ "github.com/lib/pq" // looks at the server's counters beside the driver

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// TestPlansOutliveGrowth checks that statements whose plans were cached while
// the tables were almost empty do not read all of them once they have grown.
func TestPlansOutliveGrowth(t *testing.T) {
	url := testdb.Postgres(t)
	d, err := postgres.Open(t.Context(), url, postgres.Options{Conns: 1})
	if err != nil {
		t.Fatal(err)
	}
	pulse, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	write := func(writes ...store.Write) {
		t.Helper()
		errs, err := d.Write(t.Context(), writes)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range errs {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	end := func(f queue.Fence) store.Write {
		f.State = queue.Processing
		return store.Write{Fence: f, Move: &store.Move{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Result: &store.Result{Status: 200}}}
	}
	cycle := func() {
		t.Helper()
		write(store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/responses", Store: true}})
		claims, err := d.Claim(t.Context(), store.ClaimRequest{Worker: pulse.Worker, Models: []string{"m"}, N: 10})
		if err != nil || len(claims) != 1 {
			t.Fatalf("claim: %d, %v", len(claims), err)
		}
		f := claims[0].Fence()
		write(store.Write{Fence: f, Move: &store.Move{To: queue.Processing, By: queue.ByStart}})
		write(end(f))
	}
	for range 10 { // a generic plan is made at the sixth execution
		cycle()
	}
	for range 60 {
		var inserts, ends []store.Write
		for range 50 {
			n := &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/x", Store: true, Worker: pulse.Worker}
			inserts = append(inserts, store.Write{Insert: n})
			ends = append(ends, end(queue.Fence{ID: n.ID, Attempt: 1}))
		}
		write(inserts...)
		write(ends...)
	}
	const cycles = 20
	for range cycles {
		cycle()
	}
	if err := d.Close(); err != nil { // a session's counters arrive when it ends
		t.Error(err)
	}
	if n := scanned(t, url, "request"); n > 3000 {
		t.Errorf("%d rows of requests were read one after the other in %d cycles; want next to none", n, cycles)
	}
}

// scanned returns how many rows of a table sequential scans have read.
func scanned(t *testing.T, url, table string) (rows int64) {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	// The counters of a session that ended take a moment to arrive.
	last := int64(-1)
	tick := time.NewTicker(1200 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := db.QueryRowContext(context.Background(), `select seq_tup_read from pg_stat_user_tables where relname = $1`, table).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows == last {
			return rows
		}
		last = rows
		<-tick.C
	}
}
