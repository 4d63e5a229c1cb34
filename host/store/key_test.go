package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

func TestRulesOfKeysAndConversations(t *testing.T) {
	plain := func(*queue.New) {}
	keyed := func(k store.Key) store.Write {
		w := insert(plain)
		w.Key = &k
		return w
	}
	joined := func(j store.Join) store.Write {
		w := insert(plain)
		w.Join = &j
		return w
	}
	end := func(a store.Append) store.Write {
		w := move(running, queue.Completed, queue.ByOutcome)
		w.Append = &a
		return w
	}
	item := func(id, data string) store.Append {
		return store.Append{Conversation: queue.ID{2}, Items: []store.Item{{ID: id, Data: []byte(data)}}}
	}
	ended := func(change func(*store.Write)) store.Write {
		w := insert(func(n *queue.New) { n.Worker = 1 })
		w.Move = &store.Move{To: queue.Completed, By: queue.ByOutcome, Result: &store.Result{}}
		w.Took = time.Second
		change(&w)
		return w
	}
	rowless := func(change func(*store.Write)) store.Write {
		w := store.Write{Rowless: true, Fence: running, Usage: []store.Usage{{Target: "t"}}}
		change(&w)
		return w
	}
	hash := []byte("h")
	for _, c := range []struct {
		name string
		w    store.Write
		want error
	}{
		{"key", keyed(store.Key{Key: "k", Hash: hash}), nil},
		{"longest key", keyed(store.Key{Key: strings.Repeat("k", 255), Hash: hash}), nil},
		{"key too long", keyed(store.Key{Key: strings.Repeat("k", 256), Hash: hash}), store.ErrInvalid},
		{"no key", keyed(store.Key{Hash: hash}), store.ErrInvalid},
		{"NUL in a key", keyed(store.Key{Key: "\x00", Hash: hash}), store.ErrInvalid},
		{"no hash", keyed(store.Key{Key: "k"}), store.ErrInvalid},
		{"hash too long", keyed(store.Key{Key: "k", Hash: make([]byte, 65)}), store.ErrInvalid},
		{"key without an insert", store.Write{Fence: running, Key: &store.Key{Key: "k", Hash: hash}}, store.ErrInvalid},
		{"join", joined(store.Join{Conversation: queue.ID{2}}), nil},
		{"join of nothing", joined(store.Join{}), store.ErrInvalid},
		{"join at less than no version", joined(store.Join{Conversation: queue.ID{2}, Version: -1}), store.ErrInvalid},
		{"join without an insert", store.Write{Fence: running, Join: &store.Join{Conversation: queue.ID{2}}}, store.ErrInvalid},
		{"append", end(item("i", "{}")), nil},
		{"append of nothing", end(store.Append{Conversation: queue.ID{2}}), nil},
		{"append to nothing", end(store.Append{}), store.ErrInvalid},
		{"append without an end", store.Write{Fence: running, Append: &store.Append{Conversation: queue.ID{2}}}, store.ErrInvalid},
		{"longest item id", end(item(strings.Repeat("i", 128), "{}")), nil},
		{"item id too long", end(item(strings.Repeat("i", 129), "{}")), store.ErrInvalid},
		{"item without an id", end(item("", "{}")), store.ErrInvalid},
		{"item without data", end(item("i", "")), store.ErrInvalid},
		{"NUL in an item id", end(item("\x00", "{}")), store.ErrInvalid},
		{"line of a batch", insert(func(n *queue.New) { n.Batch, n.Line = queue.ID{2}, 7 }), nil},
		{"line of no batch", insert(func(n *queue.New) { n.Line = 7 }), store.ErrInvalid},
		{"line before the first", insert(func(n *queue.New) { n.Batch, n.Line = queue.ID{2}, -1 }), store.ErrInvalid},
		{"ended", ended(func(*store.Write) {}), nil},
		{"ended nowhere", ended(func(w *store.Write) {
			w.Insert.Worker, w.Move.To, w.Move.By, w.Move.Result = 0, queue.Canceled, queue.ByCancel, nil
		}), store.ErrInvalid},
		{"ended with a key", ended(func(w *store.Write) { w.Key = &store.Key{Key: "k", Hash: hash} }), store.ErrInvalid},
		{"ended with a conversation", ended(func(w *store.Write) { w.Join = &store.Join{Conversation: queue.ID{2}} }), store.ErrInvalid},
		{"ended before it began", ended(func(w *store.Write) { w.Took = -1 }), store.ErrInvalid},
		{"took and goes on", ended(func(w *store.Write) { w.Move = nil }), store.ErrInvalid},
		{"rowless", rowless(func(*store.Write) {}), nil},
		{"rowless with a move", rowless(func(w *store.Write) { w.Move = &store.Move{To: queue.Completed, By: queue.ByOutcome} }), store.ErrInvalid},
		{"rowless with events", rowless(func(w *store.Write) { w.Events = []response.Event{{}} }), store.ErrInvalid},
		{"rowless with an insert", rowless(func(w *store.Write) { *w = insert(plain); w.Rowless = true }), store.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{}
			s := store.New(f, store.Options{})
			defer run(t, s)()
			if err := s.Write(t.Context(), c.w); !errors.Is(err, c.want) {
				t.Errorf("Write: got %v, want %v", err, c.want)
			}
			if reached := len(f.sizes()) > 0; reached != (c.want == nil) {
				t.Errorf("reached the driver: got %t", reached)
			}
		})
	}
}

