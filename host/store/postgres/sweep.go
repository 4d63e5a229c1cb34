package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/store"
)

// Sweep moves on what time alone moves. Each statement passes over the requests
// that others hold, so any number of hosts may sweep at once.
func (d *driver) Sweep(ctx context.Context, r store.SweepRequest) (s store.Swept, err error) {
	r = r.WithDefaults()
	steps := []func(ctx context.Context) error{
		func(ctx context.Context) error { return d.expire(ctx, r.Limit, &s.Expired) },
		func(ctx context.Context) error { return d.promote(ctx, r.Limit, &s.Promoted) },
		func(ctx context.Context) error { return d.reap(ctx, r, &s) },
		d.healLanes,
		func(ctx context.Context) error { return d.removeExpired(ctx, r.Limit, &s.Keys) },
		func(ctx context.Context) error { return d.retain(ctx, r, &s.Removed) },
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
		if err := d.moveDue(ctx, expireRequests, limit, &n); err != nil {
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
	update request q set state = 13, finished = now(), not_before = null, class = 'deadline', code = 'expired', secret = null
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
	select l.id, w.ord, l.model from lane l join w on w.lane = l.id
	where not l.ready or l.head_deadline is null or l.head_deadline > w.ord
	order by l.id for no key update of l),` + wakeLocked + `
select count(*) from u`

// moveDue runs one statement that counts what it moved.
func (d *driver) moveDue(ctx context.Context, query string, limit int, n *int) error {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(query, limit).QueryRow(func(row pgx.Row) error { return row.Scan(n) })
	b.Queue("commit")
	return d.pool.SendBatch(ctx, &b).Close()
}

func (d *driver) promote(ctx context.Context, limit int, sum *int) error {
	if err := d.moveDue(ctx, promoteRequests, limit, sum); err != nil {
		return err
	}
	if *sum > 0 {
		d.hints.ready()
	}
	return nil
}

// healLanesOnce makes lanes say what their claimable rows say, and lets those
// compete again that had to wait. What another changed since the rows were read
// is left to the next sweep. Lanes that sleep and have nothing cost next to
// nothing: those with rows are found by leaping from lane to lane through the
// index of pending requests. It looks at $2 lanes behind lane $1 and returns
// where to go on, 0: at the first.
const healLanesOnce = `
with recursive mine as materialized (select pg_try_advisory_xact_lock($3) as ok),
leap(id) as (
	select (select lane from request where state = 0 and lane > $1::bigint order by lane limit 1) from mine where ok
	union all
	select (select lane from request where state = 0 and lane > leap.id order by lane limit 1) from leap where leap.id is not null),
look as materialized (
	select id from (
		(select id from leap where id is not null limit $2::int)
		union
		(select id from lane where id > $1::bigint and (ready or parked or gated) and (select ok from mine) order by id limit $2::int)) x
	order by id limit $2::int),
h as materialized (
	select l.id, l.ready, l.head_deadline, l.gated as was, x.ord,
		l.gated and coalesce((select ` + gateRoom + ` <= 0 from tenant_gate g where g.tenant = l.tenant), false) as gated
	from look join lane l on l.id = look.id left join lateral (
		select ord from request
		where lane = l.id and state = 0 and (deadline is null or deadline > now())
		order by ord, id limit 1) x on true),
k as materialized (
	select lane.id, lane.model, h.ord, h.gated, ` + laneRoom + ` <= 0 or ` + limited + ` or h.gated as parked
	from lane join h on h.id = lane.id
	where lane.ready = h.ready and lane.gated = h.was and lane.head_deadline is not distinct from h.head_deadline and (
		lane.ready <> (h.ord is not null) or lane.head_deadline is distinct from h.ord or lane.gated <> h.gated or
		lane.parked <> (` + laneRoom + ` <= 0 or ` + limited + ` or h.gated))
	order by lane.id for no key update of lane skip locked),
m as materialized (select model, ` + virtualTimeOfModel + ` as vtime from (select distinct model from k) lane),
heal as (
	update lane set
		ready = k.ord is not null, head_deadline = k.ord, parked = k.parked, gated = k.gated,
		parked_until = case when lane.parked_until > now() then lane.parked_until end,
		vtime = case when (not lane.ready and k.ord is not null) or (lane.parked and not k.parked) then greatest(lane.vtime, m.vtime) else lane.vtime end
	from k join m on m.model = k.model
	where lane.id = k.id)
select case when count(*) = $2::int then max(id) else 0 end from look`

const (
	// healSome is how many lanes are looked at in one transaction.
	healSome = 5000
	// healWithin keeps a sweep's part of the time small where very many lanes have
	// work: the next sweep goes on from there.
	healWithin = 150 * time.Millisecond
)

// healLanes runs on one host at a time; the others have nothing to add.
func (d *driver) healLanes(ctx context.Context) error {
	for begin := time.Now(); ; {
		next := d.healed.Load()
		var b pgx.Batch
		b.Queue("begin")
		b.Queue(guardLong)
		b.Queue(healLanesOnce, next, healSome, int64(lockSweeping)).QueryRow(func(row pgx.Row) error { return row.Scan(&next) })
		b.Queue("commit")
		if err := d.pool.SendBatch(ctx, &b).Close(); err != nil {
			return err
		}
		d.healed.Store(next)
		if next == 0 || time.Since(begin) > healWithin {
			return nil
		}
	}
}
