package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var talkCases = []testCase{
	{"ConversationIsKept", testTalkKept},
	{"ConversationItemsInPages", testTalkPages},
	{"ConversationOfThousands", testTalkLong},
	{"ConversationIsOfItsTenant", testTalkTenant},
	{"ConversationItemExists", testTalkExists},
	{"ConversationItemDeleted", testTalkItemDeleted},
	{"ConversationDeleted", testTalkDeleted},
	{"ConversationIsJoined", testTalkJoin},
	{"ConversationIsFreeWhenItsResponseEnds", testTalkFree},
	{"ConversationJoinedInOneBatch", testTalkBatch},
	{"ConversationGetsWhatAResponseBrought", testTalkAppend},
	{"ConversationGone", testTalkGone},
}

// talk creates a conversation of n items.
func (h *harness) talk(n int) queue.ID {
	h.Helper()
	id := queue.NewID()
	if err := h.d.CreateConversation(h.Context(), store.Conversation{ID: id, Tenant: tenant, Metadata: []byte(`{"a":"b"}`)}, said("i", n)); err != nil {
		h.Fatalf("CreateConversation: %v", err)
	}
	return id
}

// said returns n items.
func said(prefix string, n int) []store.Item {
	items := make([]store.Item, n)
	for i := range items {
		items[i] = store.Item{ID: fmt.Sprint(prefix, i), Data: fmt.Appendf(nil, `{"id":"%s%d","text":"\u0000"}`, prefix, i)}
	}
	return items
}

func (h *harness) conversation(id queue.ID) store.Conversation {
	h.Helper()
	c, err := h.d.Conversation(h.Context(), tenant, id)
	if err != nil {
		h.Fatalf("Conversation: %v", err)
	}
	return c
}

// items reads all items of a conversation, oldest first, in pages.
func (h *harness) items(id queue.ID, size int) (ids []string) {
	h.Helper()
	for p := (store.Page{Limit: size, Ascending: true}); ; {
		items, more, err := h.d.Items(h.Context(), tenant, id, p)
		if err != nil {
			h.Fatalf("Items(%+v): %v", p, err)
		}
		for _, it := range items {
			ids = append(ids, it.ID)
			p.After = it.ID
		}
		if !more {
			return ids
		}
		if len(items) != size {
			h.Fatalf("Items(%+v): got %d of a page with more behind it", p, len(items))
		}
	}
}

func names(prefix string, n int) (ids []string) {
	for _, it := range said(prefix, n) {
		ids = append(ids, it.ID)
	}
	return ids
}

func (h *harness) wantItems(id queue.ID, want ...string) {
	h.Helper()
	if got := h.items(id, 7); !slices.Equal(got, want) {
		h.Errorf("got items %v, want %v", got, want)
	}
}

// joins is the insert of a response that goes on from a conversation.
func joins(id queue.ID, version int64, change ...func(*queue.New)) store.Write {
	return store.Write{Insert: request(change...), Join: &store.Join{Conversation: id, Version: version}}
}

func (h *harness) join(id queue.ID) queue.ID {
	h.Helper()
	w := joins(id, h.conversation(id).Version)
	h.must(w)
	return w.Insert.ID
}

// brings is complete with items for a conversation.
func brings(f queue.Fence, id queue.ID, items ...store.Item) store.Write {
	w := complete(f)
	w.Append = &store.Append{Conversation: id, Items: items}
	return w
}

func (h *harness) wantBusy(err error, id queue.ID, stale bool) {
	h.Helper()
	var b *store.ConversationBusy
	if !errors.As(err, &b) || !errors.Is(err, store.ErrConversationBusy) || b.ID != id || b.Stale != stale {
		h.Errorf("got %v, want conversation %s busy, stale %t", err, id, stale)
	}
}

func (h *harness) wantUnknown(what string, err error) {
	h.Helper()
	if !errors.Is(err, queue.ErrNotFound) {
		h.Errorf("%s: got %v, want ErrNotFound", what, err)
	}
}

