package postgres

import (
	"context"
	"errors"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var errUnbuilt = errors.New("conversations are not built yet")

func (d *driver) CreateConversation(ctx context.Context, c store.Conversation, items []store.Item) error {
	return errUnbuilt
}

func (d *driver) Conversation(ctx context.Context, tenant string, id queue.ID) (store.Conversation, error) {
	return store.Conversation{}, errUnbuilt
}

func (d *driver) SetMetadata(ctx context.Context, tenant string, id queue.ID, metadata []byte) (store.Conversation, error) {
	return store.Conversation{}, errUnbuilt
}

func (d *driver) DeleteConversation(ctx context.Context, tenant string, id queue.ID) error {
	return errUnbuilt
}

func (d *driver) AddItems(ctx context.Context, tenant string, id queue.ID, items []store.Item) error {
	return errUnbuilt
}

func (d *driver) Items(ctx context.Context, tenant string, id queue.ID, p store.Page) (items []store.Item, more bool, err error) {
	return nil, false, errUnbuilt
}

func (d *driver) Item(ctx context.Context, tenant string, conversation queue.ID, item string) (store.Item, error) {
	return store.Item{}, errUnbuilt
}

func (d *driver) DeleteItem(ctx context.Context, tenant string, conversation queue.ID, item string) (store.Conversation, error) {
	return store.Conversation{}, errUnbuilt
}
