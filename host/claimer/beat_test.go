package claimer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// sentAt returns when heartbeats were sent, after from.
func (f *fakeStore) sentAt(from time.Time) (at []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.beatsAt {
		if t.After(from) {
			at = append(at, t.Sub(from))
		}
	}
	return at
}

// A heartbeat that is asked for goes out at once, once for all who ask, and the
// next periodic one a quarter of the lease after it.
func TestBeatAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		c, stop := start(t, f, nil)
		joined := time.Now()
		time.Sleep(3 * time.Second)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if err := c.Beat(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		time.Sleep(11 * time.Second)
		at := f.sentAt(joined)
		at = slices.CompactFunc(at, func(a, b time.Duration) bool { return (b - a).Abs() < 30*time.Millisecond })
		want := []time.Duration{3 * time.Second, 8 * time.Second, 13 * time.Second}
		if len(at) != 3 || at[0] != want[0] || at[1].Round(time.Second) != want[1] || at[2].Round(time.Second) != want[2] {
			t.Errorf("heartbeats at %v; want %v", at, want)
		}
		if n := len(f.sentAt(joined)); n > 4 {
			t.Errorf("%d heartbeats for 50 who asked at once, and two periodic ones", n)
		}
		stop()
	})
}

// One that asks while a heartbeat is under way gets the next: the first may
// have left before what it is about.
func TestBeatBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		c, stop := start(t, f, nil)
		f.set(func() { f.slow = time.Second })
		joined := time.Now()
		time.Sleep(lease/4 + 500*time.Millisecond) // one is under way
		if err := c.Beat(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(joined); d != 7*time.Second {
			t.Errorf("the answer came after %s; want that of the heartbeat from 6 s to 7 s", d)
		}
		f.set(func() { f.down, f.slow = true, 0 })
		if err := c.Beat(t.Context()); err == nil {
			t.Error("a heartbeat that failed gave no error")
		}
		f.set(func() { f.down = false })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.Beat(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v; want the context's error", err)
		}
		stop()
		if err := c.Beat(t.Context()); err == nil {
			t.Error("a heartbeat after the end gave no error")
		}
	})
}

// A hint of a cancel reaches the run within 100 ms; many hints make few
// heartbeats, and those for others none.
func TestCancelByHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stopped causes
		cl := claim()
		f := &fakeStore{pending: []queue.Claim{cl}}
		c, stop := start(t, f, untilStopped(&stopped))
		time.Sleep(time.Second)
		began := time.Now()
		c.Hint(store.Hint{Canceled: c.Worker() + 1})
		time.Sleep(time.Second)
		if n := len(f.sentAt(began)); n != 0 {
			t.Errorf("%d heartbeats for another worker's hint", n)
		}
		f.set(func() {
			f.held = []store.Held{{Fence: queue.Fence{ID: cl.ID, Attempt: cl.Attempt, State: queue.Canceled}}}
		})
		began = time.Now()
		for range 100 {
			c.Hint(store.Hint{Canceled: c.Worker()})
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		stopped.only(t, queue.ErrCanceled)
		if n := len(f.sentAt(began.Add(-1))); n < 1 || n > 7 {
			t.Errorf("%d heartbeats for hints of 100 ms; want one each 20 ms", n)
		}
		f.set(func() { f.held = nil })
		stop()
	})
}

// Heartbeats that follow each other quickly do not make a stray of what is just
// being started.
func TestStraysTakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{held: []store.Held{{Fence: queue.Fence{ID: queue.NewID(), Attempt: 1, State: queue.Claimed}}}}
		f.refuse = errors.New("not now")
		c, stop := start(t, f, nil)
		for range 40 {
			if err := c.Beat(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if moves, _ := f.written(); len(moves) != 0 {
			t.Errorf("moves %v within %s; want none", moves, lease/4)
		}
		for range 80 {
			_ = c.Beat(t.Context())
			time.Sleep(100 * time.Millisecond)
		}
		if moves, _ := f.written(); len(moves) < 1 || len(moves) > 2 {
			t.Errorf("moves %v; want one, and another try after %s", moves, lease/4)
		}
		f.set(func() { f.held = nil })
		stop()
	})
}

