package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	sqlite3 "modernc.org/sqlite/lib"

	"modernc.org/sqlite"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const insertConversation = `
insert into conversation (id, tenant, created, metadata, version) values (?, ?, ?, ?, ?)
on conflict (id) do nothing`

// CreateConversation stores a conversation with its first items.
func (d *driver) CreateConversation(ctx context.Context, c store.Conversation, items []store.Item) error {
	return d.update(ctx, "create conversation", func(t *tx) error {
		n, err := t.exec(insertConversation, c.ID[:], c.Tenant, t.now, blob(c.Metadata), len(items))
		if err == nil && n == 0 {
			err = fmt.Errorf("conversation %s: %w", c.ID, store.ErrExists)
		}
		if err != nil {
			return err
		}
		return t.addItems(c.ID, 1, items)
	})
}

// addItems adds items from a seq on, none of which may be there.
func (t *tx) addItems(id queue.ID, seq int64, items []store.Item) error {
	for i, it := range items {
		if _, err := t.exec(insertItem, id[:], seq+int64(i), it.ID, it.Data); err != nil {
			return exists(id, it.ID, err)
		}
	}
	return nil
}

func exists(id queue.ID, item string, err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) && e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE {
		return fmt.Errorf("conversation %s: item %q: %w", id, item, store.ErrItemExists)
	}
	return err
}

const selectConversation = `select created, metadata, version from conversation where id = ? and tenant = ?`

func conversation(q reader, tenant string, id queue.ID) (store.Conversation, error) {
	c := store.Conversation{ID: id, Tenant: tenant}
	var created sql.NullInt64
	err := q.one(selectConversation, []any{id[:], tenant}, &created, &c.Metadata, &c.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Conversation{}, fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
	}
	c.Created = at(created)
	return c, err
}

// Conversation returns one conversation.
func (d *driver) Conversation(ctx context.Context, tenant string, id queue.ID) (c store.Conversation, err error) {
	err = d.view(ctx, "conversation", func(s *snapshot) (err error) {
		c, err = conversation(s, tenant, id)
		return err
	})
	return c, err
}

// SetMetadata replaces the metadata of a conversation.
func (d *driver) SetMetadata(ctx context.Context, tenant string, id queue.ID, metadata []byte) (c store.Conversation, err error) {
	err = d.update(ctx, "set metadata", func(t *tx) (err error) {
		if _, err := t.exec(`update conversation set metadata = ? where id = ? and tenant = ?`, blob(metadata), id[:], tenant); err != nil {
			return err
		}
		c, err = conversation(t, tenant, id)
		return err
	})
	return c, err
}

// DeleteConversation removes a conversation and its items.
func (d *driver) DeleteConversation(ctx context.Context, tenant string, id queue.ID) error {
	return d.update(ctx, "delete conversation", func(t *tx) error {
		n, err := t.exec(`delete from conversation where id = ? and tenant = ?`, id[:], tenant)
		if err == nil && n == 0 {
			err = fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
		}
		if err != nil {
			return err
		}
		_, err = t.exec(`delete from conversation_item where conversation = ?`, id[:])
		return err
	})
}

// AddItems appends items to a conversation.
func (d *driver) AddItems(ctx context.Context, tenant string, id queue.ID, items []store.Item) error {
	return d.update(ctx, "add items", func(t *tx) error {
		var seq int64
		err := t.one(grow, []any{id[:], tenant, len(items)}, &seq)
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
		}
		if err != nil {
			return err
		}
		return t.addItems(id, seq, items)
	})
}

const (
	selectItem = `
select i.seq, i.data from conversation_item i join conversation c on c.id = i.conversation
where i.conversation = ? and i.id = ? and c.tenant = ?`

	selectNewest = `
select id, data from conversation_item where conversation = ? and seq < ? order by seq desc limit ?`

	selectOldest = `
select id, data from conversation_item where conversation = ? and seq > ? order by seq limit ?`
)

// item returns an item and where in its conversation it is.
func item(q reader, tenant string, id queue.ID, name string) (it store.Item, seq int64, err error) {
	it.ID = name
	err = q.one(selectItem, []any{id[:], name, tenant}, &seq, &it.Data)
	if errors.Is(err, sql.ErrNoRows) {
		return store.Item{}, 0, fmt.Errorf("conversation %s: item %q: %w", id, name, queue.ErrNotFound)
	}
	return it, seq, err
}

// Items returns a page of a conversation's items.
func (d *driver) Items(ctx context.Context, tenant string, id queue.ID, p store.Page) (items []store.Item, more bool, err error) {
	err = d.view(ctx, "items", func(s *snapshot) error {
		if _, err := conversation(s, tenant, id); err != nil {
			return err
		}
		query, from := selectNewest, int64(math.MaxInt64)
		if p.Ascending {
			query, from = selectOldest, 0
		}
		if p.After != "" {
			_, seq, err := item(s, tenant, id, p.After)
			if err != nil {
				return err
			}
			from = seq
		}
		return s.each(query, []any{id[:], from, p.Size() + 1}, func(scan scan) error {
			var it store.Item
			err := scan(&it.ID, &it.Data)
			items = append(items, it)
			return err
		})
	})
	if err != nil {
		return nil, false, err
	}
	if len(items) > p.Size() {
		return items[:p.Size()], true, nil
	}
	return items, false, nil
}

// Item returns one item of a conversation.
func (d *driver) Item(ctx context.Context, tenant string, conversation queue.ID, name string) (it store.Item, err error) {
	err = d.view(ctx, "item", func(s *snapshot) (err error) {
		it, _, err = item(s, tenant, conversation, name)
		return err
	})
	return it, err
}

// DeleteItem removes one item and returns the conversation.
func (d *driver) DeleteItem(ctx context.Context, tenant string, id queue.ID, name string) (c store.Conversation, err error) {
	err = d.update(ctx, "delete item", func(t *tx) error {
		_, seq, err := item(t, tenant, id, name)
		if err != nil {
			return err
		}
		if _, err := t.exec(`delete from conversation_item where conversation = ? and seq = ?`, id[:], seq); err != nil {
			return err
		}
		if _, err := t.exec(`update conversation set version = version + 1 where id = ?`, id[:]); err != nil {
			return err
		}
		c, err = conversation(t, tenant, id)
		return err
	})
	return c, err
}
