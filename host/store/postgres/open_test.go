package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/storetest"
)

// TestDriverWithoutPreparedStatements is what an old PgBouncer in transaction
// mode needs.
func TestDriverWithoutPreparedStatements(t *testing.T) {
	storetest.Modes(t, func(t *testing.T) store.Driver { return open(t, unprepared(t, testdb.Postgres(t))) })
}

func TestHostsMigrateAtOnce(t *testing.T) {
	u := testdb.Postgres(t)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			d, err := postgres.Open(t.Context(), u, postgres.Options{Conns: 2})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			d.Close()
		})
	}
	wg.Wait()
	if n := one[int](t, u, `select count(*) from pg_inherits where inhparent = 'body'::regclass`); n < 4 {
		t.Errorf("body has %d partitions, want the default and days ahead", n)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	u := testdb.Postgres(t)
	open(t, u).Close()
	one[int](t, u, `insert into schema_migration (version, name) values (9999, 'later') returning version`)
	_, err := postgres.Open(t.Context(), u, postgres.Options{})
	if !errors.Is(err, store.ErrOutdated) || !strings.Contains(fmt.Sprint(err), "9999") {
		t.Errorf("Open: got %v, want ErrOutdated and the version", err)
	}
}

func TestUnreachableIsUnavailable(t *testing.T) {
	_, err := postgres.Open(t.Context(), "postgres://nobody@127.0.0.1:1/none?connect_timeout=1", postgres.Options{})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Open: got %v, want ErrUnavailable", err)
	}
}

// TestBodiesAreInTheirDay: rows go to the partition of the day in their id.
func TestBodiesAreInTheirDay(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	id := queue.NewID()
	results, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p", Store: true}}})
	if err = errors.Join(append(results, err)...); err != nil {
		t.Fatal(err)
	}
	want := "body_" + time.Now().UTC().Format("20060102")
	if got := one[string](t, u, `select tableoid::regclass::text from body`); got != want {
		t.Errorf("the body is in %s, want %s", got, want)
	}
}

const dropDays = `
do $$ declare t regclass; begin
	for t in select inhrelid from pg_inherits where inhparent in ('body'::regclass, 'result'::regclass) and inhrelid::regclass::text not like '%default' loop
		execute 'drop table ' || t;
	end loop;
end $$`

const countDays = `
select count(*)::int from pg_inherits
where inhparent in ('body'::regclass, 'result'::regclass) and inhrelid::regclass::text not like '%default'`

// TestDaysAreMadeLater: while somebody keeps the tables from being attached,
// rows go to the default partition; a later sweep makes the days up.
func TestDaysAreMadeLater(t *testing.T) {
	u := testdb.Postgres(t)
	open(t, u).Close()
	days := one[int](t, u, countDays)
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	for _, statement := range []string{dropDays, `begin`, `lock table body_default, result_default in access share mode`} {
		if _, err := c.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, u)
	defer d.Close()
	if n := one[int](t, u, countDays); n != 0 {
		t.Fatalf("got %d days made in spite of the lock", n)
	}
	if _, err := c.Exec(t.Context(), `commit`); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); one[int](t, u, countDays) < days; {
		if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
			t.Fatalf("Sweep: %v", err)
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("got %d days, want %d", one[int](t, u, countDays), days)
		}
	}
}

// TestDefaultPartitionKeepsItsDay: a day whose rows are there already stays
// there, and keeps no other day from being made.
func TestDefaultPartitionKeepsItsDay(t *testing.T) {
	u := testdb.Postgres(t)
	before := open(t, u)
	defer before.Close()
	days := one[int](t, u, countDays)
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if _, err := c.Exec(t.Context(), dropDays); err != nil {
		t.Fatal(err)
	}
	id := queue.NewID()
	if _, err := before.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p", Body: []byte("b")}}}); err != nil {
		t.Fatal(err)
	}
	d := open(t, u)
	defer d.Close()
	if n := one[int](t, u, countDays); n != days-1 {
		t.Errorf("got %d days, want all but the one of body that is today", n)
	}
	if r, err := d.Get(t.Context(), "", id, store.Parts{Body: true}); err != nil || string(r.Body) != "b" {
		t.Errorf("Get: got %q, %v", r.Body, err)
	}
}

// TestLockedLaneIsPassedOver: a claim waits for nobody.
func TestLockedLaneIsPassedOver(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var writes []store.Write
	for _, tenant := range []string{"a", "b"} {
		writes = append(writes, store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: tenant, Model: "m", Path: "/p"}})
	}
	if _, err := d.Write(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if _, err := c.Exec(t.Context(), `begin; select from lane where tenant = 'a' for update`); err != nil {
		t.Fatal(err)
	}
	claims, err := d.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"m"}, N: 5})
	if err != nil || len(claims) != 1 || claims[0].Tenant != "b" {
		t.Errorf("got %+v, %v, want the other lane's request", claims, err)
	}
}

// one runs a statement that returns one value.
func one[T any](t *testing.T, u, statement string) (v T) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	if err := c.QueryRow(t.Context(), statement).Scan(&v); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return v
}
