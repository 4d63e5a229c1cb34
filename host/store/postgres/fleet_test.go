package postgres_test

import (
	"testing"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/storetest"
)

func TestFleet(t *testing.T) {
	storetest.Fleet(t, func(t *testing.T) (a, b store.Driver) {
		url := testdb.Postgres(t)
		return open(t, url), open(t, url)
	})
}
