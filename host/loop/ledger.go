package loop

import (
	"slices"
	"strings"
	"sync"

	"github.com/casemate/casemate/host/response"
)

// ledger is the chain of a response: the steps of all its scopes, and the count
// of them that its caps are held against. The goroutines of a run share it.
type ledger struct {
	caps response.Caps

	mu     sync.Mutex
	scopes map[string][]response.Step // each by ordinal
	grants map[string]int64           // output tokens that the model call that runs in a scope may use
}

func newLedger(caps response.Caps, steps []response.Step) *ledger {
	l := &ledger{caps: caps, scopes: map[string][]response.Step{}, grants: map[string]int64{}}
	l.put(steps...)
	return l
}

// put replaces steps, or adds them.
func (l *ledger) put(steps ...response.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range steps {
		l.putOne(s)
	}
}

func (l *ledger) putOne(s response.Step) {
	i, found := l.find(s)
	if found {
		l.scopes[s.Scope][i] = s
		return
	}
	l.scopes[s.Scope] = slices.Insert(l.scopes[s.Scope], i, s)
}

func (l *ledger) find(s response.Step) (int, bool) {
	return slices.BinarySearchFunc(l.scopes[s.Scope], s.Ordinal, func(o response.Step, n int) int { return o.Ordinal - n })
}

// of returns the steps of a scope, by ordinal.
func (l *ledger) of(scope string) []response.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.scopes[scope])
}

// plan asks what comes next in the scope of v, and counts the new steps of the
// answer: no two chains both take what is the last of a cap.
func (l *ledger) plan(v response.View) response.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	v.Steps, v.Caps = l.scopes[v.Scope], l.caps
	others := l.count(func(scope string) bool { return scope != v.Scope })
	v.NestedSteps, v.NestedCalls = others.steps, others.calls
	v.NestedModels, v.NestedUsage = others.models, others.usage
	p := response.Next(v)
	for _, steps := range [][]response.Step{p.Settle, p.Run, p.Record} {
		for _, s := range steps {
			if _, known := l.find(s); !known {
				l.putOne(s)
			}
		}
	}
	return p
}

// reserve adds the new step of a nested call if there is room for it.
func (l *ledger) reserve(s response.Step) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.count(func(string) bool { return true })
	if !l.caps.Room(all.steps, all.calls) {
		return false
	}
	l.putOne(s)
	return true
}

// usage is what all scopes used.
func (l *ledger) usage() response.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count(func(string) bool { return true }).usage
}

// grant returns how many output tokens the next model call of a scope may use,
// if the response may use most, and keeps them for it until release. What is not
// used or kept is shared with the agents that run beside it and may ask too.
func (l *ledger) grant(scope string, most int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := most - l.count(func(string) bool { return true }).usage.Output
	for _, n := range l.grants {
		left -= n
	}
	n := max(1, left/int64(1+l.others(scope)))
	l.grants[scope] = n
	return n
}

// release ends the model call that runs in a scope, if one does.
func (l *ledger) release(scope string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.grants, scope)
}

// used is what the steps of a scope used.
func (l *ledger) used(scope string) response.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return response.TotalUsage(l.scopes[scope])
}

// others counts the agents beside that of a scope that run, make no model call
// and wait for no other agent; l.mu is held.
func (l *ledger) others(scope string) int {
	var running []string
	for _, steps := range l.scopes {
		for _, s := range steps {
			if s.Agent() && s.State == response.Running {
				running = append(running, s.Key())
			}
		}
	}
	n := 0
	for _, key := range running {
		waits := slices.ContainsFunc(running, func(o string) bool { return strings.HasPrefix(o, key+"/") })
		if _, calls := l.grants[key]; !waits && !calls && key != scope {
			n++
		}
	}
	return n
}

// tally counts steps: tool calls are those that were not skipped.
type tally struct {
	steps, calls, models int
	usage                response.Usage
}

// count counts the steps of some scopes; l.mu is held.
func (l *ledger) count(in func(scope string) bool) tally {
	var t tally
	for scope, steps := range l.scopes {
		if !in(scope) {
			continue
		}
		for _, s := range steps {
			t.steps++
			t.usage = t.usage.Add(s.Usage)
			switch {
			case s.Kind == response.ModelCall:
				t.models++
			case s.Kind == response.ToolCall && s.State != response.Skipped:
				t.calls++
			}
		}
	}
	return t
}

// settle returns s and, if it is a settled tool call, what is open below it,
// settled too. It changes nothing: nobody asks for what is below a settled call.
func (l *ledger) settle(s response.Step) []response.Step {
	if s.Kind != response.ToolCall || !s.Settled() {
		return []response.Step{s}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	closed := []response.Step{s}
	for _, steps := range l.scopes {
		closed = append(closed, response.CloseNested(s, steps)...)
	}
	return closed
}
