package postgres_test

import (
	"os"
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/storetest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

func open(tb testing.TB, url string) store.Driver {
	tb.Helper()
	d, err := postgres.Open(tb.Context(), url, postgres.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestDriver(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Driver { return open(t, testdb.Postgres(t)) })
}

func BenchmarkWrite(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) store.Driver { return open(b, testdb.Postgres(b)) })
}
