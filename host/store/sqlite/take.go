package sqlite

import (
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// look says what a claim takes from a lane.
type look struct {
	n    int   // at most
	due  int64 // only what is due before; 0: any
	only bool  // only what another model serves
}

// candidate is a request that a claim may take.
type candidate struct {
	id       queue.ID
	deadline sql.NullInt64
}

// takeRows leaves those past their deadline to the sweep.
const takeRows = `
select id, deadline from request
where lane = ?1 and state = 0 and ord >= ?2 and ord < ?3 and (deadline is null or deadline > ?4)
order by ord, id
limit ?5`

// takeNear finds those whose deadline is near.
const takeNear = `
select id, deadline from request indexed by request_near
where lane = ?1 and state = 0 and deadline > ?2 and deadline < ?3
order by deadline, id
limit ?4`

func (c *claiming) candidates(r *room, l look) (all []candidate, err error) {
	query, args := takeRows, []any{r.id, r.head, int64(math.MaxInt64), c.now, l.n}
	if l.due != 0 {
		args[2] = l.due
	}
	if l.only {
		query, args = takeNear, []any{r.id, c.now, l.due, l.n}
	}
	err = c.each(query, args, func(scan scan) error {
		var k candidate
		err := scan((*idColumn)(&k.id), &k.deadline)
		all = append(all, k)
		return err
	})
	return all, err
}

// take claims from one lane, within the lane's cap and its tenant's gate, and
// charges the lanes. It returns how many it took; a lane from which it could
// take nothing stops to compete, unless it only looked for some.
func (c *claiming) take(r *room, l look) (int, error) {
	gate, err := c.gate(r.tenant)
	if err != nil {
		return 0, err
	}
	if gate.queued() == 0 {
		_, err := c.exec(`update lane set gated = 1, parked = 1 where id = ?`, r.id)
		return 0, err
	}
	l.n = min(l.n, gate.queued(), r.queued())
	other, err := c.other(r)
	if err != nil {
		return 0, err
	}
	candidates, err := c.candidates(r, l)
	if err != nil {
		return 0, err
	}
	within := c.Escalate[r.model].Within.Milliseconds()
	took := charges{}
	for _, k := range candidates {
		near := k.deadline.Valid && k.deadline.Int64-c.now < within
		var by *room
		if near && other.open() {
			by = &other.room
		}
		if by == nil && l.only {
			continue
		}
		claim, err := c.claimRow(k, r, by)
		if err != nil {
			return 0, err
		}
		c.claims = append(c.claims, claim)
		r.take(claim.Realtime)
		gate.take(claim.Realtime)
		took.add(claim.Realtime)
		if by != nil {
			by.take(claim.Realtime)
			other.took.add(claim.Realtime)
		}
	}
	if l.only && took.n == 0 {
		return 0, nil
	}
	if err := c.charge(r, &gate, took); err != nil {
		return 0, err
	}
	return took.n, c.chargeOther(&other)
}

// charges are what was taken from a lane.
type charges struct{ n, realtime int }

func (c *charges) add(realtime bool) {
	c.n++
	if realtime {
		c.realtime++
	}
}

const chargeLane = `
update lane set
	vtime = vtime + ?2 / weight,
	running = iif(cap is null, 0, running + ?2), realtime = iif(cap is null, 0, realtime + ?3),
	head_deadline = ?4, ready = (?4 is not null), gated = ?5, parked = ?6
where id = ?1`

const chargeGate = `
update tenant_gate set running = running + ?2, realtime = realtime + ?3
where tenant = ?1`

func (c *claiming) charge(r *room, gate *slots, took charges) error {
	head, err := c.head(r.id, r.head)
	if err != nil {
		return err
	}
	gated := head.Valid && gate.queued() == 0
	_, err = c.exec(chargeLane, r.id, float64(took.n), took.realtime, head, gated, gated || r.queued() == 0)
	if err != nil || !gate.limit.Valid {
		return err
	}
	_, err = c.exec(chargeGate, r.tenant, took.n, took.realtime)
	return err
}

// other is the lane of the model that serves requests whose deadline is near.
type other struct {
	room
	parked bool
	took   charges
}

func (o *other) open() bool { return o.model != "" && !o.parked && o.queued() > 0 }

const selectOther = `
select running, realtime, cap, reserve_realtime, gated or coalesce(parked_until > ?2, 0)
from lane where id = ?1`

func (c *claiming) other(r *room) (o other, err error) {
	e, ok := c.Escalate[r.model]
	if !ok || r.head-c.now >= e.Within.Milliseconds() && r.head > c.now {
		return o, nil // nothing in the lane is due so soon
	}
	o.tenant, o.model = r.tenant, e.To
	if o.id, err = c.lane(r.tenant, e.To); err != nil {
		return o, err
	}
	err = c.one(selectOther, []any{o.id, c.now}, &o.running, &o.realtime, &o.limit, &o.reserve, &o.parked)
	return o, err
}

// chargeIdle lets a lane that does not compete itself pay as if it had begun to.
const chargeIdle = `
update lane set
	vtime = ?2 / weight + iif(ready = 1 and parked = 0, vtime, max(vtime, coalesce(
		(select min(c.vtime) from lane c indexed by lane_fair where c.model = lane.model and c.ready = 1 and c.parked = 0), vtime))),
	running = iif(cap is null, 0, running + ?2), realtime = iif(cap is null, 0, realtime + ?3)
where id = ?1`

func (c *claiming) chargeOther(o *other) error {
	if o.took.n == 0 {
		return nil
	}
	if _, err := c.exec(chargeIdle, o.id, float64(o.took.n), o.took.realtime); err != nil {
		return err
	}
	return c.repark(o.id)
}

const claimRequest = `
update request set state = iif(?4, 2, 1), started = iif(?4, coalesce(started, ?5), started),
	attempt = attempt + 1, worker = ?2, escalated = ?3, not_before = null
where id = ?1 and state = 0
returning path, tier, stream, background, store, realtime, attempt, state, failures, reaps, created,
	(select data from body where request = ?1), secret`

// claimRow claims one request, for the model of another lane unless by is nil.
func (c *claiming) claimRow(k candidate, r, by *room) (queue.Claim, error) {
	claim := queue.Claim{ID: k.id, Tenant: r.tenant, Model: r.model}
	var escalated any
	if by != nil {
		claim.Escalated, escalated = by.model, by.id
	}
	var created sql.NullInt64
	err := c.one(claimRequest, []any{k.id[:], c.Worker, escalated, c.Start, c.now}, &claim.Path, &claim.Tier, &claim.Stream, &claim.Background,
		&claim.Store, &claim.Realtime, &claim.Attempt, &claim.State, &claim.Failures, &claim.Reaps, &created, &claim.Body, &claim.Secret)
	if err != nil {
		return claim, err
	}
	claim.Created = at(created)
	claim.Age = time.Duration(c.now-created.Int64) * time.Millisecond
	if k.deadline.Valid {
		claim.Remaining = time.Duration(k.deadline.Int64-c.now) * time.Millisecond
	}
	return claim, nil
}

// idColumn scans an id.
type idColumn queue.ID

// Scan copies a blob of 16 bytes.
func (id *idColumn) Scan(v any) error {
	b, ok := v.([]byte)
	if !ok || len(b) != len(id) {
		return fmt.Errorf("id of %T is not 16 bytes", v)
	}
	copy(id[:], b)
	return nil
}
