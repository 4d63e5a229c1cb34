package response_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// world is what a response meets: a model, tools, servers and agents whose
// answers follow from what they are asked, and workers that die. One worker at
// a time drives the response, as a loop does; what it commits outlives it.
type world struct {
	t        *testing.T
	seed     uint64     // of all answers
	chance   *rand.Rand // of the order in which steps end, and of deaths
	fuse     int        // commits until the worker dies; 0: it does not
	unlogged bool       // events die with their worker
	caps     response.Caps

	brief response.Brief
	local []response.ServerTool
	// shelf, where not nil, is the tools of plugins of which each worker has some.
	shelf []response.ServerTool

	stored  map[string]response.Step // by key
	events  []response.Event
	grammar response.Validator
	attempt int

	// Of the worker alone.
	stream  *response.Stream
	live    map[string]response.Step
	dirty   []response.Step
	running []string // keys of steps that run, agents left out
	said    []response.Event
}

// died is what a worker panics with.
type died struct{}

func newWorld(t *testing.T, seed uint64, body string) *world {
	t.Helper()
	req, err := response.ParseRequest([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, seed: seed, chance: rand.New(rand.NewPCG(seed, 7)), stored: map[string]response.Step{}}
	w.brief = response.Brief{Request: req, Agents: []response.AgentBrief{
		{Name: "helper", Model: "m", Instructions: "help", Offers: []response.Offer{{Name: "a"}, {Name: "helper"}, {Name: "q"}}, MaxModelCalls: 2},
		{Name: "clerk", Model: "m", Parameters: json.RawMessage(`{"type":"object"}`), Offers: []response.Offer{{Name: "b"}, {Name: "helper"}}},
	}}
	for _, ref := range req.Servers {
		if ref.URL != "" {
			w.brief.Remotes = append(w.brief.Remotes, response.Remote{Label: ref.Label, URL: ref.URL, Approval: *ref.Approval})
		}
	}
	tool := func(name, plugin, effects string) response.ServerTool {
		return response.ServerTool{Offer: response.Offer{Name: name, Plugin: plugin, Tool: name}, Effects: effects}
	}
	w.local = []response.ServerTool{tool("a", "p", "pure"), tool("b", "p", "idempotent"), tool("o", "p", "once"), tool("q", "q", "pure")}
	w.local[3].Approval = true
	for i := range w.brief.Agents {
		a := tool(w.brief.Agents[i].Name, response.AgentLabel, "")
		a.Agent = &w.brief.Agents[i]
		w.local = append(w.local, a)
	}
	return w
}

// play drives the response to its end, with as many workers as that takes.
func (w *world) play() *world {
	for w.attempt = 1; w.attempt < 200; w.attempt++ {
		if w.worker() {
			if err := w.grammar.End(); err != nil {
				w.t.Errorf("seed %d: %v", w.seed, err)
			}
			return w
		}
	}
	w.t.Fatalf("seed %d: the response does not end", w.seed)
	return w
}

// worker is the life of one worker; false if it died.
func (w *world) worker() (ended bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(died); !ok {
				panic(p)
			}
		}
	}()
	w.live, w.dirty, w.running, w.said = maps.Clone(w.stored), nil, nil, nil
	if w.shelf != nil {
		w.local = slices.DeleteFunc(slices.Clone(w.shelf), func(t response.ServerTool) bool {
			return t.Agent == nil && w.chance.IntN(3) == 0
		})
	}
	w.open()
	for range 2000 {
		scopes := []string{""}
		for _, k := range slices.Sorted(maps.Keys(w.live)) {
			if s := w.live[k]; s.Agent() && s.State == response.Running && s.Attempt == w.attempt {
				scopes = append(scopes, k)
			}
		}
		w.chance.Shuffle(len(scopes), func(i, j int) { scopes[i], scopes[j] = scopes[j], scopes[i] })
		for _, scope := range scopes {
			if w.follow(scope) {
				return true
			}
		}
		if n := len(w.running); n > 0 {
			i := w.chance.IntN(n)
			key := w.running[i]
			w.running = slices.Delete(w.running, i, i+1)
			w.perform(w.live[key])
		}
	}
	w.t.Fatalf("seed %d: the worker does not come to an end", w.seed)
	return false
}

