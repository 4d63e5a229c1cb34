package queue

import "fmt"

// State is where a request stands. The numbers are stored: never reuse one.
type State int16

// The states. Pending to Processing and Waiting can move on; the rest are final.
const (
	Pending    State = 0  // waits for a claim; set by enqueue, the promoter and a hand-back
	Claimed    State = 1  // a worker has it and has not begun; a claim that starts at once passes it in its own transaction
	Processing State = 2  // a worker runs it; written before any byte goes upstream
	Waiting    State = 3  // a retry or a reap put it off; the promoter moves it on when not-before has passed
	Completed  State = 10 // the outcome is a success (a response may still be incomplete)
	Failed     State = 11 // the outcome is an error
	Canceled   State = 12 // by its user, or its client went away
	Expired    State = 13 // its deadline passed before it was begun
)

// States returns every state.
func States() []State {
	return []State{Pending, Claimed, Processing, Waiting, Completed, Failed, Canceled, Expired}
}

// String returns the name used in logs and messages.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Claimed:
		return "claimed"
	case Processing:
		return "processing"
	case Waiting:
		return "waiting"
	case Completed:
		return "completed"
	case Failed:
		return "failed"
	case Canceled:
		return "canceled"
	case Expired:
		return "expired"
	}
	return fmt.Sprintf("state(%d)", int16(s))
}

// Final reports whether nothing moves a request out of s.
func (s State) Final() bool { return s >= Completed }

// Owned reports whether a worker holds a request in s.
func (s State) Owned() bool { return s == Claimed || s == Processing }

// Cause is who moves a request, and why.
type Cause string

// The causes.
const (
	ByClaim    Cause = "claim"
	ByStart    Cause = "start"     // processor start, durable before any byte goes upstream
	ByOutcome  Cause = "outcome"   // the attempt ended
	ByRetry    Cause = "retry"     // a retry was decided: slot released, chain kept
	ByPromote  Cause = "promote"   // not-before has passed
	ByReap     Cause = "reap"      // its worker died
	ByHandBack Cause = "hand_back" // its worker shuts down or fenced itself
	ByCancel   Cause = "cancel"    // user cancel, or the client of a foreground request went away
	ByDeadline Cause = "deadline"
)

// A move is one line of the state table.
type move struct {
	from, to State
	by       Cause
}

// moves is every move there is; drivers and stages ask Move and never decide.
var moves = []move{
	{Pending, Claimed, ByClaim},
	{Claimed, Processing, ByStart},
	{Processing, Completed, ByOutcome},
	{Processing, Failed, ByOutcome},
	{Processing, Waiting, ByRetry},
	{Waiting, Pending, ByPromote},
	{Claimed, Waiting, ByReap},
	{Processing, Waiting, ByReap},
	{Claimed, Failed, ByReap},
	{Processing, Failed, ByReap},
	{Claimed, Pending, ByHandBack},
	{Processing, Pending, ByHandBack},
	{Pending, Canceled, ByCancel},
	{Waiting, Canceled, ByCancel},
	{Claimed, Canceled, ByCancel},
	{Processing, Canceled, ByCancel},
	{Pending, Expired, ByDeadline},
	{Waiting, Expired, ByDeadline},
}

// Move reports whether by may move a request from one state to another; the
// error wraps ErrIllegalMove.
func Move(from, to State, by Cause) error {
	for _, m := range moves {
		if m == (move{from, to, by}) {
			return nil
		}
	}
	return fmt.Errorf("queue: %s → %s by %s: %w", from, to, by, ErrIllegalMove)
}

// Sources returns the states from which by may move a request to to.
func Sources(to State, by Cause) []State {
	var from []State
	for _, m := range moves {
		if m.to == to && m.by == by {
			from = append(from, m.from)
		}
	}
	return from
}
