package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var talkModelCases = []testCase{{"ConversationsLikeAModel", testTalkModel}}

// talkModel is a conversation as it should be.
type talkModel struct {
	id      queue.ID
	items   []string
	version int64
	holder  queue.Fence // zero: nobody
	gone    bool
}

// talkModels are some conversations, and what is done to them.
type talkModels struct {
	*harness
	r      *rand.Rand
	worker int64
	all    []*talkModel
	named  int
}

// testTalkModel does hundreds of random things and compares each answer, and what
// is there then, with a model.
func testTalkModel(h *harness) {
	m := &talkModels{harness: h, r: rand.New(rand.NewPCG(3, 4)), worker: h.worker()}
	ops := []func(c *talkModel){m.add, m.addAgain, m.remove, m.join, m.join, m.joinLate, m.end, m.end, m.cancelHolder, m.drop}
	for i := range 500 {
		if len(m.all) == 0 || m.r.IntN(20) == 0 {
			m.create()
		}
		c := m.all[m.r.IntN(len(m.all))]
		ops[m.r.IntN(len(ops))](c)
		m.compare(c)
		if h.Failed() {
			h.Fatalf("after %d", i)
		}
		if len(m.all) > 6 {
			m.all = m.all[1:]
		}
	}
}

func (m *talkModels) new(n int) (items []store.Item) {
	for range n {
		m.named++
		items = append(items, store.Item{ID: fmt.Sprint("n", m.named), Data: []byte("{}")})
	}
	return items
}

// want checks an answer: nil or one that wraps what is wanted.
func (m *talkModels) want(what string, err error, c *talkModel, want error) {
	m.Helper()
	if c.gone {
		want = queue.ErrNotFound
	}
	if !errors.Is(err, want) || (want == nil && err != nil) {
		m.Errorf("%s of %+v: got %v, want %v", what, *c, err, want)
	}
}

func (c *talkModel) grow(items []store.Item) {
	if c.gone {
		return
	}
	for _, it := range items {
		c.items = append(c.items, it.ID)
	}
	c.version += int64(len(items))
}

func (m *talkModels) create() {
	c := &talkModel{id: queue.NewID()}
	items := m.new(m.r.IntN(3))
	m.want("create", m.d.CreateConversation(m.Context(), store.Conversation{ID: c.id, Tenant: tenant}, items), c, nil)
	c.grow(items)
	m.all = append(m.all, c)
}

func (m *talkModels) add(c *talkModel) {
	items := m.new(m.r.IntN(3))
	m.want("add", m.d.AddItems(m.Context(), tenant, c.id, items), c, nil)
	c.grow(items)
}

func (m *talkModels) addAgain(c *talkModel) {
	if len(c.items) == 0 {
		return
	}
	items := append(m.new(1), store.Item{ID: c.items[m.r.IntN(len(c.items))], Data: []byte("again")})
	m.want("add again", m.d.AddItems(m.Context(), tenant, c.id, items), c, store.ErrItemExists)
}

func (m *talkModels) remove(c *talkModel) {
	if len(c.items) == 0 {
		_, err := m.d.DeleteItem(m.Context(), tenant, c.id, "none")
		m.want("remove", err, c, queue.ErrNotFound)
		return
	}
	i := m.r.IntN(len(c.items))
	_, err := m.d.DeleteItem(m.Context(), tenant, c.id, c.items[i])
	m.want("remove", err, c, nil)
	if !c.gone {
		c.items = slices.Delete(c.items, i, i+1)
		c.version++
	}
}

func (m *talkModels) join(c *talkModel) { m.joinAt(c, c.version) }

func (m *talkModels) joinLate(c *talkModel) { m.joinAt(c, c.version+1) }

func (m *talkModels) joinAt(c *talkModel, version int64) {
	w := joins(c.id, version, by(m.worker))
	err := m.write(w)
	var want error
	held := c.holder != queue.Fence{}
	if held || version != c.version {
		want = store.ErrConversationBusy
	}
	m.want("join", err, c, want)
	var b *store.ConversationBusy
	if errors.As(err, &b) && b.Stale == held {
		m.Errorf("join of %+v at %d: stale %t", *c, version, b.Stale)
	}
	if want == nil && !c.gone {
		c.holder = w.Fenced()
	}
}

// end completes the response that holds a conversation. It brings what is new,
// and what is there.
func (m *talkModels) end(c *talkModel) {
	if c.holder == (queue.Fence{}) {
		return
	}
	items := m.new(m.r.IntN(3))
	m.must(brings(c.holder, c.id, items...))
	c.grow(items)
	c.holder = queue.Fence{}
}

func (m *talkModels) cancelHolder(c *talkModel) {
	if c.holder != (queue.Fence{}) {
		m.cancel(c.holder.ID)
		c.holder = queue.Fence{}
	}
}

func (m *talkModels) drop(c *talkModel) {
	if m.r.IntN(8) == 0 {
		m.want("drop", m.d.DeleteConversation(m.Context(), tenant, c.id), c, nil)
		c.gone, c.items = true, nil
	}
}

func (m *talkModels) compare(c *talkModel) {
	m.Helper()
	got, err := m.d.Conversation(m.Context(), tenant, c.id)
	m.want("get", err, c, nil)
	if c.gone {
		return
	}
	if got.Version != c.version {
		m.Errorf("version %d, want %d", got.Version, c.version)
	}
	m.wantItems(c.id, c.items...)
}
