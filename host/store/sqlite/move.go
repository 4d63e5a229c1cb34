package sqlite

import (
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const moveRequest = `
update request set
	state = ?4, failures = failures + ?5,
	worker = iif(?6, null, worker), escalated = iif(?6, null, escalated), not_before = ?7,
	started = iif(?4 = 2, coalesce(started, ?8), started), finished = iif(?4 >= 10, ?8, null),
	class = ?9, code = ?10, secret = iif(?4 >= 10, null, secret)
where id = ?1 and attempt = ?2 and state = ?3
returning ord`

func (t *tx) move(o owner, m *store.Move, failures int) error {
	var notBefore any
	if m.To == queue.Waiting {
		notBefore = t.now + ceilMillis(m.Delay)
	}
	class, code := m.Class, m.Code
	if !m.To.Final() {
		class, code = "", ""
	}
	var ord int64
	err := t.one(moveRequest, []any{o.ID[:], o.Attempt, o.State, m.To, failures, m.Releases(), notBefore, t.now, string(class), code}, &ord)
	if err != nil {
		return err
	}
	if err := t.moveLane(o, m, ord); err != nil || !m.To.Final() {
		return err
	}
	if o.recorded && !o.store {
		return nil // it left nothing
	}
	if !o.store || m.To == queue.Failed {
		if err := t.leaveBehind(o.ID, o.store); err != nil || !o.store {
			return err
		}
	}
	if m.Result == nil {
		return nil
	}
	_, err = t.exec(`insert into result (request, status, content_type, data) values (?, ?, ?, ?)`,
		o.ID[:], m.Result.Status, m.Result.ContentType, blob(m.Result.Body))
	return err
}

// moveLane lets the lanes of a request know of its move.
func (t *tx) moveLane(o owner, m *store.Move, ord int64) error {
	if m.Park > 0 {
		if _, err := t.exec(parkLane, o.served(), t.now+ceilMillis(m.Park)); err != nil {
			return err
		}
	}
	if o.worker.Valid && m.Releases() {
		if err := t.occupy(o.seat, -1); err != nil {
			return err
		}
	}
	switch {
	case m.To == queue.Pending:
		return t.wake(o.lane, ord)
	case o.State == queue.Pending:
		return t.settle(o.lane)
	case m.To == queue.Canceled && o.worker.Valid:
		t.hints.canceled = append(t.hints.canceled, o.worker.Int64)
	}
	return nil
}

// closeSteps settles what was open when its request ended otherwise than by its
// plan: what had begun is abandoned, the rest was skipped.
const closeSteps = `
update step set state = iif(state = 'running', 'abandoned', 'skipped'), settled = 1, class = 'canceled'
where request = ? and not settled`

// letGo frees the slots of a canceled request. If it was deleted meanwhile, this
// was the last that held it.
func (t *tx) letGo(o owner) error {
	q := `update request set worker = null, escalated = null where id = ?`
	if o.deleted {
		q = `delete from request where id = ?`
	}
	if _, err := t.exec(q, o.ID[:]); err != nil {
		return err
	}
	if _, err := t.exec(closeSteps, o.ID[:]); err != nil {
		return err
	}
	return t.occupy(o.seat, -1)
}

// leaveBehind is what remains of a request that ended otherwise than by its plan.
func (t *tx) leaveBehind(id queue.ID, stored bool) error {
	if !stored {
		return t.forget(id)
	}
	_, err := t.exec(closeSteps, id[:])
	return err
}

// forget deletes what a request leaves behind only if it is stored; what its
// policies were asked may repeat what the client sent.
func (t *tx) forget(id queue.ID) error {
	for _, q := range []string{
		`update decision set question = x'7b7d' where request = ?`,
		`delete from body where request = ?`,
		`delete from step where request = ?`,
		`delete from event where request = ?`,
	} {
		if _, err := t.exec(q, id[:]); err != nil {
			return err
		}
	}
	return nil
}
