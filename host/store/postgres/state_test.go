package postgres_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/storetest"
)

// TestSecretsGo with the end of their requests.
func TestSecretsGo(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	ended, live := storetest.EndSecrets(t, d)
	final := one[int](t, u, `select count(*)::int from request where state >= 10 and secret is null`)
	kept := one[int](t, u, `select count(*)::int from request where state < 10 and secret = 's'`)
	if all := one[int](t, u, `select count(*)::int from request where secret is not null`); final < ended || kept != len(live) || all != kept {
		t.Errorf("%d ended without a secret and %d of %d go on with one; want %d and %d", final, kept, all, ended, len(live))
	}
}

// TestKeysGetStale a day after they were used first, by the database's clock.
func TestKeysGetStale(t *testing.T) {
	u := testdb.Postgres(t)
	d := open(t, u)
	defer d.Close()
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	insert := func(hash string) (queue.ID, error) {
		n := &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}
		results, err := d.Write(t.Context(), []store.Write{{Insert: n, Key: &store.Key{Key: "k", Hash: []byte(hash)}}})
		if err != nil {
			t.Fatal(err)
		}
		return n.ID, results[0]
	}
	first, err := insert("a")
	if err != nil {
		t.Fatal(err)
	}
	age := func(by time.Duration) {
		exec(t, conn, fmt.Sprintf(`update idempotency set created = created - %d * interval '1 ms'`, by.Milliseconds()))
	}
	age(store.KeepKeys - time.Minute)
	var again *store.Repeated
	if _, err := insert("a"); !errors.As(err, &again) || again.ID != first || !again.Same {
		t.Errorf("a minute before a day: got %v, want it repeated", err)
	}
	age(2 * time.Minute)
	second, err := insert("b")
	if err != nil {
		t.Errorf("a minute after a day: got %v, want it inserted", err)
	}
	if _, err := insert("b"); !errors.As(err, &again) || again.ID != second || !again.Same {
		t.Errorf("after that: got %v, want the second repeated", err)
	}
}
