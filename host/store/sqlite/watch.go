package sqlite

import (
	"context"
	"sync"

	"github.com/casemate/casemate/host/store"
)

// watchers are those who get this process's hints: no other writes to the file.
type watchers struct {
	mu   sync.RWMutex
	next int
	all  map[int]func(store.Hint)
}

// Watch calls f after each commit by which requests became claimable, or one
// that a worker runs was canceled, until ctx ends.
func (d *driver) Watch(ctx context.Context, f func(store.Hint)) error {
	w := &d.watchers
	w.mu.Lock()
	if w.all == nil {
		w.all = make(map[int]func(store.Hint))
	}
	w.next++
	id := w.next
	w.all[id] = f
	w.mu.Unlock()
	<-ctx.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, id)
	return nil
}

// hints are what a transaction has to tell once it is committed.
type hints struct {
	ready    bool    // requests became claimable
	canceled []int64 // workers with requests to stop
}

func (w *watchers) tell(h hints) {
	if !h.ready && len(h.canceled) == 0 {
		return
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	for _, f := range w.all {
		if h.ready {
			f(store.Hint{Ready: true})
		}
		for _, worker := range h.canceled {
			f(store.Hint{Canceled: worker})
		}
	}
}
