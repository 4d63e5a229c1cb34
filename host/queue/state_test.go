package queue_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/quick"

	"github.com/casemate/casemate/host/queue"
)

var causes = []queue.Cause{
	queue.ByClaim, queue.ByStart, queue.ByOutcome, queue.ByRetry, queue.ByPromote,
	queue.ByReap, queue.ByHandBack, queue.ByCancel, queue.ByDeadline,
}

// TestTable lists every move there is; all others are illegal.
func TestTable(t *testing.T) {
	type move struct {
		from, to queue.State
		by       queue.Cause
	}
	legal := map[move]bool{
		{queue.Pending, queue.Claimed, queue.ByClaim}:        true,
		{queue.Claimed, queue.Processing, queue.ByStart}:     true,
		{queue.Processing, queue.Completed, queue.ByOutcome}: true,
		{queue.Processing, queue.Failed, queue.ByOutcome}:    true,
		{queue.Processing, queue.Waiting, queue.ByRetry}:     true,
		{queue.Waiting, queue.Pending, queue.ByPromote}:      true,
		{queue.Claimed, queue.Waiting, queue.ByReap}:         true,
		{queue.Processing, queue.Waiting, queue.ByReap}:      true,
		{queue.Claimed, queue.Failed, queue.ByReap}:          true,
		{queue.Processing, queue.Failed, queue.ByReap}:       true,
		{queue.Claimed, queue.Pending, queue.ByHandBack}:     true,
		{queue.Processing, queue.Pending, queue.ByHandBack}:  true,
		{queue.Pending, queue.Canceled, queue.ByCancel}:      true,
		{queue.Waiting, queue.Canceled, queue.ByCancel}:      true,
		{queue.Claimed, queue.Canceled, queue.ByCancel}:      true,
		{queue.Processing, queue.Canceled, queue.ByCancel}:   true,
		{queue.Pending, queue.Expired, queue.ByDeadline}:     true,
		{queue.Waiting, queue.Expired, queue.ByDeadline}:     true,
	}
	for _, from := range queue.States() {
		for _, to := range queue.States() {
			for _, by := range causes {
				m := move{from, to, by}
				err := queue.Move(from, to, by)
				if legal[m] != (err == nil) || (err != nil && !errors.Is(err, queue.ErrIllegalMove)) {
					t.Errorf("Move(%s, %s, %s): got %v", from, to, by, err)
				}
				if got := slices.Contains(queue.Sources(to, by), from); got != legal[m] {
					t.Errorf("Sources(%s, %s): %s in it is %t, want %t", to, by, from, got, legal[m])
				}
			}
		}
	}
}

// TestRandomMoves walks the table at random, as hosts, users and clocks do, and
// checks what must hold on every way through it.
func TestRandomMoves(t *testing.T) {
	walk := func(seed uint64, realtime bool) bool {
		r := rand.New(rand.NewPCG(seed, 1))
		state, claims := queue.Pending, 0
		if realtime {
			state, claims = queue.Processing, 1
		}
		way := []string{state.String()}
		for range 60 {
			to := queue.States()[r.IntN(len(queue.States()))]
			by := causes[r.IntN(len(causes))]
			if queue.Move(state, to, by) != nil {
				continue
			}
			way = append(way, fmt.Sprintf("%s by %s", to, by))
			if err := broken(state, to, by, claims); err != "" {
				t.Errorf("%v: %s", way, err)
				return false
			}
			if by == queue.ByClaim {
				claims++
			}
			state = to
		}
		return true
	}
	if err := quick.Check(walk, &quick.Config{MaxCount: 3000}); err != nil {
		t.Error(err)
	}
}

// broken says which rule a move breaks.
func broken(from, to queue.State, by queue.Cause, claims int) string {
	switch {
	case from == to:
		return "a move that moves nothing"
	case from.Final():
		return "a move out of a final state"
	case to == queue.Completed && from != queue.Processing:
		return "completed without a durable start"
	case to.Owned() && !from.Owned() && by != queue.ByClaim:
		return "owned without a claim"
	case from.Owned() && claims == 0:
		return "owned and never claimed"
	case to == queue.Claimed && from != queue.Pending:
		return "claimed while it was not pending"
	case to == queue.Expired && from.Owned():
		return "expired while a worker had it"
	case by == queue.ByHandBack && to.Final():
		return "a hand-back ended it"
	}
	return ""
}

func TestEveryStateCanEnd(t *testing.T) {
	reaches := map[queue.State]bool{}
	for range queue.States() {
		for _, from := range queue.States() {
			for _, to := range queue.States() {
				for _, by := range causes {
					if queue.Move(from, to, by) == nil && (to == queue.Completed || reaches[to]) {
						reaches[from] = true
					}
				}
			}
		}
	}
	for _, s := range queue.States() {
		if !s.Final() && !reaches[s] {
			t.Errorf("nothing leads from %s to completed", s)
		}
	}
}

func TestStatePredicates(t *testing.T) {
	for _, c := range []struct {
		state        queue.State
		final, owned bool
		name         string
	}{
		{queue.Pending, false, false, "pending"},
		{queue.Claimed, false, true, "claimed"},
		{queue.Processing, false, true, "processing"},
		{queue.Waiting, false, false, "waiting"},
		{queue.Completed, true, false, "completed"},
		{queue.Failed, true, false, "failed"},
		{queue.Canceled, true, false, "canceled"},
		{queue.Expired, true, false, "expired"},
		{queue.State(99), true, false, "state(99)"},
	} {
		if c.state.Final() != c.final || c.state.Owned() != c.owned || c.state.String() != c.name {
			t.Errorf("%d: got final %t, owned %t, %q", c.state, c.state.Final(), c.state.Owned(), c.state)
		}
	}
}