func testTalkKept(h *harness) {
	id := h.talk(2)
	c := h.conversation(id)
	if c.ID != id || c.Tenant != tenant || string(c.Metadata) != `{"a":"b"}` || c.Created.IsZero() {
		h.Errorf("got %+v", c)
	}
	set, err := h.d.SetMetadata(h.Context(), tenant, id, []byte(`{}`))
	if err != nil || string(set.Metadata) != `{}` || set.Version != c.Version || !set.Created.Equal(c.Created) {
		h.Errorf("SetMetadata: got %+v, %v", set, err)
	}
	if got := h.conversation(id); string(got.Metadata) != `{}` || got.Version != c.Version {
		h.Errorf("after it: got %+v", got)
	}
	it, err := h.d.Item(h.Context(), tenant, id, "i1")
	if want := said("i", 2)[1]; err != nil || it.ID != want.ID || !bytes.Equal(it.Data, want.Data) {
		h.Errorf("Item: got %+v, %v, want %+v", it, err, want)
	}
	err = h.d.CreateConversation(h.Context(), store.Conversation{ID: id, Tenant: tenant}, said("j", 1))
	if !errors.Is(err, store.ErrExists) {
		h.Errorf("created twice: got %v, want ErrExists", err)
	}
	h.wantItems(id, names("i", 2)...)
	h.wantItems(h.talk(0))
}

func testTalkPages(h *harness) {
	id := h.talk(25)
	all := names("i", 25)
	newest := slices.Clone(all)
	slices.Reverse(newest)
	for _, c := range []struct {
		p    store.Page
		want []string
		more bool
	}{
		{store.Page{}, newest[:20], true},
		{store.Page{After: "i5"}, newest[20:], false},
		{store.Page{After: "i0"}, nil, false},
		{store.Page{Ascending: true, Limit: 3}, all[:3], true},
		{store.Page{Ascending: true, Limit: 3, After: "i21"}, all[22:], false},
		{store.Page{Ascending: true, Limit: 25}, all, false},
		{store.Page{Limit: 24}, newest[:24], true},
		{store.Page{Limit: 1000, After: "i24"}, newest[1:], false},
	} {
		items, more, err := h.d.Items(h.Context(), tenant, id, c.p)
		var got []string
		for _, it := range items {
			got = append(got, it.ID)
		}
		if err != nil || more != c.more || !slices.Equal(got, c.want) {
			h.Errorf("%+v: got %v, more %t, %v, want %v, more %t", c.p, got, more, err, c.want, c.more)
		}
	}
	_, _, err := h.d.Items(h.Context(), tenant, id, store.Page{After: "i25"})
	h.wantUnknown("page after an unknown item", err)
}

func testTalkLong(h *harness) {
	id := h.talk(1500)
	if err := h.d.AddItems(h.Context(), tenant, id, said("j", 1500)); err != nil {
		h.Fatal(err)
	}
	want := append(names("i", 1500), names("j", 1500)...)
	if got := h.items(id, 700); !slices.Equal(got, want) {
		h.Errorf("got %d items, want 3000 in order", len(got))
	}
}

func testTalkTenant(h *harness) {
	id := h.talk(1)
	const other = "tenant-b"
	ctx := h.Context()
	for what, f := range map[string]func(tenant string, id queue.ID) error{
		"Conversation":       func(t string, id queue.ID) error { _, err := h.d.Conversation(ctx, t, id); return err },
		"SetMetadata":        func(t string, id queue.ID) error { _, err := h.d.SetMetadata(ctx, t, id, nil); return err },
		"DeleteConversation": func(t string, id queue.ID) error { return h.d.DeleteConversation(ctx, t, id) },
		"AddItems":           func(t string, id queue.ID) error { return h.d.AddItems(ctx, t, id, said("j", 1)) },
		"Items":              func(t string, id queue.ID) error { _, _, err := h.d.Items(ctx, t, id, store.Page{}); return err },
		"Items after": func(t string, id queue.ID) error {
			_, _, err := h.d.Items(ctx, t, id, store.Page{After: "i0"})
			return err
		},
		"Item":       func(t string, id queue.ID) error { _, err := h.d.Item(ctx, t, id, "i0"); return err },
		"DeleteItem": func(t string, id queue.ID) error { _, err := h.d.DeleteItem(ctx, t, id, "i0"); return err },
	} {
		h.wantUnknown(what+" of another tenant", f(other, id))
		h.wantUnknown(what+" of no tenant", f("", id))
		h.wantUnknown(what+" of an unknown one", f(tenant, queue.NewID()))
	}
	version := h.conversation(id).Version
	h.wantUnknown("joined by another tenant", h.write(joins(id, version, of(other, model))))
	c := h.running(h.worker(), of(other, model))
	h.must(brings(c.Fence(), id, said("theirs", 1)...))
	h.wantItems(id, "i0")
	if got := h.conversation(id); got.Version != version || string(got.Metadata) != `{"a":"b"}` {
		h.Errorf("changed by others: %+v", got)
	}
}

