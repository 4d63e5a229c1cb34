package queuebench

import (
	"context"
	"sync"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// host is as much of a host as a queue needs: a store and a claimer.
type host struct {
	driver  store.Driver
	store   *store.Store
	claimer *claimer.Claimer
	end     []context.CancelFunc // in the order of a stop
	parts   []*sync.WaitGroup
}

// processor answers every request with a kilobyte.
type processor struct {
	work      func(context.Context, queue.Claim)
	committed func()
}

// Process implements claimer.Processor.
func (p processor) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	p.work(ctx, c)
	return store.Ending{
		Outcome: queue.Outcome{
			To: queue.Completed, By: queue.ByOutcome, Class: queue.OK,
			Status: 200, ContentType: "application/json", Body: make([]byte, kilobyte),
		},
		Done: func(committed bool) {
			if committed && p.committed != nil {
				p.committed()
			}
		},
	}, nil
}

func newHost(d store.Driver, o claimer.Options, models []string, p processor) *host {
	o.Host, o.Version, o.Drain = "bench", "bench", 1 // a drain of no time: nothing must be waited for
	o.Models = claimer.Fixed(models...)
	s := store.New(d, store.Options{})
	return &host{driver: d, store: s, claimer: claimer.New(s, p, o)}
}

// run starts the host, and lets it hear of other hosts, and them of it, if watch
// is set.
func (h *host) run(ctx context.Context, watch bool) {
	ctx = context.WithoutCancel(ctx) // stop ends it
	h.part(ctx, func(ctx context.Context) { _ = h.claimer.Run(ctx, ctx) })
	if watch {
		h.part(ctx, func(ctx context.Context) { _ = h.driver.Watch(ctx, h.hint) })
	}
	h.part(ctx, func(ctx context.Context) { _ = h.store.Run(ctx) })
}

func (h *host) hint(hint store.Hint) {
	if hint.Ready {
		h.claimer.Wake()
	}
}

func (h *host) part(ctx context.Context, f func(context.Context)) {
	ctx, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	h.end, h.parts = append(h.end, end), append(h.parts, &wg)
}

// stop ends the parts, the store last: the others still write.
func (h *host) stop() {
	for i, end := range h.end {
		end()
		h.parts[i].Wait()
	}
}
