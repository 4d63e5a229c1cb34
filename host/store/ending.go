package store

import "github.com/casemate/casemate/host/queue"

// Ending is how a processor leaves a claim: the outcome, and what must commit
// together with it.
type Ending struct {
	Outcome queue.Outcome
	// Rest holds the steps, events, decisions, usage and state that commit in
	// the transaction of the outcome. Its Fence and Move are set by the claimer.
	Rest Write
	// Done is called once, after the commit (true) or when the outcome could
	// not be written (false); it may be nil and must not block.
	Done func(committed bool)
}

// Move returns the change of state of the outcome.
func (e Ending) Move() *Move {
	o := e.Outcome
	m := &Move{To: o.To, By: o.By, Delay: o.Delay, Park: o.Park, Class: o.Class, Code: o.Code}
	if o.To.Final() {
		m.Result = &Result{Status: o.Status, ContentType: o.ContentType, Body: o.Body}
	}
	return m
}
