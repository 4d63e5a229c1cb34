package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const selectKey = `
select request, body_hash from idempotency i
where tenant = ?1 and key = ?2 and created >= ?3
	and not exists (select 1 from request r where r.id = i.request and r.state = 12 and r.code = ?4)`

// admitKey refuses what was inserted with its key before.
func (t *tx) admitKey(n *queue.New, k *store.Key) (refused, err error) {
	if k == nil {
		return nil, nil
	}
	var id idColumn
	var hash []byte
	err = t.one(selectKey, []any{n.Tenant, k.Key, t.now - store.KeepKeys.Milliseconds(), store.Withdrawn}, &id, &hash)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &store.Repeated{ID: queue.ID(id), Same: bytes.Equal(hash, k.Hash)}, err
}

// Keyed returns what an insert with the key would be refused with; nil: it would
// not.
func (d *driver) Keyed(ctx context.Context, tenant string, k store.Key) (before *store.Repeated, err error) {
	err = d.view(ctx, "keyed", func(s *snapshot) error {
		var id idColumn
		var hash []byte
		now, err := s.now()
		if err != nil {
			return err
		}
		err = s.one(selectKey, []any{tenant, k.Key, int64(now) - store.KeepKeys.Milliseconds(), store.Withdrawn}, &id, &hash)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		before = &store.Repeated{ID: queue.ID(id), Same: bytes.Equal(hash, k.Hash)}
		return err
	})
	if err != nil {
		return nil, err
	}
	return before, nil
}

const putKey = `
insert into idempotency (tenant, key, body_hash, request, created) values (?, ?, ?, ?, ?)
on conflict (tenant, key) do update set
	body_hash = excluded.body_hash, request = excluded.request, created = excluded.created`

func (t *tx) putKey(n *queue.New, k *store.Key) error {
	if k == nil {
		return nil
	}
	_, err := t.exec(putKey, n.Tenant, k.Key, k.Hash, n.ID[:], t.now)
	return err
}

// selectJoined asks for a conversation, and whether a response of it goes on.
const selectJoined = `
select c.version, exists (select 1 from request r where r.id = c.holder and r.state < 10)
from conversation c where c.id = ? and c.tenant = ?`

// admitJoin refuses what may not go on from its conversation now.
func (t *tx) admitJoin(n *queue.New, j *store.Join) (refused, err error) {
	if j == nil {
		return nil, nil
	}
	var version int64
	var held bool
	err = t.one(selectJoined, []any{j.Conversation[:], n.Tenant}, &version, &held)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return unknown(j.Conversation), nil
	case err != nil:
		return nil, err
	case held:
		return &store.ConversationBusy{ID: j.Conversation}, nil
	case version != j.Version:
		return &store.ConversationBusy{ID: j.Conversation, Stale: true}, nil
	}
	return nil, nil
}

func unknown(conversation queue.ID) error {
	return fmt.Errorf("sqlite: conversation %s: %w", conversation, queue.ErrNotFound)
}

func (t *tx) hold(id queue.ID, j *store.Join) error {
	if j == nil {
		return nil
	}
	_, err := t.exec(`update conversation set holder = ? where id = ?`, id[:], j.Conversation[:])
	return err
}

// grow makes room for so many items at the end of a conversation and returns the
// seq of the first.
const grow = `update conversation set version = version + ?3 where id = ?1 and tenant = ?2 returning version - ?3 + 1`

const insertItem = `insert into conversation_item (conversation, seq, id, data) values (?, ?, ?, ?)`

// appendItems adds what a response brought. A conversation that is gone, or an
// item that is there, is nothing to it.
func (t *tx) appendItems(tenant string, a *store.Append) error {
	if a == nil || len(a.Items) == 0 {
		return nil
	}
	var seq int64
	err := t.one(grow, []any{a.Conversation[:], tenant, len(a.Items)}, &seq)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, it := range a.Items {
		if _, err := t.exec(insertItem+` on conflict (conversation, id) do nothing`, a.Conversation[:], seq+int64(i), it.ID, it.Data); err != nil {
			return err
		}
	}
	return nil
}
