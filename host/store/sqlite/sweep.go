package sqlite

import (
	"context"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Sweep moves on what time alone moves, then copies the log back into the
// database file. Others write between its transactions.
func (d *driver) Sweep(ctx context.Context, r store.SweepRequest) (s store.Swept, err error) {
	r = r.WithDefaults()
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
		return t.unpark()
	})
	if err != nil {
		return store.Swept{Expired: s.Expired}, err
	}
	if err := d.heal(ctx); err != nil {
		return s, err
	}
	if err := d.removeKV(ctx, r.Limit, &s.Keys); err != nil {
		return s, err
	}
	if err := d.retain(ctx, r, &s.Removed); err != nil {
		return s, err
	}
	return s, d.checkpoint(ctx)
}

// moved is a row that a sweep moved.
type moved struct {
	id queue.ID
	seat
	ord   int64
	state queue.State
	store bool
}

func (t *tx) moved(query string, args ...any) ([]moved, error) {
	var all []moved
	err := t.each(query, args, func(scan scan) error {
		var m moved
		if err := scan((*idColumn)(&m.id), &m.lane, &m.escalated, &m.realtime, &m.ord, &m.state, &m.store); err != nil {
			return err
		}
		all = append(all, m)
		return nil
	})
	return all, err
}

const expireRequests = `
update request set state = 13, finished = ?1, not_before = null, class = 'deadline', code = 'expired', secret = null
where id in (
	select id from request where deadline is not null and state in (0, 3) and deadline <= ?1
	order by deadline limit ?2)
returning id, lane, escalated, realtime, ord, state, store`

func (t *tx) expire(limit int) (int, error) {
	rows, err := t.moved(expireRequests, t.now, limit)
	if err != nil {
		return 0, err
	}
	lanes := make(map[int64]bool)
	for _, m := range rows {
		lanes[m.lane] = true
		if err := t.leaveBehind(m.id, m.store); err != nil {
			return 0, err
		}
	}
	for lane := range lanes {
		if err := t.settle(lane); err != nil {
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
returning id, lane, escalated, realtime, ord, state, store`

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
returning id, lane, escalated, realtime, ord, state, store`

// What reapRequests left for these to do is what it had to return as it was.
const (
	reapedCanceled = `update request set escalated = null where id = ?`
	removeDeleted  = `delete from request where id = ? and deleted = 1`
	reapedWaiting  = `update request set escalated = null, not_before = ?2 where id = ?1`
	reapedFailed   = `
update request set escalated = null, finished = ?2, class = 'worker_lost', code = 'worker_lost', secret = null
where id = ?1`
)

const removeShares = `delete from target_share where worker in (select id from worker where reaped = 1)`

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
	if _, err := t.exec(removeShares); err != nil {
		return 0, 0, err
	}
	_, err = t.exec(removeWorkers)
	return reaped, lost, err
}

// reaped finishes what reapRequests did to a row.
func (t *tx) reaped(m moved) (err error) {
	query, args := reapedCanceled, []any{m.id[:]}
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
		err = t.leaveBehind(m.id, m.store)
	} else {
		_, err = t.exec(removeDeleted, m.id[:])
	}
	if err != nil {
		return err
	}
	return t.occupy(m.seat, -1)
}
