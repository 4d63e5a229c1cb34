package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const startWorker = `
insert into worker (host, version, started, lease_until, draining) values (?, ?, ?, ?, ?)
returning id`

const beatWorker = `
update worker set lease_until = ?2, draining = ?3
where id = ?1 and reaped = 0
returning id`

const selectHeld = `
select id, attempt, state, realtime and not (store and path = '/v1/responses')
from request where worker = ?`

// Heartbeat extends a worker's lease, or starts a worker.
func (d *driver) Heartbeat(ctx context.Context, b store.Beat) (p store.Pulse, err error) {
	err = d.update(ctx, "heartbeat", func(t *tx) error {
		until := t.now + b.Lease.Milliseconds()
		if b.Leave {
			until = t.now
		}
		p = store.Pulse{Worker: b.Worker}
		if b.Worker == 0 {
			return t.one(startWorker, []any{b.Host, b.Version, t.now, until, b.Draining}, &p.Worker)
		}
		err := t.one(beatWorker, []any{b.Worker, until, b.Draining || b.Leave}, &p.Worker)
		if errors.Is(err, sql.ErrNoRows) {
			p.Lost = true
			return nil
		}
		if err != nil {
			return err
		}
		return t.each(selectHeld, []any{b.Worker}, func(scan scan) error {
			var id idColumn
			var h store.Held
			if err := scan(&id, &h.Attempt, &h.State, &h.Alone); err != nil {
				return err
			}
			h.ID = queue.ID(id)
			p.Held = append(p.Held, h)
			return nil
		})
	})
	return p, err
}
