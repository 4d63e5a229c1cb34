package sqlite

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const cancelRequest = `
update request set state = 12, finished = ?2, not_before = null, class = 'canceled', code = ?4, secret = null
where id = ?1 and state = ?3`

// Cancel moves a request to Canceled where the state table allows it. worker
// stays on the row, and its slots taken, until the worker lets go.
func (d *driver) Cancel(ctx context.Context, tenant string, id queue.ID, code string) (r store.Record, did bool, err error) {
	err = d.update(ctx, "cancel", func(t *tx) (err error) {
		if did, err = t.cancel(tenant, id, code); err != nil {
			return err
		}
		r, err = record(t, tenant, id)
		return err
	})
	if err != nil {
		return store.Record{}, false, err
	}
	return r, did, nil
}

// cancel reports whether it canceled the request.
func (t *tx) cancel(tenant string, id queue.ID, code string) (did bool, err error) {
	r, err := record(t, tenant, id)
	if err != nil || queue.Move(r.State, queue.Canceled, queue.ByCancel) != nil {
		return false, err
	}
	n, err := t.exec(cancelRequest, id[:], t.now, r.State, code)
	if err != nil {
		return false, err
	}
	o, _, err := t.owner(id)
	if err != nil {
		return false, err
	}
	switch {
	case r.State == queue.Pending:
		err = t.settle(o.lane)
	case o.worker.Valid:
		t.hints.canceled = append(t.hints.canceled, o.worker.Int64)
	}
	if err != nil {
		return false, err
	}
	return n == 1, t.leaveBehind(id, r.Store)
}

// Delete removes a request in a final state. A canceled one that its worker has
// not let go of is hidden until then, since its row still tells the worker to
// stop and holds the lane's slot.
func (d *driver) Delete(ctx context.Context, tenant string, id queue.ID) error {
	return d.update(ctx, "delete", func(t *tx) error { return t.removeEndedRequest(tenant, id) })
}

func (t *tx) removeEndedRequest(tenant string, id queue.ID) error {
	r, err := record(t, tenant, id)
	if err != nil {
		return err
	}
	if !r.State.Final() {
		return fmt.Errorf("request %s: it is %s: %w", id, r.State, queue.ErrRunning)
	}
	if err := t.forget(id); err != nil {
		return err
	}
	last := `delete from request where id = ?`
	if r.Worker != 0 {
		last = `update request set deleted = 1 where id = ?`
	}
	for _, q := range []string{`delete from result where request = ?`, `delete from decision where request = ?`, last} {
		if _, err := t.exec(q, id[:]); err != nil {
			return err
		}
	}
	return nil
}
