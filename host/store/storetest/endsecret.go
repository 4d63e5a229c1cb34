package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// EndSecrets makes requests that have a secret and ends them in all the ways
// that there are. It returns how many ended, and the two that did not, whose
// secrets are to stay. No method shows what is left of a secret, so the driver's
// own test looks.
func EndSecrets(t *testing.T, d store.Driver) (ended int, live []queue.ID) {
	t.Helper()
	h := &harness{T: t, d: d}
	w := h.worker()
	run := func(change ...func(*queue.New)) queue.Claim { return h.running(w, append(change, secret("s"))...) }
	gone := func(c queue.Claim) store.Write {
		return store.Write{Fence: queue.Fence{ID: c.ID, Attempt: c.Attempt, State: queue.Canceled}, LetGo: true}
	}
	canceled, unstoredRun := run(), run(unstored)
	for _, end := range []store.Write{
		complete(run().Fence()),
		complete(unstoredRun.Fence()),
		move(run().Fence(), queue.Failed, queue.ByOutcome),
		move(canceled.Fence(), queue.Canceled, queue.ByCancel),
		gone(canceled),
		recorded(w, secret("s")),
	} {
		h.must(end)
	}
	byUser := run()
	h.cancel(byUser.ID)
	h.must(gone(byUser))
	h.cancel(h.enqueue(secret("s")))
	expired := h.enqueue(secret("s"), within(time.Millisecond))
	h.past(expired)
	h.sweep()
	ended = 8

	dead := h.worker()
	lost, held := request(by(dead), secret("s"), path("/p")), request(by(dead), secret("s"))
	results, err := d.Write(t.Context(), []store.Write{{Insert: lost}, {Insert: held}})
	if err := errors.Join(append(results, err)...); err != nil {
		t.Fatal(err)
	}
	h.cancel(held.ID)
	returned := request(by(dead), secret("s"))
	h.must(store.Write{Insert: returned})
	h.kill(dead)
	reaped := 0
	h.reapUntil("returned two requests", 9, func(s store.Swept) bool { reaped += s.Reaped + s.Lost; return reaped >= 2 })
	h.wantState(lost.ID, queue.Failed)
	h.wantState(held.ID, queue.Canceled)
	h.wantState(returned.ID, queue.Waiting)
	return ended + 2, []queue.ID{returned.ID, h.enqueue(secret("s"), of(tenant, "other"))}
}
