package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/casemate/casemate/host/response"
)

// The reasons for which a model ends that change the plan.
const (
	finishStop   = "stop"
	finishLength = "length"
	finishFilter = "content_filter"
	finishCalls  = "tool_calls"
)

// gathered is what a reader has of an answer so far.
type gathered struct {
	key       string // makes ids unique over a response
	id        string // of the answer, as its upstream has it
	out       response.ModelOutput
	text      strings.Builder
	refusal   strings.Builder
	reasoning strings.Builder
	summary   []*strings.Builder
	logprobs  []json.RawMessage // that came without the text that they are of
	calls     []*gatheredCall   // by first sight
	mute      bool              // gives out no deltas
}

type gatheredCall struct {
	place int           // in calls
	index int           // upstream's
	call  response.Call // without its arguments
	args  strings.Builder
	sent  int // bytes of the arguments given out as deltas
	begun bool
	plain bool // the arguments are any text: nothing in them means none
}

// say adds text of a kind that is neither a summary nor a call.
func (g *gathered) say(to []response.Delta, kind response.DeltaKind, s string) []response.Delta {
	if s == "" {
		return to
	}
	d := response.Delta{Kind: kind, Text: s}
	switch kind {
	case response.TextDelta:
		g.text.WriteString(s)
		if len(g.logprobs) > 0 {
			d.Logprobs = marshal(g.logprobs)
			g.out.Logprobs = append(g.out.Logprobs, g.logprobs...)
			g.logprobs = nil
		}
	case response.RefusalDelta:
		g.refusal.WriteString(s)
	case response.ReasoningDelta:
		g.reasoning.WriteString(s)
	case response.SummaryDelta, response.AnnotationDelta, response.CallDelta, response.EncryptedDelta:
	}
	if g.mute {
		return to
	}
	return append(to, d)
}

// summarize adds text to a part of the summary; part is upstream's index of it.
func (g *gathered) summarize(to []response.Delta, part int, s string) []response.Delta {
	if s == "" || part < 0 || part > len(g.summary) {
		part = len(g.summary)
	}
	if s == "" {
		return to
	}
	if part == len(g.summary) {
		g.summary = append(g.summary, &strings.Builder{})
	}
	g.summary[part].WriteString(s)
	return append(to, response.Delta{Kind: response.SummaryDelta, Index: part, Text: s})
}

// annotate adds an annotation of the text, as Responses has it.
func (g *gathered) annotate(to []response.Delta, raw json.RawMessage) []response.Delta {
	g.out.Annotations = append(g.out.Annotations, raw)
	return append(to, response.Delta{Kind: response.AnnotationDelta, Raw: raw})
}

// probable takes the log probabilities of the text that comes next.
func (g *gathered) probable(raw json.RawMessage) {
	var list []json.RawMessage
	if isNull(raw) || json.Unmarshal(raw, &list) != nil {
		return
	}
	for _, l := range list {
		if len(l) > 0 && l[0] == '{' {
			g.logprobs = append(g.logprobs, compact(l))
		}
	}
}

// begin adds a call.
func (g *gathered) begin(index int) *gatheredCall {
	c := &gatheredCall{place: len(g.calls), index: index}
	g.calls = append(g.calls, c)
	return c
}

// named takes what is known of a call's id and name; the first of each counts,
// and an id that another call has does not.
func (g *gathered) named(c *gatheredCall, id, name string) {
	if c.call.ID == "" && !g.taken(id) {
		c.call.ID = id
	}
	if c.call.Name == "" {
		c.call.Name = name
	}
}

// taken reports whether id is empty or another call's.
func (g *gathered) taken(id string) bool {
	if id == "" {
		return true
	}
	for _, c := range g.calls {
		if c.call.ID == id {
			return true
		}
	}
	return false
}

// show gives out what is new of a call, once its name is known and its
// arguments can no longer turn out to mean none.
func (g *gathered) show(to []response.Delta, c *gatheredCall) []response.Delta {
	if c.call.Name == "" {
		return to
	}
	if c.call.ID == "" {
		c.call.ID = g.madeID(c.place)
	}
	d := response.Delta{Kind: response.CallDelta, Index: c.place, CallID: c.call.ID, Name: c.call.Name}
	if args := c.args.String(); c.plain || c.sent > 0 || !mayBeNull(args) {
		d.Text = args[c.sent:]
		c.sent = len(args)
	}
	if c.begun && d.Text == "" || g.mute {
		return to
	}
	c.begun = true
	return append(to, d)
}

// madeID is the id of a call that came without one, or with another's: the
// same whenever the same answer is read.
func (g *gathered) madeID(place int) string {
	sum := sha256.Sum256([]byte(g.key + "\x00" + g.id + "\x00" + strconv.Itoa(place)))
	return "call_" + hex.EncodeToString(sum[:12])
}

// output returns what was gathered.
func (g *gathered) output() response.ModelOutput {
	out := g.out
	out.Text, out.Refusal, out.Reasoning = g.text.String(), g.refusal.String(), g.reasoning.String()
	for _, s := range g.summary {
		out.Summary = append(out.Summary, s.String())
	}
	for _, c := range g.calls {
		call := c.call
		if call.ID == "" {
			call.ID = g.madeID(c.place)
		}
		call.Arguments = c.arguments()
		out.Calls = append(out.Calls, call)
	}
	return out
}

// arguments returns what the call has been given so far, {} for none.
func (c *gatheredCall) arguments() string {
	if c.plain {
		return c.args.String()
	}
	return normalArguments(c.args.String())
}
