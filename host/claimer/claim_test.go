package claimer_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

func instantly(context.Context, queue.Claim) (store.Ending, error) { return completed(), nil }

// asked returns what was claimed so far, and forgets it.
func (f *fakeStore) asked() (claims []store.ClaimRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	claims, f.claims, f.claimsAt = f.claims, nil, nil
	return claims
}

// L4: claims that find nothing come less and less often, up to Poll; a hint, and
// something found, make them quick again.
func TestClaimsSlowDownAndAreHinted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		c, stop := start(t, f, instantly)
		time.Sleep(10 * time.Second)
		f.set(func() {
			for i, at := range f.claimsAt[1:] {
				gap, least := at.Sub(f.claimsAt[i]), min(20*time.Millisecond<<i, 400*time.Millisecond)*3/4
				if gap < least || gap > least*5/3+time.Millisecond {
					t.Errorf("pause %d was %s; want %s to %s", i, gap, least, least*5/3)
				}
			}
		})
		f.asked()
		c.Hint(store.Hint{Ready: true})
		synctest.Wait()
		if n := len(f.asked()); n != 1 {
			t.Errorf("%d claims after a hint; want one at once", n)
		}
		time.Sleep(100 * time.Millisecond)
		if n := len(f.asked()); n < 2 {
			t.Errorf("%d claims within 100 ms of a hint; want some", n)
		}
		stop()
	})
}

// While most slots are taken, those that become free within a moment are filled
// by one claim; who has most of them free claims at once.
func TestFreeSlotsAreGathered(t *testing.T) {
	for _, tt := range []struct{ ended int }{{4}, {9}} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeStore{}
			for range 12 {
				f.pending = append(f.pending, claim())
			}
			ends := make(chan bool)
			_, stop := start(t, f, func(ctx context.Context, cl queue.Claim) (store.Ending, error) {
				select {
				case <-ends:
					return completed(), nil
				case <-ctx.Done():
					return store.Ending{Outcome: queue.Outcome{To: queue.Pending, By: queue.ByHandBack}}, nil
				}
			}, func(o *claimer.Options) { o.Slots = 10 })
			time.Sleep(time.Second)
			f.asked()
			for range tt.ended {
				ends <- true
				if tt.ended < 5 {
					time.Sleep(time.Millisecond)
				} else {
					synctest.Wait()
				}
			}
			before := time.Now()
			synctest.Wait()
			if tt.ended > 5 && len(f.asked()) == 0 {
				t.Error("half of the slots are free and nothing was claimed")
			}
			time.Sleep(10*time.Millisecond - time.Since(before))
			synctest.Wait()
			if got := f.asked(); tt.ended < 5 && (len(got) != 1 || got[0].N != tt.ended) {
				t.Errorf("claims %+v; want one of %d", got, tt.ended)
			}
			stop()
		})
	}
}

func TestFullClaimIsFollowedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		for range 250 {
			f.pending = append(f.pending, claim())
		}
		began := time.Now()
		_, stop := start(t, f, untilStopped(&causes{}), func(o *claimer.Options) { o.Slots = 1000 })
		synctest.Wait()
		got := f.asked()
		if len(got) != 3 || got[2].N != 100 || time.Since(began) != 0 {
			t.Errorf("%d claims within %s; want 3 of 100 at once", len(got), time.Since(began))
		}
		stop()
	})
}

func TestWhatStopsClaiming(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fakeStore, *claimer.Options)
	}{
		{"writes wait for the database", func(f *fakeStore, _ *claimer.Options) { f.backlog = 2001 }},
		{"the store is away", func(f *fakeStore, _ *claimer.Options) { f.sick = true }},
		{"no model is open", func(_ *fakeStore, o *claimer.Options) { o.Models = claimer.Fixed() }},
		{"no model has room", func(_ *fakeStore, o *claimer.Options) { o.Room = func(string) int { return 0 } }},
		{"nothing to escalate to", func(_ *fakeStore, o *claimer.Options) {
			o.Models = func() (models, only []string) { return []string{"m"}, []string{"m"} }
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeStore{pending: []queue.Claim{claim()}}
				_, stop := start(t, f, instantly, func(o *claimer.Options) { tt.change(f, o) })
				time.Sleep(5 * time.Second)
				if n := len(f.asked()); n != 0 {
					t.Errorf("%d claims; want none", n)
				}
				stop()
			})
		})
	}
}

