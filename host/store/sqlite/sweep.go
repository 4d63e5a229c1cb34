package sqlite

import (
	"context"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Sweep moves on what time alone moves, then copies the log back into the
// database file. Others write between the transactions of a mass expiry.
func (d *driver) Sweep(ctx context.Context, r store.SweepRequest) (s store.Swept, err error) {
	if r.Limit <= 0 {
		r.Limit = 500
	}
	for n, round := r.Limit, 0; n == r.Limit && round < store.ExpireRounds; round++ {
		err := d.update(ctx, "expire", func(t *tx) (err error) {
			n, err = t.expire(r.Limit)
			return err
		})
		if err != nil {
			return s, err
		}
		s.Expired += n
	}
	err = d.update(ctx, "sweep", func(t *tx) (err error) {
		if s.Promoted, err = t.promote(r.Limit); err != nil {
			return err
		}
		if r.Reap {
			if s.Reaped, s.Lost, err = t.reap(r); err != nil {
				return err
			}
		}
		_, err = t.exec(healLanes, t.now)
		return err
	})
	if err != nil {
		return store.Swept{Expired: s.Expired}, err
	}
	if err := d.removeKV(ctx, r.Limit, &s.Keys); err != nil {
		return s, err
	}
	return s, d.checkpoint(ctx)
}

// checkpoint waits for nobody: what a reader still needs is copied next time.
func (d *driver) checkpoint(ctx context.Context) error {
	rows, err := d.readers.QueryContext(ctx, `pragma wal_checkpoint(passive)`)
	if err != nil {
		return classify(err)
	}
	return classify(drain(rows, func(scan) error { return nil }))
}

// moved is a row that a sweep moved.
type moved struct {
	id    queue.ID
	lane  int64
	ord   int64
	state queue.State
	store bool
}

func (t *tx) moved(query string, args ...any) ([]moved, error) {
	var all []moved
	err := t.each(query, args, func(scan scan) error {
		var m moved
		if err := scan((*idColumn)(&m.id), &m.lane, &m.ord, &m.state, &m.store); err != nil {
			return err
		}
		all = append(all, m)
		return nil
	})
	return all, err
}

const expireRequests = `
update request set state = 13, finished = ?1, not_before = null, class = 'deadline', code = 'expired'
where id in (
	select id from request where deadline is not null and state in (0, 3) and deadline <= ?1
	order by deadline limit ?2)
returning id, lane, ord, state, store`

func (t *tx) expire(limit int) (int, error) {
	rows, err := t.moved(expireRequests, t.now, limit)
	if err != nil {
		return 0, err
	}
	for _, m := range rows {
		if err := t.leaveBehind(m.id, m.store); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

const promoteRequests = `
update request set state = 0, not_before = null
where id in (
	select id from request where state = 3 and not_before <= ?1
	order by not_before limit ?2)
returning id, lane, ord, state, store`

func (t *tx) promote(limit int) (int, error) {
	rows, err := t.moved(promoteRequests, t.now, limit)
	if err != nil {
		return 0, err
	}
	for _, m := range rows {
		if err := t.wake(m.lane, m.ord); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

const markDead = `update worker set reaped = 1 where reaped = 0 and lease_until + ?2 < ?1`

// reapRequests returns the requests of dead workers. Nobody is left to answer a
// realtime request unless it is a stored response; a canceled one is let go.
const reapRequests = `
update request set
	state = case when state = 12 then 12
		when reaps < ?2 and (not realtime or (store and path = '/v1/responses')) then 3
		else 11 end,
	worker = null,
	reaps = iif(state = 12, reaps, reaps + 1)
where id in (
	select r.id from worker w cross join request r on r.worker = w.id
	where w.reaped = 1 and r.state in (1, 2, 12) limit ?1)
returning id, lane, ord, state, store`

const reapedWaiting = `update request set not_before = ?2 where id = ?1`

const reapedFailed = `
update request set finished = ?2, class = 'worker_lost', code = 'worker_lost'
where id = ?1`

const removeDeleted = `delete from request where id = ? and deleted = 1`

const removeWorkers = `
delete from worker
where reaped = 1 and not exists (select 1 from request where worker = worker.id)`

func (t *tx) reap(r store.SweepRequest) (reaped, lost int, err error) {
	if _, err := t.exec(markDead, t.now, ceilMillis(r.Grace)); err != nil {
		return 0, 0, err
	}
	rows, err := t.moved(reapRequests, r.Limit, r.MaxReaps)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range rows {
		if m.state == queue.Waiting {
			reaped++
		}
		if m.state == queue.Failed {
			lost++
		}
		if err := t.reaped(m); err != nil {
			return 0, 0, err
		}
	}
	_, err = t.exec(removeWorkers)
	return reaped, lost, err
}

// reaped finishes what reapRequests did to a row.
func (t *tx) reaped(m moved) error {
	query, args := removeDeleted, []any{m.id[:]} // canceled
	if m.state == queue.Waiting {
		query, args = reapedWaiting, append(args, t.now)
	}
	if m.state == queue.Failed {
		query, args = reapedFailed, append(args, t.now)
	}
	if _, err := t.exec(query, args...); err != nil {
		return err
	}
	if m.state == queue.Failed {
		if err := t.leaveBehind(m.id, m.store); err != nil {
			return err
		}
	}
	return t.occupy(m.lane, -1)
}

// healLanes makes every lane say what its claimable rows say, and lets those
// compete again that had to wait.
const healLanes = `
update lane set
	ready = (h.ord is not null), head_deadline = h.ord,
	parked = (coalesce(running >= cap, 0) or coalesce(parked_until > ?1, 0)),
	parked_until = iif(parked_until > ?1, parked_until, null),
	vtime = iif((ready = 0 and h.ord is not null) or (parked = 1 and not coalesce(running >= cap, 0)), ` + virtualTime + `, vtime)
from (select id, (select ord from request r where r.lane = l.id and r.state = 0 and (r.deadline is null or r.deadline > ?1)
	order by ord, id limit 1) as ord from lane l) h
where h.id = lane.id and (
	lane.ready <> (h.ord is not null) or lane.head_deadline is not h.ord or
	lane.parked <> (coalesce(running >= cap, 0) or coalesce(parked_until > ?1, 0)))`
