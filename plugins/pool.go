package plugins

import (
	"context"
	"runtime"
	"sync"

	"github.com/casemate/casemate/plugins/internal/engine"
	"github.com/casemate/casemate/plugins/internal/frame"
)

// instance is a started instance and the clock it was started under, which
// guests may not see go back.
type instance struct {
	*engine.Instance
	clock *frame.Clock
}

// pool holds the instances of a policy. Their number is bounded: a call that
// finds all of them busy waits, which is short, since policies are.
type pool struct {
	slots chan struct{}

	mu   sync.Mutex
	idle []*instance
}

func newPool() *pool {
	return &pool{slots: make(chan struct{}, max(4, 2*runtime.GOMAXPROCS(0)))}
}

// get returns an idle instance, or nil when a new one may be started; put or
// drop must follow. The error is ctx's.
func (p *pool) get(ctx context.Context) (*instance, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
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
