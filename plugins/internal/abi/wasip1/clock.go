package wasip1

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
)

// The clocks that exist: those of CPU time would measure the host.
const (
	realtime  = 0
	monotonic = 1
)

func clockRes(c call) errno {
	if c.u32(0) > monotonic {
		return inval
	}
	c.put64(c.u32(1), uint64(frame.Resolution))
	return success
}

func clockTime(c call) errno {
	if c.u32(0) > monotonic {
		return inval
	}
	c.put64(c.u32(2), uint64(c.now(c.u32(0))))
	return success
}

func (c call) now(clock uint32) int64 {
	if clock == realtime {
		return c.f.Clock.Wall()
	}
	return c.f.Clock.Monotonic()
}

const (
	subSize   = 48
	eventSize = 32
	// maxSubs bounds what one poll waits for.
	maxSubs = 1024

	eventClock = 0
	eventRead  = 1
	eventWrite = 2

	flagAbsolute = 1
	flagHangup   = 1
)

// event is one entry of what a poll answers.
type event struct {
	userdata uint64
	err      errno
	kind     byte
	flags    uint16
}

// pollOneoff waits for the first of its subscriptions. Descriptors never make
// a guest wait: they are at their end, or take anything. So a poll with one is
// answered at once, and any other is a sleep, which the call's context ends.
func pollOneoff(c call) errno {
	in, out, n, count := c.u32(0), c.u32(1), c.u32(2), c.u32(3)
	if n == 0 || n > maxSubs {
		return inval
	}
	c.Spend(uint64(n) * (subSize + eventSize) / engine.BytesPerFuel)
	subs := c.at(in, subSize*n)
	c.at(out, eventSize*n)
	c.at(count, 4)

	events, timers, e := c.poll(subs)
	if e != success {
		return e
	}
	if len(events) == 0 {
		events = c.sleep(timers)
	}
	for i, ev := range events {
		ev.put(c.at(out+uint32(i)*eventSize, eventSize))
	}
	c.put32(count, uint32(len(events)))
	return success
}

// timer is a clock subscription that is not due yet.
type timer struct {
	event
	wait time.Duration
}

// poll returns the events that are there now, and what is left to wait for.
func (c call) poll(subs []byte) (events []event, timers []timer, e errno) {
	for ; len(subs) > 0; subs = subs[subSize:] {
		ev := event{userdata: binary.LittleEndian.Uint64(subs), kind: subs[8]}
		switch ev.kind {
		case eventClock:
			wait, e := c.timeout(subs)
			if e == success && wait > 0 {
				timers = append(timers, timer{ev, wait})
				continue
			}
			ev.err = e
		case eventRead, eventWrite:
			ev.err, ev.flags = readiness(ev.kind, binary.LittleEndian.Uint32(subs[16:]))
		default:
			return nil, nil, inval
		}
		events = append(events, ev)
	}
	return events, timers, success
}

// sleep waits for the first timer and returns those that are due with it.
func (c call) sleep(timers []timer) (events []event) {
	wait := timers[0].wait
	for _, t := range timers {
		wait = min(wait, t.wait)
	}
	if err := c.f.Clock.Sleep(c.Context(), wait); err != nil {
		engine.Abort(engine.Stopped(c.Context()))
	}
	for _, t := range timers {
		if t.wait <= wait {
			events = append(events, t.event)
		}
	}
	return events
}

// timeout returns how long a clock subscription has to wait.
func (c call) timeout(sub []byte) (time.Duration, errno) {
	clock := binary.LittleEndian.Uint32(sub[16:])
	if clock > monotonic {
		return 0, inval
	}
	at := int64(min(binary.LittleEndian.Uint64(sub[24:]), math.MaxInt64))
	if binary.LittleEndian.Uint16(sub[40:])&flagAbsolute == 0 {
		return time.Duration(at), success
	}
	return time.Duration(at - c.now(clock)), success // neither is negative
}

func readiness(kind byte, fd uint32) (errno, uint16) {
	switch {
	case fd > stderr:
		return badf, 0
	case kind == eventRead && fd == stdin:
		return success, flagHangup
	case kind == eventWrite && fd != stdin:
		return success, 0
	}
	return notsup, 0
}

func (ev event) put(b []byte) {
	clear(b)
	binary.LittleEndian.PutUint64(b, ev.userdata)
	binary.LittleEndian.PutUint16(b[8:], uint16(ev.err))
	b[10] = ev.kind
	binary.LittleEndian.PutUint16(b[24:], ev.flags)
}
