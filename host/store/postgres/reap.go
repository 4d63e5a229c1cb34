package postgres

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// markDead is final: a worker that is reaped never gets its lease back.
const markDead = `
update worker set reaped = true
where id = any(array(
		select id from worker where not reaped and lease_until < now() - $1 * interval '1 microsecond'
		for no key update skip locked))
	and not reaped and lease_until < now() - $1 * interval '1 microsecond'`

// reapRequests returns the requests of dead workers. A row is locked, and what
// was read of it is compared again by the update: one that was completed, or
// claimed by somebody else, meanwhile is left alone. Nobody is left to answer a
// realtime request unless it is a stored response; a canceled one is let go. It
// returns of which lanes and gates slots are to be freed, and what ended: a
// statement with a later snapshot closes or forgets what belongs to that.
const reapRequests = `
with v as materialized (
	select q.id, q.worker, q.attempt, q.state, q.escalated
	from worker w join request q on q.worker = w.id
	where w.reaped and q.state + 0 in (1, 2, 12)
	order by q.id limit $1 for no key update of q skip locked),
u as (
	update request q set
		state = n.state, worker = null, escalated = null,
		reaps = case when v.state = 12 then q.reaps else q.reaps + 1 end,
		not_before = case when n.state = 3 then now() end,
		finished = case when n.state = 11 then now() else q.finished end,
		class = case when n.state = 11 then 'worker_lost' else q.class end,
		code = case when n.state = 11 then 'worker_lost' else q.code end,
		secret = case when n.state >= 10 then null else q.secret end
	from v join request o on o.id = v.id
	cross join lateral (select case when v.state = 12 then 12
		when o.reaps < $2::int and (not o.realtime or (o.store and o.path = '/v1/responses')) then 3
		else 11 end as state) n
	where q.id = v.id and q.worker = v.worker and q.attempt = v.attempt and q.state + 0 = v.state
	returning q.id, q.lane, v.escalated, q.realtime, q.state, q.store)
select u.id, u.state, u.lane, coalesce(u.escalated, 0), l.tenant, u.realtime, u.store from u join lane l on l.id = u.lane`

// lockSlots locks the lanes with a cap that are named, then gates are.
const (
	lockCapped = `select id from lane where id = any($1::bigint[]) and cap is not null order by id for no key update`
	lockOpen   = `select tenant from tenant_gate where tenant = any($1::text[]) order by tenant for no key update`
)

// removeDeleted waits for nobody: the lanes of its transaction are locked, and
// requests are to be locked before lanes.
const removeDeleted = `
delete from request where id = any(array(
	select id from request where deleted and worker is null for update skip locked))`

func (d *driver) reap(ctx context.Context, r store.SweepRequest, s *store.Swept) error {
	if !r.Reap {
		return nil
	}
	if _, err := d.pool.Exec(ctx, markDead, r.Grace.Microseconds()); err != nil {
		return err
	}
	if err := d.pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error { return reapOnce(ctx, conn, r, s) }); err != nil {
		s.Reaped, s.Lost = 0, 0
		return err
	}
	return d.removeWorkers(ctx)
}

// reapOnce is one transaction of two round trips: the requests, then the slots
// that they leave.
func reapOnce(ctx context.Context, conn *pgxpool.Conn, r store.SweepRequest, s *store.Swept) error {
	lanes, gates := make(map[int64]*slots), make(map[string]*slots)
	var closed, gone []pgtype.UUID
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardCaps, int64(lockCaps))
	b.Queue(reapRequests, r.Limit, r.MaxReaps).Query(func(rows pgx.Rows) error {
		return drain(rows, func(scan scan) error {
			var o owner
			if err := scan((*[16]byte)(&o.ID), (*int16)(&o.State), &o.lane, &o.escalated, &o.key.tenant, &o.realtime, &o.store); err != nil {
				return err
			}
			switch {
			case o.State != queue.Failed:
			case o.store:
				closed = append(closed, uuid(o.ID))
			default:
				gone = append(gone, uuid(o.ID))
			}
			countReaped(&o, s)
			for _, l := range lanesOf(o.lane, o.escalated) {
				free(lanes, l, o.realtime)
			}
			free(gates, o.key.tenant, o.realtime)
			return nil
		})
	})
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		return err
	}
	b = pgx.Batch{}
	queueEnds(&b, closed, gone)
	if len(lanes) > 0 {
		b.Queue(lockCapped, slices.Collect(maps.Keys(lanes)))
		b.Queue(lockOpen, slices.Collect(maps.Keys(gates)))
		queueSlots(&b, lanes, gates)
	}
	b.Queue(removeDeleted)
	b.Queue("commit")
	return conn.SendBatch(ctx, &b).Close()
}

func countReaped(o *owner, s *store.Swept) {
	if o.State == queue.Waiting {
		s.Reaped++
	}
	if o.State == queue.Failed {
		s.Lost++
	}
}

// free notes one freed slot.
func free[K int64 | string](m map[K]*slots, key K, realtime bool) {
	if m[key] == nil {
		m[key] = &slots{}
	}
	m[key].take(-1, realtime)
}

const lockReaped = `select id from worker where reaped order by id for update skip locked`

// removeWorkers deletes rows that no request names. Who makes a request name a
// worker holds a lock on its row, so once these are locked, a statement with a
// later snapshot sees all that do.
func (d *driver) removeWorkers(ctx context.Context) error {
	return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		rows, err := t.Query(ctx, lockReaped)
		if err != nil {
			return err
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(ids) == 0 {
			return err
		}
		_, err = t.Exec(ctx, `delete from worker w where id = any($1) and not exists (select from request where worker = w.id)`, ids)
		return err
	})
}
