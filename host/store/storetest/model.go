package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var modelCases = []testCase{{"RandomOperations", testRandom}}

// row is what the model knows of a request.
type row struct {
	id        queue.ID
	tenant    string
	model     string
	state     queue.State
	attempt   int
	failures  int
	reaps     int
	worker    int64
	near      bool // its deadline is near enough to be escalated
	escalated bool
	survives  bool // its worker's death
	result    string
}

func (r *row) fence() queue.Fence {
	return queue.Fence{ID: r.id, Attempt: r.attempt, State: r.state}
}

// machine is the state table in memory, moved beside the driver.
type machine struct {
	*harness
	rand    *rand.Rand
	rows    []*row
	workers []int64
	before  store.Stats // the operation
	// parked are lanes that were parked for a time: they may sleep until the
	// first sweep after it.
	parked map[[2]string]bool
}

const maxReaps = 2

var (
	machineTenants = []string{"a", "b", "c"}
	machineModels  = []string{model, other}
)

// testRandom does at random what hosts, users, operators and time do, and
// compares every row and every counter with the model's after each step.
func testRandom(h *harness) {
	seed := rand.Uint64()
	h.Logf("seed %d", seed)
	m := &machine{harness: h, rand: rand.New(rand.NewPCG(seed, 0)), parked: map[[2]string]bool{}}
	m.setLimits()
	for range 3 {
		m.workers = append(m.workers, h.worker())
	}
	ops := []func(){
		m.insert, m.insert, m.insert, m.insertRealtime, m.claimSome, m.claimSome, m.claimSome, m.startOne, m.startOne, m.startOne,
		m.finishOne, m.finishOne, m.finishOne, m.retryOne, m.handBackOne, m.cancelOne, m.letGoOne, m.promote, m.killOne,
		m.stale, m.illegal, m.deleteOne, m.setLimits, m.parkOne,
	}
	for i := range 300 {
		m.before = h.stats()
		ops[m.rand.IntN(len(ops))]()
		m.check(i%10 == 0)
		if h.Failed() {
			h.Fatalf("after operation %d of seed %d", i, seed)
		}
	}
	m.check(true)
}

// check compares counters with the model, and each row where all is set.
func (m *machine) check(all bool) {
	m.Helper()
	s := m.stats()
	if err := allExact(s); err != nil {
		m.Error(err)
	}
	owned := map[[2]string]int{}
	for _, r := range m.rows {
		if r.worker == 0 {
			continue
		}
		owned[[2]string{r.tenant, r.model}]++
		owned[[2]string{r.tenant}]++
		if r.escalated {
			owned[[2]string{r.tenant, other}]++
		}
	}
	for _, l := range s.Lanes {
		if want := owned[[2]string{l.Tenant, l.Model}]; l.Owned != want {
			m.Errorf("lane %s %s: got %d rows that own a slot, want %d", l.Tenant, l.Model, l.Owned, want)
		}
		was := find(m.before.Lanes, func(b store.LaneStat) bool { return b.Tenant == l.Tenant && b.Model == l.Model })
		m.checkLimit("lane "+l.Tenant+" "+l.Model, l.Cap, l.Reserve, l.Slots, was.Slots)
	}
	for _, g := range s.Gates {
		if want := owned[[2]string{g.Tenant}]; g.Owned != want {
			m.Errorf("gate %s: got %d rows that own a slot, want %d", g.Tenant, g.Owned, want)
		}
		was := find(m.before.Gates, func(b store.GateStat) bool { return b.Tenant == g.Tenant })
		if was.Tenant != "" { // a gate that is set counts what it finds
			m.checkLimit("gate "+g.Tenant, g.Cap, g.Reserve, g.Slots, was.Slots)
		}
	}
	if all {
		m.compare()
	}
}

// checkLimit checks that no operation went above a cap: a cap that was lowered
// may be exceeded yet, but by no more than before.
func (m *machine) checkLimit(what string, limit int, reserve queue.Reserve, is, was store.Slots) {
	m.Helper()
	if limit == 0 {
		return
	}
	if is.Owned > max(limit, was.Owned) {
		m.Errorf("%s: got %d running at a cap of %d, had %d", what, is.Owned, limit, was.Owned)
	}
	if queued, had := is.Owned-is.OwnedRealtime, was.Owned-was.OwnedRealtime; queued > max(limit-reserve.Realtime, had) {
		m.Errorf("%s: got %d queued requests running at a cap of %d with %d reserved, had %d", what, queued, limit, reserve.Realtime, had)
	}
}

