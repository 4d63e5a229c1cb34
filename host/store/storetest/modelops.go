package storetest

import (
	"errors"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// step moves a row that f likes in both.
func (m *machine) step(f func(*row) bool, to queue.State, by queue.Cause, failures int, park time.Duration) {
	r := m.pick(f)
	if r == nil {
		return
	}
	w := parking(r.fence(), to, by, park)
	w.Failures = failures
	if to.Final() {
		w.Move.Result = &store.Result{Status: 200, Body: []byte(resultOf(r))}
		r.result = resultOf(r)
	}
	m.must(w)
	if park > 0 {
		m.parked[[2]string{r.tenant, r.model}] = true
		m.parked[[2]string{r.tenant, other}] = m.parked[[2]string{r.tenant, other}] || r.escalated
	}
	r.state, r.failures = to, r.failures+failures
	if w.Move.Releases() {
		r.release()
	}
}

func (r *row) release() { r.worker, r.escalated = 0, false }

func (m *machine) startOne() { m.step(in(queue.Claimed), queue.Processing, queue.ByStart, 0, 0) }

func (m *machine) finishOne() {
	to := []queue.State{queue.Completed, queue.Failed}[m.rand.IntN(2)]
	m.step(in(queue.Processing), to, queue.ByOutcome, m.rand.IntN(2), 0)
}

func (m *machine) retryOne() { m.step(in(queue.Processing), queue.Waiting, queue.ByRetry, 1, 0) }

// parkOne parks a lane for so short that a sweep may end it at any time.
func (m *machine) parkOne() {
	m.step(in(queue.Processing), queue.Waiting, queue.ByRetry, 0, 5*time.Millisecond)
}

func (m *machine) handBackOne() {
	m.step(in(queue.Claimed, queue.Processing), queue.Pending, queue.ByHandBack, 0, 0)
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
	r.release()
}

// promote sweeps: what waits is due, and parks that are over end.
func (m *machine) promote() {
	s := m.stats()
	m.sweep()
	for _, l := range s.Lanes {
		if l.Wait == 0 {
			delete(m.parked, [2]string{l.Tenant, l.Model})
		}
	}
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
		r.release()
		switch {
		case r.state == queue.Canceled:
		case r.survives && r.reaps < maxReaps:
			r.state, r.reaps = queue.Waiting, r.reaps+1
		default:
			r.state, r.reaps = queue.Failed, r.reaps+1
		}
	}
	m.promote()
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
	if f := (queue.Fence{ID: r.id, Attempt: r.attempt - 1, State: queue.Processing}); f != r.fence() {
		m.lost(complete(f))
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
	m.rows = slices.DeleteFunc(m.rows, func(o *row) bool { return o == r })
}
