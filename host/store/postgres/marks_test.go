package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// TestAnotherModelIsSeen: claims that one model fills do not look at others each
// time, but before long.
func TestAnotherModelIsSeen(t *testing.T) {
	d := open(t, testdb.Postgres(t))
	defer d.Close()
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int, model string) {
		t.Helper()
		writes := make([]store.Write, n)
		for i := range writes {
			writes[i] = store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: model, Path: "/p"}}
		}
		if _, err := d.Write(t.Context(), writes); err != nil {
			t.Fatal(err)
		}
	}
	claim := func() queue.Claim {
		t.Helper()
		got, err := d.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"a", "b"}, N: 1})
		if err != nil || len(got) != 1 {
			t.Fatalf("Claim: got %d, %v", len(got), err)
		}
		return got[0]
	}
	add(500, "a")
	claim()
	add(1, "b")
	begin := time.Now()
	for n := 1; claim().Model != "b"; n++ {
		if n%400 == 0 {
			add(400, "a")
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the other model was not claimed from")
		}
	}
}

// TestSweepsGoOn: lanes that sleep though they have something are found however
// many there are, a part of them at each sweep.
func TestSweepsGoOn(t *testing.T) {
	const lanes = 12_000
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.PgConn().Exec(t.Context(), `
insert into lane (tenant, model) select 't' || i, 'm' from generate_series(1, 12000) i;
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord)
select gen_random_uuid(), id, '/p', 'default', false, true, true, false, 0, now() + interval '1 hour' from lane`).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for sweeps := 1; ; sweeps++ {
		if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
			t.Fatal(err)
		}
		var ready int
		if err := conn.QueryRow(t.Context(), `select count(*) from lane where ready and head_deadline is not null`).Scan(&ready); err != nil {
			t.Fatal(err)
		}
		if ready == lanes {
			return
		}
		if sweeps == 10 {
			t.Fatalf("%d of %d lanes are ready after %d sweeps", ready, lanes, sweeps)
		}
	}
}
