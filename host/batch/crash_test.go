package batch

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// dying is a store whose host dies at its n-th write: before it is committed, or
// after.
type dying struct {
	Store
	n     int
	after bool
	died  bool
}

var errDied = errors.New("the host died")

func (d *dying) write(f func() error) error {
	if d.died {
		return errDied
	}
	if d.n--; d.n >= 0 {
		return f()
	}
	d.died = true
	if d.after {
		if err := f(); err != nil {
			return err
		}
	}
	return errDied
}

func (d *dying) StepBatch(ctx context.Context, s store.BatchStep) error {
	return d.write(func() error { return d.Store.StepBatch(ctx, s) })
}

func (d *dying) CancelLines(ctx context.Context, id queue.ID, limit int) (n int, err error) {
	err = d.write(func() (err error) {
		n, err = d.Store.CancelLines(ctx, id, limit)
		return err
	})
	return n, err
}

func (d *dying) SettleLines(ctx context.Context, id queue.ID, after, limit int) (last int, err error) {
	err = d.write(func() (err error) {
		last, err = d.Store.SettleLines(ctx, id, after, limit)
		return err
	})
	return last, err
}

// counting is how many requests of each line were ever made.
type counting struct {
	fakeMaker
	Store
	mu   sync.Mutex
	made map[int]int
}

func (c *counting) StepBatch(ctx context.Context, s store.BatchStep) error {
	err := c.Store.StepBatch(ctx, s)
	if err == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, w := range s.Requests {
			c.made[w.Insert.Line]++
		}
	}
	return err
}

// wantOnce checks that each of n lines became one request and is in one file once.
func (r *rig) wantOnce(b store.Batch, made map[int]int, n int) {
	r.Helper()
	var want, got []string
	for i := range n {
		want = append(want, fmt.Sprint("c", i+1))
		if made[i+1] != 1 {
			r.Errorf("line %d became %d requests", i+1, made[i+1])
		}
	}
	if got = r.ids(r.content(b.Output)); !reflect.DeepEqual(got, want) || b.Completed != n || b.Failed != 0 || b.Total != n {
		r.Errorf("output: got %v, %+v, want every line once", got, b)
	}
}

// TestCrash: a host that dies before or after any of its writes loses no line and
// runs none twice; another goes on.
func TestCrash(t *testing.T) {
	const n = 7
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after commit %t", after), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			input := r.upload(lines(n))
			options := quick(func(o *Options) { o.Hold, o.Group, o.Slice = time.Millisecond, 2, time.Hour })
			deaths := 0
			for at := 0; ; at++ {
				seen := &counting{Store: r.s, made: map[int]int{}}
				host := &dying{Store: seen, n: at, after: after}
				b := r.batch(input)
				for begin := time.Now(); !host.died && !r.get(b.ID).Settled; {
					r.runner(host, options).once(t.Context())
					r.work()
					if time.Since(begin) > 30*time.Second {
						t.Fatalf("write %d: batch is %+v", at, r.get(b.ID))
					}
				}
				if !host.died {
					break
				}
				deaths++
				b = r.settled(r.runner(seen, options), b.ID)
				r.wantOnce(b, seen.made, n)
				if t.Failed() {
					t.Fatalf("died at write %d", at)
				}
			}
			if deaths < 10 {
				t.Errorf("died %d times, want at each of ten writes and more", deaths)
			}
		})
	}
}

// TestCrashInCancel: what a host left that died while it canceled is canceled.
func TestCrashInCancel(t *testing.T) {
	r := newRig(t)
	input := r.upload(lines(5))
	options := quick(func(o *Options) { o.Hold = time.Millisecond })
	for at := 0; ; at++ {
		b := r.batch(input)
		b = r.loaded(r.runner(r.s, options), b.ID, 5)
		if _, err := r.s.CancelBatch(t.Context(), tenant, b.ID); err != nil {
			t.Fatal(err)
		}
		host := &dying{Store: r.s, n: at}
		for begin := time.Now(); !host.died && !r.get(b.ID).Settled && time.Since(begin) < 30*time.Second; {
			r.runner(host, options).once(t.Context())
		}
		b = r.idle(r.runner(r.s, options), b.ID, store.BatchCanceled)
		if b.Failed != 5 || len(r.codes(r.content(b.Errors))) != 5 {
			t.Fatalf("died at write %d: got %+v", at, b)
		}
		if !host.died {
			return
		}
	}
}

// TestTwoHosts: two that hold the same batch all the time run every line once.
func TestTwoHosts(t *testing.T) {
	const n = 60
	r := newRig(t)
	seen := &counting{Store: r.s, made: map[int]int{}}
	// What one holds is due again at once.
	options := quick(func(o *Options) { o.Hold, o.Slice = time.Nanosecond, time.Hour })
	b := r.batch(r.upload(lines(n)))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if err := r.runner(seen, options).Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for begin := time.Now(); !r.get(b.ID).Settled && time.Since(begin) < 60*time.Second; {
		r.work()
	}
	cancel()
	wg.Wait()
	r.wantOnce(r.get(b.ID), seen.made, n)
}

// TestStoreAway: lines wait for a store, or a host, that cannot take them now.
func TestStoreAway(t *testing.T) {
	r := newRig(t)
	b := r.batch(r.upload(lines(4)))
	away := &later{away: true}
	run := New(r.s, away, Outputs{Store: r.s, Failure: failure}, quick())
	for r.get(b.ID).State != store.BatchRunning {
		run.once(t.Context())
	}
	run.once(t.Context())
	if got := r.get(b.ID); got.Line != 2 || got.Refused != 0 {
		t.Errorf("got %+v, want the two lines before loaded", got)
	}
	away.away = false
	if b = r.until(run, b.ID, store.BatchCompleted); b.Completed != 4 {
		t.Errorf("got %+v", b)
	}
}
