package postgres

import (
	"context"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
)

const insertRequests = `
insert into request (id, lane, path, tier, stream, background, store, realtime, state, ord, deadline, attempt, worker, created, started, secret, batch, line)
select x.id, x.lane, x.path, x.tier, x.stream, x.background, x.store, x.realtime, x.state,
	coalesce(d.deadline, b.began + $13 * interval '1 microsecond'), d.deadline, x.attempt, nullif(x.worker, 0), b.began,
	case when x.realtime then b.began end, x.secret, x.batch, x.line
from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::bool[], $6::bool[], $7::bool[], $8::bool[], $9::smallint[], $10::bigint[], $11::int[], $12::bigint[],
		$14::bytea[], $15::uuid[], $16::int[], $17::bigint[])
	as x(id, lane, path, tier, stream, background, store, realtime, state, deadline, attempt, worker, secret, batch, line, took)
cross join lateral (select case when x.took is null then now() else now() - x.took * interval '1 microsecond' end as began) b
cross join lateral (select b.began + nullif(x.deadline, 0) * interval '1 microsecond' as deadline) d`

const insertBodies = `insert into body (request, data) select * from unnest($1::uuid[], $2::bytea[])`

// changeRequests repeats the fence, though the rows are locked, and fails the
// transaction by a division by zero unless it found each of them. "+ 0" keeps
// the planner from driving a batch through the index of one state.
const changeRequests = `
with u as (
update request q set
	state = x.now, failures = q.failures + x.failures,
	worker = case when x.release then null else q.worker end,
	escalated = case when x.release then null else q.escalated end,
	not_before = case when not x.moved then q.not_before when x.now = 3 then now() + x.delay * interval '1 microsecond' end,
	started = case when x.started then coalesce(q.started, now()) else q.started end,
	finished = case when x.moved and x.now >= 10 then now() else q.finished end,
	class = case when x.moved then x.class else q.class end,
	code = case when x.moved then x.code else q.code end,
	secret = case when x.moved and x.now >= 10 then null else q.secret end
from unnest($1::uuid[], $2::int[], $3::smallint[], $4::smallint[], $5::bool[], $6::bool[], $7::bool[], $8::int[], $9::bigint[], $10::text[], $11::text[])
	as x(id, attempt, was, now, moved, started, release, failures, delay, class, code)
where q.id = x.id and q.attempt = x.attempt and q.state + 0 = x.was
returning 1)
select 1 / (case when (select count(*) from u) = cardinality($1::uuid[]) then 1 else 0 end)`

const insertResults = `
insert into result (request, status, content_type, data)
select * from unnest($1::uuid[], $2::int[], $3::text[], $4::bytea[])`

const insertEvents = `
insert into event (request, seq, data) select * from unnest($1::uuid[], $2::bigint[], $3::bytea[])`

const upsertSteps = `
insert into step (request, scope, ordinal, kind, state, settled, call_id, tool, plugin, effects, tries, attempt,
	generation, input, output, class, status, code, retry_after, usage, fuel, used, effect_started, detail, log)
select * from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::text[], $6::bool[], $7::bytea[], $8::bytea[], $9::text[], $10::text[],
	$11::int[], $12::int[], $13::text[], $14::bytea[], $15::bytea[], $16::text[], $17::int[], $18::text[], $19::bigint[], $20::text[], $21::bigint[],
	$22::text[], $23::bool[], $24::bytea[], $25::bytea[])
on conflict (request, scope, ordinal) do update set
	kind = excluded.kind, state = excluded.state, settled = excluded.settled, call_id = excluded.call_id,
	tool = excluded.tool, plugin = excluded.plugin, effects = excluded.effects, tries = excluded.tries,
	attempt = excluded.attempt, generation = excluded.generation, input = excluded.input, output = excluded.output,
	class = excluded.class, status = excluded.status, code = excluded.code, retry_after = excluded.retry_after,
	usage = excluded.usage, fuel = excluded.fuel, used = excluded.used, effect_started = excluded.effect_started,
	detail = excluded.detail, log = excluded.log
where not step.settled`

// closeSteps settles what was open when its request ended otherwise than by its
// plan: what had begun is abandoned, the rest was skipped.
const closeSteps = `
update step set state = case state when 'running' then 'abandoned' else 'skipped' end, settled = true, class = 'canceled'
where request = any($1::uuid[]) and request between $2 and $3 and not settled`

