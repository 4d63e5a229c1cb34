// Package stream carries the live events of one response to its listeners on
// this host: from memory while the response runs here, from the event log
// while another host runs it or when memory has let go of what a listener
// still needs. It writes nothing to the log and never decides that a request
// is over.
package stream

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// The errors of Next, besides io.EOF, io.ErrUnexpectedEOF and the context's.
var (
	// ErrOverrun: an unlogged response outran this listener by more than
	// Options.MaxBytes.
	ErrOverrun = errors.New("listener is too slow")
	// ErrGap: the log no longer holds what the listener asked for.
	ErrGap = errors.New("events are gone from the log")
	// ErrStopped: Hub.Run has returned, so nothing reads the log.
	ErrStopped = errors.New("hub is stopped")
)

// Log is what a Hub needs of the store: see store.Driver.
type Log interface {
	Events(ctx context.Context, cursors []store.Cursor, limit int) (map[queue.ID]store.Tail, error)
}

// Options of a Hub; the zero value is usable.
type Options struct {
	Poll     time.Duration // between two reads of the log's tails; 0: 100 ms
	Timeout  time.Duration // of one read of the log; 0: 10 s
	Unknown  time.Duration // how long a listener waits for a request that nobody knows; 0: 10 s
	Batch    int           // most events a read returns for one response; 0: 512
	MaxBytes int           // of events kept in memory for one response; 0: 32 MiB
	Logger   hclog.Logger  // nil: no log
}

func (o Options) withDefaults() Options {
	if o.Poll <= 0 {
		o.Poll = 100 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Unknown <= 0 {
		o.Unknown = 10 * time.Second
	}
	if o.Batch <= 0 {
		o.Batch = 512
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 32 << 20
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Hub joins producers and listeners. It is safe for concurrent use.
type Hub struct {
	log Log
	o   Options

	mu     sync.Mutex // taken before a topic's own
	topics map[queue.ID]*topic

	tails tails
}

// NewHub returns a Hub that reads log. Listeners are served from memory at
// once, from the log as long as Run runs.
func NewHub(log Log, o Options) *Hub {
	return &Hub{
		log: log, o: o.withDefaults(),
		topics: make(map[queue.ID]*topic),
		tails:  tails{waiting: make(map[*Listener]bool), kick: make(chan struct{}, 1)},
	}
}

// Open says that a request runs on this host from now on, and that its events
// will be published. logged: the log holds them too, each before it is
// published. A Producer that was open for the same id is cut off.
func (h *Hub) Open(id queue.ID, logged bool) *Producer {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topic(id)
	p := &Producer{h: h, t: t}
	t.open(p, logged)
	return p
}

// Listen returns a Listener for the events of a request that follow sequence
// number after; -1: all. The request may be submitted later. It must be closed.
func (h *Hub) Listen(id queue.ID, after int64) *Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &Listener{h: h, t: h.topic(id), next: max(after, -1) + 1, urgent: true, wake: make(chan struct{}, 1)}
	l.t.attach(l)
	return l
}

// topic returns the topic of id, a new one if need be; h.mu is held.
func (h *Hub) topic(id queue.ID) *topic {
	t := h.topics[id]
	if t == nil {
		t = &topic{id: id, listeners: make(map[*Listener]struct{})}
		h.topics[id] = t
	}
	return t
}

// drop forgets t when neither a producer nor a listener holds it.
func (h *Hub) drop(t *topic) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.producer == nil && len(t.listeners) == 0 && h.topics[t.id] == t {
		delete(h.topics, t.id)
	}
}

// Producer publishes the events of one run of a request on this host.
type Producer struct {
	h *Hub
	t *topic
}

// Publish hands events to the listeners here: of a logged response after they
// were committed, else at once. Events must follow each other and those
// published before. It never waits for a listener.
func (p *Producer) Publish(events []response.Event) {
	if len(events) > 0 {
		p.t.publish(p, events, p.h.o.MaxBytes)
	}
}

// Close says that this host's run ended. final: the request is in a final
// state, so no event will follow; otherwise listeners go on with the log, where
// another host appends. Only the first Close counts.
func (p *Producer) Close(final bool) {
	p.t.close(p, final)
	p.h.drop(p.t)
}
