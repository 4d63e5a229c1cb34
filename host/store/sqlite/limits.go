package sqlite

import (
	"context"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// SetLimits creates or changes lanes and gates and counts what runs in them.
func (d *driver) SetLimits(ctx context.Context, limits store.Limits) error {
	return d.update(ctx, "set limits", func(t *tx) error {
		for _, l := range limits.Lanes {
			if err := t.setLane(l); err != nil {
				return err
			}
		}
		for _, g := range limits.Gates {
			if err := t.setGate(g); err != nil {
				return err
			}
		}
		return nil
	})
}

const upsertLane = `
insert into lane (tenant, model, weight, cap, reserve_realtime, reserve_queued)
values (?1, ?2, ?3, nullif(?4, 0), ?5, ?6)
on conflict (model, tenant) do update set
	weight = excluded.weight, cap = excluded.cap,
	reserve_realtime = excluded.reserve_realtime, reserve_queued = excluded.reserve_queued
returning id`

const recountLane = `
update lane set running = iif(cap is null, 0, n.running), realtime = iif(cap is null, 0, n.realtime)
from (
	select count(*) as running, coalesce(sum(r.realtime), 0) as realtime from request r
	where r.worker is not null and (r.lane = ?1 or r.escalated = ?1)) n
where id = ?1`

func (t *tx) setLane(l queue.Lane) error {
	var id int64
	err := t.one(upsertLane, []any{l.Tenant, l.Model, l.Weight, l.Cap, l.Reserve.Realtime, l.Reserve.Queued}, &id)
	if err != nil {
		return err
	}
	if _, err := t.exec(recountLane, id); err != nil {
		return err
	}
	return t.repark(id)
}

const upsertGate = `
insert into tenant_gate (tenant, cap, reserve_realtime, reserve_queued) values (?1, ?2, ?3, ?4)
on conflict (tenant) do update set
	cap = excluded.cap, reserve_realtime = excluded.reserve_realtime, reserve_queued = excluded.reserve_queued`

const recountGate = `
update tenant_gate set running = n.running, realtime = n.realtime
from (
	select count(*) as running, coalesce(sum(r.realtime), 0) as realtime
	from request r join lane l on l.id = r.lane
	where r.worker is not null and l.tenant = ?1) n
where tenant = ?1`

// setGate lets the tenant's lanes compete again; a claim that finds the gate
// still full takes them out once more.
func (t *tx) setGate(g queue.Gate) error {
	t.gates.Valid = false
	if g.Cap == 0 {
		if _, err := t.exec(`delete from tenant_gate where tenant = ?`, g.Tenant); err != nil {
			return err
		}
		return t.ungate(g.Tenant)
	}
	if _, err := t.exec(upsertGate, g.Tenant, g.Cap, g.Reserve.Realtime, g.Reserve.Queued); err != nil {
		return err
	}
	if _, err := t.exec(recountGate, g.Tenant); err != nil {
		return err
	}
	return t.ungate(g.Tenant)
}
