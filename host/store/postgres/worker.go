package postgres

import (
	"context"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const startWorker = `
insert into worker (host, version, lease_until, draining)
values ($1, $2, now() + $3 * interval '1 microsecond', $4)
returning id`

const beatWorker = `
with w as (
	update worker set lease_until = now() + $2 * interval '1 microsecond', draining = $3
	where id = $1 and not reaped
	returning id)
select w.id, r.id, r.attempt, r.state, r.realtime and not (r.store and r.path = '/v1/responses')
from w left join request r on r.worker = w.id`

// Heartbeat extends a worker's lease, or starts a worker.
func (d *driver) Heartbeat(ctx context.Context, b store.Beat) (p store.Pulse, err error) {
	p = store.Pulse{Worker: b.Worker}
	lease := b.Lease.Microseconds()
	if b.Leave {
		lease = 0
	}
	err = d.call(ctx, "heartbeat", func(ctx context.Context) error {
		if b.Worker == 0 {
			return d.beats.QueryRow(ctx, startWorker, b.Host, b.Version, lease, b.Draining).Scan(&p.Worker)
		}
		rows, err := d.beats.Query(ctx, beatWorker, b.Worker, lease, b.Draining || b.Leave)
		if err != nil {
			return err
		}
		p.Lost = true
		return drain(rows, func(scan scan) error {
			p.Lost = false
			return scanHeld(scan, &p)
		})
	})
	return p, err
}

// scanHeld reads one row that names the worker; without any, there is one of nulls.
func scanHeld(scan scan, p *store.Pulse) error {
	var (
		id      *[16]byte
		attempt *int
		state   *queue.State
		alone   *bool
	)
	if err := scan(&p.Worker, &id, &attempt, &state, &alone); err != nil || id == nil {
		return err
	}
	p.Held = append(p.Held, store.Held{Fence: queue.Fence{ID: *id, Attempt: *attempt, State: *state}, Alone: *alone})
	return nil
}
