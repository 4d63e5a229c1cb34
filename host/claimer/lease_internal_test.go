package claimer

import (
	"strings"
	"testing"
	"time"
)

// The lease is measured on the monotonic clock alone: a wall clock that is set
// neither ends it nor prolongs it. A time that has lost its monotonic reading is
// compared by the wall clock.
func TestLeaseIsMonotonic(t *testing.T) {
	l := newLease(20 * time.Second)
	l.renewed(1, time.Now())
	for name, at := range map[string]time.Time{"until": l.until, "healthy": l.healthy} {
		if !strings.Contains(at.String(), " m=") {
			t.Errorf("%s is %s: it has no monotonic reading", name, at)
		}
	}
}

func TestGrace(t *testing.T) {
	for length, want := range map[time.Duration]time.Duration{
		2 * time.Second: 500 * time.Millisecond, 20 * time.Second: 5 * time.Second, time.Minute: 5 * time.Second,
	} {
		if got := newLease(length).grace(); got != want {
			t.Errorf("lease of %s: grace of %s; want %s", length, got, want)
		}
	}
}

// A heartbeat that began before the lease ended but was answered long after, as
// of a process that was stopped meanwhile, does not bring the lease back.
func TestLateAnswerIsNoLease(t *testing.T) {
	l := newLease(20 * time.Second)
	l.renewed(1, time.Now().Add(-16*time.Second))
	if l.live() || !l.expired() {
		t.Error("a lease that is over is live, or did not expire")
	}
	if l.expired() {
		t.Error("it expired twice")
	}
	l.renewed(1, time.Now())
	if !l.live() || l.expired() {
		t.Error("a new heartbeat did not bring it back")
	}
}
