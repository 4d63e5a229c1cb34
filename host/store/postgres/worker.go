package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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

// leaveTargets is of a worker that leaves, so nobody else writes these rows.
const leaveTargets = `delete from target_share where worker = $1`

// dropShares removes the shares of workers that are reaped or gone, which do not
// count any more. It waits for nobody.
const dropShares = `
delete from target_share where ctid = any(array(
	select s.ctid from target_share s
	where not exists (select from worker w where w.id = s.worker and not w.reaped)
	for update skip locked))`

// beat is one heartbeat on its way.
type beat struct {
	store.Beat
	pulse store.Pulse
	named map[string]*target
	now   time.Time // the database's clock
}

// target is one that a heartbeat names, as it is under its lock.
type target struct {
	use    store.TargetUse
	share  store.TargetShare
	own    store.Holding
	others []store.Holding
}

// Heartbeat extends a worker's lease, or starts a worker. It is one statement
// unless the worker names targets or leaves.
func (d *driver) Heartbeat(ctx context.Context, b store.Beat) (store.Pulse, error) {
	h := &beat{Beat: b, pulse: store.Pulse{Worker: b.Worker, Lost: b.Worker != 0}}
	err := d.call(ctx, "heartbeat", func(ctx context.Context) error {
		return d.beats.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			err := h.send(ctx, conn)
			if conn.Conn().PgConn().TxStatus() != 'I' {
				_, _ = conn.Exec(ctx, "rollback") // if it fails, the pool drops the connection
			}
			return err
		})
	})
	if err != nil {
		return store.Pulse{Worker: b.Worker}, err
	}
	d.worker.Store(h.pulse.Worker)
	return h.pulse, nil
}

func (h *beat) send(ctx context.Context, conn *pgxpool.Conn) error {
	var b pgx.Batch
	alone := len(h.Targets) == 0 && !h.Leave
	if !alone {
		b.Queue("begin")
		b.Queue(guardBeat)
	}
	h.queueWorker(&b)
	if alone {
		return conn.SendBatch(ctx, &b).Close()
	}
	h.queueTargets(&b)
	if err := conn.SendBatch(ctx, &b).Close(); err != nil || h.pulse.Lost {
		return err
	}
	return h.share(ctx, conn)
}

func (h *beat) queueWorker(b *pgx.Batch) {
	lease := h.Lease.Microseconds()
	if h.Leave {
		lease = 0
	}
	if h.Worker == 0 {
		b.Queue(startWorker, h.Host, h.Version, lease, h.Draining || h.Leave).QueryRow(func(row pgx.Row) error {
			return row.Scan(&h.pulse.Worker)
		})
		return
	}
	b.Queue(beatWorker, h.Worker, lease, h.Draining || h.Leave).Query(func(rows pgx.Rows) error {
		return drain(rows, func(scan scan) error {
			h.pulse.Lost = false
			return scanHeld(scan, &h.pulse)
		})
	})
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
