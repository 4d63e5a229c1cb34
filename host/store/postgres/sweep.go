package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/store"
)

// Sweep moves on what time alone moves. Each statement passes over the requests
// that others hold, so any number of hosts may sweep at once.
func (d *driver) Sweep(ctx context.Context, r store.SweepRequest) (s store.Swept, err error) {
	if r.Limit <= 0 {
		r.Limit = 500
	}
	steps := []func(ctx context.Context) error{
		func(ctx context.Context) error { return d.expire(ctx, r.Limit, &s.Expired) },
		func(ctx context.Context) error {
			return d.pool.QueryRow(ctx, promoteRequests, r.Limit).Scan(&s.Promoted)
		},
		func(ctx context.Context) error { return d.reap(ctx, r, &s) },
		d.healLanes,
		func(ctx context.Context) error { return d.removeExpired(ctx, r.Limit, &s.Keys) },
		d.makeAhead,
	}
	for _, step := range steps {
		if err := d.call(ctx, "sweep", step); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (d *driver) expire(ctx context.Context, limit int, sum *int) error {
	for n, round := limit, 0; n == limit && round < store.ExpireRounds; round++ {
		if err := d.pool.QueryRow(ctx, expireRequests, limit).Scan(&n); err != nil {
			return err
		}
		*sum += n
	}
	return nil
}

// forgetEnded deletes what the rows of u that ended leave behind only if they
// are stored; what their policies were asked may repeat what the client sent.
// Of those that are stored it settles the steps that were open: see closeSteps.
const forgetEnded = `
close_step as (
	update step set state = case state when 'running' then 'abandoned' else 'skipped' end, settled = true, class = 'canceled'
	where request = any(array(select id from u where ended and store)) and not settled),
gone as materialized (select id from u where ended and not store),
forget_body as (delete from body where request = any(array(select id from gone))),
forget_step as (delete from step where request = any(array(select id from gone))),
forget_event as (delete from event where request = any(array(select id from gone))),
forget_question as (update decision set question = '{}' where request = any(array(select id from gone)))`

const expireRequests = `
with v as materialized (
	select id from request
	where deadline is not null and state in (0, 3) and deadline <= now()
	order by deadline limit $1 for no key update skip locked),
u as (
	update request q set state = 13, finished = now(), not_before = null, class = 'deadline', code = 'expired'
	from v where q.id = v.id and q.state + 0 in (0, 3)
	returning q.id, q.store, true as ended), ` + forgetEnded + `
select count(*) from u`

const promoteRequests = `
with v as materialized (
	select id from request where state = 3 and not_before <= now()
	order by not_before limit $1 for no key update skip locked),
u as (
	update request q set state = 0, not_before = null
	from v where q.id = v.id and q.state + 0 = 3
	returning q.lane, q.ord),
w as materialized (select lane, min(ord) as ord from u group by lane),
k as materialized (
	select l.id, w.ord from lane l join w on w.lane = l.id
	where not l.ready or l.head_deadline is null or l.head_deadline > w.ord
	order by l.id for no key update of l),
wake as (
	update lane set
		ready = true, head_deadline = least(lane.head_deadline, k.ord),
		vtime = case when lane.ready then lane.vtime else ` + virtualTime + ` end
	from k where lane.id = k.id)
select count(*) from u`

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
// realtime request unless it is a stored response; a canceled one is let go.
const reapRequests = `
with v as materialized (
	select q.id, q.worker, q.attempt, q.state
	from worker w join request q on q.worker = w.id
	where w.reaped and q.state + 0 in (1, 2, 12)
	order by q.id limit $1 for no key update of q skip locked),
u as (
	update request q set
		state = n.state, worker = null,
		reaps = case when v.state = 12 then q.reaps else q.reaps + 1 end,
		not_before = case when n.state = 3 then now() end,
		finished = case when n.state = 11 then now() else q.finished end,
		class = case when n.state = 11 then 'worker_lost' else q.class end,
		code = case when n.state = 11 then 'worker_lost' else q.code end
	from v join request o on o.id = v.id
	cross join lateral (select case when v.state = 12 then 12
		when o.reaps < $2::int and (not o.realtime or (o.store and o.path = '/v1/responses')) then 3
		else 11 end as state) n
	where q.id = v.id and q.worker = v.worker and q.attempt = v.attempt and q.state + 0 = v.state
	returning q.id, q.lane, q.state, q.store, q.state + 0 = 11 as ended),
g as materialized (select lane, -count(*)::int as n from u group by lane),
k as materialized (
	select l.id, g.n from lane l join g on g.lane = l.id
	where l.cap is not null
	order by l.id for no key update of l),
freed as (update lane set ` + charge + ` from k where lane.id = k.id), ` + forgetEnded + `
select count(*) filter (where state = 3), count(*) filter (where state = 11) from u`

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
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(shareCaps, int64(lockCaps))
	b.Queue(reapRequests, r.Limit, r.MaxReaps).QueryRow(func(row pgx.Row) error { return row.Scan(&s.Reaped, &s.Lost) })
	b.Queue(removeDeleted)
	b.Queue("commit")
	if err := d.pool.SendBatch(ctx, &b).Close(); err != nil {
		s.Reaped, s.Lost = 0, 0
		return err
	}
	return d.removeWorkers(ctx)
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

// healLanesOnce makes lanes say what their claimable rows say, and lets those
// compete again that had to wait. What another changed since the rows were read is left
// to the next sweep.
const healLanesOnce = `
with h as materialized (
	select l.id, l.ready, l.head_deadline, x.ord
	from lane l left join lateral (
		select ord from request
		where lane = l.id and state = 0 and (deadline is null or deadline > now())
		order by ord, id limit 1) x on true),
k as materialized (
	select l.id, h.ord, coalesce(l.running >= l.cap, false) or coalesce(l.parked_until > now(), false) as parked
	from lane l join h on h.id = l.id
	where l.ready = h.ready and l.head_deadline is not distinct from h.head_deadline and (
		l.ready <> (h.ord is not null) or l.head_deadline is distinct from h.ord or
		l.parked <> (coalesce(l.running >= l.cap, false) or coalesce(l.parked_until > now(), false)))
	order by l.id for no key update of l skip locked)
update lane set
	ready = k.ord is not null, head_deadline = k.ord, parked = k.parked,
	parked_until = case when lane.parked_until > now() then lane.parked_until end,
	vtime = case when (not lane.ready and k.ord is not null) or (lane.parked and not k.parked) then ` + virtualTime + ` else lane.vtime end
from k where lane.id = k.id`

// healLanes runs on one host at a time; the others have nothing to add.
func (d *driver) healLanes(ctx context.Context) error {
	busy := errors.New("another host sweeps")
	err := pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
		var mine bool
		if err := t.QueryRow(ctx, `select pg_try_advisory_xact_lock($1)`, int64(lockSweeping)).Scan(&mine); err != nil {
			return err
		}
		if !mine {
			return busy
		}
		_, err := t.Exec(ctx, healLanesOnce)
		return err
	})
	if errors.Is(err, busy) {
		return nil
	}
	return err
}
