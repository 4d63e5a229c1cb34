package sqlite

import (
	"context"
)

// endParks forgets rate limits whose time is up.
const endParks = `
update lane set parked_until = null where parked_until <= ?
returning id`

// unpark lets the lanes compete again that a rate limit kept from it until now.
func (t *tx) unpark() error {
	ids, err := t.ids(endParks, t.now)
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

// healedAtOnce is how many lanes one sweep compares with their requests.
const healedAtOnce = 4096

const selectSlice = `
select coalesce(max(id), 0), count(*) from (select id from lane where id > ?1 order by id limit ?2)`

// selectDrift finds lanes that do not say what their requests and counters do.
const selectDrift = `
select id from lane
where id > ?1 and id <= ?3 and (
	parked <> ` + blocked + ` or
	gated and not exists (
		select 1 from tenant_gate g
		where g.tenant = lane.tenant and (g.running >= g.cap or g.running - g.realtime >= g.cap - g.reserve_realtime)) or
	ready <> (head_deadline is not null) or
	head_deadline is not (
		select ord from request r
		where r.lane = lane.id and r.state = 0 and (r.deadline is null or r.deadline > ?2)
		order by ord, id limit 1))`

// heal compares lanes with their requests, beside those who write, and corrects
// the few that are wrong. There should be none: every transaction leaves lanes
// exact, but for what time does to them.
func (d *driver) heal(ctx context.Context) error {
	var drifted []int64
	err := d.view(ctx, "heal", func(s *snapshot) error {
		now, err := s.now()
		if err != nil {
			return err
		}
		from, last, n := d.healed.Load(), int64(0), 0
		if err := s.one(selectSlice, []any{from, healedAtOnce}, &last, &n); err != nil {
			return err
		}
		next := last
		if n < healedAtOnce {
			next = 0
		}
		d.healed.Store(next)
		return s.each(selectDrift, []any{from, now, last}, func(scan scan) error {
			var id int64
			err := scan(&id)
			drifted = append(drifted, id)
			return err
		})
	})
	if err != nil || len(drifted) == 0 {
		return err
	}
	return d.update(ctx, "heal", func(t *tx) error {
		for _, id := range drifted {
			if err := t.healLane(id); err != nil {
				return err
			}
		}
		return nil
	})
}

const ungateLane = `
update lane set gated = 0
where id = ?1 and gated = 1 and not exists (
	select 1 from tenant_gate g
	where g.tenant = lane.tenant and (g.running >= g.cap or g.running - g.realtime >= g.cap - g.reserve_realtime))`

func (t *tx) healLane(id int64) error {
	if err := t.settleFrom(id, anyOrder); err != nil {
		return err
	}
	if _, err := t.exec(ungateLane, id); err != nil {
		return err
	}
	return t.repark(id)
}
