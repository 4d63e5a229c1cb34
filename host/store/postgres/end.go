package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// lockCanceled is a statement of its own, so that the next one sees what was
// written while this one waited: what is not stored must be gone, all of it.
const lockCanceled = `select from request where id = $1 for no key update`

// cancelRequest compares the state under the lock of its own update, so of a
// cancel and an outcome the one that commits first stands.
const cancelRequest = `
with u as (
	update request q set state = 12, finished = now(), not_before = null, class = 'canceled', code = $4, secret = null
	where q.id = $1 and q.state + 0 = any($2::smallint[]) and not q.deleted
		and ($3 = '' or exists (select from lane l where l.id = q.lane and l.tenant = $3))
	returning q.id, q.store, true as ended), ` + forgetEnded + `
select count(*) from u`

// Cancel moves a request to Canceled where the state table allows it. worker
// stays on the row, and the lane's slot taken, until the worker lets go.
func (d *driver) Cancel(ctx context.Context, tenant string, id queue.ID, code string) (r store.Record, did bool, err error) {
	var from []int16
	for _, s := range queue.Sources(queue.Canceled, queue.ByCancel) {
		from = append(from, int16(s))
	}
	var n int
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(lockCanceled, uuid(id))
	b.Queue(cancelRequest, uuid(id), from, tenant, code).QueryRow(func(row pgx.Row) error { return row.Scan(&n) })
	b.Queue(selectRequest, uuid(id), tenant).QueryRow(func(row pgx.Row) error { return scanRecord(row, id, &r) })
	b.Queue("commit")
	err = d.call(ctx, "cancel", func(ctx context.Context) error { return d.pool.SendBatch(ctx, &b).Close() })
	if err != nil {
		return store.Record{}, false, err
	}
	if n == 1 && r.Worker != 0 {
		d.hints.canceled(r.Worker)
	}
	return r, n == 1, nil
}

const lockRequest = `
select r.state, r.worker is not null
from request r join lane l on l.id = r.lane
where r.id = $1 and not r.deleted and ($2 = '' or l.tenant = $2)
for update of r`

const (
	removeResults   = `delete from result where request = any($1::uuid[]) and request between $2 and $3`
	removeDecisions = `delete from decision where request = any($1::uuid[]) and request between $2 and $3`
)

const hideRequest = `update request set deleted = true where id = any($1::uuid[])`

// Delete removes a request in a final state. A canceled one that its worker has
// not let go of is hidden until then, since its row still tells the worker to
// stop and holds the lane's slot.
func (d *driver) Delete(ctx context.Context, tenant string, id queue.ID) error {
	return d.call(ctx, "delete", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
			var state int16
			var held bool
			rows, err := t.Query(ctx, lockRequest, uuid(id), tenant)
			if err != nil {
				return err
			}
			found := false
			if err := drain(rows, func(scan scan) error { found = true; return scan(&state, &held) }); err != nil {
				return err
			}
			switch {
			case !found:
				return fmt.Errorf("request %s: %w", id, queue.ErrNotFound)
			case !queue.State(state).Final():
				return fmt.Errorf("request %s: it is %s: %w", id, queue.State(state), queue.ErrRunning)
			}
			var b pgx.Batch
			ids := []pgtype.UUID{uuid(id)}
			for _, q := range []string{forgetBodies, forgetSteps, forgetEvents, removeResults, removeDecisions} {
				b.Queue(q, ranged(ids)...)
			}
			if held {
				b.Queue(hideRequest, ids)
			} else {
				b.Queue(removeRequest, ids)
			}
			return t.SendBatch(ctx, &b).Close()
		})
	})
}
