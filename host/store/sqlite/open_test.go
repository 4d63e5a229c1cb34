package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

// TestServersStartAtOnce: one of them gets the file, migrated.
func TestServersStartAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	drivers := make(chan store.Driver, 5)
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			d, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			if err == nil {
				drivers <- d
			} else if !errors.Is(err, store.ErrInUse) {
				t.Errorf("Open: got %v, want ErrInUse", err)
			}
		})
	}
	wg.Wait()
	close(drivers)
	n := 0
	for d := range drivers {
		n++
		if _, err := d.Stats(t.Context()); err != nil {
			t.Errorf("Stats: %v", err)
		}
		d.Close()
	}
	if n != 1 {
		t.Errorf("got %d servers on one file, want 1", n)
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	open(t, path).Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`insert into schema_migration (version, name, applied) values (9999, 'later', 0)`); err != nil {
		t.Fatal(err)
	}
	db.Close()
	_, err = sqlite.Open(t.Context(), path, sqlite.Options{})
	if !errors.Is(err, store.ErrOutdated) || !strings.Contains(fmt.Sprint(err), "9999") {
		t.Errorf("Open: got %v, want ErrOutdated and the version", err)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "missing", "casemate.db"), sqlite.Options{}); err == nil {
		t.Error("Open in a directory that is missing: got nil, want an error")
	}
}

// TestAnyFileName: a path is not a URL.
func TestAnyFileName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%20e.db")
	open(t, path).Close()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
	if want := []string{path, path + ".lock"}; err != nil || !slices.Equal(found, want) {
		t.Errorf("files: got %q, %v, want %q", found, err, want)
	}
}

// TestReopen: what was committed is there after a restart.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	d := open(t, path)
	id := queue.NewID()
	results, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p", Body: []byte("b")}}})
	if err = errors.Join(append(results, err)...); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d = open(t, path)
	defer d.Close()
	if r, err := d.Get(t.Context(), "t", id, store.Parts{Body: true}); err != nil || string(r.Body) != "b" {
		t.Errorf("Get: got %+v, %v", r, err)
	}
}

// TestBusyIsUnavailable: another process that writes for too long is an outage,
// not a wrong write.
func TestBusyIsUnavailable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{BusyTimeout: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	db, err := sql.Open("sqlite", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	w := []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}}}
	if _, err := d.Write(t.Context(), w); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Write: got %v, want ErrUnavailable", err)
	}
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	if results, err := d.Write(t.Context(), w); err != nil || results[0] != nil {
		t.Errorf("Write again: got %v, %v", results, err)
	}
}
