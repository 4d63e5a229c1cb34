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

// Clock is the time that one instance of a guest sees.
type Clock struct {
	real   bool
	epoch  time.Time // real: where the monotonic clock began
	wall   int64     // pure: ns since 1970 of the current call
	slept  int64     // pure: ns that the current call slept
	passed int64     // pure: ns that earlier calls slept
}

// NewClock returns the host's clocks, coarse. epoch is where the monotonic one
// begins.
func NewClock(epoch time.Time) *Clock { return &Clock{real: true, epoch: epoch} }

// NewPureClock returns clocks that stand still but for the guest's own sleep.
// They begin at 1970.
func NewPureClock() *Clock { return &Clock{} }

// SetNow sets the wall clock of a pure clock for the next call. The monotonic
// clock, which guests may not see go back, stays.
func (c *Clock) SetNow(ms int64) {
	c.passed = add(c.passed, c.slept)
	c.slept = 0
	c.wall = min(max(ms, 0), math.MaxInt64/int64(time.Millisecond)) * int64(time.Millisecond)
}

// Wall returns nanoseconds since 1970.
func (c *Clock) Wall() int64 {
	if c.real {
		return coarse(time.Now().UnixNano())
	}
	return add(c.wall, c.slept)
}

// Monotonic returns nanoseconds since some moment before the instance began.
func (c *Clock) Monotonic() int64 {
	if c.real {
		return monotonicBase + coarse(int64(time.Since(c.epoch)))
	}
	return add(monotonicBase, add(c.passed, c.slept))
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

// InitSeed is the seed while a pure instance starts, the same for all calls.
const InitSeed = 0
