package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// fake is a driver whose Write is a function; of its other methods it has only
// those of check_test.go.
type fake struct {
	store.Driver
	mu      sync.Mutex
	batches [][]store.Write
	claims  []store.ClaimRequest
	beats   []store.Beat
	limits  []store.Limits
	write   func(n int, writes []store.Write) ([]error, error) // n counts from 1
}

func (f *fake) Write(_ context.Context, writes []store.Write) ([]error, error) {
	f.mu.Lock()
	f.batches = append(f.batches, writes)
	n := len(f.batches)
	f.mu.Unlock()
	if f.write == nil {
		return make([]error, len(writes)), nil
	}
	return f.write(n, writes)
}

func (f *fake) sizes() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n []int
	for _, b := range f.batches {
		n = append(n, len(b))
	}
	return n
}

// run runs a Store until the returned function is called, which waits for it.
func run(t *testing.T, s *store.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

var running = queue.Fence{ID: queue.ID{1}, Attempt: 1, State: queue.Processing}

func event(seq int64) store.Write {
	return store.Write{Fence: running, Events: []response.Event{{Seq: seq, Data: []byte("e")}}}
}

// results collects what done was called with.
type results struct {
	mu   sync.Mutex
	errs []error
}

func (r *results) done(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

func (r *results) all() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.errs)
}

func TestWritesAreGroupedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			time.Sleep(time.Millisecond) // fake time: a commit
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{BatchWrites: 4})
		stop := run(t, s)
		synctest.Wait()
		var r results
		for i := range 10 {
			s.WriteAsync(t.Context(), event(int64(i)), r.done)
			if i == 0 {
				synctest.Wait() // the first commit is under way
			}
		}
		if got := s.Backlog(); got != 10 {
			t.Errorf("Backlog: got %d, want 10", got)
		}
		begin := time.Now()
		stop()
		if got, want := f.sizes(), []int{1, 4, 4, 1}; !slices.Equal(got, want) {
			t.Errorf("groups: got %v, want %v", got, want)
		}
		if took := time.Since(begin); took != 4*time.Millisecond {
			t.Errorf("took %s, want 4 commits and no wait between them", took)
		}
		var seqs []int64
		for _, b := range f.batches {
			for _, w := range b {
				seqs = append(seqs, w.Events[0].Seq)
			}
		}
		if !slices.IsSorted(seqs) || len(r.all()) != 10 || errors.Join(r.all()...) != nil {
			t.Errorf("order %v, results %v", seqs, r.all())
		}
		if s.Backlog() != 0 {
			t.Errorf("Backlog: got %d, want 0", s.Backlog())
		}
	})
}

// TestU8ResultsOutliveAnOutage: an earlier system of this kind dropped a result
// after 0.3 s of failed writes and ran the request again.
func TestU8ResultsOutliveAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := time.Now().Add(10 * time.Minute)
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			if time.Now().Before(back) {
				return nil, fmt.Errorf("refused: %w", store.ErrUnavailable)
			}
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{MaxWrites: 3})
		stop := run(t, s)
		var r results
		for i := range 3 {
			s.WriteAsync(t.Context(), event(int64(i)), r.done)
		}
		time.Sleep(time.Minute)
		if s.Healthy() || s.Err() == nil || s.Backlog() != 3 {
			t.Errorf("in the outage: healthy %t, %v, backlog %d", s.Healthy(), s.Err(), s.Backlog())
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Write(short, event(9)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write to a full queue: got %v, want the deadline", err)
		}
		time.Sleep(10 * time.Minute)
		if len(r.all()) != 3 || errors.Join(r.all()...) != nil || !s.Healthy() || s.Backlog() != 0 {
			t.Errorf("after it: results %v, healthy %t, backlog %d", r.all(), s.Healthy(), s.Backlog())
		}
		if err := s.Write(t.Context(), event(3)); err != nil {
			t.Errorf("Write: %v", err)
		}
		stop()
	})
}

func TestOneBadWriteFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("value out of range")
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			for _, w := range w {
				if w.Events[0].Seq == 5 {
					return nil, bad
				}
			}
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{})
		var r results
		for i := range 9 {
			s.WriteAsync(t.Context(), event(int64(i)), r.done)
		}
		run(t, s)()
		for i, err := range r.all() {
			if want := i == 5; errors.Is(err, bad) != want {
				t.Errorf("write %d: got %v", i, err)
			}
		}
		if len(r.all()) != 9 {
			t.Errorf("got %d results, want 9", len(r.all()))
		}
		var committed []int64
		for _, b := range f.batches {
			if !slices.ContainsFunc(b, func(w store.Write) bool { return w.Events[0].Seq == 5 }) {
				for _, w := range b {
					committed = append(committed, w.Events[0].Seq)
				}
			}
		}
		if !slices.Equal(committed, []int64{0, 1, 2, 3, 4, 6, 7, 8}) {
			t.Errorf("committed %v, want each other one once and in order", committed)
		}
	})
}

