package store

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/host/queue"
)

// longestItem is the longest id of an item, in bytes.
const longestItem = 128

// CreateConversation stores a conversation with its first items; see
// Conversations. Created and Version are the database's to set.
func (s *Store) CreateConversation(ctx context.Context, c Conversation, items []Item) error {
	err := names("conversation", c.Tenant)
	if err == nil && (c.ID == (queue.ID{}) || c.Tenant == "") {
		err = fmt.Errorf("no id or tenant: %w", ErrInvalid)
	}
	if err == nil {
		err = checkNew(items)
	}
	if err != nil {
		return fmt.Errorf("store: conversation %s: %w", c.ID, err)
	}
	return s.driver.CreateConversation(ctx, c, items)
}

// Conversation returns one conversation.
func (s *Store) Conversation(ctx context.Context, tenant string, id queue.ID) (Conversation, error) {
	if err := known(id, tenant); err != nil {
		return Conversation{}, err
	}
	return s.driver.Conversation(ctx, tenant, id)
}

// SetMetadata replaces the metadata of a conversation.
func (s *Store) SetMetadata(ctx context.Context, tenant string, id queue.ID, metadata []byte) (Conversation, error) {
	if err := known(id, tenant); err != nil {
		return Conversation{}, err
	}
	return s.driver.SetMetadata(ctx, tenant, id, metadata)
}

// DeleteConversation removes a conversation and its items.
func (s *Store) DeleteConversation(ctx context.Context, tenant string, id queue.ID) error {
	if err := known(id, tenant); err != nil {
		return err
	}
	return s.driver.DeleteConversation(ctx, tenant, id)
}

// AddItems appends items to a conversation.
func (s *Store) AddItems(ctx context.Context, tenant string, id queue.ID, items []Item) error {
	if err := known(id, tenant); err != nil {
		return err
	}
	if err := checkNew(items); err != nil {
		return fmt.Errorf("store: conversation %s: %w", id, err)
	}
	return s.driver.AddItems(ctx, tenant, id, items)
}

// Items returns a page of a conversation's items, and whether there are more.
func (s *Store) Items(ctx context.Context, tenant string, id queue.ID, p Page) (items []Item, more bool, err error) {
	if err := known(id, tenant, p.After); err != nil {
		return nil, false, err
	}
	return s.driver.Items(ctx, tenant, id, p)
}

// Item returns one item of a conversation.
func (s *Store) Item(ctx context.Context, tenant string, conversation queue.ID, item string) (Item, error) {
	if err := known(conversation, tenant, item); err != nil {
		return Item{}, err
	}
	return s.driver.Item(ctx, tenant, conversation, item)
}

// DeleteItem removes one item and returns the conversation.
func (s *Store) DeleteItem(ctx context.Context, tenant string, conversation queue.ID, item string) (Conversation, error) {
	if err := known(conversation, tenant, item); err != nil {
		return Conversation{}, err
	}
	return s.driver.DeleteItem(ctx, tenant, conversation, item)
}

// known refuses what no database can have stored.
func known(id queue.ID, tenant string, items ...string) error {
	ok := tenant != "" && nameable(tenant)
	for _, item := range items {
		ok = ok && nameable(item)
	}
	if !ok {
		return fmt.Errorf("store: conversation %s: %w", id, queue.ErrNotFound)
	}
	return nil
}

// checkNew is checkItems for items none of which may be there already.
func checkNew(items []Item) error {
	if err := checkItems(items); err != nil {
		return err
	}
	seen := make(map[string]bool, len(items))
	for _, it := range items {
		if seen[it.ID] {
			return fmt.Errorf("item %q comes twice: %w", it.ID, ErrItemExists)
		}
		seen[it.ID] = true
	}
	return nil
}

func checkItems(items []Item) error {
	for _, it := range items {
		if it.ID == "" || len(it.ID) > longestItem || len(it.Data) == 0 {
			return fmt.Errorf("item with an id of %d bytes, and %d bytes of data: %w", len(it.ID), len(it.Data), ErrInvalid)
		}
		if err := names("item", it.ID); err != nil {
			return err
		}
	}
	return nil
}
