package sqlite

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func opened(t *testing.T) *driver {
	t.Helper()
	d, err := Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*driver)
}

// enqueue inserts one request with a body of so many bytes.
func (d *driver) enqueue(t *testing.T, bytes int) queue.ID {
	t.Helper()
	n := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p", Store: true, Body: make([]byte, bytes)}
	if results, err := d.Write(t.Context(), []store.Write{{Insert: &n}}); err != nil || results[0] != nil {
		t.Fatal(results, err)
	}
	return n.ID
}

// TestReaderIsReadOnly: SQLite itself refuses its writes.
func TestReaderIsReadOnly(t *testing.T) {
	d := opened(t)
	opened, err := Open(t.Context(), d.file, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	conn, err := opened.(*driver).readers.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, s := range []string{`delete from worker`, `pragma query_only = 0`, `delete from worker`} {
		_, err := conn.ExecContext(t.Context(), s)
		if refused := err != nil; refused != strings.HasPrefix(s, "delete") {
			t.Errorf("%s: got %v", s, err)
		}
	}
}
