package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/store"
)

// guardRead bounds what an operator's look may cost.
const guardRead = `select set_config('statement_timeout', '20s', true), set_config('jit', 'off', true)`

const selectServer = `
select 'PostgreSQL ' || split_part(current_setting('server_version'), ' ', 1),
	(select coalesce(max(version), 0) from schema_migration),
	coalesce((select now() - min(created) from request where state = 0), interval '0'),
	(select count(*) from request
		where (state = 3 and not_before < now() - interval '10 s') or (state in (0, 3) and deadline < now() - interval '10 s')),
	(select count(*) from request r
		where worker is not null and not exists (select from worker w where w.id = r.worker and not w.reaped))`

const selectWorkers = `
select w.id, w.host, w.version, w.started, w.lease_until - now(), w.draining, w.reaped,
	(select count(*) from request r where r.worker = w.id)
from worker w order by w.id`

const selectTargets = `
select t.id, t.limit_calls, greatest(coalesce(t.parked_until - now(), interval '0'), interval '0'), coalesce(sum(s.slots), 0)
from target t left join (target_share s join worker w on w.id = s.worker and not w.reaped) on s.target = t.id
group by t.id order by t.id collate "C"`

// selectHolder finds who keeps dead rows for longest. Who wrote and idles does
// that without a snapshot. A replication slot, or a standby, does not say since
// when: it is told of only where nobody has done so for a minute. A role that may
// not see what others do is told so.
const selectHolder = `
select since, holder || case when pg_has_role('pg_read_all_stats', 'usage') then '' else ' (sessions of other roles are hidden from this one: grant pg_read_all_stats to it)' end
from (
	select greatest(age(backend_xmin), age(backend_xid)) as xids, coalesce(now() - xact_start, interval '0') as since,
		format('%s (pid %s, user %s, %s): %s', coalesce(nullif(application_name, ''), backend_type), pid, usename, state, left(query, 80)) as holder
	from pg_stat_activity
	where (backend_xmin is not null or backend_xid is not null) and pid <> pg_backend_pid() and backend_type <> 'autovacuum worker'
		and (datname = current_database() or datname is null)
	union all
	select age(transaction), now() - prepared, format('prepared transaction %s', gid)
	from pg_prepared_xacts where database = current_database()
	union all
	select age(coalesce(xmin, catalog_xmin)), interval '0', format('replication slot %s, %s transactions behind', slot_name, age(coalesce(xmin, catalog_xmin)))
	from pg_replication_slots where coalesce(xmin, catalog_xmin) is not null
	union all
	select -1, interval '0', 'nobody' where not pg_has_role('pg_read_all_stats', 'usage')) as x
order by since >= interval '1 min' desc, xids desc, since desc limit 1`

// selectTables and selectIndexes count partitions with their table.
const selectTables = `
select coalesce(p.relname, s.relname) as name, sum(s.n_live_tup)::bigint, sum(s.n_dead_tup)::bigint,
	sum(pg_total_relation_size(s.relid))::bigint, max(greatest(s.last_vacuum, s.last_autovacuum))
from pg_stat_user_tables s
left join pg_inherits i on i.inhrelid = s.relid left join pg_class p on p.oid = i.inhparent
where s.schemaname = current_schema()
group by 1 order by 1`

const selectIndexes = `
select coalesce(p.relname, s.indexrelname) as name, coalesce(pt.relname, s.relname), sum(pg_relation_size(s.indexrelid))::bigint,
	bool_and(x.indisvalid and x.indisready), sum(s.idx_scan)::bigint
from pg_stat_user_indexes s join pg_index x on x.indexrelid = s.indexrelid
left join pg_inherits i on i.inhrelid = s.indexrelid left join pg_class p on p.oid = i.inhparent
left join pg_inherits ti on ti.inhrelid = s.relid left join pg_class pt on pt.oid = ti.inhparent
where s.schemaname = current_schema()
group by 1, 2 order by 2, 1`

// Inspect reads what a doctor looks at. Each part is of a moment of its own, so
// that no snapshot is kept that holds up what it measures.
func (d *driver) Inspect(ctx context.Context) (r store.Report, err error) {
	if r.Stats, err = d.Stats(ctx); err != nil {
		return r, err
	}
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardRead)
	b.Queue(selectServer).QueryRow(func(row pgx.Row) error {
		return row.Scan(&r.Database, &r.Schema, &r.Oldest, &r.Overdue, &r.Orphans)
	})
	for _, q := range []struct {
		query string
		read  func(scan, *store.Report) error
	}{
		{selectWorkers, scanWorker},
		{selectTargets, scanTarget},
		{selectHolder, func(scan scan, r *store.Report) error { return scan(&r.OldestSnapshot, &r.Holder) }},
		{selectTables, scanTable},
		{selectIndexes, scanIndex},
	} {
		b.Queue(q.query).Query(func(rows pgx.Rows) error {
			return drain(rows, func(scan scan) error { return q.read(scan, &r) })
		})
	}
	b.Queue("commit")
	if err := d.call(ctx, "inspect", func(ctx context.Context) error { return d.pool.SendBatch(ctx, &b).Close() }); err != nil {
		return r, err
	}
	if err := d.hearHints(ctx); err != nil {
		r.Deaf = oneLine{err}.Error()
	}
	return r, nil
}

func scanWorker(scan scan, r *store.Report) error {
	var w store.WorkerStat
	err := scan(&w.ID, &w.Host, &w.Version, &w.Started, &w.Left, &w.Draining, &w.Reaped, &w.Owned)
	w.Started = w.Started.UTC()
	r.Workers = append(r.Workers, w)
	return err
}

func scanTarget(scan scan, r *store.Report) error {
	var t store.TargetStat
	err := scan(&t.Target, &t.Limit, &t.Cooldown, &t.Shared)
	r.Targets = append(r.Targets, t)
	return err
}

func scanTable(scan scan, r *store.Report) error {
	var t store.TableStat
	var vacuumed *time.Time
	err := scan(&t.Name, &t.Rows, &t.Dead, &t.Bytes, &vacuumed)
	t.Vacuumed = at(vacuumed)
	r.Tables = append(r.Tables, t)
	return err
}

func scanIndex(scan scan, r *store.Report) error {
	var i store.IndexStat
	err := scan(&i.Name, &i.Table, &i.Bytes, &i.Valid, &i.Scans)
	r.Indexes = append(r.Indexes, i)
	return err
}
