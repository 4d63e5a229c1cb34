package postgres

import (
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// decide admits or refuses each write in turn, against the locked rows as the
// writes before it leave them, and collects what is to be written.
func (p *plan) decide(writes []store.Write) []error {
	results := make([]error, len(writes))
	for i := range writes {
		w := &writes[i]
		id := w.Fenced().ID
		if !w.Rowless {
			results[i] = p.admit(w, p.owners[id])
		}
		o := p.owners[id]
		if results[i] == nil && !w.Rowless {
			p.apply(w, o)
		}
		p.rows.addUsage(w, o)
	}
	return results
}

// admit returns why a write is refused. An insert that is not becomes an owner.
func (p *plan) admit(w *store.Write, o *owner) error {
	if w.Insert != nil {
		return p.admitInsert(w, o)
	}
	switch {
	case o == nil:
		return &store.LeaseLost{ID: w.Fence.ID, Gone: true}
	case o.Fence != w.Fence, w.LetGo && o.worker == 0:
		return &store.LeaseLost{ID: o.ID, State: o.State, Attempt: o.Attempt}
	}
	return p.admitRest(w, o)
}

func (p *plan) admitRest(w *store.Write, o *owner) error {
	if err := w.After(o.lastSeq); err != nil {
		return fmt.Errorf("postgres: request %s: %w", o.ID, err)
	}
	return p.admitKV(w, o.ID, o.key.tenant)
}

func (p *plan) admitInsert(w *store.Write, o *owner) error {
	n := w.Insert
	if o != nil {
		p.keep(w)
		return fmt.Errorf("postgres: request %s: %w", n.ID, store.ErrExists)
	}
	if err := p.admitOnce(w); err != nil {
		return err
	}
	if err := p.admitJoin(w); err != nil {
		return err
	}
	key := laneKey{n.Tenant, n.Model}
	o = &owner{Fence: w.Fenced(), lane: p.laneOf[key], key: key, worker: n.Worker, realtime: n.Worker != 0, store: n.Store, lastSeq: -1}
	switch {
	case w.Recorded():
		o.worker, o.recorded = 0, true
	case n.Worker != 0:
		if !p.alive[n.Worker] {
			return &store.LeaseLost{ID: n.ID, Gone: true}
		}
		if err := p.refused(n, o.lane); err != nil {
			return err
		}
	}
	if err := p.admitRest(w, o); err != nil {
		return err
	}
	p.owners[n.ID] = o
	p.take(w)
	return nil
}

func (p *plan) apply(w *store.Write, o *owner) {
	w = w.Lasting()
	if w.Insert != nil {
		p.rows.addInsert(w, o)
		switch {
		case w.Insert.Worker == 0:
			p.queued(o)
		case o.worker != 0:
			p.occupy(o, 1)
		}
	}
	for _, e := range w.Events {
		p.rows.addEvent(o.ID, e)
		o.lastSeq = e.Seq
	}
	p.rows.addSteps(o.ID, w.Steps)
	p.rows.addDecisions(o, w.Decisions)
	p.putKV(o.key.tenant, w.KV)
	p.append(w.Append, o)
	if w.Failures != 0 {
		p.changed(o).failures += w.Failures
	}
	switch {
	case w.LetGo:
		p.changed(o).release = true
		p.release(o)
		p.rows.closed = append(p.rows.closed, uuid(o.ID))
		if o.deleted {
			p.rows.removed = append(p.rows.removed, uuid(o.ID))
		}
	case w.Move != nil:
		p.move(w.Move, o)
	}
}

// changed returns the one change of a row that all writes to it add up to.
func (p *plan) changed(o *owner) *change {
	if o.change == nil {
		o.change = &change{id: uuid(o.ID), attempt: o.Attempt, was: o.State, to: o.State}
		p.rows.changes = append(p.rows.changes, o.change)
	}
	return o.change
}

func (p *plan) release(o *owner) {
	if o.worker != 0 {
		p.occupy(o, -1)
		o.worker, o.escalated = 0, 0
	}
}

// queued notes that a request waits in its lane.
func (p *plan) queued(o *owner) {
	if s := p.slots[o.lane]; s != nil {
		s.ready = true
	}
	if g := p.gates[o.key.tenant]; g != nil {
		g.ready = true
	}
}

// park keeps the lane from being claimed from whose model served the request.
func (p *plan) park(o *owner, d time.Duration) {
	lane := o.lane
	if o.escalated != 0 {
		lane = o.escalated
	}
	p.parks[lane] = max(p.parks[lane], micros(d))
}

func (p *plan) move(m *store.Move, o *owner) {
	c := p.changed(o)
	c.to, c.moved, c.delay = m.To, true, 0
	o.State = m.To
	if m.To == queue.Processing {
		c.started = true
	}
	if m.To == queue.Canceled && o.worker != 0 {
		p.stopped = append(p.stopped, o.worker)
	}
	if m.To == queue.Waiting {
		c.delay = m.Delay
	}
	if m.Park > 0 {
		p.park(o, m.Park)
	}
	if m.Releases() {
		c.release = true
		p.release(o)
	}
	if m.To == queue.Pending {
		p.rows.woken = append(p.rows.woken, c.id)
		p.queued(o)
	}
	if !m.To.Final() {
		return
	}
	c.class, c.code = m.Class, m.Code
	if m.To == queue.Failed && o.store {
		p.rows.closed = append(p.rows.closed, c.id)
	}
	switch {
	case !o.store && o.recorded: // it left nothing
	case !o.store:
		p.rows.forgotten = append(p.rows.forgotten, c.id)
	case m.Result != nil:
		p.rows.addResult(o.ID, m.Result)
	}
}
