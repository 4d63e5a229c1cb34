package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// SetLimits creates or changes lanes and gates and counts what runs in them,
// each in a transaction of its own so that it never holds one and waits for
// another. Nobody who counts is under way meanwhile.
func (d *driver) SetLimits(ctx context.Context, limits store.Limits) error {
	for _, l := range limits.Lanes {
		if err := d.setLimit(ctx, "set lanes", func(b *pgx.Batch) { queueLane(b, l) }); err != nil {
			return err
		}
	}
	for _, g := range limits.Gates {
		if err := d.setLimit(ctx, "set gates", func(b *pgx.Batch) { queueGate(b, g) }); err != nil {
			return err
		}
	}
	return nil
}

func (d *driver) setLimit(ctx context.Context, what string, queue func(*pgx.Batch)) error {
	return d.call(ctx, what, func(ctx context.Context) error {
		var b pgx.Batch
		b.Queue("begin")
		b.Queue(guardLong)
		b.Queue(`select pg_advisory_xact_lock($1)`, int64(lockCaps))
		queue(&b)
		b.Queue("commit")
		return d.pool.SendBatch(ctx, &b).Close()
	})
}

const upsertLane = `
insert into lane (tenant, model, weight, cap, reserve_realtime, reserve_queued) values ($1, $2, $3, nullif($4::int, 0), $5, $6)
on conflict (model, tenant) do update set weight = excluded.weight, cap = excluded.cap,
	reserve_realtime = excluded.reserve_realtime, reserve_queued = excluded.reserve_queued`

// recountLane reads the rows under a lock that all who change them share, in a
// statement of its own: its snapshot is from after the wait for it.
const recountLane = `
update lane set running = case when cap is null then 0 else c.n end, realtime = case when cap is null then 0 else c.realtime end
from (
	select count(*) as n, count(*) filter (where r.realtime) as realtime
	from lane l join request r on r.lane = l.id or r.escalated = l.id
	where l.model = $1 and l.tenant = $2 and r.worker is not null and r.state + 0 in (1, 2, 12)) c
where model = $1 and tenant = $2`

const parkLane = `
update lane set parked = ` + laneRoom + ` <= 0 or ` + limited + ` or lane.gated,
	vtime = case when lane.parked and not (` + laneRoom + ` <= 0 or ` + limited + ` or lane.gated) then ` + virtualTime + ` else lane.vtime end
where model = $1 and tenant = $2`

func queueLane(b *pgx.Batch, l queue.Lane) {
	b.Queue(upsertLane, l.Tenant, l.Model, l.Weight, l.Cap, l.Reserve.Realtime, l.Reserve.Queued)
	b.Queue(recountLane, l.Model, l.Tenant)
	b.Queue(parkLane, l.Model, l.Tenant)
}

const upsertGate = `
insert into tenant_gate (tenant, cap, reserve_realtime, reserve_queued) values ($1, $2, $3, $4)
on conflict (tenant) do update set cap = excluded.cap,
	reserve_realtime = excluded.reserve_realtime, reserve_queued = excluded.reserve_queued`

// recountGate is to a gate what recountLane is to a lane.
const recountGate = `
update tenant_gate set running = c.n, realtime = c.realtime
from (
	select count(*) as n, count(*) filter (where r.realtime) as realtime
	from request r join lane l on l.id = r.lane
	where l.tenant = $1 and r.worker is not null and r.state + 0 in (1, 2, 12)) c
where tenant = $1`

const deleteGate = `delete from tenant_gate where tenant = $1`

// ungate waits for lanes, unlike openGated: those who hold one now wait for
// none that is held here.
const ungate = `
with k as materialized (
	select lane.id, lane.model from lane where lane.gated and lane.tenant = $1 order by lane.id for no key update)` + openLocked

func queueGate(b *pgx.Batch, g queue.Gate) {
	if g.Cap == 0 {
		b.Queue(deleteGate, g.Tenant)
		b.Queue(ungate, g.Tenant)
		return
	}
	b.Queue(upsertGate, g.Tenant, g.Cap, g.Reserve.Realtime, g.Reserve.Queued)
	b.Queue(recountGate, g.Tenant)
	b.Queue(openGated, []string{g.Tenant})
}