// open takes over what the last worker left.
func (w *world) open() {
	if w.unlogged {
		w.events, w.grammar = nil, response.Validator{}
	}
	if len(w.events) == 0 {
		w.stream = response.NewStream(simID, time.Unix(1, 0), w.brief.Request, w.tools())
		w.say(w.stream.Created(w.seed%2 == 0))
		w.say(w.stream.Replay(w.of("")))
		w.commit()
	} else {
		s, err := response.Restore(w.events)
		if err != nil {
			w.t.Fatalf("seed %d: %v", w.seed, err)
		}
		s.Resume(w.brief.Request, w.tools())
		s.Rebuild(w.of(""))
		w.stream = s
	}
	w.say(w.stream.Started())
	for _, s := range w.of("") {
		if s.Kind == response.ModelCall && !s.Settled() {
			w.say(w.stream.Interrupted())
		}
	}
}

func (w *world) say(events []response.Event) { w.said = append(w.said, events...) }

// commit stores what the worker did since the last time, unless it dies first.
func (w *world) commit() {
	if w.fuse > 0 && w.chance.IntN(w.fuse+w.attempt/8) == 0 {
		panic(died{})
	}
	for _, s := range w.dirty {
		w.stored[s.Key()] = s
	}
	for _, e := range w.said {
		if err := w.grammar.Event(e.Data); err != nil {
			w.t.Fatalf("seed %d: %v\n%s", w.seed, err, e.Data)
		}
	}
	w.events = append(w.events, w.said...)
	w.dirty, w.said = nil, nil
	if beat := w.stream.Heartbeat(); beat != nil && w.chance.IntN(8) == 0 {
		if err := w.grammar.Event(beat); err != nil {
			w.t.Fatalf("seed %d: heartbeat: %v", w.seed, err)
		}
	}
}

// put takes over a step; one that failed and was not asked for is not stored.
func (w *world) put(s response.Step) {
	if old, ok := w.live[s.Key()]; ok && old.Settled() {
		w.t.Fatalf("seed %d: settled step %s is changed", w.seed, s.Key())
	}
	w.live[s.Key()] = s
	if s.State == response.Failed && !s.Settled() {
		return
	}
	w.dirty = append(w.dirty, s)
	if s.Kind != response.ToolCall || !s.Settled() {
		return
	}
	for _, below := range response.CloseNested(s, slices.Collect(maps.Values(w.live))) {
		w.live[below.Key()] = below
		w.dirty = append(w.dirty, below)
	}
}

func (w *world) of(scope string) []response.Step {
	var steps []response.Step
	for _, s := range w.live {
		if s.Scope == scope {
			steps = append(steps, s)
		}
	}
	w.chance.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	return steps
}

func (w *world) tools() []response.ServerTool {
	return response.ToolsOf(w.brief, w.local, w.of(""))
}

func (w *world) view(scope string) response.View {
	v := response.View{
		Request: w.brief.Request, Scope: scope, Steps: w.of(scope), Attempt: w.attempt,
		Tools: map[string]response.ServerTool{}, Caps: w.caps, Age: time.Second,
	}
	for _, s := range w.live {
		if s.Scope == scope {
			continue
		}
		v.NestedSteps++
		v.NestedUsage = v.NestedUsage.Add(s.Usage)
		if s.Kind == response.ModelCall {
			v.NestedModels++
		}
		if s.Kind == response.ToolCall && s.State != response.Skipped {
			v.NestedCalls++
		}
	}
	tools := w.tools()
	if scope == "" {
		v.Lists, v.Approved = response.Lists(w.brief), response.Approvals(w.brief, tools)
		for _, t := range tools {
			v.Tools[t.Name] = t
		}
		return v
	}
	agent := w.agent(scope)
	v.Request, v.MaxModelCalls = response.AgentRequest(agent, w.live[scope].Input), agent.MaxModelCalls
	for _, o := range agent.Offers {
		i := slices.IndexFunc(tools, func(t response.ServerTool) bool { return t.Name == o.Name })
		if i >= 0 {
			v.Tools[o.Name] = tools[i]
		}
	}
	return v
}

func (w *world) agent(scope string) response.AgentBrief {
	i := slices.IndexFunc(w.brief.Agents, func(a response.AgentBrief) bool { return a.Name == w.live[scope].Tool })
	return w.brief.Agents[i]
}

