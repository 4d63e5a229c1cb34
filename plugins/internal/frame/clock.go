package frame

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"
)

// Resolution is how fine the clocks of a guest are. Finer ones are a tool for
// measuring the host.
const Resolution = time.Millisecond

// monotonicBase keeps the monotonic clock away from zero, which Go's runtime
// takes for a broken clock.
const monotonicBase = int64(time.Second)

// startMS is when a pure clock begins, in milliseconds since 1970: the start
// of 2020, whenever and wherever a guest is started, so that what it makes of
// the time is the same.
const startMS = 1_577_836_800_000

// Clock is the time that a guest sees in one call, or while it starts.
type Clock struct {
	real  bool
	begin time.Time // real
	base  int64     // ns: the monotonic clock at the beginning
	wall  int64     // pure: ns since 1970 at the beginning
	slept int64     // pure: ns
	last  int64     // real: the latest time of the wall clock that was told
}

// NewClock returns the host's clocks, coarse, for a call that begins now.
func NewClock() *Clock {
	return &Clock{real: true, begin: time.Now(), base: monotonicBase}
}

// NewPureClock returns clocks that stand still but for the guest's own sleep.
// They begin at the same instant for everybody.
func NewPureClock() *Clock {
	c := &Clock{base: monotonicBase}
	c.SetNow(startMS)
	return c
}

// SetNow sets the wall clock of a pure clock, in milliseconds since 1970. The
// monotonic clock stays.
func (c *Clock) SetNow(ms int64) {
	c.base, c.slept = add(c.base, c.slept), 0
	c.wall = min(max(ms, 0), math.MaxInt64/int64(time.Millisecond)) * int64(time.Millisecond)
}

// Continue sets the monotonic clock to where that of from stands, which began
// in a life of the guest that this one goes on from. Guests may not see it go
// back.
func (c *Clock) Continue(from *Clock) { c.base = from.Monotonic() }

// Wall returns nanoseconds since 1970. It does not go back, though the host's
// may.
func (c *Clock) Wall() int64 {
	if c.real {
		c.last = max(c.last, coarse(time.Now().UnixNano()))
		return c.last
	}
	return add(c.wall, c.slept)
}

// Monotonic returns nanoseconds since some moment before the instance began.
func (c *Clock) Monotonic() int64 {
	if c.real {
		return add(c.base, coarse(int64(time.Since(c.begin))))
	}
	return add(c.base, c.slept)
}

// Sleep waits for d, or until ctx is done and then returns its error. A pure
// clock does not wait: it moves.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	if !c.real {
		c.slept = add(c.slept, int64(max(d, 0)))
		return ctx.Err()
	}
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func coarse(ns int64) int64 { return ns - ns%int64(Resolution) }

// add adds two numbers that are not negative and stays at the largest one.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// NewRand returns an endless stream of bytes that depends on seed only.
func NewRand(seed int64) *rand.ChaCha8 {
	var key [32]byte
	copy(key[:], "casemate policy entropy")
	binary.LittleEndian.PutUint64(key[24:], uint64(seed))
	return rand.NewChaCha8(key)
}

// InitSeed is the seed while a guest starts, the same for everybody: two hosts
// make the same image of it.
const InitSeed = 0
