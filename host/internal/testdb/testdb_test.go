package testdb_test

import (
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

func TestPostgresIsFresh(t *testing.T) {
	a, b := testdb.Postgres(t), testdb.Postgres(t)
	if a == b {
		t.Fatal("two calls returned one database")
	}
	for _, url := range []string{a, b} {
		db, err := sql.Open("postgres", url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec(`create table x (y int)`); err != nil {
			t.Errorf("%s: %v", url, err)
		}
		db.Close()
	}
}

func TestEach(t *testing.T) {
	var got []string
	testdb.Each(t, func(_ *testing.T, url string) {
		scheme, _, _ := strings.Cut(url, ":")
		got = append(got, scheme)
	})
	if len(got) != 2 || got[0] != "sqlite" || got[1] != "postgres" {
		t.Errorf("got %v, want sqlite and postgres", got)
	}
}

func TestPgBouncerPoolsTransactions(t *testing.T) {
	pooled, direct := testdb.PgBouncer(t)
	const sessions = 5 // more than the pool has
	seen := map[int]bool{}
	for range sessions {
		db := connect(t, pooled)
		seen[value[int](t, db, `select pg_backend_pid()`)] = true
	}
	if len(seen) == sessions {
		t.Errorf("%d sessions had a connection to the server each", sessions)
	}
	if got, want := value[string](t, connect(t, pooled), `select current_database()`), value[string](t, connect(t, direct), `select current_database()`); got != want {
		t.Errorf("got database %q, want %q", got, want)
	}
}

// TestServerComesBack: what was committed is there after an ordered stop and
// after a crash, under the same URL.
func TestServerComesBack(t *testing.T) {
	s := testdb.NewServer(t)
	if _, err := connect(t, s.URL()).Exec(`create table x as select 0 as y`); err != nil {
		t.Fatal(err)
	}
	for i, stop := range []func(){s.Stop, s.Kill} {
		db := connect(t, s.URL())
		if _, err := db.Exec(fmt.Sprintf(`insert into x values (%d)`, i)); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := db.Ping(); err == nil {
			t.Error("a server that was stopped answers")
		}
		s.Start()
		if n := value[int](t, connect(t, s.URL()), `select count(*) from x`); n != i+2 {
			t.Errorf("got %d rows after stop %d, want %d", n, i, i+2)
		}
	}
	if _, err := os.Stat(s.Socket()); err != nil {
		t.Error(err)
	}
}

func connect(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func value[T any](t *testing.T, db *sql.DB, query string) (v T) {
	t.Helper()
	if err := db.QueryRow(query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func TestFreshDurableIsDurable(t *testing.T) {
	u, done, err := testdb.FreshDurable()
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got := value[string](t, connect(t, u), `select current_setting('`+setting+`')`); got != "on" {
			t.Errorf("%s: got %s, want on", setting, got)
		}
	}
	if err := done(); err != nil {
		t.Error(err)
	}
	if err := connect(t, u).Ping(); err == nil {
		t.Error("a server that was done with answers")
	}
}
