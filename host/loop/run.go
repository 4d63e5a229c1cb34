package loop

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// run is one attempt at one response: what its chains share. None of its fields
// changes while they are driven, but for what is safe to be shared.
type run struct {
	loop   *Loop
	claim  queue.Claim
	brief  response.Brief
	secret response.Secret
	began  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc

	out      *emitter
	ledger   *ledger
	failures atomic.Int64     // that the request has spent, those of this attempt included
	past     []store.Decision // of earlier attempts

	kit    *kit            // of plugins and agents: what the root has before its lists are settled
	agents map[string]*kit // by name
	root   *chain
	left   bool // an ending was made: it closes the producer
}

// open rebuilds the state of a response from its claim: from nothing on the
// first attempt, from the stored chain and event log on a later one.
func (l *Loop) open(ctx context.Context, c queue.Claim) (*run, error) {
	brief, err := response.DecodeBrief(c.Body)
	if err != nil {
		return nil, err
	}
	r := &run{loop: l, claim: c, brief: brief, began: time.Now()}
	if len(c.Secret) > 0 && json.Unmarshal(c.Secret, &r.secret) != nil {
		return nil, fmt.Errorf("loop: the secret of request %s cannot be read", c.ID) // with nothing of it
	}
	var rec store.Record
	if c.Attempt > 1 {
		rec, err = l.store.Get(ctx, c.Tenant, c.ID, store.Parts{Steps: true, Events: true, Decisions: true})
		if err != nil {
			return nil, err
		}
	}
	r.ledger, r.past = newLedger(l.opt.Caps, rec.Steps), rec.Decisions
	r.failures.Store(int64(c.Failures))
	r.kit, r.agents = r.resolve(brief.Offers), map[string]*kit{}
	for _, a := range brief.Agents {
		r.agents[a.Name] = r.resolve(a.Offers)
	}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	r.out = newEmitter(r.ctx, l.store, l.hub.Open(c.ID, c.Store), c, r.cancel)
	r.root = &chain{run: r, ctx: r.ctx, claim: c, brief: brief}
	r.root.open()
	if brief.Direct == nil {
		if err := r.restore(rec.Events); err != nil {
			r.close()
			return nil, err
		}
	}
	return r, nil
}

// restore brings the stream to where the last attempt left it: from its log, or
// where there is none from the steps.
func (r *run) restore(events []response.Event) error {
	root, request, steps := r.root, r.brief.Request, r.ledger.of("")
	root.screen = &screen{out: r.out, live: r.claim.Stream || r.claim.Background}
	if len(events) == 0 {
		s := response.NewStream(r.claim.ID, r.claim.ID.Time(), request, root.kit.list)
		root.screen.stream = s
		created := s.Created(!r.claim.Realtime)
		if r.claim.Store { // they were written with the row
			r.out.publish(created)
		} else {
			root.emit(created)
		}
		root.emit(s.Started())
		root.emit(s.Replay(steps))
		return nil
	}
	s, err := response.Restore(events)
	if err != nil {
		return err
	}
	root.screen.stream = s
	s.Resume(request, root.kit.list)
	s.Rebuild(steps)
	root.emit(s.Started())
	if slices.ContainsFunc(steps, func(s response.Step) bool { return s.Kind == response.ModelCall && !s.Settled() }) { // the last owner left it
		root.emit(s.Interrupted())
	}
	return nil
}

// age is how long ago the request was created.
func (r *run) age() time.Duration { return r.claim.Age + time.Since(r.began) }

// close ends what the run holds. Without an ending its listeners go on with
// the log.
func (r *run) close() {
	r.cancel(nil)
	r.root.drain()
	r.out.close()
	if !r.left {
		r.out.producer.Close(false)
	}
	r.kit.set.Release()
	for _, k := range r.agents {
		k.set.Release()
	}
}
