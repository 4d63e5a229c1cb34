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

// chain drives the steps of one scope: the response's own, or an agent's. Its
// fields belong to the goroutine that drives it; steps run on goroutines of
// their own and answer on results.
type chain struct {
	run      *run
	ctx      context.Context
	scope    string
	claim    queue.Claim    // with the model that serves this chain
	brief    response.Brief // what its model is asked
	kit      *kit
	lists    []string // labels whose tools are asked for first
	approved []response.Approved
	screen   *screen
	agent    *response.AgentBrief // whose chain it is; nil: the root
	up       *call                // the agent's call; nil: the root

	pending  store.Write // settled since the last commit, with its events
	results  chan result
	live     int               // steps that run
	tries    map[int]*tries    // by ordinal, of this attempt
	rejected *response.Failure // by the route policy

	modalities []string // of brief, once they were asked for
}

// tries is what this attempt knows of one step's tries.
type tries struct {
	due       time.Time // a put-off retry runs at this time
	conflicts int       // calls whose state another call changed meanwhile
	history   []abi.HistoryTry
	tried     []abi.Tried
	class     queue.Class // for which the step was put off

	// What the next try means to the retry budget, if it is no first one: paid
	// says that it was paid for, free that it costs nothing; else it is yet to
	// be paid for.
	paid, free bool
	called     bool // the last try called an upstream
	fare       Fare // of the next try
}

// halt is why a chain is not driven on: a plan ended it, its next try is put
// off, or its context ended.
type halt struct {
	plan    response.Plan
	wait    time.Duration
	class   queue.Class // of what it waits for
	stopped bool
}

// result is how one try of a step ended.
type result struct {
	step     response.Step
	output   response.ModelOutput // of a completed model call
	kv       []store.KVPut
	left     store.Write // to be written with it: usage, decisions and, of an agent, its steps
	tried    []abi.Tried
	called   bool          // an upstream was called
	stopped  bool          // ctx ended before the try did: it says nothing about the step
	wait     time.Duration // the try did not end and goes on after so long
	class    queue.Class   // of what it waits for
	rejected *response.Failure
}

// open brings the chain to where its last try left it.
func (c *chain) open() {
	c.results, c.tries = make(chan result), map[int]*tries{}
	for _, s := range c.run.ledger.of(c.scope) {
		if s.State != response.Running {
			continue
		}
		c.triesOf(s.Ordinal).free = true // its try ended with its worker, or its caller: no failure of its upstream
		if s.Attempt == c.claim.Attempt {
			s.Attempt--
			c.run.ledger.put(s)
		}
	}
	c.remember(c.run.past)
	if c.agent == nil {
		c.lists = response.Lists(c.brief)
	}
	c.offer()
}

// drive asks for plans and follows them until one ends the chain.
func (c *chain) drive() halt {
	for {
		if c.ctx.Err() != nil {
			return halt{stopped: true}
		}
		plan := c.run.ledger.plan(c.view())
		if plan.Action != response.Do {
			return halt{plan: plan}
		}
		c.emit(c.screen.planned(plan))
		for _, s := range plan.Record { // beyond the fan-out: recorded before any sibling runs
			c.put(s)
		}
		switch {
		case len(plan.Settle) > 0:
			c.settle(plan.Settle)
			continue
		case len(plan.Ask) > 0:
			c.ask(plan.Ask)
			continue
		}
		ready, wait, longest := c.due(plan.Run)
		if len(ready) == 0 && c.live == 0 && c.leaves() && longest > c.run.loop.opt.InPlace {
			return c.putOff(longest)
		}
		if wait := c.afford(ready); wait > 0 {
			return c.putOff(wait)
		}
		c.begin(ready)
		if err := c.commit(); err != nil {
			c.run.cancel(err)
			return halt{stopped: true}
		}
		for _, s := range ready {
			c.launch(s)
		}
		c.await(wait)
	}
}

// leaves reports whether the slot may be given back until a try is due: not
// while a client, or a tool that holds a slot of its own, waits.
func (c *chain) leaves() bool { return !c.claim.Realtime && (c.up == nil || c.up.depth == 0) }

func (c *chain) view() response.View {
	v := response.View{
		Request: c.brief.Request, Scope: c.scope, Attempt: c.claim.Attempt, Tools: c.kit.tools,
		Check: c.kit.check, Age: c.run.age(), Lists: c.lists, Approved: c.approved, Direct: c.brief.Direct,
	}
	if c.agent != nil {
		v.MaxModelCalls = c.agent.MaxModelCalls
	}
	return v
}

// offer brings the chain's tools up to what is known of remote servers. Those
// are the client's: an agent, which is the operator's, tells them nothing.
func (c *chain) offer() {
	if c.agent != nil {
		c.kit = c.run.agents[c.agent.Name]
		return
	}
	c.kit = c.run.kit.with(c.run.offered(c.run.kit.local))
	c.approved = response.Approvals(c.brief, c.kit.list)
	c.screen.offer(c.kit.list)
}

