package claimer_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/sqlite"
)

// chat is a request on the default path.
func chat() store.Write {
	return store.Write{Insert: &queue.New{
		ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/chat/completions", Body: []byte("{}"), DeadlineIn: time.Hour,
	}}
}

// used is completed with what a call leaves.
func used() store.Ending {
	e := completed()
	e.Outcome.Body = []byte("answer")
	e.Rest = store.Write{
		Usage:     []store.Usage{{Ordinal: 1, Try: 1, Target: "up/m", Tokens: response.Usage{Input: 7}, Tenant: "t", Model: "m"}},
		Decisions: []store.Decision{{Try: 1, Kind: "route", Question: []byte("what the client sent"), Answer: []byte("{}")}},
	}
	return e
}

// The answer of a run without a row waits for no write, and what is written then
// is all of it.
func TestPerformAnswersFirst(t *testing.T) {
	for _, row := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeStore{}
			var done atomic.Bool
			c, stop := start(t, f, func(_ context.Context, cl queue.Claim) (store.Ending, error) {
				if !cl.Realtime || cl.State != queue.Processing || cl.Attempt != 1 || string(cl.Body) != "{}" || cl.Remaining != time.Hour {
					t.Errorf("claim %+v; want a realtime one, processing, attempt 1, with an hour", cl)
				}
				if n := len(f.writes); n != 0 {
					t.Errorf("%d writes before it began", n)
				}
				time.Sleep(3 * time.Second)
				e := used()
				e.Done = func(committed bool) { done.Store(committed) }
				return e, nil
			})
			f.set(func() { f.hang = true })
			w := chat()
			run, err := c.Perform(t.Context(), w, row)
			if err != nil {
				t.Fatal(err)
			}
			if n := c.Running(); n != 1 {
				t.Errorf("%d run; want 1", n)
			}
			o, err := run.Wait(t.Context())
			if err != nil || o.To != queue.Completed || string(o.Body) != "answer" || !done.Load() {
				t.Errorf("Wait: %+v, %v; want the answer, and Done called", o, err)
			}
			synctest.Wait()
			if len(f.writes) != 1 || len(f.queued) != 1 {
				t.Fatalf("%d writes, want one", len(f.writes))
			}
			got := f.writes[0]
			if len(got.Usage) != 1 || got.Rowless == row || got.Recorded() != row {
				t.Errorf("row %t: wrote %+v", row, got)
			}
			if row && (got.Insert.ID != w.Insert.ID || got.Insert.Worker != c.Worker() || got.Insert.Body != nil || got.Move.Result != nil ||
				got.Move.To != queue.Completed || got.Took != 3*time.Second || len(got.Decisions) != 1) {
				t.Errorf("wrote %+v of %+v", got, got.Insert)
			}
			f.queued[0](nil)
			stop()
			if n := c.Unrecorded(); n != 0 {
				t.Errorf("%d unrecorded; want none", n)
			}
		})
	}
}

// However a run without a row ends, it is recorded so.
func TestPerformEnds(t *testing.T) {
	gone := func(ctx context.Context, _ queue.Claim) (store.Ending, error) {
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), queue.ErrClientGone) {
			t.Errorf("stopped by %v; want that the client is gone", context.Cause(ctx))
		}
		return store.Ending{Outcome: queue.Outcome{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled}, Rest: store.Write{Usage: used().Rest.Usage}}, nil
	}
	for _, tt := range []struct {
		name string
		p    processor
		want queue.State
		used int
	}{
		{"client gone", gone, queue.Canceled, 1},
		{"failed", func(context.Context, queue.Claim) (store.Ending, error) {
			return store.Ending{Outcome: queue.Outcome{To: queue.Failed, By: queue.ByOutcome, Class: queue.UpstreamStatus, Park: time.Minute}}, nil
		}, queue.Failed, 0},
		{"panicked", func(context.Context, queue.Claim) (store.Ending, error) { panic("x") }, queue.Failed, 0},
		{"broken", func(context.Context, queue.Claim) (store.Ending, error) { return used(), errors.New("x") }, queue.Failed, 1},
		{"put off", func(context.Context, queue.Claim) (store.Ending, error) {
			return store.Ending{Outcome: queue.Outcome{To: queue.Waiting, By: queue.ByRetry}}, nil
		}, queue.Failed, 0},
	} {
		for _, row := range []bool{true, false} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := &fakeStore{}
					c, stop := start(t, f, tt.p)
					w := chat()
					run, err := c.Perform(t.Context(), w, row)
					if err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
					c.Stop(w.Insert.ID, queue.ErrClientGone)
					o, err := run.Wait(t.Context())
					if err != nil || o.To != tt.want {
						t.Errorf("Wait: %v, %v; want %v", o.To, err, tt.want)
					}
					stop()
					moves, _ := f.written()
					if row && (len(moves) != 1 || moves[0] != tt.want || len(f.writes[0].Usage) != tt.used) {
						t.Errorf("wrote %v, usage %+v; want %v, %d", moves, f.writes[0].Usage, tt.want, tt.used)
					}
					if !row && (len(f.writes) != tt.used || len(moves) != 0) {
						t.Errorf("wrote %+v; want only %d of usage", f.writes, tt.used)
					}
				})
			})
		}
	}
}

