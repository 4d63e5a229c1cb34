package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/store"
)

const ensureLanes = `
insert into lane (tenant, model)
select * from unnest($1::text[], $2::text[])
order by 2, 1
on conflict do nothing`

const selectLaneIDs = `
select l.id, l.tenant, l.model
from unnest($1::text[], $2::text[]) as x(tenant, model)
join lane l on l.model = x.model and l.tenant = x.tenant`

// laneIDs returns the ids of lanes, which it creates on demand.
func (d *driver) laneIDs(ctx context.Context, keys map[laneKey]int64) error {
	var tenants, models []string
	d.mu.Lock()
	for k := range keys {
		id, ok := d.lanes[k]
		if !ok {
			tenants, models = append(tenants, k.tenant), append(models, k.model)
			continue
		}
		keys[k] = id
	}
	d.mu.Unlock()
	if len(tenants) == 0 {
		return nil
	}
	if _, err := d.pool.Exec(ctx, ensureLanes, tenants, models); err != nil {
		return err
	}
	rows, err := d.pool.Query(ctx, selectLaneIDs, tenants, models)
	if err != nil {
		return err
	}
	return drain(rows, func(scan scan) error {
		var k laneKey
		var id int64
		if err := scan(&id, &k.tenant, &k.model); err != nil {
			return err
		}
		keys[k] = id
		d.mu.Lock()
		d.lanes[k] = id
		d.mu.Unlock()
		return nil
	})
}

// virtualTime is the start tag of a lane that begins to compete: not before
// those that compete now, and when there are none, not before anything served.
const virtualTime = `greatest(lane.vtime, coalesce(
		(select min(c.vtime) from lane c where c.model = lane.model and c.ready and not c.parked),
		(select max(c.vtime) from lane c where c.model = lane.model)))`

// wakeLanes makes lanes claimable that the given requests joined. Those that
// lockLanes found asleep are locked already. One that a claim put to sleep since
// is locked only if nobody else has it: to wait for it here could be to wait in
// a circle. If it is left asleep, the sweep wakes it.
const wakeLanes = `
with w as materialized (
	select lane, min(ord) as ord from request where id = any($1) group by lane),
k as materialized (
	select l.id, w.ord from lane l join w on w.lane = l.id
	where not l.ready or l.head_deadline is null or l.head_deadline > w.ord
	order by l.id for no key update of l skip locked)
update lane set
	ready = true, head_deadline = least(lane.head_deadline, k.ord),
	vtime = case when lane.ready then lane.vtime else ` + virtualTime + ` end
from k where lane.id = k.id`

// charge is what taking or freeing k.n slots of a lane with a cap does to it.
const charge = `
	running = lane.running + k.n,
	vtime = case when lane.parked and lane.running + k.n < lane.cap then ` + virtualTime + ` else lane.vtime end,
	parked = lane.running + k.n >= lane.cap or coalesce(lane.parked_until > now(), false)`

// occupyLanes changes counters of lanes that are locked already.
const occupyLanes = `
update lane set ` + charge + `
from unnest($1::bigint[], $2::int[]) as k(id, n)
where lane.id = k.id and lane.cap is not null`

const upsertLane = `
insert into lane (tenant, model, weight, cap) values ($1, $2, $3, nullif($4::int, 0))
on conflict (model, tenant) do update set weight = excluded.weight, cap = excluded.cap`

// recountLane reads the rows under a lock that all who change them share, in a
// statement of its own: its snapshot is from after the wait for it.
const recountLane = `
update lane set running = case when cap is null then 0 else (
	select count(*) from request r
	where r.lane = lane.id and r.worker is not null and r.state + 0 in (1, 2, 12)) end
where model = $1 and tenant = $2`

const parkLane = `
update lane set parked = coalesce(running >= cap, false) or coalesce(parked_until > now(), false)
where model = $1 and tenant = $2`

// SetLimits creates or changes lanes and counts what runs in them, each in a
// transaction of its own so that it never holds one lane and waits for another.
func (d *driver) SetLimits(ctx context.Context, limits store.Limits) error {
	for _, l := range limits.Lanes {
		err := d.call(ctx, "set lanes", func(ctx context.Context) error {
			var b pgx.Batch
			b.Queue("begin")
			b.Queue(guardLong)
			b.Queue(`select pg_advisory_xact_lock($1)`, int64(lockCaps))
			b.Queue(upsertLane, l.Tenant, l.Model, l.Weight, l.Cap)
			b.Queue(recountLane, l.Model, l.Tenant)
			b.Queue(parkLane, l.Model, l.Tenant)
			b.Queue("commit")
			return d.pool.SendBatch(ctx, &b).Close()
		})
		if err != nil {
			return err
		}
	}
	return nil
}