func find[T any](all []T, f func(T) bool) (t T) {
	for _, v := range all {
		if f(v) {
			return v
		}
	}
	return t
}

// compare checks every row.
func (m *machine) compare() {
	m.Helper()
	for _, r := range m.rows {
		got, err := m.d.Get(m.Context(), "", r.id, store.Parts{Result: true})
		if err != nil {
			m.Fatalf("Get: %v", err)
		}
		if got.State != r.state || got.Attempt != r.attempt || got.Failures != r.failures || got.Reaps != r.reaps || got.Worker != r.worker || (got.Escalated != "") != r.escalated {
			m.Errorf("%s: got %s attempt %d failures %d reaps %d worker %d escalated %q, want %+v", r.id, got.State, got.Attempt, got.Failures, got.Reaps, got.Worker, got.Escalated, *r)
		}
		if result := body(got.Result); result != r.result {
			m.Errorf("%s: got result %q, want %q", r.id, result, r.result)
		}
	}
}

func body(r *store.Result) string {
	if r == nil {
		return ""
	}
	return string(r.Body)
}

// pick returns a random row that f likes, nil when there is none.
func (m *machine) pick(f func(*row) bool) *row {
	for _, i := range m.rand.Perm(len(m.rows)) {
		if f(m.rows[i]) {
			return m.rows[i]
		}
	}
	return nil
}

func (m *machine) find(id queue.ID) *row {
	return m.pick(func(r *row) bool { return r.id == id })
}

func in(states ...queue.State) func(*row) bool {
	return func(r *row) bool {
		for _, s := range states {
			if r.state == s {
				return true
			}
		}
		return false
	}
}

func (m *machine) anyWorker() int64 { return m.workers[m.rand.IntN(len(m.workers))] }

// setLimits changes the limits of the first two tenants; the third has none.
func (m *machine) setLimits() {
	reserve := func(limit int) (r queue.Reserve) {
		if limit > 2 {
			r.Realtime, r.Queued = m.rand.IntN(2), m.rand.IntN(2)
		}
		return r
	}
	var l store.Limits
	for _, tenant := range machineTenants[:2] {
		n := m.rand.IntN(7)
		l.Gates = append(l.Gates, queue.Gate{Tenant: tenant, Cap: n, Reserve: reserve(n)})
		for _, model := range machineModels {
			n := m.rand.IntN(5)
			l.Lanes = append(l.Lanes, queue.Lane{Tenant: tenant, Model: model, Weight: 1 + float64(m.rand.IntN(3)), Cap: n, Reserve: reserve(n)})
		}
	}
	m.limit(l)
}

// room returns how many queued requests a lane may still run, by its own limit
// and by its gate's.
func room(s store.Stats, tenant, model string) int {
	l := find(s.Lanes, func(l store.LaneStat) bool { return l.Tenant == tenant && l.Model == model })
	g := find(s.Gates, func(g store.GateStat) bool { return g.Tenant == tenant })
	free := func(limit int, r queue.Reserve, o store.Slots) int {
		if limit == 0 {
			return 1 << 20
		}
		return min(limit-o.Owned, limit-r.Realtime-(o.Owned-o.OwnedRealtime))
	}
	return min(free(l.Cap, l.Reserve, l.Slots), free(g.Cap, g.Reserve, g.Slots))
}

// admits reports whether a realtime request of the lane has to be admitted.
func admits(s store.Stats, tenant, model string) bool {
	free := func(limit int, r queue.Reserve, o store.Slots, ready bool) bool {
		return limit == 0 || o.Owned < limit && (!ready || o.OwnedRealtime < limit-r.Queued)
	}
	l := find(s.Lanes, func(l store.LaneStat) bool { return l.Tenant == tenant && l.Model == model })
	g := find(s.Gates, func(g store.GateStat) bool { return g.Tenant == tenant })
	any := find(s.Lanes, func(l store.LaneStat) bool { return l.Tenant == tenant && l.Ready }).Ready
	return l.Wait == 0 && free(l.Cap, l.Reserve, l.Slots, l.Ready) && free(g.Cap, g.Reserve, g.Slots, any)
}

