package postgres

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

const insertConversation = `
with c as (
	insert into conversation (id, tenant, metadata, version) values ($1, $2, $3, cardinality($4::text[]))
	returning id)
insert into conversation_item (conversation, seq, id, data)
select c.id, x.seq, x.id, x.data
from c cross join unnest($4::text[], $5::bytea[]) with ordinality as x(id, data, seq)`

// CreateConversation stores a conversation with its first items.
func (d *driver) CreateConversation(ctx context.Context, c store.Conversation, items []store.Item) error {
	ids, data := columns(items)
	return d.call(ctx, "create conversation", func(ctx context.Context) error {
		_, err := d.pool.Exec(ctx, insertConversation, uuid(c.ID), c.Tenant, blob(c.Metadata), ids, data)
		if violates(err, "conversation_pkey") {
			return fmt.Errorf("conversation %s: %w", c.ID, store.ErrExists)
		}
		return exists(c.ID, err)
	})
}

func columns(items []store.Item) (ids []string, data [][]byte) {
	ids, data = make([]string, len(items)), make([][]byte, len(items))
	for i, it := range items {
		ids[i], data[i] = it.ID, it.Data
	}
	return ids, data
}

// violates reports whether a row was refused by a unique index.
func violates(err error, index string) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == "23505" && answer.ConstraintName == index
}

func exists(id queue.ID, err error) error {
	if violates(err, "conversation_item_conversation_id_key") {
		return fmt.Errorf("conversation %s: %w", id, store.ErrItemExists)
	}
	return err
}

const selectConversation = `select created, metadata, version from conversation where id = $1 and tenant = $2`

func scanConversation(row pgx.Row, tenant string, id queue.ID) (store.Conversation, error) {
	c := store.Conversation{ID: id, Tenant: tenant}
	err := row.Scan(&c.Created, &c.Metadata, &c.Version)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Conversation{}, fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
	}
	c.Created = c.Created.UTC()
	return c, err
}

// Conversation returns one conversation.
func (d *driver) Conversation(ctx context.Context, tenant string, id queue.ID) (c store.Conversation, err error) {
	err = d.call(ctx, "conversation", func(ctx context.Context) (err error) {
		c, err = scanConversation(d.pool.QueryRow(ctx, selectConversation, uuid(id), tenant), tenant, id)
		return err
	})
	return c, err
}

const setMetadata = `
update conversation set metadata = $3 where id = $1 and tenant = $2
returning created, metadata, version`

// SetMetadata replaces the metadata of a conversation.
func (d *driver) SetMetadata(ctx context.Context, tenant string, id queue.ID, metadata []byte) (c store.Conversation, err error) {
	err = d.call(ctx, "set metadata", func(ctx context.Context) (err error) {
		c, err = scanConversation(d.pool.QueryRow(ctx, setMetadata, uuid(id), tenant, blob(metadata)), tenant, id)
		return err
	})
	return c, err
}

// DeleteConversation removes a conversation and its items. These go by a
// statement after the lock, which sees all that were added before.
func (d *driver) DeleteConversation(ctx context.Context, tenant string, id queue.ID) error {
	return d.call(ctx, "delete conversation", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
			tag, err := t.Exec(ctx, `delete from conversation where id = $1 and tenant = $2`, uuid(id), tenant)
			if err == nil && tag.RowsAffected() == 0 {
				err = fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
			}
			if err != nil {
				return err
			}
			_, err = t.Exec(ctx, `delete from conversation_item where conversation = $1`, uuid(id))
			return err
		})
	})
}

// addItems counts conversations that took them.
const addItems = `
with c as (
	update conversation set version = version + cardinality($3::text[]) where id = $1 and tenant = $2
	returning id, version - cardinality($3::text[]) as before),
i as (
	insert into conversation_item (conversation, seq, id, data)
	select c.id, c.before + x.seq, x.id, x.data
	from c cross join unnest($3::text[], $4::bytea[]) with ordinality as x(id, data, seq))
select count(*) from c`

// AddItems appends items to a conversation.
func (d *driver) AddItems(ctx context.Context, tenant string, id queue.ID, items []store.Item) error {
	ids, data := columns(items)
	return d.call(ctx, "add items", func(ctx context.Context) error {
		var n int
		err := d.pool.QueryRow(ctx, addItems, uuid(id), tenant, ids, data).Scan(&n)
		if err == nil && n == 0 {
			err = fmt.Errorf("conversation %s: %w", id, queue.ErrNotFound)
		}
		return exists(id, err)
	})
}

const (
	selectItem = `
select i.seq, i.data from conversation_item i join conversation c on c.id = i.conversation
where i.conversation = $1 and i.id = $2 and c.tenant = $3`

	selectNewest = `
select id, data from conversation_item where conversation = $1 and seq < $2 order by seq desc limit $3`

	selectOldest = `
select id, data from conversation_item where conversation = $1 and seq > $2 order by seq limit $3`
)

// item returns an item and where in its conversation it is.
func item(row pgx.Row, id queue.ID, name string) (it store.Item, seq int64, err error) {
	it.ID = name
	err = row.Scan(&seq, &it.Data)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.Item{}, 0, fmt.Errorf("conversation %s: item %q: %w", id, name, queue.ErrNotFound)
	}
	return it, seq, err
}

// Items returns a page of a conversation's items. Where the page begins is read
// first: an item's place never changes.
func (d *driver) Items(ctx context.Context, tenant string, id queue.ID, p store.Page) (items []store.Item, more bool, err error) {
	query, from := selectNewest, int64(math.MaxInt64)
	if p.Ascending {
		query, from = selectOldest, 0
	}
	err = d.call(ctx, "items", func(ctx context.Context) error {
		var err error
		if p.After == "" {
			_, err = scanConversation(d.pool.QueryRow(ctx, selectConversation, uuid(id), tenant), tenant, id)
		} else {
			_, from, err = item(d.pool.QueryRow(ctx, selectItem, uuid(id), p.After, tenant), id, p.After)
		}
		if err != nil {
			return err
		}
		rows, err := d.pool.Query(ctx, query, uuid(id), from, p.Size()+1)
		if err != nil {
			return err
		}
		return drain(rows, func(scan scan) error {
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
	err = d.call(ctx, "item", func(ctx context.Context) (err error) {
		it, _, err = item(d.pool.QueryRow(ctx, selectItem, uuid(conversation), name, tenant), conversation, name)
		return err
	})
	return it, err
}

const (
	growConversation = `
update conversation set version = version + 1 where id = $1 and tenant = $2
returning created, metadata, version`
	removeItem = `delete from conversation_item where conversation = $1 and id = $2`
)

// DeleteItem removes one item and returns the conversation. It locks the
// conversation first, as all do who change its items.
func (d *driver) DeleteItem(ctx context.Context, tenant string, id queue.ID, name string) (c store.Conversation, err error) {
	err = d.call(ctx, "delete item", func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, d.pool, func(t pgx.Tx) error {
			var err error
			if c, err = scanConversation(t.QueryRow(ctx, growConversation, uuid(id), tenant), tenant, id); err != nil {
				return err
			}
			tag, err := t.Exec(ctx, removeItem, uuid(id), name)
			if err == nil && tag.RowsAffected() == 0 {
				err = fmt.Errorf("conversation %s: item %q: %w", id, name, queue.ErrNotFound)
			}
			return err
		})
	})
	if err != nil {
		return store.Conversation{}, err
	}
	return c, nil
}
