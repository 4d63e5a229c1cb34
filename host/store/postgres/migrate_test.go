package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

const olderVersion = 2

// migrated brings an empty database to an older version.
func migrated(t *testing.T, u string) *pgx.Conn {
	t.Helper()
	c := connect(t, u)
	exec(t, c, `create table schema_migration (version integer primary key, name text not null, applied timestamptz not null default now())`)
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) < olderVersion {
		t.Fatal(files, err)
	}
	for i, file := range files[:olderVersion] {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.PgConn().Exec(t.Context(), string(text)).ReadAll(); err != nil {
			t.Fatal(err)
		}
		exec(t, c, fmt.Sprintf(`insert into schema_migration (version, name) values (%d, 'x')`, i+1))
	}
	return c
}

// oldLife are statements of version 2, in the order of a request's life.
var oldLife = []string{
	`insert into lane (tenant, model) values ('t', 'm') on conflict do nothing`,
	`begin`,
	`insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord)
		select '%[1]s', id, '/p', '', false, false, true, false, 0, now() from lane`,
	`insert into body (request, data) values ('%[1]s', 'b')`,
	`update lane set ready = true, head_deadline = now() where not ready`,
	`commit`,
	`begin`,
	`select r.id, l.tenant from request r join lane l on l.id = r.lane where r.id = '%[1]s' for no key update of r`,
	`select coalesce((select max(seq) from event where request = '%[1]s'), -1)`,
	`update request set state = 10, finished = now() where id = '%[1]s'`,
	`insert into event (request, seq, data) values ('%[1]s', 0, 'e')`,
	`insert into step (request, scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt, generation, class, status, code, retry_after, usage, fuel)
		values ('%[1]s', '', 0, 'model', 'completed', true, '', '', '', '', 1, 1, '', '', 0, '', 0, '{}', 0)
		on conflict (request, scope, ordinal) do update set state = excluded.state where not step.settled`,
	`insert into decision (request, step, try, kind, attempt, generation, fallback, fuel) values ('%[1]s', '', 0, 'route', 1, '', '', 0)`,
	`commit`,
}

// TestMigrateUnderLoad: hosts of the version before go on while the schema is
// migrated; nothing of theirs fails, and nothing waits for long.
func TestMigrateUnderLoad(t *testing.T) {
	u := testdb.Postgres(t)
	migrated(t, u)
	ctx, stop := context.WithCancel(t.Context())
	var lives atomic.Int64
	var longest atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := connect(t, u)
		wg.Go(func() {
			for ctx.Err() == nil {
				id := queue.NewID()
				for _, s := range oldLife {
					begin := time.Now()
					if strings.Contains(s, "%[1]s") {
						s = fmt.Sprintf(s, id)
					}
					if _, err := c.Exec(t.Context(), s); err != nil {
						t.Errorf("%s: %v", s, err)
						return
					}
					longest.Store(max(longest.Load(), int64(time.Since(begin))))
				}
				lives.Add(1)
			}
		})
	}
	for tick := time.Tick(time.Millisecond); lives.Load() < 20 && !t.Failed(); {
		<-tick
	}
	var opening sync.WaitGroup
	for range 3 {
		opening.Go(func() {
			d, err := postgres.Open(t.Context(), u, postgres.Options{Conns: 2})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			d.Close()
		})
	}
	opening.Wait()
	for tick, after := time.Tick(time.Millisecond), lives.Load()+20; lives.Load() < after && !t.Failed(); {
		<-tick
	}
	stop()
	wg.Wait()
	if took := time.Duration(longest.Load()); took > 10*time.Second {
		t.Errorf("a statement took %s", took)
	}
	n := int(lives.Load())
	for _, table := range []string{"request", "body", "event", "step", "decision"} {
		if got := one[int](t, u, `select count(*)::int from `+table); got != n {
			t.Errorf("%s: got %d rows, want %d", table, got, n)
		}
	}
}

// TestMigrateGivesWay: a migration does not keep others waiting behind it for a
// table that somebody reads for long, and is done when that ends.
func TestMigrateGivesWay(t *testing.T) {
	u := testdb.Postgres(t)
	reader := migrated(t, u)
	exec(t, reader, `begin`, `select count(*) from event`)
	opened := make(chan error, 1)
	go func() {
		d, err := postgres.Open(t.Context(), u, postgres.Options{Conns: 2})
		if err == nil {
			err = d.Close()
		}
		opened <- err
	}()
	other := connect(t, u)
	for begin := time.Now(); time.Since(begin) < 3*time.Second; {
		asked := time.Now()
		exec(t, other, `insert into lane (tenant, model) values ('t', gen_random_uuid()::text)`)
		if took := time.Since(asked); took > 5*time.Second {
			t.Errorf("a statement took %s", took)
		}
	}
	if n := one[int](t, u, `select max(version) from schema_migration`); n != 2 {
		t.Errorf("got version %d while a table is read, want 2", n)
	}
	exec(t, reader, `commit`)
	if err := <-opened; err != nil {
		t.Errorf("Open: %v", err)
	}
}