// claimSome claims, in every way.
func (m *machine) claimSome() {
	c := store.ClaimRequest{Worker: m.anyWorker(), Models: machineModels, N: 1 + m.rand.IntN(6), Window: forever}
	c.Urgent = m.rand.IntN(c.N + 1)
	if m.rand.IntN(2) == 0 {
		c.Escalate = map[string]queue.Escalation{model: {To: other, Within: forever}}
		if m.rand.IntN(3) == 0 {
			c.OnlyEscalate = []string{model}
		}
	}
	claims := m.ask(c)
	m.took(c, claims)
	if len(claims) < c.N && !m.Failed() {
		m.nothingLeft(c)
	}
}

// took checks claims with the model and tells it of them.
func (m *machine) took(c store.ClaimRequest, claims []queue.Claim) {
	for _, got := range claims {
		r := m.find(got.ID)
		if r == nil || r.state != queue.Pending || got.Attempt != r.attempt+1 || got.Model != r.model {
			m.Fatalf("claimed %+v, the model has %+v", got, r)
		}
		r.state, r.attempt, r.worker, r.escalated = queue.Claimed, got.Attempt, c.Worker, got.Escalated != ""
		if e, ok := c.Escalate[r.model]; r.escalated && (!ok || !r.near || got.Escalated != e.To) {
			m.Errorf("got %+v escalated", got)
		}
		if slices.Contains(c.OnlyEscalate, r.model) && !r.escalated {
			m.Errorf("got %+v of a model that serves nothing itself", got)
		}
	}
}

// nothingLeft claims until there is nothing, and once more: a host may have to
// see that to look at all lanes again. Then none has both requests and room.
func (m *machine) nothingLeft(c store.ClaimRequest) {
	for empty := 0; empty < 2 && !m.Failed(); {
		claims := m.ask(c)
		m.took(c, claims)
		if len(claims) == 0 {
			empty++
		}
	}
	after := m.stats()
	for _, r := range m.rows {
		sleeps := m.parked[[2]string{r.tenant, r.model}]
		if r.state == queue.Pending && !sleeps && !slices.Contains(c.OnlyEscalate, r.model) && room(after, r.tenant, r.model) > 0 {
			m.Errorf("claims of %d left a request of %s %s that has room: %+v", c.N, r.tenant, r.model,
				find(after.Lanes, func(l store.LaneStat) bool { return l.Tenant == r.tenant && l.Model == r.model }))
			return
		}
	}
}

func (m *machine) insert() {
	r := &row{tenant: machineTenants[m.rand.IntN(3)], model: machineModels[m.rand.IntN(2)], survives: true, near: m.rand.IntN(3) == 0}
	due := time.Duration(0)
	if r.near {
		due = 30 * time.Minute
	} else if m.rand.IntN(2) == 0 {
		due = 5 * time.Hour
	}
	r.id = m.enqueue(of(r.tenant, r.model), within(due))
	m.rows = append(m.rows, r)
}

func (m *machine) insertRealtime() {
	r := &row{tenant: machineTenants[m.rand.IntN(3)], model: machineModels[m.rand.IntN(2)], state: queue.Processing, attempt: 1, worker: m.anyWorker()}
	n := request(of(r.tenant, r.model), by(r.worker))
	n.Path = []string{"/v1/responses", "/v1/embeddings"}[m.rand.IntN(2)]
	r.id, r.survives = n.ID, n.Path == "/v1/responses"
	err := m.write(store.Write{Insert: n})
	if err != nil && !errors.Is(err, queue.ErrAtCap) {
		m.Fatalf("Write: %v", err)
	}
	if want := admits(m.before, r.tenant, r.model); (err == nil) != want && !m.parked[[2]string{r.tenant, r.model}] {
		m.Errorf("realtime request of %s %s: got %v, want it admitted %t", r.tenant, r.model, err, want)
	}
	if err == nil {
		m.rows = append(m.rows, r)
	}
}

// resultOf is the result of an attempt: only the current one's may be stored.
func resultOf(r *row) string { return fmt.Sprintf("%s by attempt %d", r.id, r.attempt) }
