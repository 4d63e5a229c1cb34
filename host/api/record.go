package api

import (
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// When a request on the default path is written: see Options.Record.
const (
	RecordBefore = "before" // it is begun
	RecordAfter  = "after"  // it has ended
	RecordOff    = "off"    // never, but for what it used
)

// begin submits a request that goes to the upstream as it came. bare: it has no
// row, at least as long as it runs.
func (a *API) begin(x *exchange, n queue.New) (run Run, bare bool, err error) {
	w := store.Write{Insert: &n}
	switch mode := a.Record(n.Tenant, n.Model); mode {
	case RecordAfter, RecordOff:
		bare = true
		run, err = a.Runner.Perform(x.r.Context(), w, mode == RecordAfter)
	default:
		run, err = a.Runner.Submit(x.r.Context(), w)
	}
	if err != nil {
		return nil, bare, err
	}
	x.attempt = 1
	return run, bare, nil
}

// answer answers with the outcome of a run without a row. A client that leaves
// stops it.
func (a *API) answer(x *exchange, n queue.New, run Run) error {
	o, err := run.Wait(x.r.Context())
	switch {
	case x.r.Context().Err() != nil:
		return a.quit(x, n)
	case err != nil:
		return err
	}
	return x.outcome(o)
}

// quit stops a run without a row whose client left: nobody else would get its
// answer.
func (a *API) quit(x *exchange, n queue.New) error {
	a.Runner.Stop(n.ID, queue.ErrClientGone)
	x.state = queue.Canceled.String()
	return fmt.Errorf("api: %s: %w", n.ID, x.left())
}
