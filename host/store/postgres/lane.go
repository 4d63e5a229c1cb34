package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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

// querier is a pool, or the one connection of those who must not wait for another.
type querier interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// laneIDs returns the ids of lanes, which it creates on demand.
func (d *driver) laneIDs(ctx context.Context, db querier, keys map[laneKey]int64) error {
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
	if _, err := db.Exec(ctx, ensureLanes, tenants, models); err != nil {
		return err
	}
	rows, err := db.Query(ctx, selectLaneIDs, tenants, models)
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
const virtualTime = `greatest(lane.vtime, ` + virtualTimeOfModel + `)`

// virtualTimeOfModel names what only the index of the lanes that compete is
// ordered by: without statistics, a plan with another looks as good.
const virtualTimeOfModel = `coalesce(
		(select c.vtime from lane c where c.model = lane.model and c.ready and not c.parked and c.vtime > '-infinity' order by c.vtime, c.id desc limit 1),
		(select c.vtime from lane c where c.model = lane.model and c.vtime > '-infinity' order by c.vtime desc limit 1))`

// wakeLanes makes lanes claimable that the given requests joined. Those that
// lockLanes found asleep are locked already. One that a claim put to sleep since
// is locked only if nobody else has it: to wait for it here could be to wait in
// a circle. If it is left asleep, the sweep wakes it.
const wakeLanes = `
with w as materialized (
	select lane, min(ord) as ord from request where id = any($1) group by lane),
k as materialized (
	select l.id, w.ord, l.model from lane l join w on w.lane = l.id
	where not l.ready or l.head_deadline is null or l.head_deadline > w.ord
	order by l.id for no key update of l skip locked),` + wakeLocked + `
select 1`

// wakeLocked wakes the lanes of k, which are locked.
const wakeLocked = `
m as materialized (
	select model, ` + virtualTimeOfModel + ` as vtime from (select distinct model from k) lane),
wake as (
	update lane set
		ready = true, head_deadline = least(lane.head_deadline, k.ord),
		vtime = case when lane.ready then lane.vtime else greatest(lane.vtime, m.vtime) end
	from k join m on m.model = k.model
	where lane.id = k.id)`

// parkLanes parks lanes that are locked already.
const parkLanes = `
update lane set parked = true, parked_until = greatest(lane.parked_until, now() + k.wait * interval '1 microsecond')
from unnest($1::bigint[], $2::bigint[]) as k(id, wait)
where lane.id = k.id`

// selectParked reads how long lanes are parked yet. It locks nothing: to be
// told to wait a moment before or after is the same.
const selectParked = `
select id, parked_until - now() from lane where id = any($1::bigint[]) and parked_until > now()`
