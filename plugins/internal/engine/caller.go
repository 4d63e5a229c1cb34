package engine

import (
	"context"
	"errors"
	"iter"
	"math"
	"runtime"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/casemate/casemate/plugins/internal/rewrite"
)

// fuelSlice is how much fuel a guest gets before the host looks at the clock:
// far below a millisecond of instructions, and some hundred times what a look
// costs.
const fuelSlice = 1 << 18

// turn is how long a guest keeps its processor before others get theirs. Less
// would move it from processor to processor more often than its caches bear.
const turn = int64(time.Millisecond)

// spendCheck is how much fuel host functions may spend between two looks at
// the clock: a copy of 64 KiB.
const spendCheck = 4096

// maxFuel is the most that a call is given: more than a guest can burn.
const maxFuel = math.MaxInt64 / 4

// Caller is a guest's call as a host function sees it. It is valid until the
// function returns.
type Caller struct {
	in    *Instance
	guest guestContext
	fuel  api.MutableGlobal

	// Of the call that runs.
	ctx        context.Context
	data       any
	refill     func(used uint64) error
	until      time.Time // zero: no deadline
	deadline   int64     // the same as clock counts
	total      int64     // fuel of the call
	granted    int64     // fuel handed to the guest so far
	unchecked  int64     // fuel spent by host functions since the last look
	gaveWay    int64     // when the processor was given away last, as clock counts
	seesCancel bool
	timed      context.Context // of Context; nil until asked for
	cancel     context.CancelFunc
}

// guestContext is the context of a guest's call as wazero passes it on. It
// carries the Caller and nothing else: wazero looks up values of its own in it
// on each call, and waits for its end on none.
type guestContext struct{ caller *Caller }

func (*guestContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*guestContext) Done() <-chan struct{}       { return nil }
func (*guestContext) Err() error                  { return nil }
func (*guestContext) Value(any) any               { return nil }

// birth is where clock begins. Reading the monotonic clock alone is cheaper
// than time.Now.
var birth = time.Now()

func clock() int64 { return int64(time.Since(birth)) }

// begin prepares the call.
func (c *Caller) begin(ctx context.Context, r Run) {
	c.ctx, c.data, c.refill = ctx, r.Data, r.Refill
	c.until = r.Deadline
	if d, ok := ctx.Deadline(); ok && (c.until.IsZero() || d.Before(c.until)) {
		c.until = d
	}
	c.deadline = math.MaxInt64
	if !c.until.IsZero() {
		c.deadline = int64(c.until.Sub(birth))
	}
	c.total = int64(min(r.Fuel, maxFuel))
	c.unchecked = 0
	c.granted = min(c.in.slice, c.total)
	c.fuel.Set(uint64(c.granted))
}

// end returns the fuel that the call used, and lets go of what it held.
func (c *Caller) end() (used int64) {
	used = c.granted - int64(c.fuel.Get())
	if c.cancel != nil {
		c.cancel()
	}
	c.ctx, c.data, c.refill, c.timed, c.cancel = nil, nil, nil, nil, nil
	c.seesCancel = false
	return used
}

// Context returns a context that ends with the call's or at its deadline.
func (c *Caller) Context() context.Context {
	switch {
	case c.timed != nil:
	case c.until.IsZero():
		c.timed = c.ctx
	default:
		c.timed, c.cancel = context.WithDeadline(c.ctx, c.until)
	}
	return c.timed
}

// Data returns what Run.Data was.
func (c *Caller) Data() any { return c.data }

// Slice returns the n bytes at ptr, or false when they are not all inside. It
// aliases the guest's memory: it must not be kept beyond the host function,
// after which the bytes change, and may not even be mapped.
func (c *Caller) Slice(ptr, n uint32) ([]byte, bool) {
	b := c.in.mem.bytes
	end := uint64(ptr) + uint64(n)
	if end > uint64(len(b)) {
		return nil, false
	}
	return b[ptr:end:end], true
}

// Spend takes fuel from the call for what a host function is about to do. It
// does not return when fuel, deadline or context have ended. Nothing that
// takes longer than some tens of microseconds may be done between two of them.
func (c *Caller) Spend(fuel uint64) {
	c.debit(int64(min(fuel, maxFuel)))
	c.unchecked += int64(min(fuel, spendCheck))
	if c.unchecked >= spendCheck {
		c.unchecked = 0
		c.check()
	}
}

// BytesPerFuel is how many bytes a host function copies or makes for one unit
// of fuel.
const BytesPerFuel = 16

// piece is how many bytes a host function handles between two looks at the
// clock.
const piece = spendCheck * BytesPerFuel

// Pieces yields b in pieces that a host function may handle at once, and pays
// for each before.
func (c *Caller) Pieces(b []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			p := b[:min(len(b), piece)]
			c.Spend(uint64(len(p)) / BytesPerFuel)
			if !yield(p) {
				return
			}
			b = b[len(p):]
		}
	}
}

// FuelLeft returns what the call may still use.
func (c *Caller) FuelLeft() uint64 {
	return uint64(max(0, c.total-c.granted+int64(c.fuel.Get())))
}

func (c *Caller) debit(fuel int64) {
	left := int64(c.fuel.Get()) - fuel
	c.fuel.Set(uint64(left))
	if left < 0 {
		c.nextSlice()
	}
}

// nextSlice is for a guest whose slice is used up. The end of the call's fuel
// comes first, since it is the only reason that is the same in every run. A
// canceled call gets no other slice, or a function that sees the cancel could
// be called for ever.
func (c *Caller) nextSlice() {
	used := c.granted - int64(c.fuel.Get())
	if used > c.total {
		Abort(ErrFuel)
	}
	c.seesCancel = false
	c.check()
	c.giveWay()
	if c.refill != nil {
		if err := c.refill(uint64(used)); err != nil {
			Abort(err)
		}
	}
	grant := min(c.in.slice, c.total-used)
	c.granted = used + grant
	c.fuel.Set(uint64(grant))
}

// giveWay lets timers and everybody else have the processor, if the guest had
// it for long: its machine code is not preempted.
func (c *Caller) giveWay() {
	if clock()-c.gaveWay >= turn {
		runtime.Gosched()
		c.gaveWay = clock()
	}
}

// check ends a call whose context or deadline has ended.
func (c *Caller) check() {
	if err := c.over(); err != nil {
		Abort(err)
	}
}

// over returns why a call must end, or nil. It reads the clock, since timers
// are late while guests keep all processors busy.
func (c *Caller) over() error {
	if err := c.ctx.Err(); err != nil && (!c.seesCancel || !errors.Is(err, context.Canceled)) {
		return stopped(err)
	}
	if c.deadline != math.MaxInt64 && clock() >= c.deadline {
		return stopped(context.DeadlineExceeded)
	}
	return nil
}

// yield is what rewritten guests call when their slice or their stack is used
// up.
func yield(ctx context.Context, _ api.Module, stack []uint64) {
	defer contain()
	c := ctx.(*guestContext).caller
	if uint32(stack[0]) == rewrite.ReasonStack {
		c.in.deeper()
		return
	}
	c.nextSlice()
}
