package testdb_test

import (
	"database/sql"
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