// TestMigrationIsWhole: one that breaks off leaves the version before.
func TestMigrationIsWhole(t *testing.T) {
	u := testdb.Postgres(t)
	c := migrated(t, u)
	// The last statements of the migration fail.
	exec(t, c, `alter table decision rename constraint decision_pkey to other`)
	_, err := postgres.Open(t.Context(), u, postgres.Options{})
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || !strings.Contains(err.Error(), "0003") {
		t.Fatalf("Open: got %v, want an error of the third migration", err)
	}
	if n := one[int](t, u, `select count(*)::int from pg_class where relname in ('tenant_gate', 'target', 'step_default')`); n != 0 {
		t.Errorf("%d tables of the migration are there", n)
	}
	exec(t, c, `alter table decision rename constraint other to decision_pkey`)
	open(t, u).Close()
}

func readOnly(t *testing.T, u string) (store.Driver, error) {
	t.Helper()
	return postgres.Open(t.Context(), u, postgres.Options{ReadOnly: true})
}

func TestReadOnly(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	beat(t, d, store.Beat{Lease: time.Hour})
	enqueue(t, d)
	r, err := readOnly(t, u)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s, err := r.Stats(t.Context()); err != nil || s.States[queue.Pending] != 1 {
		t.Errorf("Stats: got %+v, %v", s, err)
	}
	if s, err := r.Inspect(t.Context()); err != nil || s.Deaf != "" || len(s.Workers) != 1 {
		t.Errorf("Inspect: got %+v, %v", s, err)
	}
	_, err = r.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("Heartbeat: got %v, want the database to refuse it", err)
	}
	_, err = r.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}}})
	if err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("Write: got %v, want the database to refuse it", err)
	}
}

func TestReadOnlyMigratesNothing(t *testing.T) {
	empty := testdb.Postgres(t)
	if _, err := readOnly(t, empty); err == nil || !strings.Contains(err.Error(), "check that the URL is right") || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("an empty database: got %v", err)
	}
	if n := one[int](t, empty, `select count(*)::int from pg_class where relname = 'schema_migration'`); n != 0 {
		t.Error("an empty database was migrated")
	}
	older := testdb.Postgres(t)
	migrated(t, older)
	if _, err := readOnly(t, older); err == nil || errors.Is(err, store.ErrOutdated) || errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "version 2 and this binary needs") {
		t.Errorf("an older database: got %v", err)
	}
	newer := testdb.Postgres(t)
	open(t, newer).Close()
	one[int](t, newer, `insert into schema_migration (version, name) values (9999, 'later') returning version`)
	if _, err := readOnly(t, newer); !errors.Is(err, store.ErrOutdated) || !strings.Contains(err.Error(), "9999") {
		t.Errorf("a newer database: got %v", err)
	}
}

// TestReadOnlyThroughPgBouncer: reads work, writes do not, and that hints do not
// arrive is told.
func TestReadOnlyThroughPgBouncer(t *testing.T) {
	pooled, direct := testdb.PgBouncer(t)
	d := open(t, direct)
	defer d.Close()
	enqueue(t, d)
	r, err := readOnly(t, unprepared(t, pooled))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if s, err := r.Inspect(t.Context()); err != nil || s.States[queue.Pending] != 1 || !strings.Contains(s.Deaf, "pooler") {
		t.Errorf("Inspect: got %+v, %v, want a request and a word on the pooler", s, err)
	}
	ctx, id := t.Context(), queue.NewID()
	for name, f := range map[string]func() error{
		"Write": func() error {
			_, err := r.Write(ctx, []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p"}}})
			return err
		},
		"Claim": func() error {
			_, err := r.Claim(ctx, store.ClaimRequest{Worker: 1, Models: []string{"m"}, N: 1})
			return err
		},
		"Heartbeat": func() error { _, err := r.Heartbeat(ctx, store.Beat{Lease: time.Hour}); return err },
		"Sweep":     func() error { _, err := r.Sweep(ctx, store.SweepRequest{}); return err },
		"Cancel":    func() error { _, _, err := r.Cancel(ctx, "t", id, ""); return err },
		"Delete":    func() error { return r.Delete(ctx, "t", id) },
		"SetLimits": func() error {
			return r.SetLimits(ctx, store.Limits{Lanes: []queue.Lane{{Tenant: "t", Model: "m", Weight: 1}}})
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "read only") {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
	if s, err := d.Stats(ctx); err != nil || len(s.Lanes) != 1 || s.Lanes[0].Cap != 0 || s.States[queue.Pending] != 1 {
		t.Errorf("Stats: got %+v, %v", s, err)
	}
	newer := one[int](t, direct, `insert into schema_migration (version, name) values (9999, 'later') returning version`)
	if _, err := readOnly(t, unprepared(t, pooled)); !errors.Is(err, store.ErrOutdated) {
		t.Errorf("version %d: got %v", newer, err)
	}
}
