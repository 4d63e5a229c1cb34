package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Write commits all writes in one transaction of two round trips: the first
// locks every row that the writes are fenced by, and reads it; the second
// writes what the fences let through, a statement for each table, and commits.
// Between them the locks make what was read stay true. Rows are locked in the
// order of their ids, requests before lanes, so writers never wait in a circle.
func (d *driver) Write(ctx context.Context, writes []store.Write) (results []error, err error) {
	p := newPlan(writes)
	var xid string // set when it is not known whether it committed
	err = d.call(ctx, "write", func(ctx context.Context) error {
		if err := d.laneIDs(ctx, p.laneOf); err != nil {
			return err
		}
		conn, err := d.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		began, err := p.lock(ctx, conn)
		if err == nil {
			results = p.decide(writes)
			if err = p.commit(ctx, conn); err != nil && !definite(err) {
				xid = began
			}
		}
		if err != nil && conn.Conn().PgConn().TxStatus() != 'I' {
			_, _ = conn.Exec(ctx, "rollback") // if it fails, the pool drops the connection
		}
		return err
	})
	if xid != "" {
		err = d.resolve(ctx, xid, err)
	}
	if err != nil {
		return nil, err
	}
	return results, nil
}

const (
	selectXid     = `select pg_current_xact_id()::text`
	selectOutcome = `select coalesce(pg_xact_status($1::text::xid8), 'aborted')`
	resolvePause  = 50 * time.Millisecond
)

// resolve finds out whether a transaction committed whose connection broke
// before it said so: written again, its own effects would look like a lost
// lease. It asks until ctx ends.
func (d *driver) resolve(ctx context.Context, xid string, cause error) error {
	for {
		var outcome string
		err := d.call(ctx, "resolve", func(ctx context.Context) error {
			return d.pool.QueryRow(ctx, selectOutcome, xid).Scan(&outcome)
		})
		var answer *pgconn.PgError
		switch {
		case err == nil && outcome == "committed":
			return nil
		case err == nil && outcome == "aborted", errors.As(err, &answer) && answer.Code == "22023":
			return cause // 22023: a server that never heard of it
		}
		select {
		case <-time.After(resolvePause):
		case <-ctx.Done():
			// Not ErrUnavailable, which says that nothing was committed.
			return fmt.Errorf("postgres: write: transaction %s may have been committed: %s", xid, cause.Error())
		}
	}
}

// uuid returns an id as a parameter.
func uuid(id queue.ID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

// plan is one transaction: what it locks, then what it writes.
type plan struct {
	ids       []pgtype.UUID // of every write, in order
	tails     []pgtype.UUID // of those with events
	releasing []pgtype.UUID // of those that may free a slot
	workers   []int64       // of inserts by a worker
	laneOf    map[laneKey]int64

	owners map[queue.ID]*owner
	alive  map[int64]bool
	slots  map[int64]*slots // of lanes with a cap
	rows   effects
}

// owner is a request that writes are fenced by, as it stands after those of the
// plan that came before.
type owner struct {
	queue.Fence
	lane    int64
	key     laneKey
	worker  int64
	store   bool
	deleted bool
	lastSeq int64
	change  *change
}

// slots are those of a lane with a cap.
type slots struct {
	running, limit int
	taken          int // by this plan, below 0: freed
}

func newPlan(writes []store.Write) *plan {
	p := &plan{
		laneOf: make(map[laneKey]int64), owners: make(map[queue.ID]*owner),
		alive: make(map[int64]bool), slots: make(map[int64]*slots),
	}
	for i := range writes {
		w := &writes[i]
		id := uuid(w.Fenced().ID)
		p.ids = append(p.ids, id)
		if len(w.Events) > 0 {
			p.tails = append(p.tails, id)
		}
		if w.LetGo || (w.Move != nil && w.Move.Releases()) {
			p.releasing = append(p.releasing, id)
		}
		if n := w.Insert; n != nil {
			p.laneOf[laneKey{n.Tenant, n.Model}] = 0
			if n.Worker != 0 {
				p.workers = append(p.workers, n.Worker)
			}
		}
	}
	slices.Sort(p.workers)
	p.workers = slices.Compact(p.workers)
	return p
}

const lockWorkers = `
select id from worker where id = any($1::bigint[]) and not reaped
order by id for key share`

const lockOwners = `
select r.id, r.state, r.attempt, r.lane, l.tenant, l.model, coalesce(r.worker, 0), r.store, r.deleted
from request r join lane l on l.id = r.lane
where r.id = any($1::uuid[])
order by r.id for no key update of r`

// selectLastEvents is a statement after the lock, so its snapshot is too.
const selectLastEvents = `
select i, coalesce((select max(seq) from event where request = i), -1)
from unnest($1::uuid[]) i`

const lockLanes = `
select id, running, cap from lane
where cap is not null
	and (id = any($1::bigint[]) or id = any(array(select lane from request where id = any($2::uuid[]))))
order by id for no key update`

// lock is the first round trip. It returns the transaction's id.
func (p *plan) lock(ctx context.Context, conn *pgxpool.Conn) (xid string, err error) {
	var b pgx.Batch
	b.Queue("begin")
	b.Queue(guardLong)
	b.Queue(shareCaps, int64(lockCaps))
	b.Queue(selectXid)
	b.Queue(lockWorkers, p.workers)
	b.Queue(lockOwners, p.ids)
	b.Queue(selectLastEvents, p.tails)
	b.Queue(lockLanes, p.insertLanes(), p.releasing)
	r := conn.SendBatch(ctx, &b)
	err = p.read(r, &xid)
	if err = errors.Join(err, r.Close()); err != nil {
		// Nothing was written, so how it ended does not matter.
		return "", err
	}
	return xid, nil
}

func (p *plan) insertLanes() []int64 {
	ids := []int64{}
	if len(p.workers) > 0 {
		for _, id := range p.laneOf {
			ids = append(ids, id)
		}
	}
	return ids
}

// read reads the answers to the first round trip.
func (p *plan) read(r pgx.BatchResults, xid *string) error {
	for range 3 {
		if err := skip(r); err != nil {
			return err
		}
	}
	if err := r.QueryRow().Scan(xid); err != nil {
		return err
	}
	for _, f := range []func(scan) error{p.readWorker, p.readOwner, p.readTail, p.readSlots} {
		if err := each(r, f); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) readWorker(scan scan) error {
	var id int64
	err := scan(&id)
	p.alive[id] = true
	return err
}

func (p *plan) readOwner(scan scan) error {
	o := &owner{lastSeq: -1}
	err := scan((*[16]byte)(&o.ID), (*int16)(&o.State), &o.Attempt, &o.lane, &o.key.tenant, &o.key.model, &o.worker, &o.store, &o.deleted)
	p.owners[o.ID] = o
	return err
}

func (p *plan) readTail(scan scan) error {
	var id [16]byte
	var last int64
	if err := scan(&id, &last); err != nil {
		return err
	}
	if o := p.owners[id]; o != nil {
		o.lastSeq = last
	}
	return nil
}

func (p *plan) readSlots(scan scan) error {
	var id int64
	var s slots
	err := scan(&id, &s.running, &s.limit)
	p.slots[id] = &s
	return err
}
