package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const selectStates = `select state, count(*) from request where not deleted group by state`

// selectLanes counts what owns slots and what is queued once, whatever the
// number of lanes.
const selectLanes = `
with owned as materialized (
	select o.lane, count(*) as n, count(*) filter (where r.realtime) as realtime
	from request r cross join lateral (values (r.lane), (r.escalated)) as o(lane)
	where r.worker is not null and o.lane is not null group by 1),
queued as materialized (
	select lane, count(*) filter (where state = 0) as pending, count(*) filter (where state = 3) as waiting
	from request where state in (0, 3) group by 1)
select l.tenant, l.model, l.weight, coalesce(l.cap, 0), l.reserve_realtime, l.reserve_queued, l.running, l.realtime, l.ready, l.parked,
	coalesce(greatest(l.parked_until - now(), interval '0'), interval '0'), l.vtime, l.head_deadline,
	coalesce(o.n, 0), coalesce(o.realtime, 0), coalesce(q.pending, 0), coalesce(q.waiting, 0)
from lane l left join owned o on o.lane = l.id left join queued q on q.lane = l.id
order by l.tenant collate "C", l.model collate "C"`

const selectGates = `
select g.tenant, g.cap, g.reserve_realtime, g.reserve_queued, g.running, g.realtime, coalesce(o.n, 0), coalesce(o.realtime, 0)
from tenant_gate g left join (
	select l.tenant, count(*) as n, count(*) filter (where r.realtime) as realtime
	from request r join lane l on l.id = r.lane
	where r.worker is not null group by 1) o on o.tenant = g.tenant
order by g.tenant collate "C"`

// Stats counts requests by state and the counters of lanes and gates, at one
// moment.
func (d *driver) Stats(ctx context.Context) (store.Stats, error) {
	s := store.Stats{States: make(map[queue.State]int)}
	var b pgx.Batch
	b.Queue("begin isolation level repeatable read read only")
	b.Queue(guardRead)
	for _, q := range []struct {
		query string
		read  func(scan, *store.Stats) error
	}{{selectStates, scanState}, {selectLanes, scanLane}, {selectGates, scanGate}} {
		b.Queue(q.query).Query(func(rows pgx.Rows) error {
			return drain(rows, func(scan scan) error { return q.read(scan, &s) })
		})
	}
	b.Queue("commit")
	err := d.call(ctx, "stats", func(ctx context.Context) error { return d.pool.SendBatch(ctx, &b).Close() })
	return s, err
}

func scanState(scan scan, s *store.Stats) error {
	var state int16
	var n int
	err := scan(&state, &n)
	s.States[queue.State(state)] = n
	return err
}

func scanLane(scan scan, s *store.Stats) error {
	var l store.LaneStat
	var head *time.Time
	err := scan(&l.Tenant, &l.Model, &l.Weight, &l.Cap, &l.Reserve.Realtime, &l.Reserve.Queued, &l.Running, &l.Realtime, &l.Ready, &l.Parked,
		&l.Wait, &l.VTime, &head, &l.Owned, &l.OwnedRealtime, &l.Pending, &l.Waiting)
	l.Head = at(head)
	s.Lanes = append(s.Lanes, l)
	return err
}

func scanGate(scan scan, s *store.Stats) error {
	var g store.GateStat
	err := scan(&g.Tenant, &g.Cap, &g.Reserve.Realtime, &g.Reserve.Queued, &g.Running, &g.Realtime, &g.Owned, &g.OwnedRealtime)
	s.Gates = append(s.Gates, g)
	return err
}
