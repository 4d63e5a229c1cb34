package host

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// TestCounted: the store is counted when somebody looks, never while he waits,
// and for a small part of the time.
func TestCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounted(hclog.NewNullLogger())
		var counts atomic.Int64
		var broken atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- c.run(ctx, func(context.Context) (store.Stats, error) {
				if broken.Load() {
					return store.Stats{}, errors.New("no database")
				}
				n := int(counts.Add(1))
				time.Sleep(time.Second)
				return store.Stats{States: map[queue.State]int{queue.Pending: n}}, nil
			})
		}()
		time.Sleep(time.Hour)
		if n := counts.Load(); n != 0 {
			t.Errorf("counted %d times while nobody looked", n)
		}
		if _, ok := c.last(); ok {
			t.Error("the first look has counts already")
		}
		time.Sleep(2 * time.Second)
		if s, ok := c.last(); !ok || s.States[queue.Pending] != 1 {
			t.Errorf("got %v, %v, want the first count", s, ok)
		}
		for range 3600 { // an impatient scraper
			c.last()
			time.Sleep(time.Second)
		}
		if n := counts.Load(); n < 60 || n > 3600/countShare+2 {
			t.Errorf("counted %d times in an hour, for 1 s each: want a part in %d", n, countShare)
		}
		broken.Store(true)
		c.last()
		time.Sleep(2 * time.Minute)
		if _, ok := c.last(); ok {
			t.Error("old counts are shown although the database is gone")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
