package loop_test

import (
	"os"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// database returns the URL of a fresh one; see testdb.
type database func(t *testing.T) string

func onSQLite(t *testing.T) string { return "sqlite:" + testdb.SQLite(t) }

// open opens a database. Its rig closes it.
func (d database) open(t *testing.T) store.Driver {
	t.Helper()
	var driver store.Driver
	var err error
	url := d(t)
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		driver, err = sqlite.Open(t.Context(), path, sqlite.Options{})
	} else {
		driver, err = postgres.Open(t.Context(), url, postgres.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return driver
}

// eachLoss runs f once a database and way to lose a claim.
func eachLoss(t *testing.T, f func(t *testing.T, d database, lose func(*rig, queue.Fence))) {
	t.Helper()
	databases := map[string]database{"sqlite": onSQLite, "postgres": func(t *testing.T) string { return testdb.Postgres(t) }}
	for on, d := range databases {
		for how, lose := range losses {
			t.Run(on+" "+how, func(t *testing.T) { f(t, d, lose) })
		}
	}
}
