package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// keyHeader holds a key that makes a POST happen once.
const keyHeader = "Idempotency-Key"

// idempotencyKey returns the key that a body was sent with; nil: none.
func idempotencyKey(h http.Header, body []byte) (*store.Key, error) {
	values := h.Values(keyHeader)
	if len(values) == 0 {
		return nil, nil
	}
	key := values[0]
	legal := len(values) == 1 && len(key) >= 1 && len(key) <= 255
	for i := 0; legal && i < len(key); i++ {
		legal = key[i] > ' ' && key[i] < 0x7f
	}
	if !legal {
		return nil, &response.BadRequest{
			Param: keyHeader, Code: "invalid_value",
			Message: "Send one " + keyHeader + " of 1 to 255 visible ASCII characters.",
		}
	}
	sum := sha256.Sum256(body)
	return &store.Key{Key: key, Hash: sum[:]}, nil
}

// remember keeps the run of a turn that nothing is logged of, so that a request
// with the same key finds it while its own connection waits for it.
func (a *API) remember(t *turn, run Run) {
	if t.key == nil || t.n.Store {
		return
	}
	a.unloggedMu.Lock()
	defer a.unloggedMu.Unlock()
	if a.unlogged == nil {
		a.unlogged = map[queue.ID]Run{}
	}
	a.unlogged[t.n.ID] = run
}

// forget ends remember.
func (a *API) forget(t *turn) {
	a.unloggedMu.Lock()
	defer a.unloggedMu.Unlock()
	delete(a.unlogged, t.n.ID)
}

func (a *API) running(id queue.ID) Run {
	a.unloggedMu.Lock()
	defer a.unloggedMu.Unlock()
	return a.unlogged[id]
}

// before returns the request that a key stands for; nil: none, or no key. It is
// asked before the body is looked at: what that refers to may be gone by now, and
// the response is there all the same.
func (a *API) before(x *exchange, key *store.Key) (*store.Repeated, error) {
	if key == nil {
		return nil, nil
	}
	before, err := a.Store.Keyed(x.r.Context(), x.tenant.Name, *key)
	if err != nil {
		return nil, fmt.Errorf("api: idempotency key: %w", err)
	}
	return before, nil
}

// again attaches a body, of which only the way to answer counts, to what was
// made of it before.
func (a *API) again(x *exchange, body []byte, before *store.Repeated) error {
	t := &turn{}
	if before.Same {
		req, err := response.ParseRequest(body)
		if err != nil {
			return err
		}
		t.n.Stream, t.n.Background = req.Stream, req.Background
	}
	return a.attach(x, t, before)
}

// attach answers with the response that was made for the same key before: as it
// was asked for, from its beginning. Leaving does not end that response.
func (a *API) attach(x *exchange, t *turn, before *store.Repeated) error {
	x.response = before.ID
	if !before.Same {
		return &Error{
			Status: http.StatusConflict, Code: "idempotency_key_reused", Final: true, cause: before,
			Message: "This " + keyHeader + " was used with another body: choose a new one.",
		}
	}
	rec, err := a.Store.Get(x.r.Context(), x.tenant.Name, before.ID, store.Parts{})
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return gone(before)
	case err != nil:
		return fmt.Errorf("api: attach: %w", err)
	case !rec.Store:
		return a.attachUnlogged(x, t, rec, before)
	}
	x.state, x.attempt = rec.State.String(), rec.Attempt
	switch {
	case t.n.Stream:
		f := a.feed(x, &sse{x: x}, rec.ID, true, -1)
		defer f.l.Close()
		return f.run(x.r.Context())
	case t.n.Background:
		if rec, err = a.Store.Get(x.r.Context(), x.tenant.Name, rec.ID, store.Parts{Result: true, Events: true}); err != nil {
			return fmt.Errorf("api: attach: %w", err)
		}
		object, err := objectOf(rec)
		if err != nil {
			return err
		}
		return x.write(http.StatusOK, "application/json", object)
	}
	if err := a.over(x, rec.ID); err != nil {
		return err
	}
	return settled(a.told(x, rec.ID))
}

// attachUnlogged is attach for a response that is kept nowhere: that is possible
// while it runs, on the host that runs it.
func (a *API) attachUnlogged(x *exchange, t *turn, rec store.Record, before *store.Repeated) error {
	run := a.running(rec.ID)
	switch {
	case rec.State.Final():
		return gone(before)
	case run == nil:
		return &Error{
			Status: http.StatusConflict, Code: "idempotency_in_progress", Final: true, cause: before,
			Message: "The response for this " + keyHeader + " is made on another connection. It is not stored, so its result goes there only.",
		}
	}
	x.state, x.attempt = rec.State.String(), rec.Attempt
	if t.n.Stream {
		f := a.feed(x, &sse{x: x}, rec.ID, false, -1)
		defer f.l.Close()
		f.w = watch(x.r.Context(), run)
		defer f.w.stop()
		return f.run(f.w.ctx)
	}
	o, err := run.Wait(x.r.Context())
	switch {
	case err != nil:
		return fmt.Errorf("api: attach: %w", err)
	case !o.To.Final():
		return fmt.Errorf("api: attach: %s: %w", rec.ID, queue.ErrLeaseLost)
	}
	return settled(x.outcome(o))
}

// settled is how a request ended, told again: trying once more with the same key
// changes nothing.
func settled(err error) error {
	var f *failure
	if errors.As(err, &f) {
		f.Final = true
	}
	return err
}

// gone answers for a response of which nothing is left.
func gone(before *store.Repeated) error {
	return &Error{
		Status: http.StatusConflict, Code: "idempotency_response_gone", Final: true, cause: before,
		Message: "The response for this " + keyHeader + " was made, and is not stored any more.",
	}
}
