package loop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/sdk/abi"
)

// rig is the loop on a real store, hub, claimer and upstream; tools and
// policies are functions.
type rig struct {
	*testing.T
	store    *store.Store
	hub      *stream.Hub
	claimer  *claimer.Claimer
	upstream *demo.Server
	models   *upstream.Client
	tools    *tools
	policy   *fakePolicy
	spy      *spy
	change   func(j *response.Brief, n *queue.New) // of what brief makes; nil: nothing
}

// spy is the store as the loop sees it, with what it wrote.
type spy struct {
	*store.Store
	mu     sync.Mutex
	writes []store.Write
	before func(w store.Write) // called with each write; may be nil
}

func (s *spy) WriteAsync(ctx context.Context, w store.Write, done func(error)) {
	s.mu.Lock()
	s.writes = append(s.writes, w)
	before := s.before
	s.mu.Unlock()
	if before != nil {
		before(w)
	}
	s.Store.WriteAsync(ctx, w, done)
}

func newRig(t *testing.T, script demo.Script, o loop.Options) *rig {
	t.Helper()
	return newRigAt(t, onSQLite, script, o)
}

// newRigAt is newRig on a database.
func newRigAt(t *testing.T, d database, script demo.Script, o loop.Options) *rig {
	t.Helper()
	srv, err := demo.Start(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	up, err := upstream.New(upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: srv.URL()}},
		Models: []upstream.Model{
			{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}},
			{Name: "helper", Targets: []upstream.Target{{Upstream: "up", Model: "agent"}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, d.open(t), up, o)
	r.upstream = srv
	return r
}

// rigOn is a rig on a database and the models of up.
func rigOn(t *testing.T, driver store.Driver, up *upstream.Client, o loop.Options) *rig {
	t.Helper()
	r := &rig{
		T: t, store: store.New(driver, store.Options{}), models: up,
		tools: &tools{calls: map[string]func(context.Context, loop.ToolCall) loop.ToolResult{}}, policy: &fakePolicy{},
	}
	r.hub = stream.NewHub(r.store, stream.Options{})
	r.spy = &spy{Store: r.store}
	l := loop.New(r.spy, &loop.Caller{Policy: r.policy, Upstream: up}, r.tools, r.hub, o)
	r.claimer = claimer.New(r.store, l, claimer.Options{Models: claimer.Fixed("m"), Poll: 50 * time.Millisecond, Drain: time.Millisecond})
	base, end := context.WithCancel(context.Background())
	work, stop := context.WithCancel(base)
	var parts, worker sync.WaitGroup
	parts.Go(func() { r.check(r.store.Run(base)) })
	parts.Go(func() { r.check(r.hub.Run(base)) })
	worker.Go(func() { r.check(r.claimer.Run(work, base)) })
	t.Cleanup(func() {
		stop()
		worker.Wait()
		r.tools.released.Wait() // each toolset was let go of
		end()
		parts.Wait()
		r.check(driver.Close())
	})
	<-r.claimer.Ready()
	return r
}

func (r *rig) check(err error) {
	if err != nil {
		r.Error(err)
	}
}

// brief encodes a request that is offered the given tools.
func (r *rig) brief(body string) (queue.New, []response.Event) {
	r.Helper()
	req, err := response.ParseRequest([]byte(body))
	if err != nil {
		r.Fatal(err)
	}
	j := response.Brief{Request: req}
	for name := range r.tools.calls {
		j.Offers = append(j.Offers, response.Offer{Name: name, Plugin: plugin, Tool: name})
	}
	n := queue.New{
		ID: queue.NewID(), Tenant: "t", Model: req.Model, Path: "/v1/responses", Stream: req.Stream,
		Background: req.Background, Store: req.Store,
	}
	if r.change != nil {
		r.change(&j, &n)
	}
	if n.Body, err = j.Encode(); err != nil {
		r.Fatal(err)
	}
	var events []response.Event
	if n.Store {
		events = response.NewStream(n.ID, n.ID.Time(), req, r.tools.list()).Created(n.Background)
	}
	return n, events
}

// run runs a request to its end here and returns its outcome and events.
func (r *rig) run(body string) (queue.Outcome, []response.Event, queue.ID) {
	r.Helper()
	n, events := r.brief(body)
	l := r.hub.Listen(n.ID, -1)
	defer l.Close()
	run, err := r.claimer.Submit(r.Context(), store.Write{Insert: &n, Events: events})
	if err != nil {
		r.Fatal(err)
	}
	o, err := run.Wait(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return o, r.events(l), n.ID
}

// events reads a listener to its end and checks the grammar.
func (r *rig) events(l *stream.Listener) []response.Event {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	var all []response.Event
	for {
		events, err := l.Next(ctx)
		all = append(all, events...)
		if err != nil {
			if ctx.Err() != nil {
				r.Fatalf("the stream does not end; so far %s", names(all))
			}
			break
		}
	}
	var v response.Validator
	for _, e := range all {
		if err := v.Event(e.Data); err != nil {
			r.Errorf("stream: event %d: %v: %s", e.Seq, err, names(all))
			return all
		}
	}
	if err := v.End(); err != nil {
		r.Errorf("stream: %v: %s", err, names(all))
	}
	return all
}

func (r *rig) record(id queue.ID) store.Record {
	r.Helper()
	rec, err := r.store.Get(r.Context(), "", id, store.Parts{Body: true, Result: true, Steps: true, Events: true, Decisions: true, Usage: true})
	if err != nil {
		r.Fatal(err)
	}
	return rec
}

// names lists event types, for messages.
func names(events []response.Event) string {
	var all []string
	for _, e := range events {
		all = append(all, eventType(e))
	}
	return strings.Join(all, " ")
}

func eventType(e response.Event) string {
	var v struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(e.Data, &v); err != nil {
		return err.Error()
	}
	return v.Type
}

// object is a Response as far as the tests look.
type object struct {
	Status string `json:"status"`
	Output []struct {
		Type    string `json:"type"`
		Status  string `json:"status"`
		Name    string `json:"name"`
		CallID  string `json:"call_id"`
		Output  any    `json:"output"`
		Error   any    `json:"error"`
		Content []struct {
			Text string `json:"text"`
		} `json:"content"`
	} `json:"output"`
	Error struct {
		Code string `json:"code"`
	} `json:"error"`
	Incomplete struct {
		Reason string `json:"reason"`
	} `json:"incomplete_details"`
	Usage struct {
		Total int64 `json:"total_tokens"`
	} `json:"usage"`
}

func (r *rig) object(body []byte) object {
	r.Helper()
	var o object
	if err := json.Unmarshal(body, &o); err != nil {
		r.Fatalf("%s: %v", body, err)
	}
	return o
}

// kinds lists an object's items.
func (o object) kinds() string {
	var all []string
	for _, it := range o.Output {
		all = append(all, it.Type+":"+it.Status)
	}
	return strings.Join(all, " ")
}

func (o object) text() string {
	for i := len(o.Output) - 1; i >= 0; i-- {
		if o.Output[i].Type == "message" {
			return o.Output[i].Content[0].Text
		}
	}
	return ""
}

const plugin = "test"

// tools are server tools made of functions. Names that begin with "once" are
// once, with "opaque" once, with "pure" pure, the rest idempotent; those with
// "opaque" in them are opaque. "other__x" is x of another plugin.
type tools struct {
	calls    map[string]func(context.Context, loop.ToolCall) loop.ToolResult
	released sync.WaitGroup
}

func (t *tools) list() []response.ServerTool {
	var all []response.ServerTool
	for name := range t.calls {
		effects := "idempotent"
		switch {
		case strings.HasPrefix(name, "once"), strings.HasPrefix(name, "opaque"):
			effects = "once"
		case strings.HasPrefix(name, "pure"):
			effects = "pure"
		}
		offer := response.Offer{Name: name, Plugin: plugin, Tool: name}
		if bare, ok := strings.CutPrefix(name, "other__"); ok {
			offer.Plugin, offer.Tool = "other", bare
		}
		all = append(all, response.ServerTool{
			Offer:   offer,
			Effects: effects, Parameters: json.RawMessage(`{"type":"object"}`), Timeout: 10 * time.Second,
			Opaque: strings.Contains(name, "opaque"),
		})
	}
	return all
}

func (t *tools) Resolve(_ string, offers []response.Offer) loop.Toolset {
	t.released.Add(1)
	s := toolset{t: t}
	for _, tool := range t.list() {
		if slices.ContainsFunc(offers, func(o response.Offer) bool { return o.Name == tool.Name }) {
			s.offered = append(s.offered, tool)
		}
	}
	return s
}

type toolset struct {
	t       *tools
	offered []response.ServerTool
}

func (s toolset) Tools() []response.ServerTool { return s.offered }
func (s toolset) Release()                     { s.t.released.Done() }

func (s toolset) Check(_ response.ServerTool, arguments []byte) error {
	if strings.Contains(string(arguments), "refuse") {
		return errors.New("refused by the schema")
	}
	return nil
}

func (s toolset) Call(ctx context.Context, c loop.ToolCall) loop.ToolResult {
	return s.t.calls[c.Tool.Name](ctx, c)
}

func ok(text string) loop.ToolResult {
	return loop.ToolResult{Class: queue.OK, Output: text, RetryAfter: -1}
}

func transient(text string) loop.ToolResult {
	return loop.ToolResult{Class: queue.GuestError, Code: "transient", RetryAfter: -1, Output: string(response.ErrorOutput("transient", text))}
}

// fakePolicy routes in the given order and retries as told.
type fakePolicy struct {
	mu        sync.Mutex
	retry     func(q abi.RetryQuestion) policy.Verdict
	reject    *abi.Reject
	questions []abi.RetryQuestion
	routes    []abi.RouteQuestion
}

func (p *fakePolicy) Route(_ context.Context, q abi.RouteQuestion) (abi.RouteAnswer, policy.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes = append(p.routes, q)
	d := policy.Decision{Kind: "route", Question: []byte("{}"), Answer: []byte("{}"), Generation: "fake"}
	if p.reject != nil {
		return abi.RouteAnswer{V: 1, Reject: p.reject}, d
	}
	var a abi.RouteAnswer
	for _, c := range q.Candidates {
		a.Targets = append(a.Targets, c.Target)
	}
	return a, d
}

func (p *fakePolicy) Retry(_ context.Context, q abi.RetryQuestion, _ policy.Bounds) (policy.Verdict, policy.Decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.questions = append(p.questions, q)
	d := policy.Decision{Kind: "retry", Question: []byte("{}"), Answer: []byte("{}"), Generation: "fake"}
	if p.retry == nil || q.Outcome.VisibleOutputSent {
		return policy.Verdict{}, d
	}
	return p.retry(q), d
}

// retries allows n counted retries a request, each after delay.
func retries(n int, delay time.Duration) func(abi.RetryQuestion) policy.Verdict {
	return func(q abi.RetryQuestion) policy.Verdict {
		return policy.Verdict{Retry: q.Failures < n, Delay: delay, Count: true}
	}
}

// calls makes model calls of tools: "name {json}".
func calls(all ...string) []demo.Call {
	var out []demo.Call
	for i, c := range all {
		name, args, _ := strings.Cut(c, " ")
		out = append(out, demo.Call{ID: fmt.Sprintf("call_%d", i), Name: name, Arguments: args})
	}
	return out
}

// told returns the tool messages of a chat request as "call id=content".
func told(body []byte) []string {
	var req struct {
		Messages []struct {
			Role string `json:"role"`
			ID   string `json:"tool_call_id"`
			Text any    `json:"content"`
		} `json:"messages"`
	}
	if json.Unmarshal(body, &req) != nil {
		return nil
	}
	var all []string
	for _, m := range req.Messages {
		if m.Role == "tool" {
			all = append(all, fmt.Sprintf("%s=%v", m.ID, m.Text))
		}
	}
	return all
}

// thenTell answers the first call with tool calls and later ones with what the
// tools said.
func thenTell(first ...string) demo.Script {
	return func(_ int, req demo.Request) demo.Turn {
		if outs := told(req.Body); len(outs) > 0 {
			return demo.Turn{Text: strings.Join(outs, " | ")}
		}
		return demo.Turn{Calls: calls(first...)}
	}
}
