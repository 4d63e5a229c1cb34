package loop

import (
	"sync"

	"github.com/casemate/casemate/host/response"
)

// ledger keeps the steps of nested calls, which other goroutines than the run's
// make, and counts all steps of the response toward its caps.
type ledger struct {
	caps response.Caps

	mu    sync.Mutex
	steps []response.Step // of all scopes but ""
	// Of the response, and of its nested calls alone.
	all, nested tally
}

// tally counts steps, and of them the tool calls that were not skipped.
type tally struct{ steps, calls int }

func (t *tally) add(s response.Step) {
	t.steps++
	if s.Kind == response.ToolCall && s.State != response.Skipped {
		t.calls++
	}
}

func newLedger(caps response.Caps) *ledger { return &ledger{caps: caps} }

// count takes a new step into account.
func (l *ledger) count(s response.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(s)
}

func (l *ledger) add(s response.Step) {
	l.all.add(s)
	if s.Scope != "" {
		l.nested.add(s)
	}
}

// reserve counts a new step if there is room for it.
func (l *ledger) reserve(s response.Step) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.caps.Room(l.all.steps, l.all.calls) {
		return false
	}
	l.add(s)
	return true
}

// counts returns how many steps nested calls have, and how many of those were
// not skipped.
func (l *ledger) counts() (steps, calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nested.steps, l.nested.calls
}

// put replaces steps of nested calls, or adds them.
func (l *ledger) put(steps ...response.Step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range steps {
		l.putOne(s)
	}
}

func (l *ledger) putOne(s response.Step) {
	for i := range l.steps {
		if l.steps[i].Scope == s.Scope && l.steps[i].Ordinal == s.Ordinal {
			l.steps[i] = s
			return
		}
	}
	l.steps = append(l.steps, s)
}

// of returns the steps of a scope.
func (l *ledger) of(scope string) []response.Step {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []response.Step
	for _, s := range l.steps {
		if s.Scope == scope {
			all = append(all, s)
		}
	}
	return all
}

// settle returns s and, if it is a settled tool call, what is open below it,
// settled too. It changes nothing: nobody asks for what is below a settled call.
func (l *ledger) settle(s response.Step) []response.Step {
	if s.Kind != response.ToolCall || !s.Settled() {
		return []response.Step{s}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]response.Step{s}, response.CloseNested(s, l.steps)...)
}
