package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/sdk/abi"
)

// run is one attempt at one response. Its fields belong to the goroutine that
// drives it; steps run on goroutines of their own and answer on results. The
// stream is lent to the one model call that runs, if any.
type run struct {
	loop   *Loop
	claim  queue.Claim
	brief  response.Brief
	set    Toolset
	tools  map[string]response.ServerTool // by the name that the model sees
	ctx    context.Context
	cancel context.CancelCauseFunc
	began  time.Time

	stream  *response.Stream
	out     *emitter
	steps   []response.Step // the chain, by ordinal: those of scope ""
	nested  *ledger         // of all other scopes
	pending store.Write     // settled since the last commit, with its events
	results chan result
	live    int            // steps that run
	tries   map[int]*tries // by ordinal, of this attempt
	left    bool           // an ending was made: it closes the producer

	rejected *response.Failure // by the route policy
}

// tries is what this attempt knows of one step's tries.
type tries struct {
	due       time.Time // a put-off retry runs at this time
	conflicts int       // calls whose state another call changed meanwhile
	history   []abi.HistoryTry
	tried     []abi.Tried

	// What the next try means to the retry budget, if it is no first one: paid
	// says that it was paid for, free that it costs nothing; else it is yet to
	// be paid for.
	paid, free bool
	called     bool // the last try called an upstream
	fare       Fare // of the next try
}

// result is how one try of a step ended.
type result struct {
	step      response.Step
	output    response.ModelOutput // of a completed model call
	receipt   response.ToolReceipt // of a tool call
	kv        []store.KVPut
	usage     []store.Usage
	decisions []store.Decision
	tried     []abi.Tried
	called    bool // an upstream was called
	stopped   bool // ctx ended before the try did: it says nothing about the step
	rejected  *response.Failure
}

// drive asks for plans and follows them until one ends the response.
func (r *run) drive() (store.Ending, error) {
	for {
		if r.ctx.Err() != nil {
			return r.interrupted()
		}
		plan := response.Next(r.view())
		switch {
		case len(plan.Settle) > 0:
			r.settle(plan.Settle)
			continue
		case len(plan.Ask) > 0:
			r.ask(plan.Ask)
			continue
		case plan.Action != response.Do:
			return r.end(plan), nil
		}
		for _, s := range plan.Record { // beyond the fan-out: recorded before any sibling runs
			r.put(s)
		}
		ready, wait, longest := r.due(plan.Run)
		if len(ready) == 0 && r.live == 0 && !r.claim.Realtime && longest > r.loop.opt.InPlace {
			return r.putOff(longest), nil
		}
		if wait := r.afford(ready); wait > 0 {
			return r.putOff(wait), nil
		}
		r.begin(ready)
		if err := r.commit(); err != nil {
			r.cancel(err)
			return r.interrupted()
		}
		for _, s := range ready {
			r.launch(s)
		}
		r.await(wait)
	}
}

func (r *run) view() response.View {
	steps, calls := r.nested.counts()
	return response.View{
		NestedSteps: steps, NestedCalls: calls,
		Request: r.brief.Request, Steps: r.steps, Attempt: r.claim.Attempt, Tools: r.tools,
		Check: r.set.Check, Caps: r.loop.opt.Caps, Age: r.age(),
	}
}

// due parts steps that run now from those put off, and returns the least and
// the longest wait for the latter (0: none is put off).
func (r *run) due(steps []response.Step) (ready []response.Step, least, longest time.Duration) {
	for _, s := range steps {
		d := time.Duration(0)
		if t := r.tries[s.Ordinal]; t != nil {
			d = time.Until(t.due)
		}
		if d <= 0 {
			ready = append(ready, s)
			continue
		}
		if least == 0 || d < least {
			least = d
		}
		longest = max(longest, d)
	}
	return ready, least, longest
}

// afford settles what each model call among steps means to the retry budget.
// wait > 0: one that was put off is not paid for, so the request is put off again.
func (r *run) afford(steps []response.Step) (wait time.Duration) {
	for _, s := range steps {
		if s.Kind != response.ModelCall {
			continue
		}
		t := r.triesOf(s.Ordinal)
		switch {
		case s.Tries == 0:
			t.fare = First
		case t.paid:
			t.fare = Paid
		case t.free:
			t.fare = Free
		default:
			if t.fare, wait = r.loop.caller.Again(r.ctx, r.claim); wait > 0 {
				t.due = time.Now().Add(wait)
				return wait
			}
		}
		t.paid, t.free = false, false
	}
	return 0
}

// begin records steps as running, to be committed before they run.
func (r *run) begin(steps []response.Step) {
	for i, s := range steps {
		steps[i] = s.Begin(r.claim.Attempt, r.tool(s))
		r.put(steps[i])
	}
}

// put replaces a step of the chain, or adds it, and marks it for the next
// commit, with what it leaves behind.
func (r *run) put(s response.Step) {
	r.pending.Steps = append(r.pending.Steps, r.nested.settle(s)...)
	for i := range r.steps {
		if r.steps[i].Ordinal == s.Ordinal {
			r.steps[i] = s
			return
		}
	}
	r.steps = append(r.steps, s)
	r.nested.count(s)
}

