package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// fakeConversations keeps conversations in memory.
type fakeConversations struct {
	lock  sync.Mutex
	heads map[queue.ID]*store.Conversation
	lists map[queue.ID][]store.Item
}

// head returns a tenant's conversation; f.lock is held.
func (f *fakeConversations) head(tenant string, id queue.ID) (*store.Conversation, error) {
	c := f.heads[id]
	if c == nil || c.Tenant != tenant {
		return nil, fmt.Errorf("store: %w", queue.ErrNotFound)
	}
	return c, nil
}

// CreateConversation implements store.Conversations.
func (f *fakeConversations) CreateConversation(_ context.Context, c store.Conversation, items []store.Item) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.heads == nil {
		f.heads, f.lists = map[queue.ID]*store.Conversation{}, map[queue.ID][]store.Item{}
	}
	c.Created = time.Unix(1_800_000_000, 0)
	f.heads[c.ID], f.lists[c.ID] = &c, slices.Clone(items)
	return nil
}

// Conversation implements store.Conversations.
func (f *fakeConversations) Conversation(_ context.Context, tenant string, id queue.ID) (store.Conversation, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	c, err := f.head(tenant, id)
	if err != nil {
		return store.Conversation{}, err
	}
	return *c, nil
}

// SetMetadata implements store.Conversations.
func (f *fakeConversations) SetMetadata(_ context.Context, tenant string, id queue.ID, metadata []byte) (store.Conversation, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	c, err := f.head(tenant, id)
	if err != nil {
		return store.Conversation{}, err
	}
	c.Metadata = metadata
	return *c, nil
}

// DeleteConversation implements store.Conversations.
func (f *fakeConversations) DeleteConversation(_ context.Context, tenant string, id queue.ID) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	if _, err := f.head(tenant, id); err != nil {
		return err
	}
	delete(f.heads, id)
	delete(f.lists, id)
	return nil
}

// AddItems implements store.Conversations.
func (f *fakeConversations) AddItems(_ context.Context, tenant string, id queue.ID, items []store.Item) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	c, err := f.head(tenant, id)
	if err != nil {
		return err
	}
	for _, it := range items {
		if slices.ContainsFunc(f.lists[id], func(o store.Item) bool { return o.ID == it.ID }) {
			return fmt.Errorf("store: %w", store.ErrItemExists)
		}
	}
	f.lists[id] = append(f.lists[id], items...)
	c.Version++
	return nil
}

// Items implements store.Conversations.
func (f *fakeConversations) Items(_ context.Context, tenant string, id queue.ID, p store.Page) ([]store.Item, bool, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if _, err := f.head(tenant, id); err != nil {
		return nil, false, err
	}
	items := slices.Clone(f.lists[id])
	if !p.Ascending {
		slices.Reverse(items)
	}
	if p.After != "" {
		i := slices.IndexFunc(items, func(it store.Item) bool { return it.ID == p.After })
		if i < 0 {
			return nil, false, fmt.Errorf("store: %w", queue.ErrNotFound)
		}
		items = items[i+1:]
	}
	n := min(p.Size(), len(items))
	return items[:n], n < len(items), nil
}

// Item implements store.Conversations.
func (f *fakeConversations) Item(_ context.Context, tenant string, conversation queue.ID, item string) (store.Item, error) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if _, err := f.head(tenant, conversation); err != nil {
		return store.Item{}, err
	}
	for _, it := range f.lists[conversation] {
		if it.ID == item {
			return it, nil
		}
	}
	return store.Item{}, fmt.Errorf("store: %w", queue.ErrNotFound)
}

// DeleteItem implements store.Conversations.
func (f *fakeConversations) DeleteItem(ctx context.Context, tenant string, conversation queue.ID, item string) (store.Conversation, error) {
	if _, err := f.Item(ctx, tenant, conversation, item); err != nil {
		return store.Conversation{}, err
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.lists[conversation] = slices.DeleteFunc(f.lists[conversation], func(it store.Item) bool { return it.ID == item })
	f.heads[conversation].Version++
	return *f.heads[conversation], nil
}

// members are the names of a JSON object's members, sorted.
func members(t *testing.T, b []byte) string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("got %s, want an object: %v", b, err)
	}
	var names []string
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// page is a list as clients read it.
type page struct {
	Object  string
	Data    []map[string]any
	FirstID string `json:"first_id"`
	LastID  string `json:"last_id"`
	HasMore bool   `json:"has_more"`
}

