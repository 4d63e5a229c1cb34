package sqlite

import (
	"errors"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/storetest"
)

// TestSecretsGo with the end of their requests.
func TestSecretsGo(t *testing.T) {
	d := opened(t)
	ended, live := storetest.EndSecrets(t, d)
	var final, kept int
	err := d.view(t.Context(), "test", func(s *snapshot) error {
		if err := s.one(`select count(*) from request where state >= 10 and secret is null`, nil, &final); err != nil {
			return err
		}
		return s.one(`select count(*) from request where secret = x'73' and state < 10`, nil, &kept)
	})
	if err != nil || final < ended || kept != len(live) {
		t.Errorf("%d ended without a secret and %d go on with one, %v; want %d and %d", final, kept, err, ended, len(live))
	}
}

// TestKeysGetStale a day after they were used first, by the database's clock.
func TestKeysGetStale(t *testing.T) {
	d := opened(t)
	insert := func(hash string) (queue.ID, error) {
		n := &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/p"}
		results, err := d.Write(t.Context(), []store.Write{{Insert: n, Key: &store.Key{Key: "k", Hash: []byte(hash)}}})
		if err != nil {
			t.Fatal(err)
		}
		return n.ID, results[0]
	}
	age := func(by time.Duration) {
		err := d.update(t.Context(), "test", func(t *tx) error {
			_, err := t.exec(`update idempotency set created = created - ?`, by.Milliseconds())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	first, err := insert("a")
	if err != nil {
		t.Fatal(err)
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