// follow does what comes next in a scope; true when the response has ended.
func (w *world) follow(scope string) bool {
	if s, ok := w.live[scope]; scope != "" && (!ok || s.Settled()) {
		return false
	}
	p := response.Next(w.view(scope))
	if p.Action != response.Do {
		w.end(scope, p)
		return scope == ""
	}
	if scope == "" {
		w.stream.Offer(w.tools())
		w.say(w.stream.Planned(p))
	}
	for _, s := range p.Record {
		w.put(s)
	}
	for _, s := range p.Settle {
		w.put(s)
		w.say(w.stream.StepDone(s))
	}
	for _, s := range p.Ask {
		s.Verdict = response.Final
		if s.Tries < 3 {
			s.Verdict, s.State = response.Retry, response.Planned
		}
		w.put(s)
		if s.Settled() {
			w.say(w.stream.StepDone(s))
		}
	}
	for _, s := range p.Run {
		s = s.Begin(w.attempt, response.ServerTool{})
		w.put(s)
		if !s.Agent() {
			w.running = append(w.running, s.Key())
		}
	}
	w.commit()
	return false
}

// end ends a scope: an agent's call, or the response.
func (w *world) end(scope string, p response.Plan) {
	if scope != "" {
		s := response.EndAgent(w.live[scope], p, w.of(scope))
		w.put(s)
		w.say(w.stream.StepDone(s))
		w.commit()
		return
	}
	e := response.End{Reason: p.Reason, Failure: p.Failure, Usage: response.TotalUsage(slices.Collect(maps.Values(w.live)))}
	e.Status = map[response.Action]string{response.Complete: "completed", response.Incomplete: "incomplete", response.Fail: "failed"}[p.Action]
	w.say(w.stream.Finish(e))
	w.commit()
}

// answers is the source of what is answered to the step.
func (w *world) answers(s response.Step) *rand.Rand {
	h := fnv.New64a()
	h.Write([]byte(s.Key()))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}

// perform ends a try of a step.
func (w *world) perform(s response.Step) {
	if old := w.live[s.Key()]; old.Settled() {
		return // what it was below has ended
	}
	r := w.answers(s)
	fails := r.IntN(8)
	switch {
	case s.Kind == response.ModelCall:
		w.model(s, r)
		return
	case s.Kind == response.ListTools:
		s.State, s.Output = response.Completed, w.list(s.Plugin)
		if fails == 0 {
			s.State, s.Class, s.Code = response.Failed, queue.UpstreamNetwork, "unreachable"
			s.Output = response.ErrorOutput("unreachable", "It did not answer.")
		}
	case fails == 0:
		s.State, s.Class, s.Code = response.Failed, queue.GuestError, "permanent"
	case fails == 1 && s.Tries < 2:
		s.State, s.Class = response.Failed, queue.GuestTrap
	default:
		s.State, s.Output = response.Completed, []byte("result of "+s.Key())
	}
	w.put(s)
	if s.Settled() {
		w.say(w.stream.StepDone(s))
	}
	w.commit()
}

func (w *world) list(label string) []byte {
	if label == "p" || label == response.AgentLabel {
		return response.ListOutput(response.LocalList(w.local, label))
	}
	return []byte(`[{"name":"a","input_schema":{"type":"object"}},{"name":"f","input_schema":{"type":"object"}},{"name":"g","input_schema":{}}]`)
}

// model ends a model call; one of the response itself is watched as it grows.
func (w *world) model(s response.Step, r *rand.Rand) {
	out := w.output(s, r)
	if s.Scope == "" && w.brief.Request.Stream {
		for _, d := range deltasOf(out, r) {
			w.say(w.stream.Delta(d))
			w.commit()
		}
	}
	s.State, s.Output, s.Usage = response.Completed, out.Encode(), out.Usage
	w.put(s)
	if s.Scope == "" {
		w.say(w.stream.ModelDone(out))
	}
	w.commit()
}

// chain renders what became of each step.
func (w *world) chain() string {
	steps := slices.SortedFunc(maps.Values(w.stored), func(a, b response.Step) int {
		return cmp.Or(strings.Compare(a.Scope, b.Scope), a.Ordinal-b.Ordinal)
	})
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%s %s %s/%s %s %s %s\n", s.Key(), s.Kind, s.Plugin, s.Tool, s.State, s.Code, s.Output)
	}
	return b.String()
}
