package postgres_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/store"
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

// TestPartitionsMadeByHand: one that covers days of ours takes their rows, and
// keeps no host from starting or sweeping.
func TestPartitionsMadeByHand(t *testing.T) {
	u := testdb.Postgres(t)
	open(t, u).Close()
	c := connect(t, u)
	exec(t, c, dropDays, strings.ReplaceAll(dropDays, "body", "event"),
		`create table event_mine partition of event for values from ('01000000-0000-0000-0000-000000000000') to ('ff000000-0000-0000-0000-000000000000')`)
	d := open(t, u)
	defer d.Close()
	enqueue(t, d)
	if _, err := d.Sweep(t.Context(), store.SweepRequest{Keep: kept}); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if n := one[int](t, u, `select count(*)::int from pg_inherits where inhparent = 'body'::regclass`); n != 5 {
		t.Errorf("body has %d partitions, want those of four days and the default one", n)
	}
	if n := one[int](t, u, `select count(*)::int from pg_class where relname ~ '^event_[0-9]{8}$'`); n != 0 {
		t.Errorf("%d tables were made that have no place", n)
	}
}

// TestRetainSparesPartitionsMadeByHand: what is named like one of ours and is
// not, is left alone.
func TestRetainSparesPartitionsMadeByHand(t *testing.T) {
	u := testdb.Postgres(t)
	o := newOld(t, u)
	long := o.day(40)
	month := long.Format("20060102")
	for _, s := range []string{
		// Of many days, by the name of one.
		`drop table event_` + month,
		`create table event_` + month + ` partition of event for values from ('01000000-0000-0000-0000-000000000000') to ('` + idAt(time.Now().Add(-dayLong)).String() + `')`,
		// By the name of no day.
		`create table step_20269999 partition of step for values from ('00100000-0000-0000-0000-000000000000') to ('00200000-0000-0000-0000-000000000000')`,
		// By a longer name.
		`create table result_copy_20200101 partition of result for values from ('00100000-0000-0000-0000-000000000000') to ('00200000-0000-0000-0000-000000000000')`,
	} {
		exec(t, o.conn, s)
	}
	young := o.ended(time.Now().Add(-20*dayLong), 20*dayLong)
	o.ended(long, 40*dayLong)
	o.until(1, `select count(*)::int from request`)
	o.until(1, countOld)
	if n := one[int](t, u, `select count(*)::int from event where request = '`+young.String()+`'`); n != 1 {
		t.Errorf("%d events of a request that is kept, want 1", n)
	}
	if n := one[int](t, u, `select count(*)::int from pg_class where relname in ('step_20269999', 'result_copy_20200101')`); n != 2 {
		t.Errorf("%d of the other partitions are left, want 2", n)
	}
}
