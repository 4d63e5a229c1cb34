package stream

import (
	"slices"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// A topic is one response with a producer or a listener on this host.
type topic struct {
	id queue.ID

	mu        sync.Mutex
	listeners map[*Listener]struct{}
	producer  *Producer // nil: it does not run here
	epoch     int       // counts producers
	logged    bool      // of the last producer
	final     bool      // the last producer's request is in a final state

	// known: base and mem are those of the last producer. mem holds the events
	// from sequence number base on, without a gap.
	known bool
	base  int64
	mem   []response.Event
	bytes int
}

// eventOverhead is what an event weighs in memory beside its data.
const eventOverhead = 48

// end is the sequence number that the next event published here will have.
func (t *topic) end() int64 { return t.base + int64(len(t.mem)) }

func (t *topic) open(p *Producer, logged bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.producer, t.logged, t.final = p, logged, false
	t.epoch++
	t.known = false // another host may have appended since
	t.clear()
	t.wakeAll()
}

func (t *topic) publish(p *Producer, events []response.Event, maxBytes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.producer != p {
		return
	}
	switch first := events[0].Seq; {
	case !t.known || first > t.end():
		t.clear()
		t.known, t.base = true, first
	case first < t.end():
		events = events[min(t.end()-first, int64(len(events))):]
	}
	t.mem = append(t.mem, events...)
	for _, e := range events {
		t.bytes += len(e.Data) + eventOverhead
	}
	if t.logged && len(t.listeners) == 0 {
		t.clear() // who comes later reads the log
	}
	t.shrink(maxBytes)
	t.wakeAll()
}

// shrink lets go of the oldest events until the rest weighs maxBytes at most.
func (t *topic) shrink(maxBytes int) {
	n := 0
	for ; t.bytes > maxBytes; n++ {
		t.bytes -= len(t.mem[n].Data) + eventOverhead
		t.mem[n] = response.Event{}
	}
	t.base += int64(n)
	t.mem = t.mem[n:]
}

// clear lets go of all events and remembers where they ended.
func (t *topic) clear() {
	t.base, t.mem, t.bytes = t.end(), nil, 0
}

func (t *topic) close(p *Producer, final bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.producer != p {
		return
	}
	t.producer, t.final = nil, final
	t.wakeAll()
}

func (t *topic) attach(l *Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.listeners[l] = struct{}{}
}

func (t *topic) detach(l *Listener) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.listeners, l)
	if t.logged && len(t.listeners) == 0 {
		t.clear()
	}
}

// wakeAll tells every listener to look again.
func (t *topic) wakeAll() {
	for l := range t.listeners {
		l.poke()
	}
}

// from returns a copy of what memory holds from sequence number next on.
func (t *topic) from(next int64) []response.Event {
	if !t.known || next < t.base || next >= t.end() {
		return nil
	}
	return slices.Clone(t.mem[next-t.base:])
}
