package postgres

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const (
	keysEvery = 10 * time.Minute // between two looks at idempotency keys
	// slack is how far ahead of the database's a host's clock may be, for the ids
	// that it made to be found in time; others are found later.
	slack = 15 * time.Minute
	// wholeFrom is the least Keep for which what belongs to a request may stay, out
	// of sight, until its day's partitions are dropped: at most a day longer, unless
	// another request of the day goes on.
	wholeFrom = 48 * time.Hour
	// restFactor keeps retention's part of the time small.
	restFactor = 20
	longRest   = time.Minute
)

// retention is what a driver remembers between its sweeps.
type retention struct {
	sync.Mutex
	after   time.Time               // nothing before
	keys    time.Time               // no idempotency keys before
	orphans map[partition]time.Time // not looked for before
}

// retain removes what ended longer ago than it is kept, on one host at a time,
// and what workers left behind that were reaped.
// Where a day has partitions of its own, only its requests are deleted, and the
// rest goes with the partitions.
func (d *driver) retain(ctx context.Context, r store.SweepRequest, removed *int) error {
	if r.Reap {
		if _, err := d.pool.Exec(ctx, dropShares); err != nil {
			return err
		}
	}
	k := &d.kept
	begin := time.Now()
	if !k.TryLock() {
		return nil
	}
	defer k.Unlock()
	if begin.Before(k.after) {
		return nil
	}
	if begin.After(k.keys) {
		if _, err := d.pool.Exec(ctx, removeKeys, micros(store.KeepKeys), 10*r.Limit, int64(lockRetaining)); err != nil {
			return err
		}
		k.keys = begin.Add(keysEvery)
	}
	if r.Keep <= 0 {
		return nil
	}
	more, err := d.retainRequests(ctx, r, removed)
	if err == nil && !more {
		k.after = time.Now().Add(min(restFactor*time.Since(begin), longRest))
	}
	return err
}

const removeKeys = `
with mine as materialized (select pg_try_advisory_xact_lock($3) as ok)
delete from idempotency where ctid = any(array(
	select ctid from idempotency
	where (select ok from mine) and created < now() - $1 * interval '1 microsecond'
	limit $2 for update skip locked))`

// retainRequests reports whether there was more than it removes at once.
func (d *driver) retainRequests(ctx context.Context, r store.SweepRequest, removed *int) (more bool, err error) {
	var now time.Time
	if err := d.pool.QueryRow(ctx, `select now()`).Scan(&now); err != nil {
		return false, err
	}
	days, err := d.partitions(ctx)
	if err != nil {
		return false, err
	}
	// What ended before now - Keep was made before, too, or has an id of a clock
	// that runs ahead, and may be of the future yet.
	past := now.Add(slack - r.Keep)
	future := now
	if past.After(now) {
		future = past
	}
	for _, span := range [][2]queue.ID{{{}, least(past)}, {least(future), last}} {
		for n, round := r.Limit, 0; n == r.Limit; round++ {
			if round == store.ExpireRounds {
				return true, nil
			}
			if n, err = d.removeEnded(ctx, r, span, whole(days, r.Keep, now)); err != nil {
				return false, err
			}
			*removed += n
		}
	}
	return false, d.dropDays(ctx, r, now, days)
}

// whole returns the days whose partitions go within a day from now.
func whole(days []day, keep time.Duration, now time.Time) []int64 {
	all := []int64{}
	for _, day := range days {
		goes := day.AddDate(0, 0, 1).Add(keep)
		if keep >= wholeFrom && len(day.tables) == len(daily) && goes.Before(now.AddDate(0, 0, 1)) {
			all = append(all, day.Unix()/(24*60*60))
		}
	}
	return all
}

// last is no less than any id.
var last = queue.ID{
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}

// removeEnded removes requests whose ids are in a span, but for lines of batches
// that have not ended, whose results are not in the batch's files yet. The rest
// of those whose days are whole stays for the partitions' end. Days are counted
// from 1970.
const removeEnded = `
with mine as materialized (select pg_try_advisory_xact_lock($6) as ok),
v as materialized (
	select id from request
	where (select ok from mine) and id >= $1 and id < $2
		and state + 0 >= 10 and worker is null and finished < now() - $3 * interval '1 microsecond'
		and (batch is null or not exists (select from batch b where b.id = request.batch and b.due is not null))
	order by id limit $4 for update skip locked),
gone as materialized (
	select id from v
	where ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 86400000 <> all($5::bigint[])),
forget_body as (delete from body where request = any(array(select id from gone))),
forget_result as (delete from result where request = any(array(select id from gone))),
forget_step as (delete from step where request = any(array(select id from gone))),
forget_event as (delete from event where request = any(array(select id from gone))),
forget_decision as (delete from decision where request = any(array(select id from gone))),
u as (delete from request where id = any(array(select id from v)) returning 1)
select count(*) from u`

