package queuebench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Load says what a backlog is made of, and counts what was made of it.
type Load struct {
	Tenants int
	Models  int
	// Whale: the first tenant owns every other request.
	Whale bool
	// Deadlines: every tenth request has one, 20 to 80 min away.
	Deadlines bool
	// Body is the size of a request in bytes, 256.
	Body int
	// Prefix parts the names of one load from those of another.
	Prefix string

	made int
}

// The batches in which a backlog is written, and how many at once.
const (
	fillBatch   = 500
	fillWriters = 4
)

// Names returns the models of the load.
func (l *Load) Names() []string {
	all := make([]string, l.Models)
	for i := range all {
		all[i] = l.model(i)
	}
	return all
}

func (l *Load) model(i int) string { return fmt.Sprintf("%smodel-%d", l.Prefix, i) }

func (l *Load) tenant(i int) string { return fmt.Sprintf("%stenant-%06d", l.Prefix, i) }

// whale is the tenant that owns half of the load.
func (l *Load) whale() string { return l.tenant(0) }

// request returns the i-th request. Tenants take turns, and each of them its
// models.
func (l *Load) request(i int, body []byte) *queue.New {
	n := &queue.New{ID: queue.NewID(), Path: "/v1/responses", Background: true, Store: true, Body: body}
	tenant, round := i%l.Tenants, i/l.Tenants
	if l.Whale && l.Tenants > 1 {
		if tenant, round = 0, i/2; i%2 == 1 {
			tenant, round = 1+i/2%(l.Tenants-1), i/2/(l.Tenants-1)
		}
	}
	n.Tenant, n.Model = l.tenant(tenant), l.model(round%l.Models)
	if l.Deadlines && i%10 == 7 {
		n.DeadlineIn = 20*time.Minute + time.Duration(i%3600)*time.Second
	}
	return n
}

// FillTo adds requests until so many were made.
func (l *Load) FillTo(ctx context.Context, d store.Driver, size int) error {
	return l.Add(ctx, d, size-l.made)
}

// Add makes n requests more.
func (l *Load) Add(ctx context.Context, d store.Driver, n int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	batches := make(chan []store.Write)
	var wg sync.WaitGroup
	for range fillWriters {
		wg.Go(func() {
			for batch := range batches {
				if err := written(d.Write(ctx, batch)); err != nil {
					stop(fmt.Errorf("fill: %w", err))
				}
			}
		})
	}
	body := make([]byte, max(l.Body, 256))
	for from := 0; from < n && ctx.Err() == nil; from += fillBatch {
		batch := make([]store.Write, 0, fillBatch)
		for i := range min(fillBatch, n-from) {
			batch = append(batch, store.Write{Insert: l.request(l.made+from+i, body)})
		}
		batches <- batch
	}
	close(batches)
	wg.Wait()
	l.made += max(n, 0)
	return context.Cause(ctx)
}

// again enqueues the like of what was claimed, so that each lane stays as full
// as it was.
func (l *Load) again(ctx context.Context, d store.Driver, claims []queue.Claim) error {
	writes := make([]store.Write, 0, len(claims))
	for _, c := range claims {
		n := &queue.New{ID: queue.NewID(), Tenant: c.Tenant, Model: c.Model, Path: c.Path, Background: true, Store: true, Body: c.Body}
		if c.Remaining > 0 {
			n.DeadlineIn = time.Hour
		}
		writes = append(writes, store.Write{Insert: n})
	}
	if err := written(d.Write(ctx, writes)); err != nil {
		return fmt.Errorf("fill up: %w", err)
	}
	return nil
}
