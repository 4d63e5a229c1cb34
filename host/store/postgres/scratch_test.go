package postgres_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
)

// TestScratch: a driver on the scratch schema leaves the tables in use alone,
// and drop leaves nothing.
func TestScratch(t *testing.T) {
	url := testdb.Postgres(t)
	own, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tables := func() (public, elsewhere int) {
		const count = `select count(*) filter (where schemaname = 'public'), count(*) filter (where schemaname <> 'public')
			from pg_tables where schemaname not in ('pg_catalog', 'information_schema')`
		if err := db.QueryRowContext(t.Context(), count).Scan(&public, &elsewhere); err != nil {
			t.Fatal(err)
		}
		return public, elsewhere
	}
	before, _ := tables()

	scratchURL, drop, err := postgres.Scratch(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	d, err := postgres.Open(t.Context(), scratchURL, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	results, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/", Body: []byte("{}")}}})
	if err != nil || results[0] != nil {
		t.Fatal(results, err)
	}
	if public, elsewhere := tables(); public != before || elsewhere < before/2 {
		t.Errorf("with a scratch: %d tables in use and %d of its own, want %d and as many", public, elsewhere, before)
	}
	if s, err := own.Stats(t.Context()); err != nil || len(s.Lanes) != 0 {
		t.Errorf("the tables in use: got %+v, %v; want no lane", s, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if public, elsewhere := tables(); public != before || elsewhere != 0 {
		t.Errorf("after drop: %d tables in use and %d elsewhere, want %d and none", public, elsewhere, before)
	}
}

// TestScratchTellsNoPassword: a URL may hold one.
func TestScratchTellsNoPassword(t *testing.T) {
	for _, url := range []string{"postgres://u:geheim@127.0.0.1:1/x", "postgres://u:geheim@[::1/x"} {
		_, _, err := postgres.Scratch(t.Context(), url)
		if err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("got %v, want an error without the password", err)
		}
	}
}
