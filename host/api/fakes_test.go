package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
)

// fakeStore keeps records in memory; it is the event log too.
type fakeStore struct {
	fakeConversations

	mu       sync.Mutex
	records  map[queue.ID]*store.Record
	canceled chan queue.ID // each request that Cancel canceled
	sick     bool
	err      error                           // of Get
	hang     chan struct{}                   // Get closes it and waits for its context to end
	waits    chan queue.ID                   // gets the request of each Wait for a run, where not nil
	keyed    func(store.Key) *store.Repeated // nil: no key is known before its insert
}

func (s *fakeStore) Keyed(_ context.Context, _ string, k store.Key) (*store.Repeated, error) {
	if s.keyed == nil {
		return nil, nil
	}
	return s.keyed(k), nil
}

func (s *fakeStore) insert(n queue.New, events []response.Event, state queue.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records[n.ID] = &store.Record{
		ID: n.ID, Tenant: n.Tenant, Model: n.Model, Path: n.Path, Tier: n.Tier, Stream: n.Stream, Background: n.Background,
		Store: n.Store, State: state, Attempt: 1, Created: n.ID.Time(), Body: n.Body, Events: events,
		Deadline: time.Now().Add(n.DeadlineIn),
	}
}

// change changes a record in place.
func (s *fakeStore) change(id queue.ID, f func(*store.Record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.records[id]; r != nil {
		f(r)
	}
}

func (s *fakeStore) Get(ctx context.Context, tenant string, id queue.ID, _ store.Parts) (store.Record, error) {
	if s.hang != nil {
		close(s.hang)
		<-ctx.Done()
		return store.Record{}, fmt.Errorf("store: get: %w", ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.records[id]
	switch {
	case s.err != nil:
		return store.Record{}, s.err
	case r == nil || tenant != r.Tenant:
		return store.Record{}, fmt.Errorf("store: %w", queue.ErrNotFound)
	}
	return *r, nil
}

func (s *fakeStore) Cancel(ctx context.Context, tenant string, id queue.ID, code string) (store.Record, bool, error) {
	r, err := s.Get(ctx, tenant, id, store.Parts{})
	if err != nil || r.State.Final() {
		return r, false, err
	}
	s.change(id, func(r *store.Record) { r.State, r.Finished = queue.Canceled, time.Now() })
	s.canceled <- id
	r, err = s.Get(ctx, tenant, id, store.Parts{})
	return r, true, err
}

func (s *fakeStore) Delete(ctx context.Context, tenant string, id queue.ID) error {
	r, err := s.Get(ctx, tenant, id, store.Parts{})
	switch {
	case err != nil:
		return err
	case !r.State.Final():
		return fmt.Errorf("store: %w", queue.ErrRunning)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, id)
	return nil
}

func (s *fakeStore) Healthy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.sick
}

func (s *fakeStore) Events(_ context.Context, cursors []store.Cursor, limit int) (map[queue.ID]store.Tail, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[queue.ID]store.Tail{}
	for _, c := range cursors {
		r := s.records[c.ID]
		if r == nil {
			continue
		}
		tail := store.Tail{State: r.State}
		for _, e := range r.Events {
			if e.Seq > c.After && len(tail.Events) < limit {
				tail.Events = append(tail.Events, e)
			}
		}
		found[c.ID] = tail
	}
	return found, nil
}

// fakeRunner runs each submitted request by its script.
type fakeRunner struct {
	store   *fakeStore
	hub     *stream.Hub
	script  func(*fakeRun)
	err     error                   // of Submit and Enqueue
	refuse  func(store.Write) error // asked first, where not nil
	queued  chan queue.New          // what Enqueue took
	stopped chan error              // the causes of Stop

	mu        sync.Mutex
	runs      map[queue.ID]*fakeRun
	performed []bool // with a row, of each Perform
	wg        sync.WaitGroup
}

// fakeRun is one run; it drives a response.Stream as the loop does.
type fakeRun struct {
	queue.New
	store    *fakeStore
	producer *stream.Producer
	stream   *response.Stream
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{}
	outcome  queue.Outcome
	err      error
}

func (r *fakeRunner) Submit(_ context.Context, w store.Write) (api.Run, error) {
	n, events := *w.Insert, w.Events
	if err := r.refusal(w); err != nil {
		return nil, err
	}
	r.store.insert(n, events, queue.Processing)
	return r.start(n), nil
}

// Perform makes no row before the run has ended.
func (r *fakeRunner) Perform(_ context.Context, w store.Write, row bool) (api.Run, error) {
	if r.err != nil {
		return nil, r.err
	}
	r.mu.Lock()
	r.performed = append(r.performed, row)
	r.mu.Unlock()
	return r.start(*w.Insert), nil
}

func (r *fakeRunner) Enqueue(_ context.Context, w store.Write) error {
	n, events := *w.Insert, w.Events
	if err := r.refusal(w); err != nil {
		return err
	}
	r.store.insert(n, events, queue.Pending)
	r.queued <- n
	return nil
}

func (r *fakeRunner) refusal(w store.Write) error {
	if r.refuse != nil {
		if err := r.refuse(w); err != nil {
			return err
		}
	}
	return r.err
}

func (r *fakeRunner) Stop(id queue.ID, cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if run := r.runs[id]; run != nil {
		run.cancel(cause)
	}
	r.stopped <- cause
}

// start runs n on this host.
func (r *fakeRunner) start(n queue.New) *fakeRun {
	run := &fakeRun{New: n, store: r.store, producer: r.hub.Open(n.ID, n.Store), done: make(chan struct{})}
	run.ctx, run.cancel = context.WithCancelCause(context.Background())
	r.mu.Lock()
	r.runs[n.ID] = run
	r.mu.Unlock()
	r.wg.Go(func() {
		defer close(run.done)
		r.script(run)
	})
	return run
}

func (r *fakeRun) Wait(ctx context.Context) (queue.Outcome, error) {
	if r.store.waits != nil {
		r.store.waits <- r.ID
	}
	select {
	case <-r.done:
		return r.outcome, r.err
	case <-ctx.Done():
		return queue.Outcome{}, ctx.Err()
	}
}

// emit commits and publishes events.
func (r *fakeRun) emit(events []response.Event) {
	if r.Store {
		r.store.change(r.ID, func(rec *store.Record) { rec.Events = append(rec.Events[:len(rec.Events):len(rec.Events)], events...) })
	}
	r.producer.Publish(events)
}

// begin emits what stands before the first delta.
func (r *fakeRun) begin() {
	brief, err := response.DecodeBrief(r.Body)
	if err != nil {
		panic(err)
	}
	r.stream = response.NewStream(r.ID, r.ID.Time(), brief.Request, nil)
	if created := r.stream.Created(r.Background); r.Store {
		r.producer.Publish(created)
	} else {
		r.emit(created)
	}
	r.emit(r.stream.Started())
}

func (r *fakeRun) delta(text string) {
	r.emit(r.stream.Delta(response.Delta{Kind: response.TextDelta, Text: text}))
}

// complete ends the response; its text is Hello.
func (r *fakeRun) complete() {
	r.emit(r.stream.ModelDone(response.ModelOutput{Text: "Hello", Finish: "stop"}))
	r.emit(r.stream.Finish(response.End{Status: "completed", Completed: time.Now()}))
	r.end(queue.Outcome{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200, Body: r.stream.Response()})
}

// end commits the outcome.
func (r *fakeRun) end(o queue.Outcome) {
	r.store.change(r.ID, func(rec *store.Record) {
		if rec.State.Final() {
			return
		}
		rec.State, rec.Class, rec.Code, rec.Finished = o.To, o.Class, o.Code, time.Now()
		rec.Result = &store.Result{Status: o.Status, ContentType: o.ContentType, Body: o.Body}
	})
	r.outcome = o
	r.producer.Close(true)
}

// hello is the script of a response that says hello.
func hello(r *fakeRun) {
	r.begin()
	r.delta("Hel")
	r.delta("lo")
	r.complete()
}

// untilStopped is the script of a response that says something and then only
// ends when it is stopped.
func untilStopped(r *fakeRun) {
	r.begin()
	r.delta("Hel")
	<-r.ctx.Done()
	r.end(queue.Outcome{To: queue.Canceled, Class: queue.ClassCanceled})
}

type fakeModels []string

func (m fakeModels) Models() []string { return m }
func (m fakeModels) Has(s string) bool {
	for _, n := range m {
		if n == s {
			return true
		}
	}
	return false
}

func (fakeModels) Window(string) int { return 0 }

type fakeTools []response.ServerTool

func (f fakeTools) Granted(string) []response.ServerTool { return f }

func tool(plugin, name string) response.ServerTool {
	return response.ServerTool{Offer: response.Offer{Plugin: plugin, Tool: name}, Parameters: json.RawMessage(`{"type":"object"}`)}
}

type fakeHealth []api.Condition

func (h fakeHealth) Ready() []api.Condition { return h }
