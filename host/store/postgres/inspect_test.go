package postgres_test

import (
	"context"
	"crypto/rand"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

func TestInspect(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	live := beat(t, d, store.Beat{Host: "h", Version: "v", Lease: time.Hour, Targets: []store.TargetUse{{Target: "a/x", Limit: 4, Want: 3, Cooldown: time.Minute}}})
	dead := beat(t, d, store.Beat{Lease: -time.Minute})
	enqueue(t, d)
	errs, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p", Worker: dead.Worker}}})
	if err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
	c := connect(t, u)
	exec(t, c,
		`update request set created = now() - interval '1 h', deadline = now() - interval '1 min' where state = 0`,
		`update worker set reaped = true where lease_until < now()`,
		`begin isolation level repeatable read`, `select count(*) from request`)
	r, err := d.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Database, "PostgreSQL 1") || r.Schema < 3 || len(r.Lanes) != 1 {
		t.Errorf("got database %q, schema %d, %d lanes", r.Database, r.Schema, len(r.Lanes))
	}
	if r.Oldest < time.Hour || r.Overdue != 1 || r.Orphans != 1 {
		t.Errorf("got oldest %s, overdue %d, orphans %d; want an hour, 1, 1", r.Oldest, r.Overdue, r.Orphans)
	}
	if len(r.Workers) != 2 || r.Workers[0].ID != live.Worker || r.Workers[0].Left < 50*time.Minute || !r.Workers[1].Reaped || r.Workers[1].Left > 0 || r.Workers[1].Owned != 1 {
		t.Errorf("got workers %+v", r.Workers)
	}
	if want := (store.TargetStat{Target: "a/x", Limit: 4, Shared: 3}); len(r.Targets) != 1 || r.Targets[0].Cooldown < 50*time.Second {
		t.Errorf("got targets %+v", r.Targets)
	} else if r.Targets[0].Cooldown = 0; r.Targets[0] != want {
		t.Errorf("got target %+v, want %+v", r.Targets[0], want)
	}
	if r.OldestSnapshot <= 0 || !strings.Contains(r.Holder, "count(*) from request") {
		t.Errorf("got oldest snapshot %s of %q", r.OldestSnapshot, r.Holder)
	}
	var tables []string
	for _, table := range r.Tables {
		tables = append(tables, table.Name)
	}
	if !slices.Contains(tables, "event") || slices.ContainsFunc(tables, func(s string) bool { return strings.HasPrefix(s, "event_") }) {
		t.Errorf("got tables %q, want partitions counted with theirs", tables)
	}
}

// TestInspectFindsInvalidIndexes, such as a build that broke off leaves behind.
func TestInspectFindsInvalidIndexes(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	enqueue(t, d)
	enqueue(t, d)
	c := connect(t, u)
	if _, err := c.Exec(t.Context(), `create unique index concurrently broken on request (path)`); err == nil {
		t.Fatal("a unique index on equal rows was made")
	}
	r, err := d.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Indexes {
		if i.Valid == (i.Name == "broken") {
			t.Errorf("got %+v", i)
		}
		if i.Name == "event_pkey" && i.Bytes == 0 || i.Table == "" {
			t.Errorf("got %+v, want its partitions' bytes", i)
		}
	}
	if !slices.ContainsFunc(r.Indexes, func(i store.IndexStat) bool { return i.Name == "broken" && i.Table == "request" }) {
		t.Errorf("got indexes %+v, want the broken one among them", r.Indexes)
	}
}

// TestInspectFindsWritersWithoutSnapshot: a transaction that wrote and now idles
// keeps dead rows as one that reads does.
func TestInspectFindsWritersWithoutSnapshot(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	c := connect(t, u)
	exec(t, c, `create table mine (n int)`, `begin`, `insert into mine values (1)`)
	enqueue(t, d)
	r, err := d.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.OldestSnapshot <= 0 || !strings.Contains(r.Holder, "insert into mine") {
		t.Errorf("got %s of %q, want the idle transaction", r.OldestSnapshot, r.Holder)
	}
}

// TestInspectAsAnOrdinaryUser: who may not see what other roles do is told at
// least who has the oldest snapshot, and the rest of the report.
func TestInspectAsAnOrdinaryUser(t *testing.T) {
	u := testdb.Postgres(t)
	c := connect(t, u)
	role := "plain_" + strings.ToLower(rand.Text())
	exec(t, c, `create role `+role+` login`, `grant create, usage on schema public to `+role)
	t.Cleanup(func() {
		_, _ = c.Exec(context.WithoutCancel(t.Context()), `rollback; drop owned by `+role+` cascade; drop role `+role)
	})
	parsed, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.User(role)
	d := open(t, parsed.String())
	defer d.Close()
	enqueue(t, d)
	exec(t, c, `begin isolation level repeatable read`, `select count(*) from request`)
	enqueue(t, d)
	r, err := d.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Schema < 3 || !strings.Contains(r.Holder, "pg_read_all_stats") {
		t.Errorf("got schema %d and holder %q, want a word on what hides its age", r.Schema, r.Holder)
	}
	if _, err := d.Sweep(t.Context(), store.SweepRequest{Reap: true, Keep: kept}); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if _, _, err := postgres.Scratch(t.Context(), parsed.String()); err == nil || !strings.Contains(err.Error(), "grant create on database") {
		t.Errorf("Scratch: got %v, want what to grant", err)
	}
}
