package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
)

// TestLargeDefaultPartition: days are made beside a default partition that is
// large, by a constraint that goes again; one that was left behind is no hindrance.
func TestLargeDefaultPartition(t *testing.T) {
	u := testdb.Postgres(t)
	open(t, u).Close()
	days := one[int](t, u, countDays)
	today := time.Now().UTC()
	c := connect(t, u)
	exec(t, c, dropDays,
		`insert into body_default select ('00' || right(gen_random_uuid()::text, 34))::uuid, '' from generate_series(1, 200000)`,
		fmt.Sprintf(`alter table body_default add constraint body_%s_elsewhere check (request < '01000000-0000-0000-0000-000000000000') not valid`, today.Format("20060102")))
	if size := one[int](t, u, `select pg_relation_size('body_default')::int`); size < 8<<20 {
		t.Fatalf("the partition has %d bytes, which is not large", size)
	}
	open(t, u).Close()
	if n := one[int](t, u, countDays); n != days {
		t.Errorf("got %d days, want %d", n, days)
	}
	if n := one[int](t, u, `select count(*)::int from pg_constraint where conname like '%elsewhere'`); n != 0 {
		t.Errorf("%d constraints were left behind", n)
	}
}
