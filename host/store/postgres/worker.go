package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

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
select w.id, array(select id from request where worker = $1 and state + 0 = 12) from w`

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
		var canceled [][16]byte
		err := d.beats.QueryRow(ctx, beatWorker, b.Worker, lease, b.Draining || b.Leave).Scan(&p.Worker, &canceled)
		if errors.Is(err, pgx.ErrNoRows) {
			p.Lost = true
			return nil
		}
		for _, id := range canceled {
			p.Canceled = append(p.Canceled, queue.ID(id))
		}
		return err
	})
	return p, err
}
