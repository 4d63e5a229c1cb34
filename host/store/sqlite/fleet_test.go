package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/storetest"
)

// TestFleet: a file takes one server, so both hosts are the same.
func TestFleet(t *testing.T) {
	storetest.Fleet(t, func(t *testing.T) (a, b store.Driver) {
		d := open(t, filepath.Join(t.TempDir(), "casemate.db"))
		return d, d
	})
}
