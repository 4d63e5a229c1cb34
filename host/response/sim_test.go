package response_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// sim drives one response as a loop does, from a script: model turns and tool
// answers in; plans, chat bodies, events and the final object out.
type sim struct {
	t     *testing.T
	files map[string]string
	// restore puts a stream restored from the log in place of the live one at
	// every step boundary.
	restore bool
	order   []string // call ids, in which running siblings end

	brief   response.Brief
	local   []response.ServerTool
	tools   []response.ServerTool // local ones, and what servers listed
	steps   []response.Step
	attempt int
	turn    int // of the model's script
	stream  *response.Stream
	events  []response.Event

	plans, chats []string
	final        []byte
}

var simID = queue.ID{0x01, 0x93, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 1}

func newSim(t *testing.T, files map[string]string) *sim {
	t.Helper()
	req, err := response.ParseRequest([]byte(files["request.json"]))
	if err != nil {
		t.Fatalf("ParseRequest: %v", err)
	}
	s := &sim{t: t, files: files, attempt: 1}
	s.brief.Request = req
	if c := files["context.json"]; c != "" {
		if err := json.Unmarshal([]byte(c), &s.brief.Context); err != nil {
			t.Fatalf("context.json: %v", err)
		}
	}
	for line := range strings.Lines(files["tools"]) { // NAME PLUGIN TOOL EFFECTS [opaque] [ask]
		f := strings.Fields(line)
		o := response.Offer{Name: f[0], Plugin: f[1], Tool: f[2]}
		s.brief.Offers = append(s.brief.Offers, o)
		s.local = append(s.local, response.ServerTool{
			Offer: o, Description: "does " + f[2], Effects: f[3], Parameters: json.RawMessage(`{"type":"object"}`),
			Opaque: slices.Contains(f[4:], "opaque"), Approval: slices.Contains(f[4:], "ask"),
		})
	}
	for _, ref := range req.Servers {
		if ref.URL == "" {
			continue
		}
		remote := response.Remote{Label: ref.Label, URL: ref.URL, Allowed: ref.Allowed, Approval: response.Approval{Always: true}}
		if ref.Approval != nil {
			remote.Approval = *ref.Approval
		}
		s.brief.Remotes = append(s.brief.Remotes, remote)
	}
	s.order = strings.Fields(files["order"])
	s.roundTrip()
	for _, check := range []func(response.Brief) error{response.CheckOutputs, response.CheckTools} {
		if err := check(s.brief); err != nil {
			t.Fatalf("check: %v", err)
		}
	}
	s.stream = response.NewStream(simID, time.Unix(1795393943, 0), req, nil)
	s.offer()
	return s
}

// roundTrip puts the brief through its stored form.
func (s *sim) roundTrip() {
	b, err := s.brief.Encode()
	if err != nil {
		s.t.Fatalf("Encode: %v", err)
	}
	if s.brief, err = response.DecodeBrief(b); err != nil {
		s.t.Fatalf("DecodeBrief: %v", err)
	}
}

func (s *sim) emit(e []response.Event) { s.events = append(s.events, e...) }

func (s *sim) view() response.View {
	v := response.View{
		Request: s.brief.Request, Steps: s.steps, Attempt: s.attempt, Tools: map[string]response.ServerTool{},
		Lists: response.Lists(s.brief), Approved: response.Approvals(s.brief, s.tools),
	}
	for _, t := range s.tools {
		v.Tools[t.Name] = t
	}
	if c := s.files["caps.json"]; c != "" {
		if err := json.Unmarshal([]byte(c), &v.Caps); err != nil {
			s.t.Fatalf("caps.json: %v", err)
		}
	}
	if a := strings.TrimSpace(s.files["age"]); a != "" {
		v.Age, _ = time.ParseDuration(a)
	}
	v.Check = func(_ response.ServerTool, args []byte) error {
		if strings.Contains(string(args), "wrong_schema") {
			return errors.New("wrong_schema is not a property")
		}
		return nil
	}
	return v
}

func (s *sim) put(st response.Step) {
	i := slices.IndexFunc(s.steps, func(o response.Step) bool { return o.Ordinal == st.Ordinal })
	if i < 0 {
		s.steps = append(s.steps, st)
		return
	}
	if s.steps[i].Settled() {
		s.t.Fatalf("plan changes settled step %s", s.steps[i].Key())
	}
	s.steps[i] = st
}

// boundary is where a transaction ends.
func (s *sim) boundary() {
	if !s.restore {
		return
	}
	r, err := response.Restore(s.events)
	if err != nil {
		s.t.Fatalf("Restore: %v", err)
	}
	r.Resume(s.brief.Request, response.ToolsOf(s.brief, s.local, s.steps))
	r.Rebuild(s.steps)
	if got, want := string(r.Response()), string(s.stream.Response()); got != want {
		s.t.Errorf("restored response:\n got %s\nwant %s", got, want)
	}
	s.stream = r
}

// die is a worker that is lost: another one takes over from what is stored.
func (s *sim) die() {
	s.attempt++
	r, err := response.Restore(s.events)
	if err != nil {
		s.t.Fatalf("Restore: %v", err)
	}
	r.Resume(s.brief.Request, response.ToolsOf(s.brief, s.local, s.steps))
	r.Rebuild(s.steps)
	s.stream = r
	s.emit(r.Interrupted())
}

func describe(st response.Step) string {
	b := fmt.Sprintf("%s%d %s", st.Scope, st.Ordinal, st.Kind)
	if st.Kind == response.ListTools {
		b += " " + st.Plugin
	}
	if st.Kind == response.ToolCall {
		b += fmt.Sprintf(" %s %s/%s %s %s", st.CallID, st.Plugin, st.Tool, st.Effects, st.Input)
	}
	if st.Tries > 0 {
		b += " tries=" + strconv.Itoa(st.Tries)
	}
	if st.State != response.Planned {
		b += " " + string(st.State)
	}
	if st.Code != "" {
		b += " " + st.Code
	}
	return b
}