const upsertDecisions = `
insert into decision (request, step, try, kind, attempt, question, answer, generation, fallback, fuel)
select * from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::int[], $6::bytea[], $7::bytea[], $8::text[], $9::text[], $10::bigint[])
on conflict (request, step, try, kind, attempt) do update set
	question = excluded.question, answer = excluded.answer, generation = excluded.generation,
	fallback = excluded.fallback, fuel = excluded.fuel, made = excluded.made`

// insertUsage inserts in the order of the key: rows of a write that was fenced
// out are not under its lock, and another host may be writing the same.
const insertUsage = `
insert into usage (request, scope, ordinal, try, tenant, model, target, input, output, cached, cache_write, reasoning)
select request, scope, ordinal, try, tenant, model, target, input, output, cached, cache_write, reasoning
from unnest($1::uuid[], $2::text[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[])
	with ordinality as x(request, scope, ordinal, try, tenant, model, target, input, output, cached, cache_write, reasoning, n)
order by request, scope, ordinal, try, n
on conflict (request, scope, ordinal, try) do nothing`

const (
	forgetBodies    = `delete from body where request = any($1::uuid[]) and request between $2 and $3`
	forgetSteps     = `delete from step where request = any($1::uuid[]) and request between $2 and $3`
	forgetEvents    = `delete from event where request = any($1::uuid[]) and request between $2 and $3`
	forgetQuestions = `update decision set question = '{}' where request = any($1::uuid[]) and request between $2 and $3`
	removeRequest   = `delete from request where id = any($1::uuid[])`
)

// commit is the second round trip.
func (p *plan) commit(ctx context.Context, conn *pgxpool.Conn) error {
	var b pgx.Batch
	e := &p.rows
	if c := &e.inserts; len(c.ids) > 0 {
		b.Queue(insertRequests, c.ids, c.lanes, c.paths, c.tiers, c.streams, c.backgrounds, c.stores, c.reals, c.states, c.deadlines, c.attempts, c.workers, micros(queue.Patience),
			c.secrets, c.batches, c.lines, c.took)
		if len(c.bodied) > 0 {
			b.Queue(insertBodies, c.bodied, c.bodies)
		}
	}
	p.queueOnce(&b)
	p.queueTalks(&b)
	if len(e.changes) > 0 {
		b.Queue(changeRequests, e.changeArgs()...)
	}
	if c := &e.results; len(c.ids) > 0 {
		b.Queue(insertResults, c.ids, c.statuses, c.types, c.data)
	}
	if c := &e.events; len(c.ids) > 0 {
		b.Queue(insertEvents, c.ids, c.seqs, c.data)
	}
	if len(e.steps) > 0 {
		args, err := e.stepArgs()
		if err != nil {
			return err
		}
		b.Queue(upsertSteps, args...)
	}
	if len(e.decisions) > 0 {
		b.Queue(upsertDecisions, e.decisionArgs()...)
	}
	queueEnds(&b, e.closed, e.forgotten)
	if len(e.removed) > 0 {
		b.Queue(removeRequest, e.removed)
	}
	p.queueShared(&b)
	if p.also != nil {
		p.also(&b)
	}
	b.Queue("commit")
	return conn.SendBatch(ctx, &b).Close()
}

// queueShared queues what other requests' writers may wait for, last and in one
// order: the plugins' state, unless it is locked already, then usage. Lanes and
// gates are locked already.
func (p *plan) queueShared(b *pgx.Batch) {
	queueSlots(b, p.slots, p.gates)
	if len(p.parks) > 0 {
		lanes := slices.Sorted(maps.Keys(p.parks))
		waits := make([]int64, len(lanes))
		for i, l := range lanes {
			waits[i] = p.parks[l]
		}
		b.Queue(parkLanes, lanes, waits)
	}
	e := &p.rows
	if len(e.woken) > 0 {
		b.Queue(wakeLanes, e.woken)
	}
	p.queueKV(b)
	if c := &e.usage; len(c.ids) > 0 {
		b.Queue(insertUsage, c.ids, c.scopes, c.ordinals, c.tries, c.tenants, c.models, c.targets, c.inputs, c.outputs, c.cached, c.cacheWrites, c.reason)
	}
}

// queueEnds queues what becomes of requests that ended otherwise than by their
// plan, and of those that ended and are not stored.
func queueEnds(b *pgx.Batch, closed, forgotten []pgtype.UUID) {
	if len(closed) > 0 {
		b.Queue(closeSteps, ranged(closed)...)
	}
	if len(forgotten) > 0 {
		for _, q := range []string{forgetBodies, forgetSteps, forgetEvents, forgetQuestions} {
			b.Queue(q, ranged(forgotten)...)
		}
	}
}
