package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/casemate/casemate/host/store"
)

// lane returns the id of a lane, which it creates on demand.
func (t *tx) lane(tenant, model string) (id int64, err error) {
	err = t.one(`select id from lane where model = ? and tenant = ?`, []any{model, tenant}, &id)
	if errors.Is(err, sql.ErrNoRows) {
		err = t.one(`insert into lane (model, tenant) values (?, ?) returning id`, []any{model, tenant}, &id)
	}
	return id, err
}

// virtualTime is the start tag of a lane that begins to compete: not before
// those that compete now, and when there are none, not before anything served.
const virtualTime = `max(vtime, coalesce(
		(select min(c.vtime) from lane c where c.model = lane.model and c.ready = 1 and c.parked = 0),
		(select max(c.vtime) from lane c where c.model = lane.model)))`

const wakeLane = `
update lane set
	ready = 1, head_deadline = min(coalesce(head_deadline, ?2), ?2),
	vtime = iif(ready = 1, vtime, ` + virtualTime + `)
where id = ?1 and (ready = 0 or head_deadline is null or head_deadline > ?2)`

// wake makes the lane claimable when a request with this order joined it.
func (t *tx) wake(lane, ord int64) error {
	_, err := t.exec(wakeLane, lane, ord)
	return err
}

const occupyLane = `
update lane set
	running = running + ?2,
	vtime = iif(parked = 1 and running + ?2 < cap, ` + virtualTime + `, vtime),
	parked = (running + ?2 >= cap or coalesce(parked_until > ?3, 0))
where id = ?1 and cap is not null`

// occupy takes slots of the lane, or with n < 0 frees them.
func (t *tx) occupy(lane int64, n int) error {
	_, err := t.exec(occupyLane, lane, n, t.now)
	return err
}

const upsertLane = `
insert into lane (tenant, model, weight, cap) values (?1, ?2, ?3, ?4)
on conflict (model, tenant) do update set weight = excluded.weight, cap = excluded.cap
returning id`

const recountLane = `
update lane set running = iif(cap is null, 0, (
	select count(*) from request r
	where r.lane = lane.id and r.worker is not null and r.state in (1, 2, 12)))
where id = ?`

const parkLane = `
update lane set parked = (coalesce(running >= cap, 0) or coalesce(parked_until > ?2, 0))
where id = ?1`

// SetLimits creates or changes lanes and counts what runs in them.
func (d *driver) SetLimits(ctx context.Context, limits store.Limits) error {
	return d.update(ctx, "set limits", func(t *tx) error {
		for _, l := range limits.Lanes {
			var limit any
			if l.Cap > 0 {
				limit = l.Cap
			}
			var id int64
			if err := t.one(upsertLane, []any{l.Tenant, l.Model, l.Weight, limit}, &id); err != nil {
				return err
			}
			if _, err := t.exec(recountLane, id); err != nil {
				return err
			}
			if _, err := t.exec(parkLane, id, t.now); err != nil {
				return err
			}
		}
		return nil
	})
}
