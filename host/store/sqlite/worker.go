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

const leaveShares = `delete from target_share where worker = ?`

// Heartbeat extends a worker's lease, or starts a worker, and shares out the
// slots of targets.
func (d *driver) Heartbeat(ctx context.Context, b store.Beat) (p store.Pulse, err error) {
	err = d.update(ctx, "heartbeat", func(t *tx) error {
		p = store.Pulse{}
		err := t.beat(&b, &p)
		if errors.Is(err, sql.ErrNoRows) {
			p = store.Pulse{Worker: b.Worker, Lost: true}
			return nil
		}
		if err != nil {
			return err
		}
		if p.Targets, err = t.shareTargets(p.Worker, b.Targets); err != nil {
			return err
		}
		if b.Leave {
			for i := range p.Targets {
				p.Targets[i].Slots = 0
			}
			if _, err := t.exec(leaveShares, p.Worker); err != nil {
				return err
			}
		}
		p.Held, err = t.held(p.Worker)
		return err
	})
	return p, err
}

// beat writes the lease; the error is sql.ErrNoRows when there is none any more.
func (t *tx) beat(b *store.Beat, p *store.Pulse) error {
	until := t.now + b.Lease.Milliseconds()
	if b.Leave {
		until = t.now
	}
	if b.Worker == 0 {
		return t.one(startWorker, []any{b.Host, b.Version, t.now, until, b.Draining}, &p.Worker)
	}
	return t.one(beatWorker, []any{b.Worker, until, b.Draining || b.Leave}, &p.Worker)
}

const selectHeld = `
select id, attempt, state, realtime and not (store and path = '/v1/responses')
from request where worker = ?`

func (t *tx) held(worker int64) (all []store.Held, err error) {
	err = t.each(selectHeld, []any{worker}, func(scan scan) error {
		var id idColumn
		var h store.Held
		err := scan(&id, &h.Attempt, &h.State, &h.Alone)
		h.ID = queue.ID(id)
		all = append(all, h)
		return err
	})
	return all, err
}
