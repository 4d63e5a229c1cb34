package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// away is a database that is unavailable until back.
func away(back time.Time) *fake {
	return &fake{write: func(_ int, w []store.Write) ([]error, error) {
		if time.Now().Before(back) {
			return nil, store.ErrUnavailable
		}
		return make([]error, len(w)), nil
	}}
}

// sized is an event write of about so many bytes.
func sized(seq int64, bytes int) store.Write {
	w := event(seq)
	w.Events[0].Data = make([]byte, bytes)
	return w
}

func (f *fake) seqs() []int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var seqs []int64
	for _, w := range f.batches[len(f.batches)-1] {
		seqs = append(seqs, w.Events[0].Seq)
	}
	return seqs
}

// TestFullQueueKeepsTheDeadline: who queues a write waits for room no longer
// than it said, and then nothing was queued.
func TestFullQueueKeepsTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := away(time.Now().Add(time.Hour))
		s := store.New(f, store.Options{MaxWrites: 1})
		stop := run(t, s)
		s.WriteAsync(t.Context(), event(0), func(error) {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		var got error
		s.WriteAsync(ctx, event(1), func(err error) { got = err })
		if took := time.Since(begin); took != time.Second || !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("got %v after %s, want the deadline after 1s", got, took)
		}
		s.WriteAsync(ctx, event(1), func(err error) { got = errors.Join(err, errors.New("again")) })
		if took := time.Since(begin); took != time.Second || !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("after the deadline: got %v after %s, want it at once", got, took)
		}
		time.Sleep(2 * time.Hour)
		var late []error
		s.WriteAsync(ctx, event(1), func(err error) { late = append(late, err) }) // room is no matter of the deadline
		synctest.Wait()
		if !slices.Equal(late, []error{nil}) {
			t.Errorf("with room, after the deadline: got %v, want it committed", late)
		}
		stop()
		if got := f.seqs(); !slices.Equal(got, []int64{1}) {
			t.Errorf("committed last: got %v, want only the write that found room", got)
		}
	})
}

// TestRoomIsGivenInOrder: a large write is not passed by small ones that would
// fit, and one that gives up lets those behind it through.
func TestRoomIsGivenInOrder(t *testing.T) {
	for _, c := range []struct {
		name  string
		after time.Duration // the large one gives up
		want  []int64
	}{
		{"it waits", 2 * time.Hour, []int64{1, 2, 3}},
		{"it gives up", time.Minute, []int64{2, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := away(time.Now().Add(time.Hour))
				s := store.New(f, store.Options{MaxBytes: 10_000})
				stop := run(t, s)
				s.WriteAsync(t.Context(), sized(0, 5_000), func(error) {})
				synctest.Wait()
				var done results
				for i, bytes := range []int{8_000, 10, 10} {
					wait := 2 * time.Hour
					if i == 0 {
						wait = c.after
					}
					ctx, cancel := context.WithTimeout(t.Context(), wait)
					defer cancel()
					go s.WriteAsync(ctx, sized(int64(i+1), bytes), done.done)
					synctest.Wait()
				}
				if got := s.Backlog(); got != 1 {
					t.Errorf("Backlog: got %d, want the one that fits", got)
				}
				time.Sleep(3 * time.Hour)
				stop()
				var got []int64
				for _, b := range f.batches {
					if b[0].Events[0].Seq == 0 {
						continue
					}
					for _, w := range b {
						got = append(got, w.Events[0].Seq)
					}
				}
				if !slices.Equal(got, c.want) || len(done.all()) != 3 {
					t.Errorf("committed %v, want %v; %d answers, want 3", got, c.want, len(done.all()))
				}
			})
		})
	}
}

// TestBoundsOfTheSpool: neither more writes nor more bytes wait than may, but
// for one write that is larger than all.
func TestBoundsOfTheSpool(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     store.Options
		bytes int
		want  int
	}{
		{"writes", store.Options{MaxWrites: 7}, 10, 7},
		{"bytes", store.Options{MaxBytes: 10_000}, 1_500, 4},
		{"one too large", store.Options{MaxBytes: 100}, 1_500, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := store.New(away(time.Now().Add(time.Hour)), c.o)
				stop := run(t, s)
				var r results
				for i := range 20 {
					go s.WriteAsync(t.Context(), sized(int64(i), c.bytes), r.done)
				}
				time.Sleep(time.Minute)
				if got := s.Backlog(); got != c.want {
					t.Errorf("Backlog: got %d, want %d", got, c.want)
				}
				time.Sleep(2 * time.Hour)
				if len(r.all()) != 20 || errors.Join(r.all()...) != nil || s.Backlog() != 0 {
					t.Errorf("after the outage: %d answers, %v, backlog %d", len(r.all()), errors.Join(r.all()...), s.Backlog())
				}
				stop()
			})
		})
	}
}