// What can be served changes from claim to claim. A model with bounded room is
// claimed by itself, for no more than fits, and shares the slots fairly.
func TestModelsOfEachClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		escalate := map[string]queue.Escalation{"slow": {To: "fast", Within: time.Minute}}
		rooms := map[string]int{"fast": -1, "few": 2, "none": 0, "slow": -1}
		var mu sync.Mutex
		only := []string{"slow"}
		c, stop := start(t, f, instantly, func(o *claimer.Options) {
			o.Slots, o.Escalate = 5, func() map[string]queue.Escalation { return escalate }
			o.Models = func() ([]string, []string) {
				mu.Lock()
				defer mu.Unlock()
				return []string{"fast", "few", "none", "slow"}, only
			}
			o.Room = func(m string) int { return rooms[m] }
		})
		synctest.Wait()
		got := f.asked()
		if len(got) != 2 || !slices.Equal(got[0].Models, []string{"few"}) || got[0].N != 2 ||
			!slices.Equal(got[1].Models, []string{"fast", "slow"}) || !slices.Equal(got[1].OnlyEscalate, []string{"slow"}) || got[1].N != 5 {
			t.Errorf("claims %+v; want 2 of few, and 5 of fast and slow, the latter escalated only", got)
		}
		if got[0].Escalate["slow"] != escalate["slow"] || got[0].Worker != c.Worker() {
			t.Errorf("claim %+v; want the escalation and the worker", got[0])
		}
		mu.Lock()
		only = nil
		mu.Unlock()
		c.Wake()
		synctest.Wait()
		if got = f.asked(); len(got) != 2 || !slices.Equal(got[0].Models, []string{"fast", "slow"}) || len(got[0].OnlyEscalate) != 0 {
			t.Errorf("claims %+v; want fast and slow first, now that it is their turn", got)
		}
		stop()
	})
}

// Requests that were just claimed do not show in the room of their model yet.
func TestRoomSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		for range 10 {
			f.pending = append(f.pending, claim())
		}
		c, stop := start(t, f, untilStopped(&causes{}), func(o *claimer.Options) {
			o.Room = func(string) int { return 2 }
		})
		time.Sleep(90 * time.Millisecond)
		if n := c.Running(); n != 2 {
			t.Errorf("%d run; want 2 until they show", n)
		}
		time.Sleep(time.Second)
		if n := c.Running(); n <= 2 {
			t.Errorf("%d run; want more, since there still is room", n)
		}
		stop()
	})
}

// A place in a small room is taken again as soon as the run that had it ended.
func TestRoomIsUsedAgainAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		for range 10 {
			f.pending = append(f.pending, claim())
		}
		began, ended := time.Now(), atomic.Int32{}
		c, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) {
			time.Sleep(time.Millisecond)
			ended.Add(1)
			return completed(), nil
		}, func(o *claimer.Options) { o.Room = func(string) int { return 1 } })
		for ended.Load() < 10 && time.Since(began) < time.Minute {
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(began); d > 100*time.Millisecond {
			t.Errorf("10 runs of 1 ms took %s, one at a time; %d run", d, c.Running())
		}
		stop()
	})
}

// L26: a claim whose answer never comes does not stop claiming for ever. At a
// shutdown the answer is waited for, briefly, and what it brings is handed back
// at once.
func TestClaimWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{hangClaim: true}
		c, stop := start(t, f, instantly)
		time.Sleep(lease)
		if n := len(f.asked()); n < 3 {
			t.Errorf("%d claims within a lease; want more than one to have been given up", n)
		}
		c.Wake()
		time.Sleep(lease/4 + 100*time.Millisecond)
		began := time.Now()
		stop()
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("the shutdown took %s", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase(t)
		m := d.join("a", after(func() time.Duration { return time.Hour }))
		m.conn.slow(func() time.Duration { return 300 * time.Millisecond })
		time.Sleep(10 * time.Second)
		id := d.add(1)[0]
		m.Wake()
		time.Sleep(400 * time.Millisecond) // the answer is on its way
		began := time.Now()
		m.stop()
		if r := d.get(id); r.state != queue.Pending || r.attempt != 1 || r.worker != 0 {
			t.Errorf("request is %s, attempt %d, of worker %d; want it handed back", r.state, r.attempt, r.worker)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the shutdown took %s; want no drain for what had not begun", took)
		}
	})
}

// The deadline counts from the claim.
func TestDeadlineCountsFromTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cl := claim()
		cl.Remaining = 3 * time.Second
		f := &fakeStore{pending: []queue.Claim{cl}}
		began := time.Now()
		took := make(chan time.Duration, 1)
		c := claimer.New(f, processor(func(ctx context.Context, _ queue.Claim) (store.Ending, error) {
			<-ctx.Done()
			took <- time.Since(began)
			return completed(), nil
		}), claimer.Options{Models: claimer.Fixed("m"), Lease: lease})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, ctx) }()
		if d := <-took; d != 3*time.Second {
			t.Errorf("stopped %s after the claim; want 3 s", d)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The next claim does not wait for the outcome of the last run to be written.
func TestSlotIsFreeBeforeTheOutcomeIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{pending: []queue.Claim{claim(), claim()}}
		ends := make(chan bool)
		_, stop := start(t, f, func(context.Context, queue.Claim) (store.Ending, error) {
			<-ends
			return completed(), nil
		}, func(o *claimer.Options) { o.Slots = 1 })
		time.Sleep(time.Second)
		f.set(func() { f.hang = true })
		ends <- true
		synctest.Wait()
		f.set(func() {
			if len(f.pending) != 0 {
				t.Error("nothing was claimed while an outcome waits for the database")
			}
		})
		close(ends)
		stop()
	})
}

