package postgres

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/host/store"
)

// hints are what other hosts should hear of. Each is kept once until it is
// sent; to note one never blocks.
type hints struct {
	mu      sync.Mutex
	queued  bool
	workers map[int64]bool
	noted   chan struct{} // holds one token while something waits to be sent
}

func newHints() *hints {
	return &hints{workers: make(map[int64]bool), noted: make(chan struct{}, 1)}
}

// ready notes that requests became claimable.
func (h *hints) ready() { h.note(func() { h.queued = true }) }

// canceled notes that this worker has a canceled request to stop.
func (h *hints) canceled(worker int64) { h.note(func() { h.workers[worker] = true }) }

func (h *hints) note(f func()) {
	h.mu.Lock()
	f()
	h.mu.Unlock()
	select {
	case h.noted <- struct{}{}:
	default:
	}
}

const (
	payloadReady  = "r"
	payloadCancel = "c" // with the worker's id
	payloadEcho   = "e" // with a word, to find out whether notifications arrive
)

// take returns what was noted since it was called last, as payloads.
func (h *hints) take() (payloads []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.queued {
		payloads = append(payloads, payloadReady)
	}
	for _, w := range slices.Sorted(maps.Keys(h.workers)) {
		payloads = append(payloads, payloadCancel+strconv.FormatInt(w, 10))
	}
	h.queued = false
	clear(h.workers)
	return payloads
}

// hint reads a payload; ok is false for one that is not a hint.
func hint(payload string) (h store.Hint, ok bool) {
	if payload == payloadReady {
		return store.Hint{Ready: true}, true
	}
	id, ok := strings.CutPrefix(payload, payloadCancel)
	worker, err := strconv.ParseInt(id, 10, 64)
	return store.Hint{Canceled: worker}, ok && err == nil && worker > 0
}

// notifyGap is how long after one statement the next is sent at the earliest: a
// transaction that notifies has others wait for its commit.
const notifyGap = 20 * time.Millisecond

// channelName is of a schema: a scratch schema's hints concern nobody else.
const channelName = `left('casemate_' || current_schema(), 63)`

const sendHints = `select pg_notify(` + channelName + `, p) from unnest($1::text[]) as p`

// sendHints sends what was noted until ctx ends. What cannot be sent is dropped:
// polling finds it.
func (d *driver) sendHints(ctx context.Context) {
	gap := time.NewTicker(notifyGap)
	defer gap.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.hints.noted:
		}
		gap.Reset(notifyGap)
		_ = d.notify(ctx, d.hints.take())
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
		}
	}
}

func (d *driver) notify(ctx context.Context, payloads []string) error {
	return d.call(ctx, "notify", func(ctx context.Context) error {
		_, err := d.pool.Exec(ctx, sendHints, payloads)
		return err
	})
}