// Nobody can take over what has no row: it goes on when the lease runs out, or
// the worker was given up.
func TestPerformOutlivesTheLease(t *testing.T) {
	for name, hit := range map[string]func(*fakeStore){
		"fenced": func(f *fakeStore) { f.down = true },
		"lost":   func(f *fakeStore) { f.lost = true },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var stopped causes
				f := &fakeStore{}
				c, stop := start(t, f, func(ctx context.Context, cl queue.Claim) (store.Ending, error) {
					if cl.Path == "/v1/responses" {
						return untilStopped(&stopped)(ctx, cl)
					}
					select {
					case <-ctx.Done():
						t.Errorf("stopped by %v", context.Cause(ctx))
					case <-time.After(2 * lease):
					}
					return used(), nil
				})
				held := chat()
				held.Insert.Path = "/v1/responses"
				if _, err := c.Submit(t.Context(), held); err != nil {
					t.Fatal(err)
				}
				run, err := c.Perform(t.Context(), chat(), true)
				if err != nil {
					t.Fatal(err)
				}
				f.set(func() { hit(f) })
				o, err := run.Wait(t.Context())
				if err != nil || o.To != queue.Completed {
					t.Errorf("Wait: %v, %v; want completed", o.To, err)
				}
				if stopped.count() != 1 {
					t.Errorf("%d runs with a row were stopped; want one", stopped.count())
				}
				f.set(func() { f.down = false })
				stop()
			})
		})
	}
}

// A shutdown lets runs without a row end within its drain, then stops them; what
// they leave is queued before Run returns.
func TestPerformAtAShutdown(t *testing.T) {
	for _, tt := range []struct {
		takes time.Duration
		want  queue.State
	}{{3 * time.Second, queue.Completed}, {time.Hour, queue.Failed}} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeStore{}
			c, stop := start(t, f, func(ctx context.Context, _ queue.Claim) (store.Ending, error) {
				select {
				case <-time.After(tt.takes):
					return used(), nil
				case <-ctx.Done():
					return store.Ending{Outcome: queue.Outcome{To: queue.Failed, By: queue.ByOutcome, Class: queue.WorkerLost}}, nil
				}
			})
			run, err := c.Perform(t.Context(), chat(), true)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			stop()
			if d := time.Since(began); d > 6*time.Second {
				t.Errorf("the shutdown took %s", d)
			}
			if o, err := run.Wait(t.Context()); err != nil || o.To != tt.want {
				t.Errorf("Wait: %v, %v; want %v", o.To, err, tt.want)
			}
			if moves, _ := f.written(); len(moves) != 1 || moves[0] != tt.want {
				t.Errorf("wrote %v; want %v", moves, tt.want)
			}
			if _, err := c.Perform(t.Context(), chat(), true); !unavailable(err) {
				t.Errorf("after it: %v; want an *Unavailable", err)
			}
		})
	}
}

// Runs without a row take the places of realtime requests, and keep them while
// what they leave finds no room in the queue of writes.
func TestPerformTakesPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{full: make(chan struct{})}
		c, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { return used(), nil },
			func(o *claimer.Options) { o.Realtime = 1 })
		run, err := c.Perform(t.Context(), chat(), true)
		if err != nil {
			t.Fatal(err)
		}
		if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Completed {
			t.Errorf("Wait: %v, %v; want completed", o.To, err)
		}
		if _, err := c.Perform(t.Context(), chat(), true); !unavailable(err) {
			t.Errorf("while the queue is full: %v; want an *Unavailable", err)
		}
		close(f.full)
		synctest.Wait()
		if _, err := c.Perform(t.Context(), chat(), true); err != nil {
			t.Errorf("after that: %v", err)
		}
		stop()
	})
}

func TestPerformRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{sick: true}
		c, stop := start(t, f, instantly)
		if _, err := c.Perform(t.Context(), chat(), true); !unavailable(err) {
			t.Errorf("without a store: %v; want an *Unavailable", err)
		}
		f.set(func() { f.sick = false })
		gone, leave := context.WithCancelCause(t.Context())
		leave(queue.ErrClientGone)
		if _, err := c.Perform(gone, chat(), true); !errors.Is(err, queue.ErrClientGone) {
			t.Errorf("without a client: %v; want that it is gone", err)
		}
		stop()
		if len(f.writes) != 0 {
			t.Errorf("wrote %+v", f.writes)
		}
	})
}

func TestPerformCountsWhatIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{refuse: errors.New("no")}
		c, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { return used(), nil })
		for _, row := range []bool{true, false} {
			run, err := c.Perform(t.Context(), chat(), row)
			if err != nil {
				t.Fatal(err)
			}
			if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Completed {
				t.Errorf("Wait: %v, %v; want completed all the same", o.To, err)
			}
		}
		stop()
		if n := c.Unrecorded(); n != 2 {
			t.Errorf("%d unrecorded; want 2", n)
		}
	})
}

// away is a database that cannot be reached for a while.
type away struct {
	store.Driver
	away atomic.Bool
}

func (a *away) Write(ctx context.Context, w []store.Write) ([]error, error) {
	if a.away.Load() {
		return nil, store.ErrUnavailable
	}
	return a.Driver.Write(ctx, w)
}

// While the database is away, what runs is answered all the same, and its row is
// there once the database is back.
func TestPerformWhileTheDatabaseIsAway(t *testing.T) {
	d, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	db := &away{Driver: d}
	s := store.New(db, store.Options{})
	begun, goOn := make(chan struct{}), make(chan struct{})
	c := claimer.New(s, processor(func(context.Context, queue.Claim) (store.Ending, error) {
		close(begun)
		<-goOn
		return used(), nil
	}), claimer.Options{Models: claimer.Fixed("m")})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 2)
	go func() { over <- s.Run(ctx) }()
	work, end := context.WithCancel(ctx)
	go func() { over <- c.Run(work, work) }()
	<-c.Ready()
	w := chat()
	run, err := c.Perform(t.Context(), w, true)
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	db.away.Store(true)
	close(goOn)
	if o, err := run.Wait(t.Context()); err != nil || o.To != queue.Completed {
		t.Errorf("Wait: %v, %v; want completed", o.To, err)
	}
	if _, err := d.Get(t.Context(), "t", w.Insert.ID, store.Parts{}); !errors.Is(err, queue.ErrNotFound) {
		t.Errorf("Get: %v; want no row yet", err)
	}
	db.away.Store(false)
	end()
	err = <-over
	cancel()
	if err = errors.Join(err, <-over); err != nil {
		t.Error(err)
	}
	r, err := d.Get(t.Context(), "t", w.Insert.ID, store.Parts{Body: true, Usage: true, Decisions: true})
	if err != nil || r.State != queue.Completed || r.Worker != 0 || len(r.Usage) != 1 || len(r.Decisions) != 1 || r.Body != nil {
		t.Errorf("Get: %+v, %v; want it completed, with its usage and decision", r, err)
	}
	if c.Unrecorded() != 0 || s.Lost() != 0 {
		t.Errorf("%d unrecorded, %d lost; want none", c.Unrecorded(), s.Lost())
	}
}

// The end of a run without a row makes no room in a lane, so nothing is claimed
// for it, but where a target has a limit.
func TestPerformWakesForRoomOnly(t *testing.T) {
	for _, room := range []int{-1, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeStore{}
			c, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { return used(), nil },
				func(o *claimer.Options) { o.Room = func(string) int { return room } })
			defer stop()
			time.Sleep(time.Minute)
			synctest.Wait()
			before := len(f.claims)
			run, err := c.Perform(t.Context(), chat(), true)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := run.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // no time passes
			if woken := len(f.claims) > before; woken != (room >= 0) {
				t.Errorf("room %d: claimed at its end: %t", room, woken)
			}
		})
	}
}