func testTalkExists(h *harness) {
	id := h.talk(2)
	before := h.conversation(id).Version
	err := h.d.AddItems(h.Context(), tenant, id, append(said("j", 2), said("i", 1)...))
	if !errors.Is(err, store.ErrItemExists) {
		h.Errorf("got %v, want ErrItemExists", err)
	}
	h.wantItems(id, "i0", "i1")
	if got := h.conversation(id).Version; got != before {
		h.Errorf("refused, and the version went from %d to %d", before, got)
	}
	// Another conversation may have items of the same ids.
	h.wantItems(h.talk(1), "i0")
}

func testTalkItemDeleted(h *harness) {
	id := h.talk(3)
	before := h.conversation(id).Version
	c, err := h.d.DeleteItem(h.Context(), tenant, id, "i1")
	if err != nil || c.ID != id || c.Version == before || string(c.Metadata) != `{"a":"b"}` {
		h.Errorf("DeleteItem: got %+v, %v", c, err)
	}
	h.wantItems(id, "i0", "i2")
	_, err = h.d.DeleteItem(h.Context(), tenant, id, "i1")
	h.wantUnknown("deleted twice", err)
	if got := h.conversation(id).Version; got != c.Version {
		h.Errorf("nothing was deleted, and the version went from %d to %d", c.Version, got)
	}
	h.wantBusy(h.write(joins(id, before)), id, true)
	if err := h.d.AddItems(h.Context(), tenant, id, said("i", 2)[1:]); err != nil {
		h.Errorf("added again: %v", err)
	}
	h.wantItems(id, "i0", "i2", "i1")
}

func testTalkDeleted(h *harness) {
	id, kept := h.talk(3), h.talk(1)
	r := h.join(id)
	if err := h.d.DeleteConversation(h.Context(), tenant, id); err != nil {
		h.Fatal(err)
	}
	_, _, err := h.d.Items(h.Context(), tenant, id, store.Page{})
	h.wantUnknown("items of a deleted one", err)
	h.wantUnknown("joined when deleted", h.write(joins(id, 3)))
	h.wantState(r, queue.Pending)
	h.wantItems(kept, "i0")
	// Under its id there may be another.
	if err := h.d.CreateConversation(h.Context(), store.Conversation{ID: id, Tenant: tenant}, nil); err != nil {
		h.Fatal(err)
	}
	h.wantItems(id)
}

func testTalkJoin(h *harness) {
	id := h.talk(2)
	version := h.conversation(id).Version
	first := joins(id, version)
	h.must(first)
	second := joins(id, version)
	h.wantBusy(h.write(second), id, false)
	h.wantNone(second.Insert.ID)
	h.wantBusy(h.write(joins(id, version+9)), id, false)
	if err := h.d.AddItems(h.Context(), tenant, id, said("j", 1)); err != nil {
		h.Errorf("AddItems while a response goes on: %v", err)
	}
	h.cancel(first.Insert.ID)
	h.wantBusy(h.write(joins(id, version)), id, true)
	w := keyed("k", "h")
	w.Join = &store.Join{Conversation: id, Version: version}
	h.wantBusy(h.write(w), id, true)
	w.Join.Version = h.conversation(id).Version
	h.must(w) // the key is free
}