// plan asks Next, twice, since it must be pure.
func (s *sim) plan() response.Plan {
	s.offer()
	before := fmt.Sprintf("%+v", s.steps)
	p := response.Next(s.view())
	if again := response.Next(s.view()); !reflect.DeepEqual(again, p) {
		s.t.Errorf("planning the same frontier twice:\n%+v\n%+v", p, again)
	}
	if after := fmt.Sprintf("%+v", s.steps); after != before {
		s.t.Errorf("Next changed its input")
	}
	line := string(p.Action)
	for _, g := range []struct {
		name  string
		steps []response.Step
	}{{"settle", p.Settle}, {"ask", p.Ask}, {"run", p.Run}, {"record", p.Record}} {
		for _, st := range g.steps {
			line += "\n\t" + g.name + " " + describe(st)
		}
	}
	if p.Wait {
		line += "\n\twait"
	}
	if p.Reason != "" {
		line += " " + p.Reason
	}
	if f := p.Failure; f != nil {
		line += fmt.Sprintf(" %s %d %s: %s", f.Code, f.Status, f.Class, f.Message)
	}
	s.plans = append(s.plans, line)
	return p
}

// run drives the response to its end.
func (s *sim) run() *sim {
	s.emit(s.stream.Created(s.brief.Request.Background))
	s.boundary()
	s.emit(s.stream.Started())
	for range 500 {
		s.boundary()
		p := s.plan()
		if p.Action != response.Do {
			s.finish(p)
			return s
		}
		s.emit(s.stream.Planned(p))
		for _, st := range p.Record {
			s.put(st)
		}
		for _, st := range p.Settle {
			s.put(st)
			s.emit(s.stream.StepDone(st))
		}
		for _, st := range p.Ask {
			s.put(s.ask(st))
		}
		for i, st := range p.Run {
			p.Run[i] = s.begin(st)
		}
		s.boundary()
		s.perform(p.Run)
	}
	s.t.Fatal("the response does not end")
	return s
}

func (s *sim) begin(st response.Step) response.Step {
	i := slices.IndexFunc(s.tools, func(t response.ServerTool) bool { return t.Plugin == st.Plugin && t.Tool == st.Tool })
	var tool response.ServerTool
	if i >= 0 {
		tool = s.tools[i]
	}
	st = st.Begin(s.attempt, tool)
	s.put(st)
	return st
}

func (s *sim) ask(st response.Step) response.Step {
	st.Verdict = response.Final
	visible := st.Kind == response.ModelCall && s.stream.Visible() // then no retry can be hidden
	if !visible && slices.Contains(strings.Fields(s.files["policy"]), fmt.Sprintf("%d/%d", st.Ordinal, st.Tries)) {
		st.Verdict, st.State = response.Retry, response.Planned
	}
	if st.Verdict == response.Final {
		s.emit(s.stream.StepDone(st))
	}
	return st
}

// perform runs steps; tool calls end in the script's order.
func (s *sim) perform(run []response.Step) {
	slices.SortStableFunc(run, func(a, b response.Step) int {
		return slices.Index(s.order, a.CallID) - slices.Index(s.order, b.CallID)
	})
	for _, st := range run {
		crashed := false
		switch st.Kind {
		case response.ModelCall:
			crashed = s.model(st)
		case response.ListTools:
			crashed = s.list(st)
		case response.ToolCall:
			crashed = s.tool(st)
		}
		if crashed {
			s.die()
			return // what ran beside it died with it
		}
		s.boundary()
	}
}

func (s *sim) finish(p response.Plan) {
	e := response.End{Usage: response.TotalUsage(s.steps), Completed: time.Unix(1795393944, 0), Reason: p.Reason, Failure: p.Failure}
	e.Status = map[response.Action]string{
		response.Complete: "completed", response.Incomplete: "incomplete", response.Fail: "failed",
	}[p.Action]
	s.emit(s.stream.Finish(e))
	if again := s.stream.Finish(e); len(again) > 0 {
		s.t.Errorf("second Finish emits %d events", len(again))
	}
	s.final = s.stream.Response()
}

// out renders what a script's golden part holds.
func (s *sim) out() map[string]string {
	var events strings.Builder
	for _, e := range s.events {
		events.Write(e.Data)
		events.WriteByte('\n')
	}
	var obj struct {
		Status            string
		IncompleteDetails any `json:"incomplete_details"`
		Error             any
		Output            []json.RawMessage
		Usage             json.RawMessage
	}
	if err := json.Unmarshal(s.final, &obj); err != nil {
		s.t.Fatalf("final: %v", err)
	}
	final := fmt.Sprintf("%s %v %v\n", obj.Status, obj.IncompleteDetails, obj.Error)
	for _, it := range obj.Output {
		final += string(it) + "\n"
	}
	return map[string]string{
		"plans": strings.Join(s.plans, "\n") + "\n", "chat": strings.Join(s.chats, "\n") + "\n",
		"events": events.String(), "final": final,
	}
}

func filesOf(a *txtar.Archive) map[string]string {
	m := map[string]string{}
	for _, f := range a.Files {
		m[f.Name] = string(f.Data)
	}
	return m
}

var goldens = []string{"plans", "chat", "events", "final"}

func sameOut(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(want)) {
		if got[k] != want[k] {
			t.Errorf("%s: %s:\n got %s\nwant %s", what, k, got[k], want[k])
		}
	}
}