func TestEndDrains(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(int, []store.Write) ([]error, error)
		want  error
		took  time.Duration
	}{
		{"committed", nil, nil, 0},
		{"database away", func(int, []store.Write) ([]error, error) { return nil, store.ErrUnavailable }, store.ErrClosed, 3 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := store.New(&fake{write: c.write}, store.Options{BatchWrites: 1, MaxWrites: 2, Drain: 3 * time.Second})
				var r results
				s.WriteAsync(t.Context(), event(0), r.done)
				s.WriteAsync(t.Context(), event(1), r.done)
				go s.WriteAsync(t.Context(), event(2), r.done) // waits for room
				synctest.Wait()
				begin := time.Now()
				run(t, s)()
				synctest.Wait()
				if took := time.Since(begin); took != c.took {
					t.Errorf("took %s, want %s", took, c.took)
				}
				for i, err := range r.all() {
					if !errors.Is(err, c.want) {
						t.Errorf("result %d: got %v, want %v", i, err, c.want)
					}
				}
				if len(r.all()) != 3 || s.Backlog() != 0 {
					t.Errorf("got %d results, backlog %d", len(r.all()), s.Backlog())
				}
				if err := s.Write(t.Context(), event(3)); !errors.Is(err, store.ErrClosed) {
					t.Errorf("Write after the end: got %v, want ErrClosed", err)
				}
				called := false
				s.WriteAsync(t.Context(), event(3), func(err error) { called = errors.Is(err, store.ErrClosed) })
				if !called {
					t.Error("WriteAsync after the end: done was not called with ErrClosed")
				}
				if err := s.Run(t.Context()); err == nil {
					t.Error("second Run: got nil")
				}
			})
		})
	}
}

func TestWriteIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			<-gate
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{})
		stop := run(t, s)
		var first, second error
		ctx, cancel := context.WithCancel(t.Context())
		go func() { first = s.Write(ctx, event(0)) }()
		synctest.Wait()
		go func() { second = s.Write(ctx, event(1)) }()
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(gate)
		stop()
		if !errors.Is(first, context.Canceled) || !errors.Is(second, context.Canceled) {
			t.Errorf("got %v and %v, want canceled", first, second)
		}
		if got := f.sizes(); !slices.Equal(got, []int{1}) {
			t.Errorf("groups: got %v, want only the one in flight", got)
		}
		if s.Backlog() != 0 {
			t.Errorf("Backlog: got %d, want 0", s.Backlog())
		}
	})
}

// TestGivenUpWriteIsNotTriedAgain: who gave up in an outage was told that it
// failed. When nothing is left to try with, the store does not stay unhealthy,
// since then nobody would write any more.
func TestGivenUpWriteIsNotTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var wrote atomic.Int32
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			if !up.Load() {
				return nil, store.ErrUnavailable
			}
			wrote.Add(int32(len(w)))
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{})
		stop := run(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := s.Write(ctx, event(0)); !errors.Is(err, store.ErrInFlight) {
			t.Errorf("Write: %v, want ErrInFlight", err)
		}
		time.Sleep(5 * time.Second)
		if !s.Healthy() || s.Backlog() != 0 {
			t.Errorf("healthy %t with %d writes held, want it to take writes again", s.Healthy(), s.Backlog())
		}
		up.Store(true)
		if err := s.Write(t.Context(), event(1)); err != nil || wrote.Load() != 1 {
			t.Errorf("Write: %v, %d written, want the second only", err, wrote.Load())
		}
		stop()
	})
}

func TestLostIsCounted(t *testing.T) {
	f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
		errs := make([]error, len(w))
		for i := range w {
			errs[i] = &store.LeaseLost{ID: w[i].Fence.ID, State: queue.Canceled, Attempt: 1}
		}
		return errs, nil
	}}
	s := store.New(f, store.Options{})
	defer run(t, s)()
	if err := s.Write(t.Context(), event(0)); !errors.Is(err, queue.ErrLeaseLost) {
		t.Errorf("got %v, want ErrLeaseLost", err)
	}
	if got := s.Lost(); got != 1 {
		t.Errorf("Lost: got %d, want 1", got)
	}
}

func TestSlowCommitIsNotHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{write: func(_ int, w []store.Write) ([]error, error) {
			time.Sleep(time.Minute)
			return make([]error, len(w)), nil
		}}
		s := store.New(f, store.Options{})
		stop := run(t, s)
		s.WriteAsync(t.Context(), event(0), func(error) {})
		time.Sleep(time.Second)
		if !s.Healthy() {
			t.Error("after 1 s: got unhealthy")
		}
		time.Sleep(30 * time.Second)
		if s.Healthy() {
			t.Error("after 31 s: got healthy")
		}
		time.Sleep(time.Minute)
		if !s.Healthy() {
			t.Error("after the commit: got unhealthy")
		}
		stop()
	})
}