// testTalkFree: whatever ends a response, its conversation is free.
func testTalkFree(h *harness) {
	w := h.worker()
	run := func(id queue.ID) queue.Claim {
		h.Helper()
		r := h.join(id)
		c := h.start(h.claim(w))
		if c.ID != r {
			h.Fatalf("claimed %s, want %s", c.ID, r)
		}
		return c
	}
	for what, end := range map[string]func(id queue.ID){
		"completed": func(id queue.ID) { h.must(complete(run(id).Fence())) },
		"failed":    func(id queue.ID) { h.must(move(run(id).Fence(), queue.Failed, queue.ByOutcome)) },
		"canceled":  func(id queue.ID) { h.cancel(run(id).ID) },
		"deleted": func(id queue.ID) {
			c := run(id)
			h.must(complete(c.Fence()))
			if err := h.d.Delete(h.Context(), tenant, c.ID); err != nil {
				h.Error(err)
			}
		},
	} {
		id := h.talk(1)
		end(id)
		if err := h.write(joins(id, h.conversation(id).Version)); err != nil {
			h.Errorf("%s: %v", what, err)
		}
		h.claim(w)
	}
	id := h.talk(1)
	c := run(id)
	h.must(move(c.Fence(), queue.Waiting, queue.ByRetry))
	h.wantBusy(h.write(joins(id, 1)), id, false)
}

// testTalkBatch: of two that join in one batch the first does, and one joins as
// soon as the write before it ended the response.
func testTalkBatch(h *harness) {
	id := h.talk(1)
	c := h.conversation(id)
	first, second := joins(id, c.Version, by(h.worker())), joins(id, c.Version)
	third := joins(id, c.Version+2)
	fence := first.Fenced()
	results, err := h.d.Write(h.Context(), []store.Write{first, second, brings(fence, id, said("n", 2)...), third})
	if err != nil {
		h.Fatal(err)
	}
	if results[0] != nil || results[2] != nil || results[3] != nil {
		h.Errorf("got %v, want but the second taken", results)
	}
	h.wantBusy(results[1], id, false)
	h.wantItems(id, "i0", "n0", "n1")
	h.wantBusy(h.write(joins(id, c.Version+2)), id, false)
}

func testTalkAppend(h *harness) {
	w := h.worker()
	id := h.talk(2)
	before := h.join(id)
	c := h.start(h.claim(w))
	if c.ID != before {
		h.Fatal("claimed another")
	}
	if err := h.d.AddItems(h.Context(), tenant, id, said("j", 1)); err != nil {
		h.Fatal(err)
	}
	version := h.conversation(id).Version
	// Of the items that it brings one is there, and one comes twice.
	h.must(brings(c.Fence(), id, store.Item{ID: "i1", Data: []byte("other")}, said("n", 1)[0], said("n", 1)[0], said("m", 1)[0]))
	h.wantItems(id, "i0", "i1", "j0", "n0", "m0")
	if it, err := h.d.Item(h.Context(), tenant, id, "i1"); err != nil || string(it.Data) == "other" {
		h.Errorf("an item that was there: got %s, %v, want it as it was", it.Data, err)
	}
	if got := h.conversation(id).Version; got <= version {
		h.Errorf("version %d after %d", got, version)
	}
	h.wantBusy(h.write(joins(id, version)), id, true)
	// A late one adds nothing.
	h.lost(brings(c.Fence(), id, said("late", 1)...))
	h.wantItems(id, "i0", "i1", "j0", "n0", "m0")
	h.join(id)
}

func testTalkGone(h *harness) {
	id := h.talk(2)
	h.join(id)
	c := h.start(h.claim(h.worker()))
	if err := h.d.DeleteConversation(h.Context(), tenant, id); err != nil {
		h.Fatal(err)
	}
	h.must(brings(c.Fence(), id, said("n", 1)...))
	h.wantState(c.ID, queue.Completed)
	if err := h.d.CreateConversation(h.Context(), store.Conversation{ID: id, Tenant: tenant}, nil); err != nil {
		h.Fatal(err)
	}
	h.wantItems(id)
}
