package postgres_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

const (
	dayLong = 24 * time.Hour
	kept    = 30 * dayLong
)

// idAt is an id that a host made whose clock says t.
func idAt(t time.Time) queue.ID {
	id := queue.NewID()
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t.UnixMilli()))
	copy(id[:6], ms[2:])
	return id
}

// old has a database with partitions of past days and requests in them.
type old struct {
	*testing.T
	d      store.Driver
	conn   *pgx.Conn
	worker int64
}

func newOld(t *testing.T, url string) *old {
	d := open(t, url)
	t.Cleanup(func() { d.Close() })
	return &old{t, d, connect(t, url), beat(t, d, store.Beat{Lease: time.Hour}).Worker}
}

// day makes the partitions of a day some days ago and returns its noon.
func (o *old) day(ago int) time.Time {
	from := time.Now().UTC().Truncate(dayLong).AddDate(0, 0, -ago)
	least := func(t time.Time) string {
		id := idAt(t)
		return fmt.Sprintf("%x-0000-0000-0000-000000000000", id[:4])[:9] + fmt.Sprintf("%x-0000-0000-000000000000", id[4:6])
	}
	for _, table := range []string{"body", "result", "step", "event", "decision"} {
		exec(o.T, o.conn, fmt.Sprintf(`create table %s_%s partition of %s for values from ('%s') to ('%s')`,
			table, from.Format("20060102"), table, least(from), least(from.AddDate(0, 0, 1))))
	}
	return from.Add(12 * time.Hour)
}

