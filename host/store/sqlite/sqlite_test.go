package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
	"github.com/casemate/casemate/host/store/storetest"
)

func open(tb testing.TB, path string) store.Driver {
	tb.Helper()
	d, err := sqlite.Open(tb.Context(), path, sqlite.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestDriver(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Driver { return open(t, filepath.Join(t.TempDir(), "casemate.db")) })
}

func BenchmarkWrite(b *testing.B) {
	storetest.Benchmark(b, func(b *testing.B) store.Driver { return open(b, filepath.Join(b.TempDir(), "casemate.db")) })
}