func (a answer) page(t *testing.T) page {
	t.Helper()
	if got := members(t, a.body); a.status != 200 || got != "data first_id has_more last_id object" {
		t.Fatalf("got %d %s, want a list with all its members", a.status, a.body)
	}
	var p page
	if err := json.Unmarshal(a.body, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// ids are the ids of a page's entries.
func (p page) ids() string {
	var ids []string
	for _, d := range p.Data {
		id, _ := d["id"].(string)
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

func TestConversation(t *testing.T) {
	h := newHost(t)
	a := h.post("/v1/conversations", `{"metadata":{"topic":"demo"},"items":[{"type":"message","role":"user","content":"Hello!"}]}`)
	if got := members(t, a.body); a.status != 200 || got != "created_at id metadata object" {
		t.Fatalf("got %d %s", a.status, a.body)
	}
	var c struct {
		ID, Object string
		Created    int64 `json:"created_at"`
		Metadata   map[string]string
	}
	if err := json.Unmarshal(a.body, &c); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.ID, "conv_") || c.Object != "conversation" || c.Created == 0 || c.Metadata["topic"] != "demo" {
		t.Errorf("got %+v", c)
	}
	path := "/v1/conversations/" + c.ID
	if got := h.get(path); string(got.body) != string(a.body) {
		t.Errorf("GET: got %s, want %s", got.body, a.body)
	}
	if got := h.post(path, `{"metadata":{"topic":"other"}}`); got.status != 200 || !strings.Contains(string(got.body), `"topic":"other"`) {
		t.Errorf("update: got %d %s", got.status, got.body)
	}
	h.key = "key-beta"
	h.get(path).wantError(t, 404, "not_found", "conversation_id")
	h.post(path, `{"metadata":{}}`).wantError(t, 404, "not_found", "conversation_id")
	h.do("DELETE", path, "").wantError(t, 404, "not_found", "conversation_id")
	h.key = "key-acme"
	if got := h.do("DELETE", path, ""); got.status != 200 || string(got.body) != `{"id":"`+c.ID+`","object":"conversation.deleted","deleted":true}` {
		t.Errorf("delete: got %d %s", got.status, got.body)
	}
	h.get(path).wantError(t, 404, "not_found", "conversation_id")
	h.do("DELETE", path, "").wantError(t, 404, "not_found", "conversation_id")
	if got := h.post("/v1/conversations", ""); got.status != 200 || !strings.Contains(string(got.body), `"metadata":{}`) {
		t.Errorf("an empty body: got %d %s, want a conversation", got.status, got.body)
	}
}

// newConversation makes a conversation and returns its path.
func (h *host) newConversation(items string) string {
	h.t.Helper()
	a := h.post("/v1/conversations", `{"items":`+items+`}`)
	if a.status != 200 {
		h.t.Fatalf("got %d %s", a.status, a.body)
	}
	return "/v1/conversations/" + a.object(h.t).ID
}

func TestConversationItems(t *testing.T) {
	h := newHost(t)
	path := h.newConversation(`[{"role":"user","content":"one","id":"msg_1"}]`)
	a := h.post(path+"/items", `{"items":[{"role":"assistant","content":"two","id":"msg_2"},{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}]}`)
	added := a.page(t)
	if added.FirstID != "msg_2" || added.LastID == "" || added.HasMore || len(added.Data) != 2 || !strings.HasPrefix(added.LastID, "fc_") {
		t.Errorf("got %s, want the two items with ids", a.body)
	}
	call := added.LastID
	all := h.get(path + "/items?order=asc").page(t)
	if got := all.ids(); got != "msg_1 msg_2 "+call {
		t.Errorf("got %s, want all in order", got)
	}
	if got := h.get(path + "/items").page(t).ids(); got != call+" msg_2 msg_1" {
		t.Errorf("got %s, want the newest first", got)
	}
	p := h.get(path + "/items?limit=1&order=asc&after=msg_1&include[]=message.output_text.logprobs").page(t)
	if p.ids() != "msg_2" || p.FirstID != "msg_2" || p.LastID != "msg_2" || !p.HasMore {
		t.Errorf("got %+v, want the second alone and more", p)
	}
	h.get(path+"/items?after=nobody").wantError(t, 400, "invalid_value", "after")
	one := h.get(path + "/items/msg_2")
	want := `{"content":[{"type":"output_text","text":"two","annotations":[],"logprobs":[]}],"id":"msg_2","role":"assistant","status":"completed","type":"message"}`
	if one.status != 200 || string(one.body) != want {
		t.Errorf("got %d %s, want %s", one.status, one.body, want)
	}
	if got := h.do("DELETE", path+"/items/msg_2", ""); got.status != 200 || got.object(t).Object != "conversation" {
		t.Errorf("got %d %s, want the conversation", got.status, got.body)
	}
	h.get(path+"/items/msg_2").wantError(t, 404, "not_found", "item_id")
	h.do("DELETE", path+"/items/msg_2", "").wantError(t, 404, "not_found", "item_id")
	if got := h.get(path + "/items?order=asc").page(t).ids(); got != "msg_1 "+call {
		t.Errorf("got %s, want the item gone", got)
	}
	h.key = "key-beta"
	h.get(path+"/items").wantError(t, 404, "not_found", "conversation_id")
	h.get(path+"/items/msg_1").wantError(t, 404, "not_found", "item_id")
	h.post(path+"/items", `{"items":[{"role":"user","content":"x"}]}`).wantError(t, 404, "not_found", "conversation_id")
}

func TestBadConversations(t *testing.T) {
	h := newHost(t)
	path := h.newConversation(`[{"role":"user","content":"one","id":"msg_1"}]`)
	item := `{"role":"user","content":"x"}`
	many := "[" + strings.TrimSuffix(strings.Repeat(item+",", 21), ",") + "]"
	for _, c := range []struct {
		name, path, body, code, param string
	}{
		{"not JSON", "/v1/conversations", `{`, "invalid_json", ""},
		{"no object", "/v1/conversations", `[]`, "invalid_type", ""},
		{"metadata of another type", "/v1/conversations", `{"metadata":{"a":1}}`, "invalid_type", "metadata"},
		{"a long key", "/v1/conversations", `{"metadata":{"` + strings.Repeat("k", 65) + `":"v"}}`, "string_above_max_length", "metadata"},
		{"items of another type", "/v1/conversations", `{"items":"x"}`, "invalid_type", "items"},
		{"too many items", "/v1/conversations", `{"items":` + many + `}`, "array_above_max_length", "items"},
		{"a bad item", "/v1/conversations", `{"items":[` + item + `,{"role":"robot","content":"x"}]}`, "invalid_value", "items[1].role"},
		{"a reference", "/v1/conversations", `{"items":[{"type":"item_reference","id":"msg_1"}]}`, "unsupported_value", "items[0]"},
		{"an id twice", "/v1/conversations", `{"items":[{"id":"a","role":"user","content":"x"},{"id":"a","role":"user","content":"x"}]}`, "invalid_value", "items[1].id"},
		{"an id of many bytes", "/v1/conversations", `{"items":[{"id":"` + strings.Repeat("ä", 100) + `","role":"user","content":"x"}]}`, "string_above_max_length", "items[0].id"},
		{"no metadata", path, `{}`, "missing_required_parameter", "metadata"},
		{"items with metadata", path, `{"metadata":{},"items":[` + item + `]}`, "unsupported_parameter", "items"},
		{"no items", path + "/items", `{}`, "missing_required_parameter", "items"},
		{"an id that is there", path + "/items", `{"items":[{"id":"msg_1","role":"user","content":"x"}]}`, "item_exists", "items"},
	} {
		t.Run(c.name, func(t *testing.T) { h.post(c.path, c.body).wantError(t, 400, c.code, c.param) })
	}
	for _, q := range []struct{ query, code, param string }{
		{"limit=101", "integer_above_max_value", "limit"},
		{"limit=-1", "integer_below_min_value", "limit"},
		{"limit=x", "invalid_type", "limit"},
		{"order=up", "invalid_value", "order"},
	} {
		h.get(path+"/items?"+q.query).wantError(t, 400, q.code, q.param)
	}
	h.get("/v1/conversations/conv_123").wantError(t, 404, "not_found", "conversation_id")
	h.get("/v1/conversations/123/items").wantError(t, 404, "not_found", "conversation_id")
	if got := h.get(path + "/items?limit=0").page(t); len(got.Data) != 1 {
		t.Errorf("limit=0: got %+v, want the default", got)
	}
}