// TestWithdrawnMakesRoom: a write whose caller went away while the database is
// away is no burden to the results of others.
func TestWithdrawnMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.New(away(time.Now().Add(time.Hour)), store.Options{MaxWrites: 3, BatchWrites: 1})
		stop := run(t, s)
		s.WriteAsync(t.Context(), event(0), func(error) {})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 2 {
			go func() { _ = s.Write(ctx, event(int64(i+1))) }()
		}
		synctest.Wait()
		var r results
		go s.WriteAsync(t.Context(), event(3), r.done)
		synctest.Wait()
		if got := s.Backlog(); got != 3 {
			t.Errorf("Backlog: got %d, want 3", got)
		}
		cancel()
		synctest.Wait()
		if got := s.Backlog(); got != 2 {
			t.Errorf("Backlog: got %d, want the one in flight and the result", got)
		}
		time.Sleep(2 * time.Hour)
		if got := r.all(); !slices.Equal(got, []error{nil}) {
			t.Errorf("the result: got %v", got)
		}
		stop()
	})
}

// TestCrowdedClaimsNothing: what runs will need the room that is left.
func TestCrowdedClaimsNothing(t *testing.T) {
	for _, c := range []struct {
		name   string
		o      store.Options
		bytes  int
		writes int
		want   int
	}{
		{"half the writes", store.Options{MaxWrites: 8}, 10, 4, 1},
		{"more than half of the writes", store.Options{MaxWrites: 8}, 10, 5, 0},
		{"half the bytes", store.Options{MaxBytes: 20_000}, 4_000, 2, 1},
		{"more than half of the bytes", store.Options{MaxBytes: 20_000}, 4_000, 3, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := away(time.Now().Add(time.Minute))
				s := store.New(f, c.o)
				stop := run(t, s)
				for i := range c.writes {
					s.WriteAsync(t.Context(), sized(int64(i), c.bytes), func(error) {})
				}
				claim := func() int {
					claims, err := s.Claim(t.Context(), store.ClaimRequest{Worker: 1, Models: []string{"m"}, N: 1})
					if err != nil {
						t.Errorf("Claim: %v", err)
					}
					return len(claims)
				}
				if got := claim(); got != c.want {
					t.Errorf("got %d claims, want %d", got, c.want)
				}
				time.Sleep(time.Hour)
				if got := claim(); got != 1 {
					t.Errorf("after the outage: got %d claims, want 1", got)
				}
				stop()
			})
		})
	}
}

// TestU8EachResultIsWrittenOnce: whatever the outage, a result is written once,
// in order, and what came too late is counted.
func TestU8EachResultIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{write: func(n int, w []store.Write) ([]error, error) {
			time.Sleep(time.Millisecond)
			if n%3 != 0 {
				return nil, store.ErrUnavailable
			}
			errs := make([]error, len(w))
			for i := range w {
				if w[i].Events[0].Seq%10 == 0 {
					errs[i] = &store.LeaseLost{ID: w[i].Fence.ID, State: queue.Waiting, Attempt: 1}
				}
			}
			return errs, nil
		}}
		s := store.New(f, store.Options{MaxWrites: 16, BatchWrites: 4})
		stop := run(t, s)
		const n = 100
		var lost int
		var got []int64
		for i := range int64(n) {
			s.WriteAsync(t.Context(), event(i), func(err error) {
				got = append(got, i)
				if errors.Is(err, queue.ErrLeaseLost) {
					lost++
				} else if err != nil {
					t.Errorf("write %d: %v", i, err)
				}
			})
		}
		stop()
		if len(got) != n || !slices.IsSorted(got) || lost != n/10 || s.Lost() != n/10 {
			t.Errorf("got %d answers, in order %t, %d late, counted %d", len(got), slices.IsSorted(got), lost, s.Lost())
		}
		var committed []int64
		for i, b := range f.batches {
			if (i+1)%3 != 0 {
				continue
			}
			for _, w := range b {
				committed = append(committed, w.Events[0].Seq)
			}
		}
		if len(committed) != n || !slices.IsSorted(committed) {
			t.Errorf("committed %v, want each once and in order", committed)
		}
	})
}

// TestParkIsCut: a rate limit parks an hour at most; the caller's move is left
// alone.
func TestParkIsCut(t *testing.T) {
	for _, c := range []struct{ park, want time.Duration }{
		{0, 0},
		{time.Minute, time.Minute},
		{store.MaxPark, store.MaxPark},
		{100 * time.Hour, store.MaxPark},
	} {
		f := &fake{}
		s := store.New(f, store.Options{})
		stop := run(t, s)
		w := move(running, queue.Waiting, queue.ByRetry)
		w.Move.Park = c.park
		w.Events = []response.Event{{Data: []byte("e")}}
		if err := s.Write(t.Context(), w); err != nil {
			t.Errorf("Write: %v", err)
		}
		stop()
		if got := f.batches[0][0].Move.Park; got != c.want || w.Move.Park != c.park {
			t.Errorf("park of %s: the driver got %s, want %s; the caller has %s", c.park, got, c.want, w.Move.Park)
		}
	}
}
