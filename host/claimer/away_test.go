package claimer_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// U8: while the database is away for longer than a lease, results wait; the
// host stays up, refuses what is new and reaps nobody; afterwards all goes on.
func TestDatabaseAwayForLongerThanALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase(t)
		soon := d.add(4)
		times := map[queue.ID]time.Duration{}
		for i, id := range soon {
			times[id] = time.Duration(i+1) * 4 * time.Second // two end before the host fences itself
		}
		var long []queue.ID
		work := func(ctx context.Context, c queue.Claim) (store.Ending, error) {
			return after(func() time.Duration {
				if took, ok := times[c.ID]; ok {
					return took
				}
				return 30 * time.Second
			})(ctx, c)
		}
		a, b := d.join("a", work), d.join("b", work)
		time.Sleep(time.Second)
		long = d.add(6)
		time.Sleep(2 * time.Second)
		a.conn.set(true)
		b.conn.set(true)
		time.Sleep(time.Second)
		began := time.Now()
		var refused []queue.ID
		for range 3 {
			n := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/responses"}
			refused = append(refused, n.ID)
			if _, err := a.Submit(t.Context(), store.Write{Insert: &n}); !unavailable(err) {
				t.Errorf("Submit: %v; want an *Unavailable with a time to wait", err)
			}
		}
		if took := time.Since(began); took > lease {
			t.Errorf("three refusals took %s", took)
		}
		time.Sleep(3*lease - time.Since(began))
		if a.Live() || b.Live() || a.Running() == 0 && b.Running() == 0 {
			t.Errorf("live %t %t, running %d %d; want work that waits to be written", a.Live(), b.Live(), a.Running(), b.Running())
		}
		a.conn.set(false)
		b.conn.set(false)
		time.Sleep(2 * time.Minute)
		for _, id := range refused {
			if d.has(id) {
				t.Errorf("%s was refused and is there", id)
			}
		}
		for i, id := range append(soon, long...) {
			r := d.get(id)
			if r.state != queue.Completed || r.reaps != 0 {
				t.Errorf("request %d is %s, reaped %d times; want completed, none reaped", i, r.state, r.reaps)
			}
			if i < 3 && r.attempt != 1 {
				t.Errorf("request %d, which ended within the lease, ran %d times", i, r.attempt)
			}
		}
		a.stop()
		b.stop()
		d.settled()
	})
}

// What a client was told is not taken must not run, also when the database took
// it after all.
func TestRefusedRequestIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDatabase(t)
		a := d.join("a", func(context.Context, queue.Claim) (store.Ending, error) {
			t.Error("it runs")
			return completed(), nil
		})
		time.Sleep(time.Second)
		goOn := a.conn.stop()
		realtime := queue.New{ID: queue.NewID(), Tenant: "t", Model: "m", Path: "/v1/responses"}
		if _, err := a.Submit(t.Context(), store.Write{Insert: &realtime}); !unavailable(err) {
			t.Errorf("Submit: %v; want an *Unavailable", err)
		}
		goOn()
		time.Sleep(time.Minute)
		if r := d.get(realtime.ID); r.state != queue.Canceled || r.worker != 0 {
			t.Errorf("it is %s, of worker %d; want it canceled and let go", r.state, r.worker)
		}
		a.stop()
		d.settled()
	})
}

// A host that is cut off alone stops in time; the others take over what it ran.
func TestOneHostCutOff(t *testing.T) {
	for _, how := range []string{"cut", "stopped"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDatabase(t)
				work := after(func() time.Duration { return 50 * time.Second })
				a := d.join("a", work)
				b := d.join("b", work)
				time.Sleep(2 * lease) // then they may reap
				ids := d.add(8)
				a.Wake()
				time.Sleep(time.Second)
				first := a.Worker()
				mend := func() { a.conn.set(false) }
				if how == "cut" {
					a.conn.set(true)
				} else {
					mend = a.conn.stop()
				}
				running := a.Running()
				if running == 0 {
					t.Fatal("the host that is cut off runs nothing")
				}
				time.Sleep(2 * lease)
				if a.Live() || b.Running() != 8 {
					t.Errorf("live %t, the other runs %d; want its work taken over", a.Live(), b.Running())
				}
				mend()
				time.Sleep(2 * lease)
				if a.Worker() == first || !a.Live() {
					t.Errorf("worker %d, live %t; want a new one", a.Worker(), a.Live())
				}
				if got := a.Late(); got != uint64(running) {
					t.Errorf("%d late results; want %d", got, running)
				}
				time.Sleep(time.Minute)
				for _, id := range ids {
					if r := d.get(id); r.state != queue.Completed || r.usage != r.attempt {
						t.Errorf("request is %s with %d rows of usage after %d attempts", r.state, r.usage, r.attempt)
					}
				}
				a.stop()
				b.stop()
				d.settled()
			})
		})
	}
}

// TestHostsComeAndGo breaks, stops and mends the connections of three hosts at
// random: no request is ever processed twice at the same time, and each ends
// once.
func TestHostsComeAndGo(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { comeAndGo(t, seed) })
		})
	}
}

