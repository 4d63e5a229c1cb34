package postgres

// A claim of one model is one statement, put together of the parts below. It
// picks lanes, locks what gates they have, takes requests of each by weighted
// start-time fairness, and charges lanes and gates. All counters are those of the row
// versions that the locks returned, never of an older snapshot, and requests are
// checked again by their lock. It waits for nobody.
//
// Parameters: $1 the model; $2 how many requests; $3 the worker; $4 how many
// lanes; $5 the virtual time to begin at; $6 microseconds within which a request
// must be due by its order, null: any; $7 the most from one lane; $8 the model
// that those run on which are due within $9 microseconds, null: none do; $10
// whether they begin at once.
const (
	claimFair   = pickFair + claimGates + takeOrdered + gotAll + claimRest
	claimUrgent = pickUrgent + claimGates + takeOrdered + gotAll + claimRest
	claimNear   = pickNear + claimGates + takeNear + gotNear + claimRest

	// Of a model that does not escalate.
	claimFairOwn   = pickFair + claimGates + takeOrdered + gotOwn + claimRest
	claimUrgentOwn = pickUrgent + claimGates + takeOrdered + gotOwn + claimRest
)

const (
	pickWhat = `
with me as materialized (
	select id from worker where id = $3 and not reaped for key share),
pick as materialized (
	select id, tenant, weight, head_deadline, vtime, ` + laneRoom + ` as room,
		row_number() over () as rank, $6::bigint is null as fair from (
		select * from lane
		where model = $1 and ready and not parked and vtime >= $5::float8 and exists (select from me)`
	pickRest = `
		limit $4::int for no key update skip locked) lane),`

	// pickFair: the lanes with the least virtual time. A lane that is new, and so
	// level with those in step, comes before them.
	pickFair = pickWhat + `
		order by vtime, id desc` + pickRest
	// pickUrgent: those whose head is due first, if it is due soon.
	pickUrgent = pickWhat + `
			and head_deadline < now() + $6::bigint * interval '1 microsecond'
		order by head_deadline, id` + pickRest
	// pickNear: those with a request to escalate, where the other lane has room.
	pickNear = pickWhat + `
			and head_deadline < now() + $6::bigint * interval '1 microsecond'
			and (select true from request
				where (lane, deadline) > (lane.id, now()) and (lane, deadline) < (lane.id, now() + $9::bigint * interval '1 microsecond')
					and deadline is not null and state = 0
				limit 1)
			and (select true from lane other where other.model = $8::text and other.tenant = lane.tenant and not other.parked)
		order by head_deadline, id` + pickRest
)

// claimGates locks the gates of the lanes' tenants. A lane whose gate is in
// other hands is left alone.
//
// The k-th request of a lane has the tag vtime + (k-1)/weight, and the $2 least
// tags of all lanes are taken, as far as caps let them. Urgent lanes come
// one after the other.
const claimGates = `
gate as materialized (
	select g.tenant, ` + gateRoom + ` as room from tenant_gate g
	where g.tenant = any(array(select tenant from pick)) for no key update skip locked),
open as materialized (
	select pick.*, gate.room as wall
	from pick left join gate on gate.tenant = pick.tenant
	where gate.tenant is not null or not coalesce((select true from tenant_gate g where g.tenant = pick.tenant), false)),
share as materialized (
	select id, count(*)::int as quantum from (
		select open.id from open cross join generate_series(0, least(room, wall, $7::int, $2::int) - 1) k
		order by case when fair then vtime + k / weight else rank end, rank limit $2::int) tags
	group by id),
room as materialized (
	select open.id, open.tenant, open.head_deadline, open.wall, coalesce(share.quantum, 0) as quantum
	from open left join share on share.id = open.id
	order by open.rank),`

// claimNow is when a request is near enough to its deadline to be escalated.
const claimNow = `coalesce(deadline < now() + $9::bigint * interval '1 microsecond', false)`

// takeOrdered takes what is first in each lane. It begins at the lane's head, so
// it does not walk what was claimed before. Requests past their deadline are
// left to the sweep.
const takeOrdered = `
take as materialized (
	select room.id as lane, room.tenant, j.id, j.ord, j.realtime, j.near
	from room cross join lateral (
		select id, ord, realtime, ` + claimNow + ` as near from request
		where lane = room.id and state = 0 and ord >= coalesce(room.head_deadline, '-infinity')
			and ord < coalesce(now() + $6::bigint * interval '1 microsecond', 'infinity')
			and (deadline is null or deadline > now())
		order by ord, id limit room.quantum for no key update skip locked) j
	limit $2::int),`

// takeNear takes what is first in each lane of that which is to be escalated.
// The comparison of rows is one that only the index of that serves.
const takeNear = `
take as materialized (
	select room.id as lane, room.tenant, j.id, j.ord, j.realtime, true as near
	from room cross join lateral (
		select id, ord, realtime from request
		where (lane, deadline) > (room.id, now()) and (lane, deadline) < (room.id, now() + $9::bigint * interval '1 microsecond')
			and deadline is not null and state = 0
		order by lane, deadline limit room.quantum for no key update skip locked) j
	limit $2::int),`

