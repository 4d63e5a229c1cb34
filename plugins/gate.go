package plugins

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"
)

// errBusy is why a call was not let in in time.
var errBusy = errors.New("all instances are busy")

// gate bounds how many calls run at once. Those that wait go in by the order
// of their coming. The zero gate is empty.
type gate struct {
	mu      sync.Mutex
	most    int // as who came last had it
	running int
	waiting list.List // of chan struct{}, closed when its owner is in
}

// enter waits until fewer than most calls run; leave must follow. The error is
// ctx's, or errBusy after wait.
func (g *gate) enter(ctx context.Context, most int, wait time.Duration) error {
	g.mu.Lock()
	g.most = most
	g.admit() // the bound may have been raised
	if g.running < most && g.waiting.Len() == 0 {
		g.running++
		g.mu.Unlock()
		return nil
	}
	in := make(chan struct{})
	place := g.waiting.PushBack(in)
	g.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()
	var err error
	select {
	case <-in:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = errBusy
	}
	return g.giveUp(place, in, err)
}

// giveUp takes back a place in the queue. One that was let in meanwhile stays
// in: its call finds out by itself that its time is over.
func (g *gate) giveUp(place *list.Element, in chan struct{}, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-in:
		return nil
	default:
	}
	g.waiting.Remove(place)
	return err
}

// leave makes room for the first in the queue.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.admit()
}

// admit lets in those who wait, the first first, as far as there is room.
func (g *gate) admit() {
	for g.running < g.most {
		first := g.waiting.Front()
		if first == nil {
			return
		}
		g.waiting.Remove(first)
		g.running++
		close(first.Value.(chan struct{}))
	}
}
