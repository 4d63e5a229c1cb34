package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// owner is what a write is fenced by.
type owner struct {
	queue.Fence
	seat
	worker  sql.NullInt64
	store   bool
	deleted bool
	// recorded: it is being inserted, and over.
	recorded bool
	tenant   string
}

const selectOwner = `
select r.state, r.attempt, r.lane, r.escalated, r.realtime, r.worker, r.store, r.deleted, l.tenant
from request r join lane l on l.id = r.lane
where r.id = ?`

func (t *tx) owner(id queue.ID) (o owner, found bool, err error) {
	o.ID = id
	err = t.one(selectOwner, []any{id[:]}, &o.State, &o.Attempt, &o.lane, &o.escalated, &o.realtime, &o.worker, &o.store, &o.deleted, &o.tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	return o, err == nil, err
}

// admit asks all that can refuse a write: the fence, or for an insert its id,
// worker and lane, then the order of its events and what its puts were
// computed from.
func (t *tx) admit(w *store.Write) (o owner, refused, err error) {
	o, found, err := t.owner(w.Fenced().ID)
	if err != nil {
		return o, nil, err
	}
	switch {
	case w.Insert != nil && found:
		return o, fmt.Errorf("sqlite: request %s: %w", o.ID, store.ErrExists), nil
	case w.Insert != nil:
		if o, refused, err = t.admitInsert(w); refused != nil || err != nil {
			return o, refused, err
		}
	case !found:
		return o, &store.LeaseLost{ID: o.ID, Gone: true}, nil
	case o.Fence != w.Fence, w.LetGo && !o.worker.Valid:
		return o, &store.LeaseLost{ID: o.ID, State: o.State, Attempt: o.Attempt}, nil
	}
	if refused, err = t.admitEvents(w, o); refused == nil && err == nil {
		refused, err = t.admitKV(w, o)
	}
	return o, refused, err
}

func (t *tx) admitEvents(w *store.Write, o owner) (refused, err error) {
	if len(w.Events) == 0 {
		return nil, nil
	}
	var last int64
	if err := t.one(`select coalesce(max(seq), -1) from event where request = ?`, []any{o.ID[:]}, &last); err != nil {
		return nil, err
	}
	if err := w.After(last); err != nil {
		return fmt.Errorf("sqlite: request %s: %w", o.ID, err), nil
	}
	return nil, nil
}

func (t *tx) admitInsert(w *store.Write) (o owner, refused, err error) {
	n := w.Insert
	o = owner{Fence: w.Fenced(), store: n.Store, tenant: n.Tenant}
	o.realtime, o.recorded = n.Worker != 0, w.Recorded()
	if refused, err = t.admitKey(n, w.Key); refused != nil || err != nil {
		return o, refused, err
	}
	if refused, err = t.admitJoin(n, w.Join); refused != nil || err != nil {
		return o, refused, err
	}
	if o.lane, err = t.lane(n.Tenant, n.Model); err != nil || n.Worker == 0 || o.recorded {
		return o, nil, err
	}
	o.worker = sql.NullInt64{Int64: n.Worker, Valid: true}
	alive, err := t.alive(n.Worker)
	if err != nil {
		return o, nil, err
	}
	if !alive {
		return o, &store.LeaseLost{ID: n.ID, Gone: true}, nil
	}
	refused, err = t.admitRealtime(n, o.lane)
	return o, refused, err
}

// A lane, or a gate, refuses a realtime request at its cap, and while something
// queued waits for it also where only what is reserved for queued ones is left.
const (
	selectLaneRoom = `
select coalesce(running >= cap or (ready = 1 and realtime >= cap - reserve_queued), 0), max(0, coalesce(parked_until, 0) - ?2)
from lane where id = ?1`

	selectGateRoom = `
select running >= cap or (realtime >= cap - reserve_queued and exists (select 1 from lane where tenant = ?1 and ready = 1))
from tenant_gate where tenant = ?1`
)

func (t *tx) admitRealtime(n *queue.New, lane int64) (refused, err error) {
	var full bool
	var parked int64
	if err := t.one(selectLaneRoom, []any{lane, t.now}, &full, &parked); err != nil {
		return nil, err
	}
	if full || parked > 0 {
		return &store.AtCap{Tenant: n.Tenant, Model: n.Model, Wait: time.Duration(parked) * time.Millisecond}, nil
	}
	gates, err := t.hasGates()
	if err != nil || !gates {
		return nil, err
	}
	err = t.one(selectGateRoom, []any{n.Tenant}, &full)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if full {
		refused = &store.AtCap{Tenant: n.Tenant, Model: n.Model, Gate: true}
	}
	return refused, err
}
