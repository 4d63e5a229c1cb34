package storetest

import (
	"errors"
	"math/rand/v2"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

var modelCases = []testCase{{"RandomOperations", testRandom}}

// row is what the model knows of a request.
type row struct {
	id       queue.ID
	state    queue.State
	attempt  int
	failures int
	reaps    int
	worker   int64
	survives bool // its worker's death
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
}

const maxReaps = 2

func testRandom(h *harness) {
	seed := rand.Uint64()
	h.Logf("seed %d", seed)
	m := &machine{harness: h, rand: rand.New(rand.NewPCG(seed, 0))}
	for _, l := range []queue.Lane{{Tenant: "a", Model: model, Weight: 1, Cap: 4}, {Tenant: "b", Model: model, Weight: 2, Cap: 2}} {
		h.setLanes(l)
	}
	for range 3 {
		m.workers = append(m.workers, h.worker())
	}
	ops := []func(){
		m.insert, m.insert, m.insertRealtime, m.claimSome, m.claimSome, m.startOne, m.startOne,
		m.finishOne, m.finishOne, m.retryOne, m.handBackOne, m.cancelOne, m.letGoOne, m.promote, m.killOne,
		m.stale, m.illegal, m.deleteOne,
	}
	for i := range 300 {
		ops[m.rand.IntN(len(ops))]()
		m.compare()
		if h.Failed() {
			h.Fatalf("after operation %d of seed %d", i, seed)
		}
	}
}

// compare checks every row and every counter.
func (m *machine) compare() {
	m.Helper()
	for _, r := range m.rows {
		got, err := m.d.Get(m.Context(), "", r.id, store.Parts{})
		if err != nil {
			m.Fatalf("Get: %v", err)
		}
		if got.State != r.state || got.Attempt != r.attempt || got.Failures != r.failures || got.Reaps != r.reaps || got.Worker != r.worker {
			m.Errorf("%s: got %s attempt %d failures %d reaps %d worker %d, want %+v", r.id, got.State, got.Attempt, got.Failures, got.Reaps, got.Worker, *r)
		}
	}
	m.wantExact()
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

func (m *machine) anyLane() func(*queue.New) {
	return of([]string{"a", "b", "c"}[m.rand.IntN(3)], model)
}

func (m *machine) insert() {
	m.rows = append(m.rows, &row{id: m.enqueue(m.anyLane()), survives: true})
}

func (m *machine) insertRealtime() {
	n := request(m.anyLane(), by(m.anyWorker()))
	n.Path = []string{"/v1/responses", "/v1/embeddings"}[m.rand.IntN(2)]
	err := m.write(store.Write{Insert: n})
	if errors.Is(err, queue.ErrAtCap) {
		return
	}
	if err != nil {
		m.Fatalf("Write: %v", err)
	}
	m.rows = append(m.rows, &row{id: n.ID, state: queue.Processing, attempt: 1, worker: n.Worker, survives: n.Path == "/v1/responses"})
}

func (m *machine) claimSome() {
	w := m.anyWorker()
	for _, c := range m.claimN(w, 1+m.rand.IntN(4)) {
		r := m.find(c.ID)
		if r == nil || r.state != queue.Pending || c.Attempt != r.attempt+1 {
			m.Fatalf("claimed %+v, the model has %+v", c, r)
		}
		r.state, r.attempt, r.worker = queue.Claimed, c.Attempt, w
	}
}

// step moves a row that f likes in both.
func (m *machine) step(f func(*row) bool, to queue.State, by queue.Cause, failures int) {
	r := m.pick(f)
	if r == nil {
		return
	}
	w := move(r.fence(), to, by)
	w.Failures = failures
	m.must(w)
	r.state, r.failures = to, r.failures+failures
	if w.Move.Releases() {
		r.worker = 0
	}
}

func (m *machine) startOne() { m.step(in(queue.Claimed), queue.Processing, queue.ByStart, 0) }

func (m *machine) finishOne() {
	to := []queue.State{queue.Completed, queue.Failed}[m.rand.IntN(2)]
	m.step(in(queue.Processing), to, queue.ByOutcome, m.rand.IntN(2))
}

func (m *machine) retryOne() { m.step(in(queue.Processing), queue.Waiting, queue.ByRetry, 1) }

func (m *machine) handBackOne() {
	m.step(in(queue.Claimed, queue.Processing), queue.Pending, queue.ByHandBack, 0)
}

func (m *machine) cancelOne() {
	r := m.pick(func(*row) bool { return true })
	if r == nil {
		return
	}
	legal := queue.Move(r.state, queue.Canceled, queue.ByCancel) == nil
	if did := m.cancel(r.id); did != legal {
		m.Errorf("Cancel of %s: got %t, want %t", r.state, did, legal)
	}
	if legal {
		r.state = queue.Canceled
	}
}

func (m *machine) letGoOne() {
	r := m.pick(func(r *row) bool { return r.state == queue.Canceled && r.worker != 0 })
	if r == nil {
		return
	}
	m.must(store.Write{Fence: r.fence(), LetGo: true})
	r.worker = 0
}

func (m *machine) promote() {
	m.sweep()
	m.due()
}

func (m *machine) due() {
	for _, r := range m.rows {
		if r.state == queue.Waiting {
			r.state = queue.Pending
		}
	}
}

// killOne lets a worker die and be reaped.
func (m *machine) killOne() {
	i := m.rand.IntN(len(m.workers))
	dead := m.workers[i]
	m.workers[i] = m.worker()
	m.kill(dead)
	m.reapUntil("removed the worker", maxReaps, func(store.Swept) bool {
		return m.beat(store.Beat{Worker: dead, Leave: true}).Lost
	})
	for _, r := range m.rows {
		if r.worker != dead {
			continue
		}
		r.worker = 0
		switch {
		case r.state == queue.Canceled:
		case r.survives && r.reaps < maxReaps:
			r.state, r.reaps = queue.Waiting, r.reaps+1
		default:
			r.state, r.reaps = queue.Failed, r.reaps+1
		}
	}
	m.sweep()
	m.due()
}

// stale writes under a fence that was never, or is no longer, right.
func (m *machine) stale() {
	r := m.pick(func(*row) bool { return true })
	if r == nil {
		return
	}
	for _, f := range []queue.Fence{
		{ID: r.id, Attempt: r.attempt - 1, State: queue.Processing},
		{ID: r.id, Attempt: r.attempt + 1, State: queue.Processing},
		{ID: r.id, Attempt: r.attempt, State: queue.Claimed},
	} {
		if f != r.fence() {
			m.lost(store.Write{Fence: f, Failures: 1})
		}
	}
}

// illegal asks for a move that the row's true state does not allow.
func (m *machine) illegal() {
	r := m.pick(func(r *row) bool { return r.state != queue.Processing })
	if r == nil {
		return
	}
	f := r.fence()
	f.State = queue.Processing
	m.lost(complete(f))
}

func (m *machine) deleteOne() {
	r := m.pick(func(r *row) bool { return !r.state.Final() || r.worker == 0 })
	if r == nil {
		return
	}
	err := m.d.Delete(m.Context(), "", r.id)
	if !r.state.Final() {
		if !errors.Is(err, queue.ErrRunning) {
			m.Errorf("Delete of %s: got %v, want ErrRunning", r.state, err)
		}
		return
	}
	if err != nil {
		m.Fatalf("Delete: %v", err)
	}
	for i := range m.rows {
		if m.rows[i] == r {
			m.rows = append(m.rows[:i], m.rows[i+1:]...)
			return
		}
	}
}
