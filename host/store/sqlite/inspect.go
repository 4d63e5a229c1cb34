package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/casemate/casemate/host/store"
)

// Inspect reads what a doctor looks at. Old snapshots are not known here, nor is
// when rows were last removed: no row outlives the transaction that removes it.
func (d *driver) Inspect(ctx context.Context) (r store.Report, err error) {
	err = d.view(ctx, "inspect", func(v *snapshot) (err error) {
		if r.Stats, err = v.stats(); err != nil {
			return err
		}
		if r.Workers, err = v.workerStats(); err != nil {
			return err
		}
		if r.Targets, err = v.targetStats(); err != nil {
			return err
		}
		if err := v.overdue(&r); err != nil {
			return err
		}
		return v.sizes(&r)
	})
	return r, err
}

const selectWorkers = `
select w.id, w.host, w.version, w.started, w.lease_until - ?1, w.draining, w.reaped,
	(select count(*) from request r where r.worker = w.id)
from worker w
order by w.id`

func (s *snapshot) workerStats() (workers []store.WorkerStat, err error) {
	now, err := s.now()
	if err != nil {
		return nil, err
	}
	err = s.each(selectWorkers, []any{now}, func(scan scan) error {
		var w store.WorkerStat
		var started sql.NullInt64
		var left int64
		err := scan(&w.ID, &w.Host, &w.Version, &started, &left, &w.Draining, &w.Reaped, &w.Owned)
		w.Started, w.Left = at(started), time.Duration(left)*time.Millisecond
		workers = append(workers, w)
		return err
	})
	return workers, err
}

const selectTargets = `
select t.id, t.limit_calls, max(0, coalesce(t.parked_until, 0) - ?1), (
	select coalesce(sum(s.slots), 0) from target_share s join worker w on w.id = s.worker and w.reaped = 0
	where s.target = t.id)
from target t
order by t.id`

func (s *snapshot) targetStats() (targets []store.TargetStat, err error) {
	now, err := s.now()
	if err != nil {
		return nil, err
	}
	err = s.each(selectTargets, []any{now}, func(scan scan) error {
		var t store.TargetStat
		var left int64
		err := scan(&t.Target, &t.Limit, &left, &t.Shared)
		t.Cooldown = time.Duration(left) * time.Millisecond
		targets = append(targets, t)
		return err
	})
	return targets, err
}

// late is how long what is due may wait for a sweep until it counts as overdue.
const late = 10 * time.Second

const selectOverdue = `
select sqlite_version(), (select coalesce(max(version), 0) from schema_migration),
	coalesce((select max(0, ?1 - min(created)) from request indexed by request_lane where state = 0), 0),
	(select count(*) from request where state = 3 and not_before < ?2 and (deadline is null or deadline >= ?2))
		+ (select count(*) from request where deadline is not null and state in (0, 3) and deadline < ?2),
	(select count(*) from request r where r.worker is not null and not exists (
		select 1 from worker w where w.id = r.worker and w.reaped = 0))`

func (s *snapshot) overdue(r *store.Report) error {
	now, err := s.now()
	if err != nil {
		return err
	}
	var version string
	var oldest int64
	err = s.one(selectOverdue, []any{now, now - late.Milliseconds()}, &version, &r.Schema, &oldest, &r.Overdue, &r.Orphans)
	r.Database, r.Oldest = "SQLite "+version, time.Duration(oldest)*time.Millisecond
	return err
}

// mostPages is how large a file may be, in pages, to be read through for the
// sizes of what is in it.
const mostPages = 1 << 18

// selectSizes counts an index among its table's rows where it is the table.
const selectSizes = `
select m.type = 'index', m.name, m.tbl_name, coalesce(s.ncell, 0), coalesce(s.pgsize, 0)
from sqlite_schema m
left join (select name, ncell, pgsize from dbstat('main', 1) where (select page_count from pragma_page_count()) <= ?1) s on s.name = m.name
where m.rootpage > 0
order by m.tbl_name, m.name`

func (s *snapshot) sizes(r *store.Report) error {
	return s.each(selectSizes, []any{mostPages}, func(scan scan) error {
		var index bool
		var name, table string
		var rows, bytes int64
		if err := scan(&index, &name, &table, &rows, &bytes); err != nil {
			return err
		}
		if index {
			r.Indexes = append(r.Indexes, store.IndexStat{Name: name, Table: table, Bytes: bytes, Valid: true})
			return nil
		}
		r.Tables = append(r.Tables, store.TableStat{Name: name, Rows: rows, Bytes: bytes})
		return nil
	})
}
