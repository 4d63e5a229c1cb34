package plugins

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
)

// instance is a started instance and the clock it was started under, which
// guests may not see go back.
type instance struct {
	*engine.Instance
	clock *frame.Clock
}

// errBusy is why a call got no instance in time.
var errBusy = errors.New("all instances are busy")

// pool holds the instances of a policy. Their number is bounded: a call that
// finds all of them busy waits.
type pool struct {
	slots chan struct{}

	mu   sync.Mutex
	idle []*instance
}

func newPool() *pool {
	return &pool{slots: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0)))}
}

// get returns an idle instance, or nil when a new one may be started; put or
// drop must follow. The error is ctx's, or errBusy after a wait of most.
func (p *pool) get(ctx context.Context, most time.Duration) (*instance, error) {
	if err := p.reserve(ctx, most); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return nil, nil
	}
	in := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	return in, nil
}

// reserve takes a place, at once where one is free.
func (p *pool) reserve(ctx context.Context, most time.Duration) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return errBusy
	}
}

// put returns a sound instance for the next call.
func (p *pool) put(in *instance) {
	p.add(in)
	<-p.slots
}

// add makes an instance idle that did not come from get.
func (p *pool) add(in *instance) {
	p.mu.Lock()
	p.idle = append(p.idle, in)
	p.mu.Unlock()
}

// drop gives up the place of an instance that get returned.
func (p *pool) drop() { <-p.slots }

// close closes the idle instances. No call may run.
func (p *pool) close(ctx context.Context) {
	for _, in := range p.idle {
		in.Close(ctx)
	}
	p.idle = nil
}
