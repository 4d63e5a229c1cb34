package upstream

import (
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// How the health of a target moves.
const (
	sampleWeight   = 0.2              // of the newest sample in the averages
	errorHalfLife  = 30 * time.Second // of the error rate while nothing is called
	streakLimit    = 3                // failures in a row that make a target unhealthy
	baseDown       = 5 * time.Second  // unhealthy for so long, doubled with each further failure
	maxDown        = time.Minute
	baseCooldown   = time.Second // after a 429 without Retry-After, doubled likewise
	maxCooldown    = 5 * time.Minute
	accountPenalty = 30 * time.Second // after 401, 402, 403: the host's own account is refused
)

// health is what is known of one target.
type health struct {
	mu        sync.Mutex
	inFlight  int
	latency   float64 // milliseconds to the first event of good calls, averaged; 0: unknown
	errors    float64 // share of failed calls, averaged, as of seen
	seen      time.Time
	streak    int // failures in a row
	coolUntil time.Time
	downUntil time.Time
	// waves are failures in a row of which each began after the one before it was
	// known: only such a one says that waiting longer is called for, not the
	// many that ran at the same time.
	waves  int
	waveAt time.Time
	// A rate limit that says for how long: until then nothing is called. Others
	// are told of askedUntil, which this host was told by the target itself, not of
	// toldUntil, which others were.
	askedUntil, toldUntil time.Time
}

// A view is the health at one moment.
type view struct {
	healthy   bool
	inFlight  int
	latency   float64
	errorRate float64
	cooldown  time.Duration
}

func (h *health) enter() {
	h.mu.Lock()
	h.inFlight++
	h.mu.Unlock()
}

// leave counts a call out and learns from how it ended. Calls that say nothing
// about the target (canceled, refused for their own content) change nothing.
func (h *health) leave(began, now time.Time, latency time.Duration, err *Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight--
	switch {
	case err == nil:
		h.good(now, latency)
	case faulty(err):
		h.bad(began, now, err)
	}
}

func (h *health) good(now time.Time, latency time.Duration) {
	h.errors = h.decayed(now) * (1 - sampleWeight)
	h.seen, h.streak, h.waves, h.downUntil = now, 0, 0, time.Time{}
	ms := float64(latency) / float64(time.Millisecond)
	if h.latency == 0 {
		h.latency = ms
	} else {
		h.latency += sampleWeight * (ms - h.latency)
	}
}

func (h *health) bad(began, now time.Time, err *Error) {
	h.errors = h.decayed(now)*(1-sampleWeight) + sampleWeight
	h.seen = now
	h.streak++
	if h.waves == 0 || !began.Before(h.waveAt) {
		h.waves++
		h.waveAt = now
	}
	var cool time.Duration
	switch {
	case err.RetryAfter > 0:
		cool = err.RetryAfter
	case err.Class == queue.RateLimited:
		cool = doubled(baseCooldown, h.waves-1)
	case account(err.Status):
		cool = accountPenalty
	case err.Status >= http.StatusInternalServerError:
		cool = doubled(baseCooldown/2, h.waves-1)
	}
	asked := err.Class == queue.RateLimited && err.RetryAfter > 0 // capped where it was read
	if !asked {
		cool = min(cool, maxCooldown)
	}
	if until := now.Add(cool); cool > 0 {
		h.coolUntil = later(h.coolUntil, until)
		if asked {
			h.askedUntil = later(h.askedUntil, until)
		}
	}
	// A rate limit is an answer: the target is busy, not broken.
	if h.streak >= streakLimit && err.Class != queue.RateLimited {
		h.downUntil = now.Add(doubled(baseDown, h.streak-streakLimit))
	}
}

// cool takes over what another host was told.
func (h *health) cool(until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.coolUntil, h.toldUntil = later(h.coolUntil, until), later(h.toldUntil, until)
}

// asked returns how long the target yet asked this host to leave it alone.
func (h *health) asked(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.askedUntil.Sub(now))
}

// barred returns how long the target yet asked any host to leave it alone.
func (h *health) barred(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, later(h.askedUntil, h.toldUntil).Sub(now))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// faulty reports whether a failure is the target's and not the request's.
func faulty(err *Error) bool {
	if err.Class == queue.UpstreamStatus {
		return account(err.Status) || err.Status == http.StatusRequestTimeout ||
			err.Status >= http.StatusInternalServerError
	}
	return err.Class == queue.RateLimited || err.Class == queue.UpstreamTimeout ||
		err.Class == queue.UpstreamNetwork || err.Class == queue.UpstreamInvalid
}

func account(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusPaymentRequired || status == http.StatusForbidden
}

func (h *health) view(now time.Time) view {
	h.mu.Lock()
	defer h.mu.Unlock()
	return view{
		healthy: !now.Before(h.downUntil), inFlight: h.inFlight, latency: h.latency,
		errorRate: h.decayed(now), cooldown: max(0, h.coolUntil.Sub(now)),
	}
}

// decayed returns the error rate of now. Without calls it falls, so that a
// target that nobody called is tried again.
func (h *health) decayed(now time.Time) float64 {
	if h.errors == 0 {
		return 0
	}
	return h.errors * math.Exp2(-float64(max(0, now.Sub(h.seen)))/float64(errorHalfLife))
}

// doubled returns base · 2^n, at most maxDown.
func doubled(base time.Duration, n int) time.Duration {
	return min(base<<min(n, 10), maxDown)
}

// Available reports whether a call of model may go through now: one of its
// targets is not cooling down. If none is, wait is how long the first of them
// yet will be; 0: the model has no targets.
func (c *Client) Available(model string) (open bool, wait time.Duration) {
	now := time.Now()
	for _, o := range c.models[model] {
		left := o.endpoint.health.view(now).cooldown
		if left == 0 {
			return true, 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return false, wait
}

// Cooldowns returns how long each target yet asked this host to leave it alone,
// by a rate limit that said for how long. Others need not be told of what Cool
// was told.
func (c *Client) Cooldowns() map[string]time.Duration {
	now, all := time.Now(), map[string]time.Duration{}
	for id, e := range c.endpoints {
		if left := e.health.asked(now); left > 0 {
			all[id] = left
		}
	}
	return all
}

// Cool leaves target alone for d, at most for MaxRetryAfter, since another host
// was asked to. It never makes a cooldown shorter.
func (c *Client) Cool(target string, d time.Duration) {
	if e := c.endpoints[target]; e != nil && d > 0 {
		e.health.cool(time.Now().Add(min(d, MaxRetryAfter)))
	}
}
