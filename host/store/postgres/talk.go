package postgres

import (
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// talk is a conversation, locked, as it stands after the writes of the plan that
// came before.
type talk struct {
	tenant  string
	version int64
	holder  queue.ID
	changed bool
}

const lockTalks = `
select id, tenant, version, holder from conversation
where id = any($1::uuid[])
order by id for no key update`

// selectHolders is a statement after the locks: who ended a response that held a
// conversation, and appended to it, did so before.
const selectHolders = `
select r.id, r.state from conversation c join request r on r.id = c.holder
where c.id = any($1::uuid[])`

func (p *plan) talkIDs() (ids []pgtype.UUID) {
	for id := range p.talks {
		ids = append(ids, uuid(id))
	}
	return ids
}

func (p *plan) readTalk(scan scan) error {
	var id [16]byte
	var holder pgtype.UUID
	var t talk
	err := scan(&id, &t.tenant, &t.version, &holder)
	t.holder = holder.Bytes
	p.talks[id] = &t
	return err
}

func (p *plan) readHolder(scan scan) error {
	var id [16]byte
	var state int16
	err := scan(&id, &state)
	p.holders[id] = queue.State(state)
	return err
}

// held reports whether a response that goes on from the conversation has not
// ended.
func (p *plan) held(t *talk) bool {
	if o := p.owners[t.holder]; o != nil {
		return !o.State.Final()
	}
	state, ok := p.holders[t.holder]
	return ok && !state.Final()
}

// admitJoin returns why an insert may not go on from its conversation now.
func (p *plan) admitJoin(w *store.Write) error {
	j := w.Join
	if j == nil {
		return nil
	}
	switch t := p.talks[j.Conversation]; {
	case t == nil || t.tenant != w.Insert.Tenant:
		return fmt.Errorf("postgres: conversation %s: %w", j.Conversation, queue.ErrNotFound)
	case p.held(t):
		return &store.ConversationBusy{ID: j.Conversation}
	case t.version != j.Version:
		return &store.ConversationBusy{ID: j.Conversation, Stale: true}
	}
	return nil
}

// append adds what a response brought to its conversation, if that is there.
func (p *plan) append(a *store.Append, o *owner) {
	if a == nil || len(a.Items) == 0 {
		return
	}
	t := p.talks[a.Conversation]
	if t == nil || t.tenant != o.key.tenant {
		return
	}
	c := &p.rows.items
	for _, it := range a.Items {
		t.version++
		c.conversations, c.seqs = append(c.conversations, uuid(a.Conversation)), append(c.seqs, t.version)
		c.ids, c.data = append(c.ids, it.ID), append(c.data, it.Data)
	}
	t.changed = true
}

type itemColumns struct {
	conversations []pgtype.UUID
	seqs          []int64
	ids           []string
	data          [][]byte
}

const changeTalks = `
update conversation c set version = x.version, holder = x.holder
from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as x(id, version, holder)
where c.id = x.id`

const appendItems = `
insert into conversation_item (conversation, seq, id, data)
select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::bytea[])
on conflict (conversation, id) do nothing`

// queueTalks queues the changes of conversations, all of them locked already.
func (p *plan) queueTalks(b *pgx.Batch) {
	var ids, holders []pgtype.UUID
	var versions []int64
	for id, t := range p.talks {
		if t != nil && t.changed {
			ids = append(ids, uuid(id))
			versions = append(versions, t.version)
			holders = append(holders, pgtype.UUID{Bytes: t.holder, Valid: t.holder != queue.ID{}})
		}
	}
	if len(ids) > 0 {
		b.Queue(changeTalks, ids, versions, holders)
	}
	if c := &p.rows.items; len(c.ids) > 0 {
		b.Queue(appendItems, c.conversations, c.seqs, c.ids, c.data)
	}
}