// ended makes a request that ended some time ago, with all that belongs to it.
func (o *old) ended(made time.Time, ago time.Duration) queue.ID {
	o.Helper()
	id := idAt(made)
	o.write(store.Write{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/p", Store: true, Body: []byte("b"), Worker: o.worker}})
	o.write(store.Write{
		Fence:     queue.Fence{ID: id, Attempt: 1, State: queue.Processing},
		Steps:     []response.Step{{Kind: response.ModelCall, State: response.Completed}},
		Events:    []response.Event{{Data: []byte("e")}},
		Decisions: []store.Decision{{Kind: "route", Question: []byte("{}"), Answer: []byte("{}")}},
		Usage:     []store.Usage{{Target: "a/x"}},
		Move:      &store.Move{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Result: &store.Result{Status: 200}},
	})
	exec(o.T, o.conn, fmt.Sprintf(`update request set finished = now() - interval '%d s' where id = '%s'`, int(ago.Seconds()), id))
	return id
}

func (o *old) write(w store.Write) {
	o.Helper()
	errs, err := o.d.Write(o.Context(), []store.Write{w})
	if err != nil || errs[0] != nil {
		o.Fatal(err, errs)
	}
}

func (o *old) sweep(keep time.Duration) store.Swept {
	o.Helper()
	s, err := o.d.Sweep(o.Context(), store.SweepRequest{Keep: keep})
	if err != nil {
		o.Fatal(err)
	}
	return s
}

// until sweeps until a query returns n.
func (o *old) until(n int, query string) {
	o.Helper()
	got := -1
	for begin := time.Now(); time.Since(begin) < 30*time.Second; {
		o.sweep(kept)
		if err := o.conn.QueryRow(o.Context(), query).Scan(&got); err != nil {
			o.Fatal(err)
		}
		if got == n {
			return
		}
	}
	o.Errorf("%s: got %d, want %d", query, got, n)
}

const countOld = `select count(*)::int from pg_inherits i join pg_class c on c.oid = i.inhrelid
where c.relname ~ '(body|result|step|event|decision)_[0-9]{8}$' and right(c.relname, 8) < to_char(now() at time zone 'utc', 'YYYYMMDD')`

func TestRetainDropsOldDays(t *testing.T) {
	o := newOld(t, testdb.Postgres(t))
	long, recent := o.day(40), o.day(20)
	o.ended(long, 40*dayLong)
	young := o.ended(recent, 20*dayLong)
	o.until(5, countOld) // those of the other day
	if n := one[int](t, o.conn.Config().ConnString(), `select count(*)::int from request`); n != 1 {
		t.Errorf("%d requests are left, want 1", n)
	}
	if r, err := o.d.Get(t.Context(), "", young, store.Parts{Body: true}); err != nil || string(r.Body) != "b" {
		t.Errorf("Get: got %+v, %v", r, err)
	}
	if n := one[int](t, o.conn.Config().ConnString(), `select count(*)::int from usage`); n != 2 {
		t.Errorf("%d rows of usage are left, want all", n)
	}
}

// TestRetainKeepsWhatLives: a request that has not ended keeps its day, of which
// only what belongs to requests that are gone goes.
func TestRetainKeepsWhatLives(t *testing.T) {
	o := newOld(t, testdb.Postgres(t))
	long := o.day(40)
	live := idAt(long)
	o.write(store.Write{Insert: &queue.New{ID: live, Tenant: "t", Model: "m", Path: "/p", Store: true, Body: []byte("live")}})
	o.ended(long, 40*dayLong)
	o.until(1, `select count(*)::int from request`)
	o.until(1, `select (select count(*) from body) + (select count(*) from step) + (select count(*) from event)
		+ (select count(*) from decision) + (select count(*) from result)`)
	if r, err := o.d.Get(t.Context(), "", live, store.Parts{Body: true}); err != nil || string(r.Body) != "live" {
		t.Errorf("Get: got %+v, %v", r, err)
	}
	o.until(5, countOld)
}

// TestRetainEmptiesTheDefaultPartition: requests of days without partitions of
// their own, as those of hosts whose clocks are wrong, are removed row by row.
func TestRetainEmptiesTheDefaultPartition(t *testing.T) {
	o := newOld(t, testdb.Postgres(t))
	now := time.Now()
	for _, made := range []time.Time{
		now.Add(-40 * dayLong), now.Add(-70 * dayLong), now.Add(-kept + 10*time.Minute), now.Add(10 * time.Minute), now.Add(kept),
	} {
		o.ended(made, kept+time.Minute)
	}
	o.ended(now, kept-time.Minute)
	o.until(1, `select count(*)::int from request`)
	for _, table := range []string{"body", "result", "step", "event", "decision"} {
		o.until(1, `select count(*)::int from `+table)
	}
}

// TestRetainStaysOutOfTheWay: while somebody reads a table, its days are dropped
// later, and nobody waits for long.
func TestRetainStaysOutOfTheWay(t *testing.T) {
	u := testdb.Postgres(t)
	o := newOld(t, u)
	o.ended(o.day(40), 40*dayLong)
	reader := connect(t, u)
	exec(t, reader, `begin`, `select count(*) from event`)
	begin := time.Now()
	o.sweep(kept)
	o.sweep(kept)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("two sweeps took %s", took)
	}
	if n := one[int](t, u, `select count(*)::int from pg_class where relname ~ '^event_[0-9]{8}$' and relname < 'event_' || to_char(now() at time zone 'utc', 'YYYYMMDD')`); n != 1 {
		t.Errorf("%d old partitions of a table that is read, want 1", n)
	}
	exec(t, reader, `commit`)
	o.until(0, countOld)
}

// TestRetainOnSeveralHosts has hosts sweep while others write.
func TestRetainOnSeveralHosts(t *testing.T) {
	u := testdb.Postgres(t)
	o := newOld(t, u)
	const requests = 40
	for i, long := 0, o.day(40); i < requests; i++ {
		o.ended(long, 40*dayLong)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	removed := 0
	for range 3 {
		d := open(t, u)
		defer d.Close()
		wg.Go(func() {
			for range 10 {
				s, err := d.Sweep(t.Context(), store.SweepRequest{Keep: kept, Limit: 5})
				if err != nil {
					t.Errorf("Sweep: %v", err)
				}
				mu.Lock()
				removed += s.Removed
				mu.Unlock()
			}
		})
	}
	for range 10 {
		o.ended(time.Now(), 0)
	}
	wg.Wait()
	if removed != requests {
		t.Errorf("%d requests were removed, want %d, each once", removed, requests)
	}
	o.until(0, countOld)
}

// TestRetainForgetsKeys removes idempotency keys whose day is over, whatever
// else is kept.
func TestRetainForgetsKeys(t *testing.T) {
	o := newOld(t, testdb.Postgres(t))
	exec(t, o.conn, `insert into idempotency (tenant, key, body_hash, request, created)
		select 't', n::text, '', gen_random_uuid(), now() - n * interval '1 h' from generate_series(1, 48) n`)
	o.sweep(0)
	if n := one[int](t, o.conn.Config().ConnString(), `select count(*)::int from idempotency`); n != 23 {
		t.Errorf("%d keys are left, want those of less than a day", n)
	}
}