// due parts steps that run now from those put off, and returns the least and
// the longest wait for the latter (0: none is put off).
func (c *chain) due(steps []response.Step) (ready []response.Step, least, longest time.Duration) {
	for _, s := range steps {
		d := time.Duration(0)
		if t := c.tries[s.Ordinal]; t != nil {
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

// putOff stops the chain until its next try is due.
func (c *chain) putOff(wait time.Duration) halt {
	h := halt{wait: wait, class: queue.UpstreamStatus}
	for _, t := range c.tries {
		if t.class != "" && time.Now().Before(t.due) {
			h.class = t.class
		}
	}
	return h
}

// afford settles what each model call among steps means to the retry budget.
// wait > 0: one that was put off is not paid for, so the chain is put off again.
func (c *chain) afford(steps []response.Step) (wait time.Duration) {
	for _, s := range steps {
		if s.Kind != response.ModelCall {
			continue
		}
		t := c.triesOf(s.Ordinal)
		switch {
		case s.Tries == 0:
			t.fare = First
		case t.paid:
			t.fare = Paid
		case t.free:
			t.fare = Free
		default:
			if t.fare, wait = c.run.loop.caller.Again(c.ctx, c.claim); wait > 0 && c.leaves() {
				t.due = time.Now().Add(wait)
				return wait
			}
		}
		t.paid, t.free = false, false
	}
	return 0
}

// begin records steps as running, to be committed before they run.
func (c *chain) begin(steps []response.Step) {
	for i, s := range steps {
		steps[i] = s.Begin(c.claim.Attempt, c.kit.of(s))
		c.put(steps[i])
	}
}

// put replaces a step of the chain, or adds it, and marks it for the next
// commit, with what it leaves behind.
func (c *chain) put(s response.Step) {
	c.pending.Steps = append(c.pending.Steps, c.run.ledger.settle(s)...)
	c.run.ledger.put(s)
}

// settle takes over steps that Next settled without running them.
func (c *chain) settle(steps []response.Step) {
	for _, s := range steps {
		c.put(s)
		c.told(s)
	}
}

// told emits what the client is told of a step that is settled.
func (c *chain) told(s response.Step) {
	if !s.Settled() || s.Kind == response.ModelCall {
		return
	}
	c.emit(c.screen.stepDone(s))
	if s.Kind == response.ListTools {
		c.offer()
	}
}

// emit emits events that belong to what is pending.
func (c *chain) emit(events []response.Event) { c.pending.Events = append(c.pending.Events, events...) }

// commit writes what is pending, if anything, in one transaction.
func (c *chain) commit() error {
	w := c.pending
	c.pending = store.Write{}
	if w.Steps == nil && w.Events == nil && w.Decisions == nil && w.Usage == nil && w.Failures == 0 {
		return nil
	}
	return c.run.out.commit(w)
}

// add adds to a write what another one holds.
func add(to *store.Write, w store.Write) {
	to.Steps = append(to.Steps, w.Steps...)
	to.Decisions = append(to.Decisions, w.Decisions...)
	to.Usage = append(to.Usage, w.Usage...)
	to.Failures += w.Failures
}

// launch runs one step on a goroutine of its own.
func (c *chain) launch(s response.Step) {
	c.live++
	begun := func() response.Step { return s }
	var try func() result
	switch s.Kind {
	case response.ModelCall:
		m := c.modelCall(s)
		try = func() result { return m.do(c.ctx) }
	case response.ListTools:
		k := c.kit
		try = func() result { return c.run.list(c.ctx, s, k) }
	case response.ToolCall:
		t := c.call(s)
		begun, try = t.begun, func() result { return t.do(c.ctx) }
	}
	go func() { c.results <- c.run.guarded(begun, try) }()
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

func (c *chain) triesOf(ordinal int) *tries {
	t := c.tries[ordinal]
	if t == nil {
		t = &tries{}
		c.tries[ordinal] = t
	}
	return t
}

// await waits for a result, a put-off retry or the end of ctx.
func (c *chain) await(wait time.Duration) {
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	if c.live == 0 && timer == nil {
		return
	}
	select {
	case res := <-c.results:
		c.apply(res)
	case <-timer:
	case <-c.ctx.Done():
	}
	for { // what else has ended shares the commit
		select {
		case res := <-c.results:
			c.apply(res)
		default:
			return
		}
	}
}

// apply takes over the result of one try.
func (c *chain) apply(res result) {
	c.live--
	s, t := res.step, c.triesOf(res.step.Ordinal)
	if s.Kind == response.ModelCall {
		defer c.run.ledger.release(c.scope) // once what it used counts
	}
	add(&c.pending, res.left)
	t.tried, t.called = append(t.tried, res.tried...), res.called
	if res.rejected != nil {
		c.rejected = res.rejected
	}
	if s.Kind == response.ListTools && s.State == response.Failed {
		s.Verdict = response.Final // nobody is asked: the model does without
	}
	switch {
	case res.stopped:
		// The crash rule settles it, here or elsewhere.
	case res.wait > 0:
		t.due, t.class = time.Now().Add(res.wait), res.class
		s = s.Again()
		s.Tries--
		c.put(s)
	case s.State == response.Failed && !s.Settled():
		// Not stored as failed before the policy has spoken; Next asks for it.
		c.run.ledger.put(s)
	case len(res.kv) > 0:
		c.settleState(res, t)
	default:
		c.put(s)
		if s.Kind == response.ModelCall && s.State == response.Completed {
			c.emit(c.screen.modelDone(res.output))
		}
		c.told(s)
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
func (c *chain) settleState(res result, t *tries) {
	s := res.step
	err := c.run.out.commit(store.Write{Steps: c.run.ledger.settle(s), KV: res.kv})
	switch {
	case err == nil:
		c.run.ledger.put(s) // it is stored
		c.told(s)
	case !errors.Is(err, store.ErrConflict):
		c.run.cancel(err)
	case !s.Repeatable():
		c.run.ledger.put(res.unwritten(queue.StepAbandoned, "step_abandoned").step)
	case t.conflicts >= maxConflicts:
		c.run.ledger.put(res.unwritten(queue.HostError, "").step)
	default:
		t.conflicts++
		s = s.Again()
		s.Tries--
		c.put(s)
	}
}

// drain waits for the steps that run; what they answer is kept.
func (c *chain) drain() {
	for c.live > 0 {
		c.apply(<-c.results)
	}
}
