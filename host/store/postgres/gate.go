package postgres

import (
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Slots that queued requests may still take, of a row of lane or tenant_gate as
// it is, or after k.n of them, k.realtime by realtime requests, were taken.
const (
	laneRoom = `coalesce(least(lane.cap - lane.running,
		lane.cap - lane.reserve_realtime - (lane.running - lane.realtime)), 1000000)`
	laneRoomAfter = `coalesce(least(lane.cap - lane.running - k.n,
		lane.cap - lane.reserve_realtime - (lane.running + k.n - lane.realtime - k.realtime)), 1000000)`
	gateRoom = `least(g.cap - g.running, g.cap - g.reserve_realtime - (g.running - g.realtime))`
)

// limited holds for lanes that are told to wait.
const limited = `coalesce(lane.parked_until > now(), false)`

// charge is what taking or freeing k.n slots of a lane with a cap does to it.
const charge = `
	running = lane.running + k.n, realtime = lane.realtime + k.realtime,
	vtime = case when lane.parked and not (` + laneRoomAfter + ` <= 0 or ` + limited + ` or lane.gated)
		then ` + virtualTime + ` else lane.vtime end,
	parked = ` + laneRoomAfter + ` <= 0 or ` + limited + ` or lane.gated`

// occupyLanes changes counters of lanes that are locked already.
const occupyLanes = `
update lane set ` + charge + `
from unnest($1::bigint[], $2::int[], $3::int[]) as k(id, n, realtime)
where lane.id = k.id and lane.cap is not null`

// occupyGates changes counters of gates that are locked already.
const occupyGates = `
update tenant_gate g set running = g.running + k.n, realtime = g.realtime + k.realtime
from unnest($1::text[], $2::int[], $3::int[]) as k(tenant, n, realtime)
where g.tenant = k.tenant`

// openGated makes lanes compete again whose gates have room. It is a statement
// after that which made the room: a claim that found the gate full had it locked
// when it said so of its lane, so the lane is seen here. One that somebody else
// holds is left to the sweep: to wait for it here could be to wait in a circle.
const openGated = `
with k as materialized (
	select lane.id, lane.model from lane join tenant_gate g on g.tenant = lane.tenant
	where lane.gated and lane.tenant = any($1::text[]) and ` + gateRoom + ` > 0
	order by lane.id for no key update of lane skip locked)` + openLocked

// openLocked opens the lanes of k, which are locked.
const openLocked = `,
m as materialized (select model, ` + virtualTimeOfModel + ` as vtime from (select distinct model from k) lane)
update lane set gated = false, parked = ` + laneRoom + ` <= 0 or ` + limited + `,
	vtime = case when ` + laneRoom + ` <= 0 or ` + limited + ` then lane.vtime else greatest(lane.vtime, m.vtime) end
from k join m on m.model = k.model
where lane.id = k.id`

// slots are those of a lane with a cap, or of a gate.
type slots struct {
	limit, reserveQueued int
	running, realtime    int
	ready                bool // queued requests wait
	taken, takenRealtime int  // by this plan, below 0: freed
}

// full reports whether a realtime request gets no slot.
func (s *slots) full() bool {
	return s.running+s.taken >= s.limit ||
		(s.ready && s.realtime+s.takenRealtime >= s.limit-s.reserveQueued)
}

func (s *slots) take(n int, realtime bool) {
	s.taken += n
	if realtime {
		s.takenRealtime += n
	}
}

// lanesOf returns the ids of the lanes of which a request has slots.
func lanesOf(lane, escalated int64) []int64 {
	if escalated == 0 {
		return []int64{lane}
	}
	return []int64{lane, escalated}
}

// refused returns which cap keeps a realtime request out, nil if none does.
func (p *plan) refused(n *queue.New, lane int64) error {
	at := &store.AtCap{Tenant: n.Tenant, Model: n.Model, Wait: p.parked[lane]}
	l, g := p.slots[lane], p.gates[n.Tenant]
	switch {
	case at.Wait > 0, l != nil && l.full():
		return at
	case g != nil && g.full():
		at.Gate = true
		return at
	}
	return nil
}

// occupy takes n slots of the lanes and the gate of an owner.
func (p *plan) occupy(o *owner, n int) {
	for _, lane := range lanesOf(o.lane, o.escalated) {
		if s := p.slots[lane]; s != nil {
			s.take(n, o.realtime)
		}
	}
	if g := p.gates[o.key.tenant]; g != nil {
		g.take(n, o.realtime)
	}
}

// queueSlots queues the changed counters of lanes, then of gates, all of them
// locked already, then what the gates let in again.
func queueSlots(b *pgx.Batch, lanes map[int64]*slots, gates map[string]*slots) {
	if ids, n, realtime := taken(lanes); len(ids) > 0 {
		b.Queue(occupyLanes, ids, n, realtime)
	}
	if tenants, n, realtime := taken(gates); len(tenants) > 0 {
		b.Queue(occupyGates, tenants, n, realtime)
		b.Queue(openGated, tenants)
	}
}

// taken returns what changed as columns.
func taken[K int64 | string](m map[K]*slots) (keys []K, n, realtime []int32) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if s := m[k]; s.taken != 0 || s.takenRealtime != 0 {
			keys, n, realtime = append(keys, k), append(n, int32(s.taken)), append(realtime, int32(s.takenRealtime))
		}
	}
	return keys, n, realtime
}