// log is Targets that notes what it is asked and told.
type targetLog struct {
	mu    sync.Mutex
	notes []string
}

func (l *targetLog) note(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, s)
}

func (l *targetLog) Uses() []store.TargetUse {
	l.note("uses")
	return []store.TargetUse{{Target: "up/m", Limit: 9, Keep: 2, Want: 5, Cooldown: time.Second}}
}

func (l *targetLog) Settle(shares []store.TargetShare, err error) {
	switch {
	case errors.Is(err, queue.ErrFenced):
		l.note("fenced")
	case errors.Is(err, queue.ErrLeaseLost):
		l.note("lost")
	case err != nil:
		l.note("away")
	case len(shares) == 0:
		l.note("none")
	default:
		l.note(fmt.Sprint("slots ", shares[0].Slots))
	}
}

func (l *targetLog) take() (notes []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	notes, l.notes = l.notes, nil
	return notes
}

func (l *targetLog) want(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", when, got, want)
	}
}

func TestTargetsHearOfEachHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{shares: []store.TargetShare{{Target: "up/m", Slots: 4}}}
		l := &targetLog{}
		_, stop := start(t, f, nil, func(o *claimer.Options) { o.Targets = l })
		f.set(func() {
			if u := f.beats[0].Targets[0]; u.Keep != 0 || u.Want != 0 || u.Limit != 9 || u.Cooldown != time.Second {
				t.Errorf("the first heartbeat said %+v; want no slots asked for", u)
			}
		})
		if got := l.take(); !slices.Equal(got[:2], []string{"lost", "uses"}) {
			t.Errorf("join: got %q; want shares to start at nothing", got)
		}
		time.Sleep(lease/4 + time.Second)
		l.want(t, "periodic", "uses", "slots 4")
		f.set(func() {
			if u := f.beats[1].Targets[0]; u.Keep != 2 || u.Want != 5 {
				t.Errorf("the second heartbeat said %+v", u)
			}
			f.lost = true
		})
		time.Sleep(lease / 4)
		if got := l.take(); !slices.Equal(got[:4], []string{"uses", "lost", "lost", "uses"}) {
			t.Errorf("worker gone: got %q", got)
		}
		f.set(func() { f.down = true })
		time.Sleep(lease)
		got := l.take()
		if i := slices.Index(got, "fenced"); i < 2 || !slices.Equal(got[:2], []string{"uses", "away"}) || slices.Contains(got[i+1:], "fenced") {
			t.Errorf("away: got %q; want lost answers, and one fence", got)
		}
		f.set(func() { f.down, f.slow = false, 16*time.Second }) // answered when the lease is over again
		time.Sleep(16*time.Second + 500*time.Millisecond)
		if got := l.take(); slices.Contains(got, "slots 4") {
			t.Errorf("answered too late: got %q; want no shares", got)
		}
		f.set(func() { f.slow = 0 })
		time.Sleep(lease)
		if got := l.take(); !slices.Contains(got, "slots 4") {
			t.Errorf("back: got %q; want shares", got)
		}
		stop()
		if got := l.take(); got[len(got)-1] != "lost" {
			t.Errorf("left: got %q; want no shares", got)
		}
	})
}

func TestSweepsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeStore{}
		_, stop := start(t, f, nil, func(o *claimer.Options) { o.Keep, o.Lease = time.Hour, 80*time.Second })
		time.Sleep(2 * time.Second)
		stop()
		f.mu.Lock()
		defer f.mu.Unlock()
		if s := f.sweeps[0]; s.Keep != time.Hour || s.Grace != 5*time.Second || s.MaxReaps != 3 {
			t.Errorf("swept %+v; want what is configured, and 5 s of grace", s)
		}
	})
}
