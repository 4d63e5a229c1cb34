package store

import (
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/queue"
)

// Longest of what the keys of rows are made of, in bytes.
const (
	longestKey  = 255
	longestHash = 64
)

// Withdrawn is the code of a canceled request whose insert was answered with an
// error: nobody was told of it, so its idempotency key is free.
const Withdrawn = "withdrawn"

// Recorded reports whether the write inserts a request that has ended already.
// It never held a slot, so no cap refuses it, and its worker may be gone.
func (w *Write) Recorded() bool { return w.Insert != nil && w.Move != nil && w.Move.To.Final() }

// Lasting returns what a recorded write leaves: without its Store only how the
// request ended, what it used and how it was decided.
func (w *Write) Lasting() *Write {
	if !w.Recorded() || w.Insert.Store {
		return w
	}
	left := *w
	left.Steps, left.Events = nil, nil
	left.Decisions = slices.Clone(w.Decisions)
	for i := range left.Decisions {
		left.Decisions[i].Question = []byte("{}")
	}
	return &left
}

// checkOnce holds the rules of what makes an insert happen once, and of what an
// insert says of one that is over.
func (w *Write) checkOnce(queue.Fence) error {
	switch k := w.Key; {
	case w.Rowless && !w.onlyUsage():
		return fmt.Errorf("no row, and more than usage: %w", ErrInvalid)
	case w.Took < 0 || (w.Took > 0 && !w.Recorded()):
		return fmt.Errorf("took %s and has not ended: %w", w.Took, ErrInvalid)
	case w.Recorded() && (w.Insert.Worker == 0 || w.Key != nil || w.Join != nil):
		return fmt.Errorf("ended before its insert, and ran nowhere, or has a key or a conversation: %w", ErrInvalid)
	case k == nil:
		return nil
	case w.Insert == nil:
		return fmt.Errorf("idempotency key without an insert: %w", ErrInvalid)
	case k.Key == "" || len(k.Key) > longestKey:
		return fmt.Errorf("idempotency key of %d bytes: %w", len(k.Key), ErrInvalid)
	case len(k.Hash) == 0 || len(k.Hash) > longestHash:
		return fmt.Errorf("idempotency key with a hash of %d bytes: %w", len(k.Hash), ErrInvalid)
	default:
		return names("idempotency", k.Key)
	}
}

// onlyUsage reports whether the write holds nothing but what was used.
func (w *Write) onlyUsage() bool {
	return w.Insert == nil && w.Move == nil && w.Key == nil && w.Join == nil && w.Append == nil && !w.LetGo &&
		len(w.Steps)+len(w.Events)+len(w.Decisions)+len(w.KV)+w.Failures == 0
}

// checkTalk holds the rules of what a write does to a conversation.
func (w *Write) checkTalk(queue.Fence) error {
	if j := w.Join; j != nil {
		if w.Insert == nil || j.Conversation == (queue.ID{}) || j.Version < 0 {
			return fmt.Errorf("joins conversation %s at version %d: %w", j.Conversation, j.Version, ErrInvalid)
		}
	}
	a := w.Append
	if a == nil {
		return nil
	}
	if w.Move == nil || !w.Move.To.Final() || a.Conversation == (queue.ID{}) {
		return fmt.Errorf("appends to conversation %s and does not end: %w", a.Conversation, ErrInvalid)
	}
	return checkItems(a.Items)
}
