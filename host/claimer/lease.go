package claimer

import (
	"sync"
	"time"
)

// lease is this host's right to run what it claimed, measured on its own
// monotonic clock from before each heartbeat was sent.
type lease struct {
	length time.Duration

	mu      sync.Mutex
	worker  int64
	until   time.Time // the host stops its work at this time
	healthy time.Time // heartbeats have succeeded without a break since
	unwell  bool
	over    bool // expired has told
}

func newLease(length time.Duration) *lease { return &lease{length: length} }

// grace is how long after its lease a worker is given up for dead, and how much
// longer than a lease a host must have been well to say so.
func (l *lease) grace() time.Duration { return min(l.length/4, 5*time.Second) }

func (l *lease) id() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker
}

// live reports whether there is a lease with time left.
func (l *lease) live() bool { return l.left() > 0 }

// left is how long the host may go on; 0 or less when it may not.
func (l *lease) left() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker == 0 {
		return 0
	}
	return time.Until(l.until)
}

// expired reports, once for each lease, that it ran out.
func (l *lease) expired() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker == 0 || l.over || time.Now().Before(l.until) {
		return false
	}
	l.over = true
	return true
}

// renewed notes a heartbeat that was sent at sent and succeeded.
func (l *lease) renewed(worker int64, sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.worker != worker || l.unwell || sent.After(l.until) {
		l.healthy, l.unwell = sent, false
	}
	l.worker, l.over = worker, false
	l.until = sent.Add(l.length - l.length/4)
}

// failed notes a heartbeat that did not succeed.
func (l *lease) failed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unwell = true
}

// lose forgets the worker.
func (l *lease) lose() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.worker, l.until, l.unwell = 0, time.Time{}, true
}

// mayReap reports whether heartbeats have succeeded for a whole lease and the
// grace time, up to now: a host that was away itself cannot tell who is dead.
func (l *lease) mayReap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worker != 0 && !l.unwell && time.Now().Before(l.until) && time.Since(l.healthy) > l.length+l.grace()
}