// Whatever stops a run stops it through its context, with its cause, and its
// slot is free only when the processor has let go.
func TestCausesReachTheRun(t *testing.T) {
	tests := []struct {
		name string
		want error
		stop func(*fakeStore, *claimer.Claimer, queue.Claim)
	}{
		{"user cancels", queue.ErrCanceled, func(_ *fakeStore, c *claimer.Claimer, cl queue.Claim) { c.Stop(cl.ID, queue.ErrCanceled) }},
		{"client gone", queue.ErrClientGone, func(_ *fakeStore, c *claimer.Claimer, cl queue.Claim) { c.Stop(cl.ID, queue.ErrClientGone) }},
		{"deadline", queue.ErrDeadline, func(*fakeStore, *claimer.Claimer, queue.Claim) {}},
		{"fenced", queue.ErrFenced, func(f *fakeStore, _ *claimer.Claimer, _ queue.Claim) { f.set(func() { f.down = true }) }},
		{"lease lost", queue.ErrLeaseLost, func(f *fakeStore, _ *claimer.Claimer, _ queue.Claim) { f.set(func() { f.lost = true }) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl, other := claim(), claim()
				if errors.Is(tt.want, queue.ErrDeadline) {
					cl.Remaining = time.Second
				}
				f := &fakeStore{pending: []queue.Claim{cl}}
				cause := make(chan error, 1)
				letGo := make(chan struct{})
				c, stop := start(t, f, func(ctx context.Context, got queue.Claim) (store.Ending, error) {
					if got.ID == other.ID {
						return completed(), nil
					}
					<-ctx.Done()
					cause <- context.Cause(ctx)
					<-letGo
					return store.Ending{Outcome: queue.Outcome{To: queue.Pending, By: queue.ByHandBack}}, nil
				}, func(o *claimer.Options) { o.Slots = 1 })
				synctest.Wait()
				f.set(func() { f.pending = []queue.Claim{other} })
				tt.stop(f, c, cl)
				if got := <-cause; !errors.Is(got, tt.want) {
					t.Errorf("got cause %v; want %v", got, tt.want)
				}
				f.set(func() { f.down = false })
				time.Sleep(lease)
				if n := c.Running(); n != 1 {
					t.Errorf("%d run; want the slot taken until the processor has let go", n)
				}
				f.set(func() {
					if len(f.pending) != 1 {
						t.Error("the slot was given away")
					}
				})
				close(letGo)
				time.Sleep(2 * time.Second)
				f.set(func() {
					if len(f.pending) != 0 {
						t.Error("the slot was not given back")
					}
				})
				stop()
			})
		})
	}
}

// slowClaim answers claims late.
type slowClaim struct {
	fakeStore
	d time.Duration
}

func (f *slowClaim) Claim(ctx context.Context, c store.ClaimRequest) ([]queue.Claim, error) {
	claims, err := f.fakeStore.Claim(ctx, c)
	if len(claims) > 0 {
		<-time.After(f.d)
	}
	return claims, err
}

// U5: what was claimed under a lease that is over when the answer comes is not
// begun, even if the host has a new worker by then.
func TestClaimUnderAnOldLease(t *testing.T) {
	tests := []struct {
		name string
		lose func(f *slowClaim, c *claimer.Claimer)
	}{
		{"lease over", func(f *slowClaim, c *claimer.Claimer) {
			f.set(func() { f.down = true })
			<-time.After(lease/4*3 - time.Second)
			f.set(func() { f.pending = []queue.Claim{claim()} })
			c.Wake()
			<-time.After(5 * time.Second)
		}},
		{"another worker", func(f *slowClaim, c *claimer.Claimer) {
			f.set(func() { f.pending = []queue.Claim{claim()} })
			c.Wake()
			<-time.After(time.Second)
			f.set(func() { f.lost = true })
			_ = c.Beat(context.Background())
			<-time.After(5 * time.Second)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &slowClaim{d: 3 * time.Second}
				c := claimer.New(f, processor(func(context.Context, queue.Claim) (store.Ending, error) {
					t.Error("a claim of an old lease was processed")
					return completed(), nil
				}), claimer.Options{Models: claimer.Fixed("m"), Lease: lease})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- c.Run(ctx, ctx) }()
				<-c.Ready()
				tt.lose(f, c)
				if moves, _ := f.written(); !slices.Equal(moves, []queue.State{queue.Pending}) {
					t.Errorf("moves %v; want the claim handed back", moves)
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
