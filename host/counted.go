package host

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/store"
)

// counted keeps the counts of the store for scrapes. To count reads many rows,
// so it is done when somebody looked, not while he waits, and takes at most a
// part of the database's time.
type counted struct {
	log    hclog.Logger
	wanted chan struct{} // of length 1

	mu    sync.Mutex
	stats store.Stats
	ok    bool
}

// How the store is counted: at most so often, with a pause of a multiple of
// what the last count took, and none that takes longer than countWall.
const (
	countPause = 10 * time.Second
	countShare = 50
	countWall  = 30 * time.Second
)

func newCounted(log hclog.Logger) *counted {
	return &counted{log: log, wanted: make(chan struct{}, 1)}
}

// last returns what was counted last and asks for a new count.
func (c *counted) last() (stats store.Stats, ok bool) {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats, c.ok
}

// run counts when it is wanted, until ctx ends.
func (c *counted) run(ctx context.Context, count func(context.Context) (store.Stats, error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wanted:
		}
		began := time.Now()
		c.once(ctx, count)
		pause := time.NewTimer(max(countPause, countShare*time.Since(began)))
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

func (c *counted) once(ctx context.Context, count func(context.Context) (store.Stats, error)) {
	ctx, cancel := context.WithTimeout(ctx, countWall)
	defer cancel()
	stats, err := count(ctx)
	if err != nil {
		c.log.Debug("requests not counted for metrics", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats, c.ok = stats, err == nil
}
