package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Conversations is what a database must do for conversations: lists of items
// that responses go on from and are appended to. Every method is bound to one
// tenant; a foreign, deleted or unknown conversation or item is
// queue.ErrNotFound.
type Conversations interface {
	// CreateConversation stores a conversation with its first items.
	CreateConversation(ctx context.Context, c Conversation, items []Item) error

	// Conversation returns one conversation.
	Conversation(ctx context.Context, tenant string, id queue.ID) (Conversation, error)

	// SetMetadata replaces the metadata of a conversation.
	SetMetadata(ctx context.Context, tenant string, id queue.ID, metadata []byte) (Conversation, error)

	// DeleteConversation removes a conversation and its items. Responses that
	// were made from it stay.
	DeleteConversation(ctx context.Context, tenant string, id queue.ID) error

	// AddItems appends items. The error wraps ErrItemExists for an id that is
	// there already.
	AddItems(ctx context.Context, tenant string, id queue.ID, items []Item) error

	// Items returns a page of a conversation's items, and whether there are
	// more.
	Items(ctx context.Context, tenant string, id queue.ID, p Page) (items []Item, more bool, err error)

	// Item returns one item.
	Item(ctx context.Context, tenant string, conversation queue.ID, item string) (Item, error)

	// DeleteItem removes one item and returns the conversation.
	DeleteItem(ctx context.Context, tenant string, conversation queue.ID, item string) (Conversation, error)
}

// Conversation is the head of a conversation.
type Conversation struct {
	ID       queue.ID
	Tenant   string
	Created  time.Time
	Metadata []byte // a JSON object of strings
	// Version counts what was appended or removed. A response that goes on from
	// the conversation names the version that its context was read at.
	Version int64
}

// Item is one item of a conversation.
type Item struct {
	ID   string // unique in its conversation; at most 128 bytes
	Data []byte // the whole item as JSON, its id included
}

// Page is a part of a list. The zero value is the first page of 20, newest
// first.
type Page struct {
	Limit     int    // 0: 20
	After     string // the id of the entry before the page; "": from the first. An unknown one is queue.ErrNotFound
	Ascending bool   // oldest first
}

// Size returns how many entries the page has at most.
func (p Page) Size() int {
	if p.Limit <= 0 {
		return 20
	}
	return p.Limit
}

// ErrItemExists says that a conversation has an item with this id.
var ErrItemExists = errors.New("conversation has this item already")

// ErrConversationBusy says that a response of the conversation has not ended,
// or that the conversation changed since its context was read: then Stale.
var ErrConversationBusy = errors.New("conversation is busy")

// ConversationBusy says why a response may not go on from a conversation now. It
// wraps ErrConversationBusy.
type ConversationBusy struct {
	ID    queue.ID
	Stale bool // read it again, and it may
}

func (e *ConversationBusy) Error() string {
	return fmt.Sprintf("store: conversation %s: stale %t: %s", e.ID, e.Stale, ErrConversationBusy)
}

// Unwrap returns ErrConversationBusy.
func (e *ConversationBusy) Unwrap() error { return ErrConversationBusy }

// Key makes an insert happen once: see Write.Key.
type Key struct {
	Key  string // the client's, 1 to 255 bytes, within the tenant
	Hash []byte // of what it came with
}

// Repeated says that an insert was refused since its key stands for a request
// already. It wraps ErrRepeated.
type Repeated struct {
	ID   queue.ID // the request that the key stands for
	Same bool     // it came with the same body
}

// ErrRepeated says that an idempotency key was used before.
var ErrRepeated = errors.New("idempotency key was used before")

func (e *Repeated) Error() string {
	return fmt.Sprintf("store: request %s, same body %t: %s", e.ID, e.Same, ErrRepeated)
}

// Unwrap returns ErrRepeated.
func (e *Repeated) Unwrap() error { return ErrRepeated }

// Join is the conversation that an inserted response goes on from: until the
// response ends, no other may. Version is the one that its context was read at.
type Join struct {
	Conversation queue.ID
	Version      int64
}

// Append adds to a conversation what a response brought. It is part of the write
// that ends the response; where the conversation is gone it does nothing, and an
// item that is there already is left as it is.
type Append struct {
	Conversation queue.ID
	Items        []Item
}
