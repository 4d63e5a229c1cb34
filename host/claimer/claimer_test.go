package claimer_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// B1, B31: processing is durable before the work begins, with the claim itself.
func TestClaimsBeginAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{pending: []queue.Claim{claim()}}
		_, stop := start(t, f, func(_ context.Context, c queue.Claim) (store.Ending, error) {
			if c.State != queue.Processing {
				t.Errorf("processing began of a request that is %s", c.State)
			}
			return completed(), nil
		})
		synctest.Wait()
		stop()
		if moves, _ := f.written(); !slices.Equal(moves, []queue.State{queue.Completed}) {
			t.Errorf("moves %v; want completed", moves)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, c := range f.claims {
			if !c.Start {
				t.Errorf("a claim that does not start what it gets: %+v", c)
			}
		}
		for _, w := range f.writes {
			if want := (queue.Fence{ID: w.Fence.ID, Attempt: 3, State: queue.Processing}); w.Fence != want {
				t.Errorf("a write with fence %+v; want %+v", w.Fence, want)
			}
		}
		if last := f.beats[len(f.beats)-1]; !last.Leave {
			t.Errorf("last heartbeat %+v; want one that leaves", last)
		}
	})
}

func TestCancelByHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		cl := claim()
		f := &fakeStore{pending: []queue.Claim{cl}}
		c, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		f.set(func() {
			f.held = []store.Held{{Fence: queue.Fence{ID: cl.ID, Attempt: cl.Attempt, State: queue.Canceled}}}
		})
		time.Sleep(lease / 4)
		synctest.Wait()
		stopped.only(t, queue.ErrCanceled)
		if _, letGo := f.written(); letGo != 1 {
			t.Errorf("let go %d times; want 1", letGo)
		}
		if c.Running() != 0 {
			t.Errorf("%d run; want none", c.Running())
		}
		f.set(func() { f.held = nil })
		stop()
	})
}

// TestStraysAreEnded checks that rows that name this host and run nowhere do
// not hang for ever, and are not touched before the second heartbeat.
func TestStraysAreEnded(t *testing.T) {
	tests := []struct {
		name  string
		state queue.State
		alone bool
		moves []queue.State
		letGo int
	}{
		{"canceled", queue.Canceled, false, nil, 1},
		{"claimed", queue.Claimed, false, []queue.State{queue.Pending}, 0},
		{"processing", queue.Processing, false, []queue.State{queue.Pending}, 0},
		{"nobody could go on", queue.Processing, true, []queue.State{queue.Failed}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeStore{held: []store.Held{{
					Fence: queue.Fence{ID: queue.NewID(), Attempt: 7, State: tt.state}, Alone: tt.alone,
				}}}
				_, stop := start(t, f, nil)
				time.Sleep(lease/4 + time.Second)
				if moves, letGo := f.written(); len(moves)+letGo != 0 {
					t.Error("a row was touched at the first heartbeat that named it")
				}
				time.Sleep(lease / 4)
				synctest.Wait()
				if moves, letGo := f.written(); !slices.Equal(moves, tt.moves) || letGo != tt.letGo {
					t.Errorf("moves %v, let go %d times; want %v, %d", moves, letGo, tt.moves, tt.letGo)
				}
				f.set(func() { f.held = nil })
				stop()
			})
		})
	}
}

// TestCancelThatTheFrontCouldNotWrite checks that a run that was stopped for a
// client that left is canceled by its worker when the front could not.
func TestCancelThatTheFrontCouldNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := claim()
		f := &fakeStore{pending: []queue.Claim{cl}}
		f.refuseLetGo = &store.LeaseLost{ID: cl.ID, State: queue.Processing, Attempt: cl.Attempt}
		var stopped causes
		c, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		c.Stop(cl.ID, queue.ErrCanceled)
		synctest.Wait()
		moves, letGo := f.written()
		if !slices.Equal(moves, []queue.State{queue.Canceled}) || letGo != 2 {
			t.Errorf("moves %v, let go %d times; want canceled, 2", moves, letGo)
		}
		stop()
	})
}

