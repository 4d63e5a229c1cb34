package postgres

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Write commits all writes in one transaction of two round trips: the first
// locks every row that the writes are fenced by, and reads it; the second
// writes what the fences let through, a statement for each table, and commits.
// Between them the locks make what was read stay true. Writers never wait in a
// circle, since each locks idempotency keys, then conversations, requests, lanes,
// gates, plugins' keys and usage, and each of these in one pass in the order of
// ids or keys.
func (d *driver) Write(ctx context.Context, writes []store.Write) (results []error, err error) {
	p := newPlan(writes)
	var xid string // set when it is not known whether it committed
	err = d.call(ctx, "write", func(ctx context.Context) error {
		if err := d.laneIDs(ctx, d.pool, p.laneOf); err != nil {
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
		err = d.resolve(ctx, xid, p.ids, err)
	}
	if err != nil {
		return nil, err
	}
	if len(p.rows.woken) > 0 {
		d.hints.ready()
	}
	for _, w := range p.stopped {
		d.hints.canceled(w)
	}
	return results, nil
}

// uuid returns an id as a parameter.
func uuid(id queue.ID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: true} }

// ranged returns ids with the least and the greatest of them: to compare with
// these as well keeps a plan, which is made once for all ids, out of the
// partitions of other days.
func ranged(ids []pgtype.UUID) []any {
	order := func(a, b pgtype.UUID) int { return bytes.Compare(a.Bytes[:], b.Bytes[:]) }
	return []any{ids, slices.MinFunc(ids, order), slices.MaxFunc(ids, order)}
}

// plan is one transaction: what it locks, then what it writes.
type plan struct {
	ids       []pgtype.UUID // of every write, in order
	tails     []pgtype.UUID // of those with events
	releasing []pgtype.UUID // of those that may free a slot
	returning []pgtype.UUID // of those that may go back to their lanes
	parking   []pgtype.UUID // of those that may park a lane
	workers   []int64       // of inserts by a worker
	tenants   []string      // of these
	laneOf    map[laneKey]int64
	joins     []join
	keys      kvRefs // of puts, set when one of them is checked or deletes: then all are locked first, in order
	checked   kvRefs // of those that are
	once      map[onceKey]*once
	talks     map[queue.ID]*talk
	joined    bool // some insert joins a conversation

	owners  map[queue.ID]*owner
	alive   map[int64]bool
	slots   map[int64]*slots  // of lanes with a cap
	gates   map[string]*slots // by tenant
	parked  map[int64]time.Duration
	parks   map[int64]int64 // microseconds, by lane
	kv      map[kvKey]current
	made    map[kvKey]bool           // rows that lockKV made
	holders map[queue.ID]queue.State // of conversations
	stopped []int64                  // workers of what is canceled
	rows    effects
	also    func(b *pgx.Batch) // queues what is written last of all; nil: nothing
}

// join is an insert that joins a lane: behind wait microseconds from now, or
// with a slot of it taken; or one that only parks it.
type join struct {
	lane laneKey
	wait int64
	slot bool
	park bool
}

// owner is a request that writes are fenced by, as it stands after those of the
// plan that came before.
type owner struct {
	queue.Fence
	lane      int64
	escalated int64 // the lane whose model serves it; 0: its own
	key       laneKey
	worker    int64
	realtime  bool
	store     bool
	deleted   bool
	recorded  bool // inserted by this plan, and over
	lastSeq   int64
	change    *change
}

func newPlan(writes []store.Write) *plan {
	p := &plan{
		laneOf: make(map[laneKey]int64), owners: make(map[queue.ID]*owner),
		alive: make(map[int64]bool), slots: make(map[int64]*slots), gates: make(map[string]*slots),
		parked: make(map[int64]time.Duration), parks: make(map[int64]int64),
		kv: make(map[kvKey]current), made: make(map[kvKey]bool),
		once: make(map[onceKey]*once), talks: make(map[queue.ID]*talk), holders: make(map[queue.ID]queue.State),
	}
	var puts kvRefs
	deletes := false
	for i := range writes {
		w := &writes[i]
		id := uuid(w.Fenced().ID)
		p.ids = append(p.ids, id)
		if len(w.Events) > 0 {
			p.tails = append(p.tails, id)
		}
		if w.LetGo || (w.Move != nil && w.Move.Releases() && !w.Recorded()) {
			p.releasing = append(p.releasing, id)
		}
		if w.Move != nil && w.Move.To == queue.Pending {
			p.returning = append(p.returning, id)
		}
		if w.Move != nil && w.Move.Park > 0 && !w.Recorded() {
			p.parking = append(p.parking, id)
		}
		for k := range w.KV {
			puts.add(w, &w.KV[k])
			if w.KV[k].Checked {
				p.checked.add(w, &w.KV[k])
			}
			deletes = deletes || w.KV[k].Delete
		}
		p.note(w)
		if n := w.Insert; n != nil {
			key := laneKey{n.Tenant, n.Model}
			p.laneOf[key] = 0
			if w.Recorded() {
				if w.Move.Park > 0 {
					p.joins = append(p.joins, join{lane: key, park: true})
				}
				continue
			}
			p.joins = append(p.joins, join{lane: key, wait: micros(cmp.Or(n.DeadlineIn, queue.Patience)), slot: n.Worker != 0})
			if n.Worker != 0 {
				p.workers, p.tenants = append(p.workers, n.Worker), append(p.tenants, n.Tenant)
			}
		}
	}
	if len(p.checked.ids) > 0 || deletes {
		p.keys = puts
	}
	slices.Sort(p.workers)
	p.workers = slices.Compact(p.workers)
	return p
}

const lockWorkers = `
select id from worker where id = any($1::bigint[]) and not reaped
order by id for key share`

const lockOwners = `
select r.id, r.state, r.attempt, r.lane, coalesce(r.escalated, 0), l.tenant, l.model, coalesce(r.worker, 0), r.realtime, r.store, r.deleted
from request r join lane l on l.id = r.lane
where r.id = any($1::uuid[])
order by r.id for no key update of r`

// selectLastEvents is a statement after the lock, so its snapshot is too.
const selectLastEvents = `
select i, coalesce((select max(seq) from event where request = i and request between $2 and $3), -1)
from unnest($1::uuid[]) i`

// lockLanes locks every lane that the plan may change: those with a cap of which
// it takes or frees slots, those that it parks, and those that what joins them
// finds asleep, or with a head behind it. A lane that is awake is not locked, so
// busy lanes are not serialised.
const lockLanes = `
with j as materialized (
	select lane, bool_or(slot) as slot, bool_or(park) as park, min(ord) as ord from (
		select o.lane, true, false, null::timestamptz
			from request r cross join lateral (values (r.lane), (r.escalated)) as o(lane) where r.id = any($1::uuid[])
		union all select coalesce(escalated, lane), false, true, null from request where id = any($2::uuid[])
		union all select lane, false, false, ord from request where id = any($3::uuid[])
		union all select lane, slot, park, case when not slot and not park then now() + wait * interval '1 microsecond' end
			from unnest($4::bigint[], $5::bigint[], $6::bool[], $7::bool[]) as n(lane, wait, slot, park)
	) as x(lane, slot, park, ord) group by lane)
select l.id, l.cap, l.reserve_queued, l.running, l.realtime, l.ready from j join lane l on l.id = j.lane
where j.park or (j.slot and l.cap is not null)
	or (j.ord is not null and (not l.ready or l.head_deadline is null or l.head_deadline > j.ord))
order by l.id for no key update of l`

// lockFreed is lockLanes for the plans that are most: that only free slots.
const lockFreed = `
select l.id, l.cap, l.reserve_queued, l.running, l.realtime, l.ready from lane l
where l.cap is not null and l.id = any(array(
	select o.lane from request r cross join lateral (values (r.lane), (r.escalated)) as o(lane) where r.id = any($1::uuid[])))
order by l.id for no key update of l`

// lockGates locks the gates of which the plan may take or free slots.
const lockGates = `
select g.tenant, g.cap, g.reserve_queued, g.running, g.realtime,
	g.reserve_queued > 0 and exists (select from lane where tenant = g.tenant and ready)
from tenant_gate g
where exists (select from tenant_gate) and g.tenant = any(array(
	select l.tenant from request r join lane l on l.id = r.lane where r.id = any($1::uuid[])
	union select unnest($2::text[])))
order by g.tenant for no key update of g`

// lock is the first round trip. It returns the transaction's id.
func (p *plan) lock(ctx context.Context, conn *pgxpool.Conn) (xid string, err error) {
	var b pgx.Batch
	ask := func(f func(scan) error, query string, args ...any) {
		b.Queue(query, args...).Query(func(rows pgx.Rows) error { return drain(rows, f) })
	}
	b.Queue("begin")
	ask(func(scan scan) error { return scan(&xid, nil, nil, nil, nil, nil, nil) }, guardWrite, int64(lockCaps))
	if len(p.workers) > 0 {
		ask(p.readWorker, lockWorkers, p.workers)
	}
	if len(p.once) > 0 {
		ask(p.readOnce, lockOnce, p.onceArgs()...)
	}
	if len(p.talks) > 0 {
		ask(p.readTalk, lockTalks, p.talkIDs())
	}
	ask(p.readOwner, lockOwners, p.ids)
	if p.joined {
		ask(p.readHolder, selectHolders, p.talkIDs())
	}
	if len(p.tails) > 0 {
		ask(p.readTail, selectLastEvents, ranged(p.tails)...)
	}
	switch {
	case len(p.joins)+len(p.parking)+len(p.returning) > 0:
		ask(p.readLane, lockLanes, p.laneArgs()...)
	case len(p.releasing) > 0:
		ask(p.readLane, lockFreed, p.releasing)
	}
	if len(p.releasing)+len(p.tenants) > 0 {
		ask(p.readGate, lockGates, p.releasing, p.tenants)
	}
	if lanes := p.realtimeLanes(); len(lanes) > 0 {
		ask(p.readParked, selectParked, lanes)
	}
	if len(p.keys.ids) > 0 {
		ask(p.readMade, lockKV, p.keys.args()...)
		ask(p.readKV, selectKV, p.checked.args()...)
	}
	if err := conn.SendBatch(ctx, &b).Close(); err != nil {
		// Nothing was written, so how it ended does not matter.
		return "", err
	}
	return xid, nil
}

func (p *plan) laneArgs() []any {
	n := len(p.joins)
	lanes, waits, slots, parks := make([]int64, n), make([]int64, n), make([]bool, n), make([]bool, n)
	for i, j := range p.joins {
		lanes[i], waits[i], slots[i], parks[i] = p.laneOf[j.lane], j.wait, j.slot, j.park
	}
	return []any{p.releasing, p.parking, p.returning, lanes, waits, slots, parks}
}

// realtimeLanes returns the lanes that realtime requests ask to join.
func (p *plan) realtimeLanes() (lanes []int64) {
	for _, j := range p.joins {
		if j.slot {
			lanes = append(lanes, p.laneOf[j.lane])
		}
	}
	return lanes
}

func (p *plan) readWorker(scan scan) error {
	var id int64
	err := scan(&id)
	p.alive[id] = true
	return err
}

func (p *plan) readOwner(scan scan) error {
	o := &owner{lastSeq: -1}
	err := scan((*[16]byte)(&o.ID), (*int16)(&o.State), &o.Attempt, &o.lane, &o.escalated, &o.key.tenant, &o.key.model,
		&o.worker, &o.realtime, &o.store, &o.deleted)
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

func (p *plan) readLane(scan scan) error {
	var id int64
	var s slots
	var limit *int
	err := scan(&id, &limit, &s.reserveQueued, &s.running, &s.realtime, &s.ready)
	if limit != nil {
		s.limit = *limit
		p.slots[id] = &s
	}
	return err
}

func (p *plan) readGate(scan scan) error {
	var tenant string
	var s slots
	err := scan(&tenant, &s.limit, &s.reserveQueued, &s.running, &s.realtime, &s.ready)
	p.gates[tenant] = &s
	return err
}

func (p *plan) readParked(scan scan) error {
	var id int64
	var wait time.Duration
	err := scan(&id, &wait)
	p.parked[id] = wait
	return err
}
