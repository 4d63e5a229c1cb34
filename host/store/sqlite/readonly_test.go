package sqlite_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

func insert(t *testing.T, d store.Driver) queue.ID {
	t.Helper()
	id := queue.NewID()
	results, err := d.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p", Body: []byte("b")}}})
	if err = errors.Join(append(results, err)...); err != nil {
		t.Fatal(err)
	}
	return id
}

func reader(t *testing.T, path string) store.Driver {
	t.Helper()
	d, err := sqlite.Open(t.Context(), path, sqlite.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func found(t *testing.T, d store.Driver, id queue.ID) {
	t.Helper()
	if r, err := d.Get(t.Context(), "t", id, store.Parts{Body: true}); err != nil || string(r.Body) != "b" {
		t.Errorf("Get: got %+v, %v", r, err)
	}
}

// TestReadBesideTheServer: what it commits is seen, and the reader is in nobody's
// way.
func TestReadBesideTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	d := open(t, path)
	r := reader(t, path)
	found(t, r, insert(t, d))
	if _, err := d.Sweep(t.Context(), store.SweepRequest{}); err != nil {
		t.Fatal(err)
	}
	id := insert(t, d)
	found(t, r, id)
	if s, err := r.Inspect(t.Context()); err != nil || s.States[queue.Pending] != 2 || len(s.Tables) == 0 {
		t.Errorf("Inspect: got %+v, %v", s, err)
	}
	d.Close()
	found(t, r, id)
}

// TestReadWithoutAServer leaves the directory as it is.
func TestReadWithoutAServer(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "casemate.db")
	d := open(t, path)
	id := insert(t, d)
	d.Close()
	before := names(t, dir)
	r := reader(t, path)
	found(t, r, id)
	if got := names(t, dir); !slices.Equal(got, before) {
		t.Errorf("files: got %q, want %q", got, before)
	}
	d = open(t, path)
	defer d.Close()
	insert(t, d)
	if _, err := r.Stats(t.Context()); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "started") {
		t.Errorf("a server has started: got %v, want ErrUnavailable", err)
	}
}

// TestReadAfterACrash: what was committed only to the log is seen.
func TestReadAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	d := open(t, path)
	defer d.Close()
	id := insert(t, d)
	crashed := filepath.Join(t.TempDir(), "crashed.db")
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err == nil {
			err = os.WriteFile(crashed+suffix, data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	found(t, reader(t, crashed), id)
}

// TestReadAsAnotherUser, who may not write to the directory.
func TestReadAsAnotherUser(t *testing.T) {
	dir := everybodys(t)
	path := filepath.Join(dir, "casemate.db")
	d := open(t, path)
	insert(t, d)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	if _, opened := serve(t, path+"?read", true); opened != "<nil>" {
		t.Errorf("beside the server: got %s", opened)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), d.Close(), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	if _, opened := serve(t, path+"?read", true); opened != "<nil>" {
		t.Errorf("without the server: got %s", opened)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	made := func(name string, statements ...string) string {
		path := filepath.Join(dir, name)
		open(t, path).Close()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		for _, s := range statements {
			if _, err := db.Exec(s); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		path, want string
		is         error
	}{
		"missing":   {filepath.Join(dir, "missing.db"), "no such file", fs.ErrNotExist},
		"directory": {filepath.Join(dir, "no", "missing.db"), "no such file", fs.ErrNotExist},
		"newer":     {made("newer.db", `insert into schema_migration values (9999, 'later', 0)`), "newer binary", store.ErrOutdated},
		"older":     {made("older.db", `delete from schema_migration where version > 2`), "start a server", nil},
		"foreign":   {made("foreign.db", `drop table schema_migration`), "not a database of casemate", nil},
		"empty":     {file("empty.db", ""), "not a database of casemate", nil},
		"text":      {file("text.db", strings.Repeat("no database ", 1000)), "not a database of casemate", nil},
	} {
		before := names(t, dir)
		d, err := sqlite.Open(t.Context(), c.path, sqlite.Options{ReadOnly: true})
		if err == nil {
			d.Close()
		}
		if !strings.Contains(fmt.Sprint(err), c.want) || (c.is != nil && !errors.Is(err, c.is)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if got := names(t, dir); !slices.Equal(got, before) {
			t.Errorf("%s: files: got %q, want %q", name, got, before)
		}
	}
}

func TestReaderCannotWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casemate.db")
	d := open(t, path)
	defer d.Close()
	p, err := d.Heartbeat(t.Context(), store.Beat{Lease: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	id := insert(t, d)
	r := reader(t, path)
	for name, f := range map[string]func() error{
		"Write": func() error {
			_, err := r.Write(t.Context(), []store.Write{{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}}})
			return err
		},
		"Claim": func() error {
			_, err := r.Claim(t.Context(), store.ClaimRequest{Worker: p.Worker, Models: []string{"m"}, N: 1})
			return err
		},
		"Heartbeat": func() error { _, err := r.Heartbeat(t.Context(), store.Beat{Lease: time.Hour}); return err },
		"Sweep":     func() error { _, err := r.Sweep(t.Context(), store.SweepRequest{}); return err },
		"Cancel":    func() error { _, _, err := r.Cancel(t.Context(), "t", id, ""); return err },
		"Delete":    func() error { return r.Delete(t.Context(), "t", id) },
		"SetLimits": func() error { return r.SetLimits(t.Context(), store.Limits{}) },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "to read only") {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
}
