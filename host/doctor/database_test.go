package doctor_test

import (
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"

	"github.com/casemate/casemate/host/doctor"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// broken are rows that no host writes, and what is told of them.
var broken = []struct {
	name  string
	sql   string // of both databases, with {ago} for ten minutes before
	level doctor.Level
	what  string
}{
	{"counter of a lane", `update lane set running = running + 1 where cap is not null`, doctor.Bad, `lane "capped" "m" counts 2 running`},
	{"counter of a gate", `update tenant_gate set running = 0`, doctor.Bad, `the gate of tenant "capped" counts 0 running`},
	{"shares", `insert into target (id, limit_calls) values ('up/m', 1);
		insert into target_share (target, worker, slots, want) values ('up/m', (select min(id) from worker), 2, 2)`, doctor.Bad, `share 2 slots of target "up/m"`},
	{"lease", `update worker set lease_until = {ago}`, doctor.Bad, "is over for"},
	{"orphan", `update request set worker = 999 where worker is not null`, doctor.Bad, "1 request held by workers"},
	{"overdue", `update request set deadline = {ago} where state = 0`, doctor.Warn, "overdue"},
	{"parked", `update lane set parked = {true} where tenant = 'free'`, doctor.Warn, `lane "free" "m" is parked, though it has room`},
	{"asleep", `update lane set ready = {false} where tenant = 'free'`, doctor.Warn, `lane "free" "m" sleeps, though it has`},
}

func TestExamineHealthy(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		d := open(t, url)
		fill(t, d)
		if found := examine(t, d); doctor.Worst(found) != doctor.OK {
			t.Errorf("got\n%s", text(found))
		}
	})
}

func TestExamineBroken(t *testing.T) {
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			testdb.Each(t, func(t *testing.T, url string) {
				d := open(t, url)
				fill(t, d)
				execute(t, url, b.sql)
				found := examine(t, d)
				for _, f := range found {
					if f.Level == b.level && strings.Contains(f.What, b.what) {
						return
					}
				}
				t.Errorf("no %s finding %q:\n%s", b.level, b.what, text(found))
			})
		})
	}
}

// TestExamineSnapshot: a transaction that was forgotten is found with its owner.
func TestExamineSnapshot(t *testing.T) {
	url := testdb.Postgres(t)
	d := open(t, url)
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec(`select count(*) from lane`); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(10 * time.Second); ; {
		r, err := d.Inspect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.OldestSnapshot > 20*time.Millisecond && r.Holder != "" {
			r.OldestSnapshot += time.Hour // nobody waits for that
			if found := doctor.Examine(r); doctor.Worst(found) != doctor.Bad || !strings.Contains(found[0].What, r.Holder) {
				t.Errorf("got\n%s", text(found))
			}
			return
		}
		if time.Now().After(until) {
			t.Fatalf("got a snapshot of %s held by %q, want an older one with its holder", r.OldestSnapshot, r.Holder)
		}
	}
}

func open(t *testing.T, url string) store.Driver {
	t.Helper()
	var d store.Driver
	var err error
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		d, err = sqlite.Open(t.Context(), path, sqlite.Options{})
	} else {
		d, err = postgres.Open(t.Context(), url, postgres.Options{Listen: "off"})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fill makes a lane and a gate with a cap, of which one request runs, and a lane
// without, where one is pending.
func fill(t *testing.T, d store.Driver) {
	t.Helper()
	s := store.New(d, store.Options{})
	must := func(results []error, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range results {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	must(nil, s.SetLimits(t.Context(), store.Limits{
		Lanes: []queue.Lane{{Tenant: "capped", Model: "m", Cap: 4}}, Gates: []queue.Gate{{Tenant: "capped", Cap: 4}},
	}))
	p, err := d.Heartbeat(t.Context(), store.Beat{Host: "h", Version: "v", Lease: time.Hour})
	must(nil, err)
	must(d.Write(t.Context(), []store.Write{insert("capped")}))
	claims, err := s.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"m"}, N: 1})
	must(nil, err)
	if len(claims) != 1 {
		t.Fatalf("claimed %d, want 1", len(claims))
	}
	must(d.Write(t.Context(), []store.Write{insert("free")}))
}

func insert(tenant string) store.Write {
	return store.Write{Insert: &queue.New{
		ID: queue.NewID(), Tenant: tenant, Model: "m", Path: "/v1/responses", Background: true, Store: true, DeadlineIn: time.Hour, Body: []byte("{}"),
	}}
}

func examine(t *testing.T, d store.Driver) []doctor.Finding {
	t.Helper()
	r, err := d.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return doctor.Examine(r)
}

// execute runs statements past the driver.
func execute(t *testing.T, url, statements string) {
	t.Helper()
	dialect := strings.NewReplacer("{ago}", "now() - interval '10 min'", "{true}", "true", "{false}", "false")
	db, err := sql.Open("postgres", url)
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		dialect = strings.NewReplacer("{ago}", "unixepoch() * 1000 - 600000", "{true}", "1", "{false}", "0")
		db, err = sql.Open("sqlite", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), dialect.Replace(statements)); err != nil {
		t.Fatal(err)
	}
}