func comeAndGo(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex // of r
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	upTo := func(d time.Duration) time.Duration { return time.Duration(draw(int(d))) }
	d := newDatabase(t)
	work := after(func() time.Duration { return upTo(15 * time.Second) })
	var hosts []*machine
	for _, name := range []string{"a", "b", "c"} {
		m := d.join(name, work)
		m.conn.slow(func() time.Duration { return upTo(50 * time.Millisecond) })
		hosts = append(hosts, m)
	}
	var all []queue.ID
	for range 20 {
		all = append(all, d.add(draw(6))...)
		m := hosts[draw(len(hosts))]
		away := upTo(2 * lease)
		if draw(2) == 0 {
			m.conn.set(true)
			<-time.After(away)
			m.conn.set(false)
		} else {
			goOn := m.conn.stop()
			<-time.After(away)
			goOn()
		}
		if n := len(all); n > 0 && draw(3) == 0 {
			d.cancel(all[draw(n)])
		}
		<-time.After(upTo(lease))
	}
	<-time.After(5 * time.Minute)
	d.settled()
	for _, m := range hosts {
		if m.Running() != 0 || !m.Live() {
			t.Errorf("%d run, live %t; want an idle host that lives", m.Running(), m.Live())
		}
		m.stop()
	}
}

// TestCancelRacesCompletion cancels 500 requests about when they complete,
// queued ones and realtime ones, with a hint and by the heartbeat alone: one of
// the two wins, everybody says the same, and the slot is free.
func TestCancelRacesCompletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(4, 4))
		d := newDatabase(t)
		var mu sync.Mutex
		upTo := func(d time.Duration) time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(r.Int64N(int64(d) + 1))
		}
		const took = 4 * time.Millisecond
		m := d.join("a", after(func() time.Duration { return upTo(took) }))
		m.conn.slow(func() time.Duration { return upTo(time.Millisecond) })
		won := 0
		for i := range 500 {
			var id queue.ID
			var told func() (queue.Outcome, error)
			if i%2 == 0 {
				id = d.add(1)[0]
				m.Wake()
			} else {
				id = queue.NewID()
				run, err := m.Submit(t.Context(), store.Write{Insert: &queue.New{ID: id, Tenant: "t", Model: "m", Path: "/v1/responses"}})
				if err != nil {
					t.Fatal(err)
				}
				told = func() (queue.Outcome, error) { return run.Wait(t.Context()) }
			}
			time.Sleep(upTo(3 * took))
			worker, did := d.cancel(id)
			if did {
				won++
			}
			switch hint := i % 3; {
			case hint == 0 && worker != 0:
				m.Hint(store.Hint{Canceled: worker})
			case hint == 1 && did:
				m.Stop(id, queue.ErrCanceled)
			}
			time.Sleep(lease / 2) // the heartbeat finds it without a hint
			synctest.Wait()
			row := d.get(id)
			if want := map[bool]queue.State{true: queue.Canceled, false: queue.Completed}[did]; row.state != want || row.ended != 1 || row.worker != 0 {
				t.Fatalf("%d: canceled %t, is %s, ended %d times, of worker %d", i, did, row.state, row.ended, row.worker)
			}
			if told != nil {
				o, err := told()
				if did && err == nil && o.To != queue.Canceled || !did && (err != nil || o.To != queue.Completed) {
					t.Errorf("%d: canceled %t, but the client was told %s, %v", i, did, o.To, err)
				}
				if err != nil && !errors.Is(err, queue.ErrLeaseLost) {
					t.Errorf("%d: %v", i, err)
				}
			}
			if m.Running() != 0 {
				t.Fatalf("%d: it still runs", i)
			}
		}
		if won < 50 || won > 450 {
			t.Errorf("the cancel won %d times of 500: that is no race", won)
		}
		m.stop()
		d.settled()
	})
}

// unsure is a store that does not know yet what became of inserts.
type unsure struct{ *fakeStore }

func (u unsure) Write(ctx context.Context, w store.Write) error {
	if err := u.fakeStore.Write(ctx, w); err != nil || w.Insert == nil {
		return err
	}
	return store.ErrInFlight
}

// What is taken back says so: its idempotency key is free for the client's next
// try.
func TestTakenBackIsWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		c := claimer.New(unsure{f}, processor(instantly), claimer.Options{Lease: lease})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx, ctx) }()
		<-c.Ready()
		w := chat()
		w.Key, w.Join = &store.Key{Key: "k", Hash: []byte("h")}, &store.Join{Conversation: queue.NewID()}
		w.Insert.Secret = []byte("s")
		if err := c.Enqueue(t.Context(), w); !errors.Is(err, store.ErrInFlight) {
			t.Errorf("Enqueue: %v", err)
		}
		if _, err := c.Submit(t.Context(), w); !errors.Is(err, store.ErrInFlight) {
			t.Errorf("Submit: %v", err)
		}
		synctest.Wait()
		var back int
		for _, got := range f.writes {
			switch {
			case got.Insert != nil && (got.Key != w.Key || got.Join != w.Join || string(got.Insert.Secret) != "s"):
				t.Errorf("inserted %+v; want all that was given", got)
			case got.Move != nil && got.Move.To == queue.Canceled && got.Move.Code == store.Withdrawn:
				back++
			}
		}
		if back != 2 || w.Insert.Worker != 0 {
			t.Errorf("%d were withdrawn, the caller's insert names worker %d; want 2, none", back, w.Insert.Worker)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