func (d *driver) removeEnded(ctx context.Context, r store.SweepRequest, span [2]queue.ID, whole []int64) (n int, err error) {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(removeEnded, uuid(span[0]), uuid(span[1]), micros(r.Keep), r.Limit, whole, int64(lockRetaining)).
		QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	b.Queue("commit")
	err = d.pool.SendBatch(ctx, &b).Close()
	return n, err
}

// dropDays drops the partitions of days that ended longer ago than requests are
// kept, and of which no request is left. Of others it deletes what is left of
// requests that are gone.
func (d *driver) dropDays(ctx context.Context, r store.SweepRequest, now time.Time, days []day) error {
	for _, day := range days {
		if day.AddDate(0, 0, 1).After(now.Add(-r.Keep)) {
			continue
		}
		for _, table := range day.tables {
			p := partition{table, day.Time}
			dropped, err := d.dropDay(ctx, p)
			if err == nil && !dropped {
				err = d.removeOrphans(ctx, p, 10*r.Limit)
			}
			if locked(err) {
				return nil // a later sweep tries again
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

const selectLives = `select exists (select from request where id >= $1 and id < $2)`

// dropDay looks at the day's requests again under a lock that keeps everybody
// from the table: a host whose clock is far behind may just be making one.
func (d *driver) dropDay(ctx context.Context, p partition) (dropped bool, err error) {
	from, to := uuid(least(p.day)), uuid(least(p.day.AddDate(0, 0, 1)))
	lives := true
	if err := d.pool.QueryRow(ctx, selectLives, from, to).Scan(&lives); err != nil || lives {
		return false, err
	}
	err = d.patient(ctx, func(t pgx.Tx) error {
		// The names are a constant and a date.
		if _, err := t.Exec(ctx, `lock table only `+p.table+` in access exclusive mode`); err != nil {
			return err
		}
		if err := t.QueryRow(ctx, selectLives, from, to).Scan(&lives); err != nil || lives {
			return err
		}
		_, err := t.Exec(ctx, `drop table if exists `+p.name())
		return err
	})
	return !lives, err
}

const orphansEvery = time.Hour

// removeOrphans deletes what belongs to requests that are gone of a day of which
// one is not.
func (d *driver) removeOrphans(ctx context.Context, p partition, limit int) error {
	k := &d.kept
	if k.orphans == nil {
		k.orphans = make(map[partition]time.Time)
	}
	if time.Now().Before(k.orphans[p]) {
		return nil
	}
	tag, err := d.pool.Exec(ctx, `delete from `+p.name()+` where ctid = any(array(
		select x.ctid from `+p.name()+` x where not exists (select from request r where r.id = x.request) limit $1))`, limit)
	if err == nil && tag.RowsAffected() < int64(limit) {
		k.orphans[p] = time.Now().Add(orphansEvery)
	}
	return err
}

// day is one that has partitions.
type day struct {
	time.Time
	tables []string
}

const selectPartitions = `
select p.relname, right(c.relname, 8), coalesce(pg_get_expr(c.relpartbound, c.oid), '')
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
join pg_class p on p.oid = i.inhparent
where p.relnamespace = current_schema()::regnamespace and p.relname = any($1)
	and c.relname = p.relname || '_' || right(c.relname, 8) and c.relname ~ '_[0-9]{8}$' and not i.inhdetachpending
order by 2, 1`

// partitions returns the days that have partitions, the oldest first. One that
// somebody made of other bounds is not the day's, whatever its name, nor is one
// that is being dropped: it has none any more.
func (d *driver) partitions(ctx context.Context) (days []day, err error) {
	rows, err := d.pool.Query(ctx, selectPartitions, daily)
	if err != nil {
		return nil, err
	}
	err = drain(rows, func(scan scan) error {
		var table, name, bounds string
		if err := scan(&table, &name, &bounds); err != nil {
			return err
		}
		at, err := time.Parse(dayName, name)
		if err != nil || bounds != "FOR VALUES "+dayBounds(at) {
			return nil //nolint:nilerr // not one of ours
		}
		if i := slices.IndexFunc(days, func(d day) bool { return d.Equal(at) }); i >= 0 {
			days[i].tables = append(days[i].tables, table)
			return nil
		}
		days = append(days, day{at, []string{table}})
		return nil
	})
	return days, err
}
