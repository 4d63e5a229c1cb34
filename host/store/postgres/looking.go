package postgres

import (
	"context"
	"errors"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// errLooking is the answer to a write where none may be.
var errLooking = errors.New("postgres: the database was opened to read only")

// looking is a driver that writes nothing. A pooler gives a session to many, so
// the server cannot be told that this one is read-only.
type looking struct{ *driver }

func (looking) Write(context.Context, []store.Write) ([]error, error) { return nil, errLooking }

func (looking) Claim(context.Context, store.ClaimRequest) ([]queue.Claim, error) {
	return nil, errLooking
}

func (looking) Heartbeat(context.Context, store.Beat) (store.Pulse, error) {
	return store.Pulse{}, errLooking
}

func (looking) Sweep(context.Context, store.SweepRequest) (store.Swept, error) {
	return store.Swept{}, errLooking
}

func (looking) Cancel(context.Context, string, queue.ID, string) (store.Record, bool, error) {
	return store.Record{}, false, errLooking
}

func (looking) Delete(context.Context, string, queue.ID) error { return errLooking }

func (looking) SetLimits(context.Context, store.Limits) error { return errLooking }

func (looking) CreateConversation(context.Context, store.Conversation, []store.Item) error {
	return errLooking
}

func (looking) SetMetadata(context.Context, string, queue.ID, []byte) (store.Conversation, error) {
	return store.Conversation{}, errLooking
}

func (looking) DeleteConversation(context.Context, string, queue.ID) error { return errLooking }

func (looking) AddItems(context.Context, string, queue.ID, []store.Item) error { return errLooking }

func (looking) DeleteItem(context.Context, string, queue.ID, string) (store.Conversation, error) {
	return store.Conversation{}, errLooking
}
