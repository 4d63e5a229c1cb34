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
	tools   []response.ServerTool
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
	for line := range strings.Lines(files["tools"]) { // NAME PLUGIN TOOL EFFECTS [opaque]
		f := strings.Fields(line)
		o := response.Offer{Name: f[0], Plugin: f[1], Tool: f[2]}
		s.brief.Offers = append(s.brief.Offers, o)
		s.tools = append(s.tools, response.ServerTool{
			Offer: o, Description: "does " + f[2], Effects: f[3], Parameters: json.RawMessage(`{"type":"object"}`),
			Opaque: len(f) > 4,
		})
	}
	s.order = strings.Fields(files["order"])
	s.roundTrip()
	for _, check := range []func(response.Brief) error{response.CheckOutputs, response.CheckTools} {
		if err := check(s.brief); err != nil {
			t.Fatalf("check: %v", err)
		}
	}
	s.stream = response.NewStream(simID, time.Unix(1795393943, 0), req, s.tools)
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
	v := response.View{Request: s.brief.Request, Steps: s.steps, Attempt: s.attempt, Tools: map[string]response.ServerTool{}}
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
	r.Resume(s.brief.Request, s.tools)
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
	r.Resume(s.brief.Request, s.tools)
	r.Rebuild(s.steps)
	s.stream = r
	s.emit(r.Interrupted())
}

func describe(st response.Step) string {
	b := fmt.Sprintf("%s%d %s", st.Scope, st.Ordinal, st.Kind)
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
		for _, st := range p.Settle {
			s.put(st)
			if st.Kind == response.ToolCall {
				s.emit(s.stream.ToolDone(st.CallID, response.Receipt(st)))
			}
		}
		for _, st := range p.Ask {
			s.put(s.ask(st))
		}
		for _, st := range p.Record {
			s.put(st)
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
	if st.Verdict == response.Final && st.Kind == response.ToolCall {
		s.emit(s.stream.ToolDone(st.CallID, response.Receipt(st)))
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
		if st.Kind == response.ModelCall {
			crashed = s.model(st)
		} else {
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

// model plays the next turn: lines of a chunk as JSON, or in short:
//
//	text|reason|refuse JSON-STRING
//	call INDEX ID NAME ARGUMENTS    (- stands for nothing)
//	finish REASON IN OUT
//	body JSON                       a whole chat.completion
//	fail CLASS STATUS               ends the try
//	crash                           the worker dies
func (s *sim) model(st response.Step) (crashed bool) {
	chat, err := response.ChatRequest(s.brief, s.steps, s.tools)
	if err != nil {
		s.t.Fatalf("ChatRequest: %v", err)
	}
	s.chats = append(s.chats, string(chat))
	s.turn++
	script, ok := s.files["model/"+strconv.Itoa(s.turn)]
	if !ok {
		script = s.files["model/*"]
	}
	f := response.NewFold()
	f.Key = st.IdempotencyKey(simID)
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		word, arg, _ := strings.Cut(line, " ")
		switch word {
		case "":
		case "crash":
			return true
		case "fail":
			fields := strings.Fields(arg)
			st.State, st.Class = response.Failed, queue.Class(fields[0])
			st.Status, _ = strconv.Atoi(fields[1])
			s.put(st)
			return false
		default:
			s.fold(f, word, arg, line)
		}
	}
	out, err := f.Output()
	if err != nil {
		if !errors.Is(err, response.ErrCut) {
			s.t.Errorf("Output: %v", err)
		}
		st.State, st.Class = response.Failed, queue.UpstreamInvalid
		s.put(st)
		return false
	}
	if again, err := response.DecodeModelOutput(out.Encode()); err != nil || !slices.Equal(again.Calls, out.Calls) || again.Text != out.Text {
		s.t.Errorf("model output does not survive its stored form: %v", err)
	}
	st.State, st.Output, st.Usage = response.Completed, out.Encode(), out.Usage
	s.put(st)
	s.emit(s.stream.ModelDone(out))
	return false
}

func (s *sim) fold(f *response.Fold, word, arg, line string) {
	add := f.Chunk
	if word == "body" {
		add = f.Body
	}
	deltas, err := add([]byte(chunkOf(word, arg, line)))
	if err != nil {
		s.t.Fatalf("fold %q: %v", line, err)
	}
	for _, d := range deltas {
		if s.brief.Request.Stream {
			s.emit(s.stream.Delta(d))
		}
	}
}

// chunkOf expands a short line of a script.
func chunkOf(word, arg, line string) string {
	short := func(v string) string {
		if v == "-" {
			return ""
		}
		return v
	}
	delta := func(d string) string {
		return `{"id":"chatcmpl-1","model":"m-1","choices":[{"index":0,"delta":` + d + `}]}`
	}
	switch word {
	case "text":
		return delta(`{"content":` + arg + `}`)
	case "reason":
		return delta(`{"reasoning_content":` + arg + `}`)
	case "refuse":
		return delta(`{"refusal":` + arg + `}`)
	case "call":
		a := strings.SplitN(arg, " ", 4)
		args, _ := json.Marshal(short(a[3]))
		return delta(fmt.Sprintf(`{"tool_calls":[{"index":%s,"id":%q,"function":{"name":%q,"arguments":%s}}]}`,
			a[0], short(a[1]), short(a[2]), args))
	case "finish":
		a := strings.Fields(arg)
		return fmt.Sprintf(`{"choices":[{"index":0,"delta":{},"finish_reason":%q}],"usage":{"prompt_tokens":%s,"completion_tokens":%s}}`, a[0], a[1], a[2])
	case "body":
		return arg
	}
	return line
}

// tool plays tool/CALLID/TRY, or tool/CALLID, or a default: the first line may
// be "error CLASS CODE" or "crash", else all of it is the output. A line
// "effect" before it begins one.
func (s *sim) tool(st response.Step) (crashed bool) {
	script, ok := s.files[fmt.Sprintf("tool/%s/%d", st.CallID, st.Tries)]
	if !ok {
		script, ok = s.files["tool/"+st.CallID]
	}
	if !ok {
		script = "result of " + st.CallID
	}
	script = strings.TrimSuffix(script, "\n")
	if rest, ok := strings.CutPrefix(script, "effect\n"); ok {
		script, st.EffectStarted = rest, true
		s.put(st)
	}
	switch f := strings.Fields(script); {
	case len(f) > 0 && f[0] == "crash":
		return true
	case len(f) > 2 && f[0] == "error":
		st.State, st.Class, st.Code = response.Failed, queue.Class(f[1]), f[2]
		s.put(st)
		return false
	}
	st.State, st.Output = response.Completed, []byte(script)
	s.put(st)
	s.emit(s.stream.ToolDone(st.CallID, response.Receipt(st)))
	return false
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
