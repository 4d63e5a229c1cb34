package sqlite

import (
	"database/sql"
	"errors"
	"math"
)

// slots are the counters of a lane or a gate, as a claim sees them.
type slots struct {
	limit             sql.NullInt64 // not valid: none, and nothing is counted
	running, realtime int64
	reserve           int64 // of limit, for realtime requests
}

// queued returns how many more queued requests may take a slot.
func (s *slots) queued() int {
	if !s.limit.Valid {
		return math.MaxInt
	}
	limit := s.limit.Int64
	return int(max(0, min(limit-s.running, limit-s.reserve-(s.running-s.realtime))))
}

func (s *slots) take(realtime bool) {
	s.running++
	if realtime {
		s.realtime++
	}
}

// seat is what a request occupies while it names a worker: a slot of its lane,
// of the lane of the model that serves it in place of its own, and of its
// tenant's gate.
type seat struct {
	lane      int64
	escalated sql.NullInt64
	realtime  bool
}

// served is the lane of the model that serves the request.
func (s seat) served() int64 {
	if s.escalated.Valid {
		return s.escalated.Int64
	}
	return s.lane
}

const occupyLane = `
update lane set running = running + ?2, realtime = realtime + ?3
where id = ?1 and cap is not null`

const occupyGate = `
update tenant_gate set running = running + ?2, realtime = realtime + ?3
where tenant = (select tenant from lane where id = ?1)
returning tenant, running < cap and running - realtime < cap - reserve_realtime`

// occupy takes the slots of a seat, or with n = -1 frees them.
func (t *tx) occupy(s seat, n int) error {
	realtime := 0
	if s.realtime {
		realtime = n
	}
	for _, lane := range []sql.NullInt64{{Int64: s.lane, Valid: true}, s.escalated} {
		if !lane.Valid {
			continue
		}
		counted, err := t.exec(occupyLane, lane.Int64, n, realtime)
		if err == nil && counted > 0 {
			err = t.repark(lane.Int64)
		}
		if err != nil {
			return err
		}
	}
	gates, err := t.hasGates()
	if err != nil || !gates {
		return err
	}
	var tenant string
	var room bool
	err = t.one(occupyGate, []any{s.lane, n, realtime}, &tenant, &room)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil && room && n < 0 {
		err = t.ungate(tenant)
	}
	return err
}

// hasGates spares databases without gates a look at them for each request.
func (t *tx) hasGates() (bool, error) {
	if t.gates.Valid {
		return t.gates.Bool, nil
	}
	err := t.one(`select exists (select 1 from tenant_gate)`, nil, &t.gates.Bool)
	t.gates.Valid = err == nil
	return t.gates.Bool, err
}

// blocked holds for a lane that must not be claimed from at the time ?2.
const blocked = `(coalesce(running >= cap or running - realtime >= cap - reserve_realtime, 0) or coalesce(parked_until > ?2, 0) or gated)`

// virtualTime is the start tag of a lane that begins to compete: not before
// those that compete now, and when there are none, not before anything served.
const virtualTime = `max(vtime, coalesce(
		(select min(c.vtime) from lane c indexed by lane_fair where c.model = lane.model and c.ready = 1 and c.parked = 0),
		(select max(c.vtime) from lane c where c.model = lane.model)))`

const reparkLane = `
update lane set parked = ` + blocked + `, vtime = iif(parked = 1, ` + virtualTime + `, vtime)
where id = ?1 and parked <> ` + blocked + `
returning parked`

// repark makes a lane say whether it may be claimed from, after any of the
// reasons changed.
func (t *tx) repark(lane int64) error {
	var parked bool
	err := t.one(reparkLane, []any{lane, t.now}, &parked)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	t.hints.ready = t.hints.ready || !parked
	return err
}

const parkLane = `
update lane set parked = 1, parked_until = max(coalesce(parked_until, 0), ?2)
where id = ?1`

const selectGate = `
select cap, running, realtime, reserve_realtime from tenant_gate where tenant = ?`

// gate returns the counters of a tenant's gate, without a limit if it has none.
func (t *tx) gate(tenant string) (s slots, err error) {
	gates, err := t.hasGates()
	if err != nil || !gates {
		return s, err
	}
	err = t.one(selectGate, []any{tenant}, &s.limit, &s.running, &s.realtime, &s.reserve)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return s, err
}

const ungateLanes = `
update lane set gated = 0 where tenant = ? and gated = 1
returning id`

// ungate lets the lanes of a tenant compete again that waited for its gate.
func (t *tx) ungate(tenant string) error {
	ids, err := t.ids(ungateLanes, tenant)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := t.repark(id); err != nil {
			return err
		}
	}
	return nil
}
