package queue_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
)

func TestID(t *testing.T) {
	before := time.Now().Add(-time.Millisecond)
	id := queue.NewID()
	back, err := queue.ParseID(id.String())
	if err != nil || back != id {
		t.Errorf("ParseID(%s): got %s, %v", id, back, err)
	}
	if got := id.Time(); got.Before(before.Truncate(time.Millisecond)) || got.After(time.Now()) {
		t.Errorf("Time: got %s, want about now", got)
	}
	if next := queue.NewID(); bytes.Compare(next[:], id[:]) <= 0 {
		t.Errorf("ids do not sort by creation: %s, then %s", id, next)
	}
	for _, s := range []string{"", "zz", strings.Repeat("z", 32), strings.Repeat("a", 33), id.String() + "0"} {
		if _, err := queue.ParseID(s); err == nil {
			t.Errorf("ParseID(%q): got nil, want an error", s)
		}
	}
}

func TestClaimFence(t *testing.T) {
	c := queue.Claim{ID: queue.NewID(), Attempt: 3, State: queue.Claimed}
	if got, want := c.Fence(), (queue.Fence{ID: c.ID, Attempt: 3, State: queue.Claimed}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestClassesAreDistinct(t *testing.T) {
	seen := map[queue.Class]bool{}
	for _, c := range queue.Classes() {
		if c == "" || seen[c] {
			t.Errorf("class %q is empty or twice in the set", c)
		}
		seen[c] = true
	}
	if len(seen) != 22 {
		t.Errorf("got %d classes, want 22", len(seen))
	}
}