// U7, L25: an outcome that the store refuses ends the row as failed; it is not
// left to be reaped and run again for ever.
func TestOutcomeThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{pending: []queue.Claim{claim()}, refuse: errors.New("bad bytes"), refuseOnce: true}
		_, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { return completed(), nil })
		synctest.Wait()
		if moves, _ := f.written(); !slices.Equal(moves, []queue.State{queue.Completed, queue.Failed}) {
			t.Errorf("moves %v; want completed (refused), failed", moves)
		}
		stop()
	})
}

func TestShutdownEndsWithoutTheDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		f := &fakeStore{pending: []queue.Claim{claim()}}
		_, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		f.set(func() { f.hang = true })
		began := time.Now()
		stop()
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("the shutdown took %s", d)
		}
	})
}

func TestLateResultOfCanceledIsLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := claim()
		f := &fakeStore{pending: []queue.Claim{cl}}
		f.refuse = &store.LeaseLost{ID: cl.ID, State: queue.Canceled, Attempt: cl.Attempt}
		_, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { return completed(), nil })
		synctest.Wait()
		if _, letGo := f.written(); letGo != 1 {
			t.Errorf("let go %d times; want 1", letGo)
		}
		stop()
	})
}

func TestFenceBeforeOthersMayReap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		f := &fakeStore{pending: []queue.Claim{claim()}}
		c, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		began := time.Now()
		f.set(func() { f.down = true })
		for stopped.count() == 0 && time.Since(began) < 2*lease {
			time.Sleep(lease / 100)
			synctest.Wait()
		}
		stopped.only(t, queue.ErrFenced)
		if d := time.Since(began); d >= lease {
			t.Errorf("work stopped %s after the last heartbeat; want less than the lease, %s", d, lease)
		}
		if c.Live() || c.Leased() {
			t.Errorf("live %t, leased %t; want neither without a lease", c.Live(), c.Leased())
		}
		if _, err := c.Submit(t.Context(), store.Write{Insert: &queue.New{ID: queue.NewID()}}); !unavailable(err) {
			t.Errorf("Submit: %v; want an *Unavailable", err)
		}
		f.set(func() { f.down = false })
		time.Sleep(lease / 4)
		synctest.Wait()
		if !c.Live() {
			t.Error("the lease was not taken up again")
		}
		stop()
	})
}

func unavailable(err error) bool {
	var u *claimer.Unavailable
	return errors.As(err, &u) && u.RetryAfter() > 0
}

func TestReapOnlyAfterOwnHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		_, stop := start(t, f, nil)
		mayReap := func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.sweeps[len(f.sweeps)-1].Reap
		}
		time.Sleep(lease)
		if mayReap() {
			t.Error("a host reaped within a lease of its start")
		}
		time.Sleep(lease / 2)
		if !mayReap() {
			t.Error("a healthy host does not reap")
		}
		f.set(func() { f.down = true })
		time.Sleep(lease / 3)
		if mayReap() {
			t.Error("a host reaps while its own heartbeats fail")
		}
		f.set(func() { f.down = false })
		time.Sleep(lease / 2)
		if mayReap() {
			t.Error("a host reaped within a lease of its own outage")
		}
		time.Sleep(lease)
		if !mayReap() {
			t.Error("a host that is healthy again does not reap")
		}
		stop()
	})
}

func TestReapedWorkerStopsAndJoinsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		f := &fakeStore{pending: []queue.Claim{claim()}}
		c, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		f.set(func() { f.lost = true })
		time.Sleep(lease / 4)
		synctest.Wait()
		stopped.only(t, queue.ErrLeaseLost)
		if c.Worker() != 2 || !c.Live() {
			t.Errorf("worker %d, live %v; want a fresh worker", c.Worker(), c.Live())
		}
		stop()
	})
}

