package postgres_test

import (
	"net/url"
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/storetest"
)

// TestDriverPgBouncer is what may differ through PgBouncer in transaction mode:
// no state of a session is relied upon.
func TestDriverPgBouncer(t *testing.T) {
	storetest.Modes(t, func(t *testing.T) store.Driver {
		pooled, _ := testdb.PgBouncer(t)
		return open(t, unprepared(t, pooled))
	})
}

// unprepared returns the URL with what PgBouncer before 1.21 needs.
func unprepared(t *testing.T, to string) string {
	return with(t, to, "default_query_exec_mode", "exec")
}

// with returns the URL with a parameter.
func with(t *testing.T, to, key, value string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(key, value)
	u.RawQuery = q.Encode()
	return u.String()
}
