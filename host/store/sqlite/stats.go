package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Stats counts requests by state and the counters of lanes and gates.
func (d *driver) Stats(ctx context.Context) (s store.Stats, err error) {
	err = d.view(ctx, "stats", func(v *snapshot) (err error) {
		s, err = v.stats()
		return err
	})
	return s, err
}

func (s *snapshot) stats() (st store.Stats, err error) {
	if st.States, err = s.states(); err != nil {
		return st, err
	}
	if st.Lanes, err = s.laneStats(); err != nil {
		return st, err
	}
	st.Gates, err = s.gateStats()
	return st, err
}

const selectStates = `select state, count(*) from request where deleted = 0 group by state`

func (s *snapshot) states() (map[queue.State]int, error) {
	states := make(map[queue.State]int)
	err := s.each(selectStates, nil, func(scan scan) error {
		var state queue.State
		var n int
		err := scan(&state, &n)
		states[state] = n
		return err
	})
	return states, err
}

// selectLanes counts each of the rows once for all lanes.
const selectLanes = `
with owned as materialized (
	select lane, count(*) as n, sum(realtime) as realtime
	from (
		select lane, realtime from request where worker is not null
		union all
		select escalated, realtime from request where escalated is not null)
	group by lane),
pending as materialized (select lane, count(*) as n from request where state = 0 group by lane),
waiting as materialized (select lane, count(*) as n from request where state = 3 group by lane)
select l.tenant, l.model, l.weight, coalesce(l.cap, 0), l.reserve_realtime, l.reserve_queued, l.running, l.realtime,
	l.ready, l.parked, max(0, coalesce(l.parked_until, 0) - ?1), l.vtime, l.head_deadline,
	coalesce(o.n, 0), coalesce(o.realtime, 0), coalesce(p.n, 0), coalesce(w.n, 0)
from lane l
left join owned o on o.lane = l.id
left join pending p on p.lane = l.id
left join waiting w on w.lane = l.id
order by l.tenant, l.model`

func (s *snapshot) laneStats() (lanes []store.LaneStat, err error) {
	now, err := s.now()
	if err != nil {
		return nil, err
	}
	err = s.each(selectLanes, []any{now}, func(scan scan) error {
		var l store.LaneStat
		var wait int64
		var head sql.NullInt64
		err := scan(&l.Tenant, &l.Model, &l.Weight, &l.Cap, &l.Reserve.Realtime, &l.Reserve.Queued, &l.Running, &l.Realtime,
			&l.Ready, &l.Parked, &wait, &l.VTime, &head, &l.Owned, &l.OwnedRealtime, &l.Pending, &l.Waiting)
		l.Wait, l.Head = time.Duration(wait)*time.Millisecond, at(head)
		lanes = append(lanes, l)
		return err
	})
	return lanes, err
}

const selectGates = `
with owned as materialized (
	select l.tenant, count(*) as n, sum(r.realtime) as realtime
	from request r join lane l on l.id = r.lane
	where r.worker is not null
	group by l.tenant)
select g.tenant, g.cap, g.reserve_realtime, g.reserve_queued, g.running, g.realtime, coalesce(o.n, 0), coalesce(o.realtime, 0)
from tenant_gate g left join owned o on o.tenant = g.tenant
order by g.tenant`

func (s *snapshot) gateStats() (gates []store.GateStat, err error) {
	err = s.each(selectGates, nil, func(scan scan) error {
		var g store.GateStat
		err := scan(&g.Tenant, &g.Cap, &g.Reserve.Realtime, &g.Reserve.Queued, &g.Running, &g.Realtime, &g.Owned, &g.OwnedRealtime)
		gates = append(gates, g)
		return err
	})
	return gates, err
}