// settle takes over steps that Next settled without running them.
func (r *run) settle(steps []response.Step) {
	for _, s := range steps {
		r.put(s)
		if s.Kind == response.ToolCall && s.Settled() {
			r.emit(r.stream.ToolDone(s.CallID, response.Receipt(s)))
		}
	}
}

// emit emits events that belong to what is pending.
func (r *run) emit(events []response.Event) { r.pending.Events = append(r.pending.Events, events...) }

// commit writes what is pending, if anything, in one transaction.
func (r *run) commit() error {
	w := r.pending
	r.pending = store.Write{}
	if w.Steps == nil && w.Events == nil && w.Decisions == nil && w.Usage == nil && w.Failures == 0 {
		return nil
	}
	err := r.out.commit(w)
	if err == nil {
		r.claim.Failures += w.Failures
	}
	return err
}

// launch runs one step on a goroutine of its own.
func (r *run) launch(s response.Step) {
	r.live++
	tr := r.triesOf(s.Ordinal)
	if s.Kind == response.ModelCall {
		body, err := response.ChatRequest(r.brief, r.steps, r.set.Tools())
		m := modelCall{step: s, body: body, info: r.info(), tried: tr.tried, fare: tr.fare}
		go func() {
			r.results <- r.guarded(func() response.Step { return s }, func() result { return r.callModel(m, err) })
		}()
		return
	}
	c := r.call(s)
	go func() { r.results <- r.guarded(c.begun, func() result { return c.do(r.ctx) }) }()
}

// guarded runs a try. A panic in it is a failure of this host, and ends the try
// in the one place where all tries end.
func (r *run) guarded(step func() response.Step, try func() result) (res result) {
	defer func() {
		if p := recover(); p != nil {
			r.loop.opt.Logger.Error("step panicked", "request", r.claim.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			res = result{step: step()}.failed(queue.HostError, 0, "")
		}
	}()
	return try()
}

func (r *run) triesOf(ordinal int) *tries {
	t := r.tries[ordinal]
	if t == nil {
		t = &tries{}
		r.tries[ordinal] = t
	}
	return t
}

// await waits for a result, a put-off retry or the end of ctx.
func (r *run) await(wait time.Duration) {
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	if r.live == 0 && timer == nil {
		return
	}
	select {
	case res := <-r.results:
		r.apply(res)
	case <-timer:
	case <-r.ctx.Done():
	}
	for { // what else has ended shares the commit
		select {
		case res := <-r.results:
			r.apply(res)
		default:
			return
		}
	}
}

// apply takes over the result of one try.
func (r *run) apply(res result) {
	r.live--
	t := r.triesOf(res.step.Ordinal)
	r.pending.Usage = append(r.pending.Usage, res.usage...)
	r.pending.Decisions = append(r.pending.Decisions, res.decisions...)
	t.tried, t.called = append(t.tried, res.tried...), res.called
	if res.rejected != nil {
		r.rejected = res.rejected
	}
	if res.stopped {
		return // the crash rule settles it, here or elsewhere
	}
	s := res.step
	if s.State == response.Failed && !s.Settled() {
		// Not stored as failed before the policy has spoken; Next asks for it.
		r.putUnstored(s)
		return
	}
	if len(res.kv) > 0 {
		r.settleState(res, t)
		return
	}
	r.put(s)
	switch {
	case s.State == response.Failed: // a model call that a policy rejected
	case s.Kind == response.ModelCall:
		r.emit(r.stream.ModelDone(res.output))
	default:
		r.emit(r.stream.ToolDone(s.CallID, res.receipt))
	}
}

// maxConflicts is how often a call may lose its turn to others before its step
// counts as failed. Each time, some other call's write went through.
const maxConflicts = 100

// settleState commits a step together with what its call wrote to its plugin's
// state. If what the call had read was changed meanwhile, by another call of
// this host or of another one, nothing is written and the step runs again
// under the same key: no write is lost, and none is made from an old reading.
// A step that must not run again fails.
func (r *run) settleState(res result, t *tries) {
	s := res.step
	err := r.out.commit(store.Write{Steps: r.nested.settle(s), KV: res.kv})
	switch {
	case err == nil:
		r.putUnstored(s) // it is stored
		r.emit(r.stream.ToolDone(s.CallID, res.receipt))
	case !errors.Is(err, store.ErrConflict):
		r.cancel(err)
	case !s.Repeatable():
		r.putUnstored(res.unwritten(queue.StepAbandoned, "step_abandoned").step)
	case t.conflicts >= maxConflicts:
		r.putUnstored(res.unwritten(queue.HostError, "").step)
	default:
		t.conflicts++
		s = s.Again()
		s.Tries--
		r.put(s)
	}
}

// putUnstored replaces a step of the chain without writing it.
func (r *run) putUnstored(s response.Step) {
	for i := range r.steps {
		if r.steps[i].Ordinal == s.Ordinal {
			r.steps[i] = s
		}
	}
}

// drain waits for the steps that run; what they answer is kept.
func (r *run) drain() {
	for r.live > 0 {
		r.apply(<-r.results)
	}
}

// close ends what the run holds. Without an ending its listeners go on with
// the log.
func (r *run) close() {
	r.cancel(nil)
	r.drain()
	r.out.close()
	if !r.left {
		r.out.producer.Close(false)
	}
	r.set.Release()
}