// gotAll escalates as many as the lane of the other model has room for; the rest
// run on their own model.
const (
	gotAll = `
other as materialized (
	select lane.* from (select distinct tenant from take where near) t cross join lateral (
		select lane.id, lane.tenant, ` + laneRoom + ` as room from lane
		where lane.model = $8::text and lane.tenant = t.tenant and not ` + limited + `
		limit 1 for no key update skip locked) lane),
got as materialized (
	select take.lane, take.tenant, take.id, take.realtime, other.id as escalated
	from (select *, row_number() over (partition by lane, near order by ord, id) as rank from take) take
	left join other on take.near and other.tenant = take.tenant and take.rank <= other.room`
	gotNear = gotAll + `
	where other.id is not null`
	gotOwn = `
got as materialized (
	select lane, tenant, id, realtime, null::bigint as escalated from take where $8::text is null`
)

// claimRest claims and charges. A lane whose gate is full waits until somebody
// opens it again; one that has no more to claim sleeps. casemate.slept tells
// wakeSlept which do.
const claimRest = `),
up as (
	update request q set
		state = case when $10 then 2 else 1 end, started = case when $10 then coalesce(q.started, now()) else q.started end,
		attempt = q.attempt + 1, worker = $3, not_before = null, escalated = got.escalated
	from got
	where q.id = got.id and q.state + 0 = 0
	returning q.id, got.tenant, q.path, q.tier, q.stream, q.background, q.store, q.realtime, q.attempt, q.state,
		q.failures, q.reaps, q.escalated is not null as escalated, q.created, q.deadline, q.ord, q.secret),
took as materialized (
	select lane, tenant, array_agg(id) as ids, count(*)::int as n, count(*) filter (where realtime)::int as realtime
	from got group by lane, tenant),
rest as materialized (
	select room.id, coalesce(took.n, 0) as n, coalesce(took.realtime, 0) as realtime, next.ord,
		coalesce(room.wall <= coalesce(took.n, 0), false) as gated
	from room left join took on took.lane = room.id
	left join lateral (
		select ord from request
		where lane = room.id and state = 0 and ord >= coalesce(room.head_deadline, '-infinity')
			and (deadline is null or deadline > now()) and id <> all(coalesce(took.ids, '{}'))
		order by ord, id limit 1) next on true),
due as materialized (
	select id, n, realtime, ord, gated, true as own from rest
	union all
	select escalated, count(*)::int, count(*) filter (where realtime)::int, null, null, false
	from got where escalated is not null group by escalated),
pay as (
	update lane set
		vtime = k.n / lane.weight + case when k.own or (lane.ready and not lane.parked) then lane.vtime else ` + virtualTime + ` end,
		running = case when lane.cap is null then 0 else lane.running + k.n end,
		realtime = case when lane.cap is null then 0 else lane.realtime + k.realtime end,
		gated = coalesce(k.gated, lane.gated),
		parked = ` + laneRoomAfter + ` <= 0 or ` + limited + ` or coalesce(k.gated, lane.gated),
		head_deadline = case when k.own then k.ord else lane.head_deadline end,
		ready = case when k.own then k.ord is not null else lane.ready end
	from due k
	where lane.id = k.id
	returning k.own, lane.ready and not lane.parked as competes),
pass as (
	update tenant_gate g set running = g.running + took.n, realtime = g.realtime + took.realtime
	from took where g.tenant = took.tenant),
info as materialized (
	select (select count(*) from pick) = $4::int or (select coalesce(bool_or(own and competes), false) from pay) as more,
		(select count(*) from rest where n > 0 or ord is null or gated) as progress,
		(select min(vtime) from pick) as mark,
		set_config('casemate.slept', concat_ws(',', nullif(current_setting('casemate.slept', true), ''),
			(select string_agg(id::text, ',') from rest where ord is null)), true) as slept)
select up.id, up.tenant, up.path, up.tier, up.stream, up.background, up.store, up.realtime, up.attempt, up.state,
	up.failures, up.reaps, up.escalated, up.created, now() - up.created, up.deadline - now(), b.data, up.secret,
	info.more, info.progress, info.mark
from info left join (up left join body b on b.request = up.id) on true
order by up.ord, up.id`

// wakeSlept looks again, with a snapshot from after all claims of the
// transaction, whether the lanes that they put to sleep have nothing to claim:
// who added to one that was awake did not have to lock it.
const wakeSlept = `
with h as materialized (
	select s.id, r.ord
	from unnest(string_to_array(nullif(current_setting('casemate.slept', true), ''), ',')::bigint[]) as s(id)
	cross join lateral (
		select ord from request where lane = s.id and state = 0 and (deadline is null or deadline > now())
		order by ord, id limit 1) r)
update lane set ready = true, head_deadline = h.ord from h where lane.id = h.id and not lane.ready`