// U17, L19: a shutdown drains, then hands its own rows back.
func TestShutdownDrainsThenHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		f := &fakeStore{pending: []queue.Claim{claim()}}
		c, stop := start(t, f, untilStopped(&stopped))
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(time.Second, func() {
			if c.Live() || !c.Leased() {
				t.Errorf("live %t, leased %t; want only what runs to go on", c.Live(), c.Leased())
			}
		})
		stop()
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("the drain lasted %s; want 5 s", d)
		}
		stopped.only(t, queue.ErrShutdown)
		if moves, _ := f.written(); !slices.Equal(moves, []queue.State{queue.Pending}) {
			t.Errorf("moves %v; want pending", moves)
		}
		if _, err := c.Submit(context.Background(), store.Write{Insert: &queue.New{ID: queue.NewID()}}); !unavailable(err) {
			t.Errorf("Submit after the end: %v; want an *Unavailable", err)
		}
	})
}

func TestDeadlineEndsARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		cl := claim()
		cl.Remaining = 3 * time.Second
		f := &fakeStore{pending: []queue.Claim{cl}}
		_, stop := start(t, f, untilStopped(&stopped))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		stopped.only(t, queue.ErrDeadline)
		stop()
	})
}

// U6: a panic is written once, as a failure that is tried again.
func TestBrokenProcessor(t *testing.T) {
	tests := []struct {
		name     string
		failures int
		realtime bool
		want     queue.State
	}{
		{"first time", 0, false, queue.Waiting},
		{"failures spent", 4, false, queue.Failed},
		{"somebody waits", 0, true, queue.Failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := claim()
				cl.Failures, cl.Realtime = tt.failures, tt.realtime
				f := &fakeStore{pending: []queue.Claim{cl}}
				_, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) { panic("bug") })
				synctest.Wait()
				stop()
				if moves, _ := f.written(); !slices.Equal(moves, []queue.State{tt.want}) {
					t.Errorf("moves %v; want %s", moves, tt.want)
				}
			})
		})
	}
}

func TestSubmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		var mu sync.Mutex
		called := 0
		c, stop := start(t, f, func(_ context.Context, cl queue.Claim) (store.Ending, error) {
			if !cl.Realtime || cl.State != queue.Processing || cl.Attempt != 1 {
				t.Errorf("claim %+v; want a realtime one, processing, attempt 1", cl)
			}
			e := completed()
			e.Done = func(committed bool) {
				mu.Lock()
				defer mu.Unlock()
				if committed {
					called++
				}
			}
			return e, nil
		})
		run, err := c.Submit(t.Context(), store.Write{Insert: &queue.New{ID: queue.NewID(), Tenant: "t", Model: "m"}})
		if err != nil {
			t.Fatal(err)
		}
		o, err := run.Wait(t.Context())
		if err != nil || o.To != queue.Completed {
			t.Errorf("Wait: %v, %v; want completed", o.To, err)
		}
		stop()
		if called != 1 {
			t.Errorf("Done was called %d times; want once", called)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if w := f.writes[0]; w.Insert == nil || w.Insert.Worker != 1 {
			t.Errorf("first write %+v; want an insert for worker 1", w)
		}
	})
}

func TestSlotsBoundClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		f := &fakeStore{}
		for range 10 {
			f.pending = append(f.pending, claim())
		}
		c := claimer.New(f, untilStopped(&stopped), claimer.Options{Slots: 4, Lease: lease, Models: claimer.Fixed("m")})
		ctx, cancel := context.WithCancel(t.Context())
		hard, stopNow := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, hard) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if c.Running() != 4 {
			t.Errorf("%d run; want 4", c.Running())
		}
		cancel()
		began := time.Now()
		stopNow() // the second signal
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("a hard stop took %s", d)
		}
	})
}