// TestLasting: of what is not stored only how it ended, what it used and how it
// was decided outlives it.
func TestLasting(t *testing.T) {
	w := insert(func(n *queue.New) { n.Worker = 1 })
	w.Move = &store.Move{To: queue.Completed, By: queue.ByOutcome}
	w.Steps, w.Events = []response.Step{{}}, []response.Event{{}}
	w.Decisions = []store.Decision{{Kind: "route", Question: []byte("asked"), Answer: []byte("said")}}
	w.Usage = []store.Usage{{Target: "t"}}
	got := w.Lasting()
	if len(got.Steps)+len(got.Events) != 0 || string(got.Decisions[0].Question) != "{}" || string(got.Decisions[0].Answer) != "said" || len(got.Usage) != 1 {
		t.Errorf("got %+v", got)
	}
	if string(w.Decisions[0].Question) != "asked" {
		t.Error("the caller's own was changed")
	}
	for name, change := range map[string]func(*store.Write){
		"stored":         func(w *store.Write) { w.Insert = &queue.New{Store: true} },
		"not ended":      func(w *store.Write) { w.Move = nil },
		"in another row": func(w *store.Write) { w.Insert = nil },
	} {
		other := w
		if change(&other); other.Lasting() != &other {
			t.Errorf("%s: it is not all left", name)
		}
	}
}

// noting is a driver that notes what reaches it.
type noting struct {
	store.Driver
	calls []string
}

func (n *noting) CreateConversation(context.Context, store.Conversation, []store.Item) error {
	n.calls = append(n.calls, "create")
	return nil
}

func (n *noting) Conversation(context.Context, string, queue.ID) (store.Conversation, error) {
	n.calls = append(n.calls, "get")
	return store.Conversation{}, nil
}

func (n *noting) SetMetadata(context.Context, string, queue.ID, []byte) (store.Conversation, error) {
	n.calls = append(n.calls, "set")
	return store.Conversation{}, nil
}

func (n *noting) DeleteConversation(context.Context, string, queue.ID) error {
	n.calls = append(n.calls, "delete")
	return nil
}

func (n *noting) AddItems(context.Context, string, queue.ID, []store.Item) error {
	n.calls = append(n.calls, "add")
	return nil
}

func (n *noting) Items(context.Context, string, queue.ID, store.Page) ([]store.Item, bool, error) {
	n.calls = append(n.calls, "items")
	return nil, false, nil
}

func (n *noting) Item(context.Context, string, queue.ID, string) (store.Item, error) {
	n.calls = append(n.calls, "item")
	return store.Item{}, nil
}

func (n *noting) DeleteItem(context.Context, string, queue.ID, string) (store.Conversation, error) {
	n.calls = append(n.calls, "delete item")
	return store.Conversation{}, nil
}

// calls calls all methods for conversations and returns the errors.
func calls(t *testing.T, s *store.Store, tenant, item string, items ...store.Item) []error {
	t.Helper()
	ctx, id := t.Context(), queue.ID{2}
	var errs []error
	note := func(err error) { errs = append(errs, err) }
	note(s.CreateConversation(ctx, store.Conversation{ID: id, Tenant: tenant}, items))
	note(s.AddItems(ctx, tenant, id, items))
	note(s.DeleteConversation(ctx, tenant, id))
	_, err := s.Conversation(ctx, tenant, id)
	note(err)
	_, err = s.SetMetadata(ctx, tenant, id, nil)
	note(err)
	_, _, err = s.Items(ctx, tenant, id, store.Page{After: item})
	note(err)
	_, err = s.Item(ctx, tenant, id, item)
	note(err)
	_, err = s.DeleteItem(ctx, tenant, id, item)
	note(err)
	return errs
}

// TestConversationRules: what no database can have never reaches one.
func TestConversationRules(t *testing.T) {
	one := store.Item{ID: "i", Data: []byte("{}")}
	d := &noting{}
	s := store.New(d, store.Options{})
	for i, err := range calls(t, s, "t", "i", one, store.Item{ID: "j", Data: []byte("{}")}) {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if want := []string{"create", "add", "delete", "get", "set", "items", "item", "delete item"}; !slices.Equal(d.calls, want) {
		t.Errorf("the driver got %v, want %v", d.calls, want)
	}
	for _, c := range []struct {
		name         string
		tenant, item string
		items        []store.Item
		want         [8]error
	}{
		{"no tenant", "", "i", []store.Item{one}, [8]error{store.ErrInvalid, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound}},
		{"NUL in the tenant", "\x00", "i", []store.Item{one}, [8]error{store.ErrInvalid, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound, queue.ErrNotFound}},
		{"NUL in an item", "t", "\x00", []store.Item{one}, [8]error{5: queue.ErrNotFound, 6: queue.ErrNotFound, 7: queue.ErrNotFound}},
		{"item twice", "t", "i", []store.Item{one, one}, [8]error{store.ErrItemExists, store.ErrItemExists}},
		{"item without an id", "t", "i", []store.Item{{Data: one.Data}}, [8]error{store.ErrInvalid, store.ErrInvalid}},
		{"item without data", "t", "i", []store.Item{{ID: "i"}}, [8]error{store.ErrInvalid, store.ErrInvalid}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d.calls = nil
			passed := 0
			for i, err := range calls(t, s, c.tenant, c.item, c.items...) {
				if !errors.Is(err, c.want[i]) {
					t.Errorf("call %d: got %v, want %v", i, err, c.want[i])
				}
				if c.want[i] == nil {
					passed++
				}
			}
			if len(d.calls) != passed {
				t.Errorf("the driver got %v, want %d calls", d.calls, passed)
			}
		})
	}
	if err := s.CreateConversation(t.Context(), store.Conversation{Tenant: "t"}, nil); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("conversation without an id: got %v", err)
	}
}
