package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// create serves POST /v1/responses.
func (a *API) create(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(x.r.Header, body)
	if err != nil {
		return err
	}
	switch before, err := a.before(x, key); {
	case err != nil:
		return err
	case before != nil:
		return a.again(x, body, before)
	}
	t, err := a.turn(x, body, nil)
	if err != nil {
		return err
	}
	t.key = key
	defer a.forget(t)
	err = a.perform(x, t)
	var before *store.Repeated
	if errors.As(err, &before) {
		return a.attach(x, t, before)
	}
	return err
}

// perform submits a turn and answers in the way that its client asked for.
func (a *API) perform(x *exchange, t *turn) error {
	switch {
	case t.n.Stream:
		return a.createStream(x, t, &sse{x: x})
	case t.n.Background:
		if _, err := a.submit(x.r.Context(), t); err != nil {
			return err
		}
		x.state = queue.Pending.String()
		return x.write(http.StatusOK, "application/json", t.first.Response())
	}
	return a.createWait(x, t)
}

// admit refuses new requests that this host could not take.
func (a *API) admit() error {
	if a.draining.Load() {
		return unavailable(time.Second, "The host is shutting down.", nil)
	}
	if !a.Store.Healthy() {
		return unavailable(storeAway, "The host's store is away.", nil)
	}
	return nil
}

// mayUse checks that the model exists for this tenant.
func (x *exchange) mayUse(model string) error {
	if err := x.a.mayUse(x.tenant, model); err != nil {
		return err
	}
	x.model = model
	return nil
}

func (a *API) mayUse(t tenant.Tenant, model string) error {
	if t.MayUse(model) && a.Models.Has(model) {
		return nil
	}
	return &Error{
		Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
		Message: "The model does not exist, or this key may not use it.",
	}
}

// createWait submits a turn and answers with its end.
func (a *API) createWait(x *exchange, t *turn) error {
	run, err := a.submit(x.r.Context(), t)
	switch {
	case err != nil:
		return err
	case run == nil:
		return a.await(x, t.n)
	}
	x.attempt = 1
	return a.wait(x, t.n, run)
}

// wait answers with the outcome of a run. A client that leaves cancels it.
func (a *API) wait(x *exchange, n queue.New, run Run) error {
	o, err := run.Wait(x.r.Context())
	switch {
	case x.r.Context().Err() != nil:
		return a.abandon(x, n)
	case errors.Is(err, queue.ErrLeaseLost) && n.Store, err == nil && n.Store && !o.To.Final():
		return a.await(x, n)
	case err != nil:
		return err
	case !o.To.Final():
		return fmt.Errorf("api: %s: %w", n.ID, queue.ErrLeaseLost)
	}
	return x.outcome(o)
}

// await waits for the end of a stored request, wherever it runs, and answers
// with what is stored.
func (a *API) await(x *exchange, n queue.New) error {
	err := a.over(x, n.ID)
	if x.r.Context().Err() != nil {
		return a.abandon(x, n)
	}
	if err != nil {
		return err
	}
	return a.told(x, n.ID)
}

// over waits for the end of a stored request.
func (a *API) over(x *exchange, id queue.ID) error {
	l := a.Hub.Listen(id, math.MaxInt64-1) // no event is that late: only the end is heard
	defer l.Close()
	for {
		if _, err := l.Next(x.r.Context()); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("api: await: %w", err)
		}
	}
}

// told answers with the stored end of a request.
func (a *API) told(x *exchange, id queue.ID) error {
	rec, err := a.Store.Get(x.r.Context(), x.tenant.Name, id, store.Parts{Result: true})
	if err != nil {
		return fmt.Errorf("api: await: %w", err)
	}
	x.attempt = rec.Attempt
	return x.outcome(stored(rec))
}

// policyRejected is the code of a request that the route policy refused without a
// code of its own.
const policyRejected = "rejected_by_policy"

// stored is the outcome that the record of a request in a final state tells of.
func stored(rec store.Record) queue.Outcome {
	o := queue.Outcome{To: rec.State, Class: rec.Class, Code: rec.Code}
	if rec.Result != nil {
		o.Status, o.ContentType, o.Body = rec.Result.Status, rec.Result.ContentType, rec.Result.Body
	}
	switch {
	case rec.State != queue.Failed || o.Class != queue.UpstreamStatus:
	case rec.Path != pathResponses: // of these the upstream's own status is stored
		o.Rejected = o.Code == policyRejected
	default:
		// What is stored is what the client is told, not what an upstream said,
		// so a status that would be told otherwise is a policy's.
		o.Rejected = response.UpstreamStatus(o.Status) != o.Status
		var object struct {
			Error struct{ Message string }
		}
		if json.Unmarshal(o.Body, &object) == nil {
			o.Message = object.Error.Message
		}
	}
	if rec.State == queue.Expired {
		o.Class, o.Code, o.Message = queue.ClassDeadline, expiredCode, expiredText
	}
	return o
}

// outcome answers with how a request ended.
func (x *exchange) outcome(o queue.Outcome) error {
	x.state = o.To.String()
	if o.To != queue.Completed {
		return failed(o)
	}
	status, kind := o.Status, o.ContentType
	if status < 200 || status > 299 {
		status = http.StatusOK
	}
	if kind == "" {
		kind = "application/json"
	}
	return x.write(status, kind, o.Body)
}

// abandon cancels a request whose client left, unless it may be this host that
// broke the connection: what is handed back goes on elsewhere. A client that is
// still there is told to come again.
func (a *API) abandon(x *exchange, n queue.New) error {
	gone := fmt.Errorf("api: %s: %w", n.ID, x.left())
	if a.draining.Load() || errors.Is(gone, queue.ErrShutdown) {
		return gone
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.r.Context()), 10*time.Second)
	defer cancel()
	rec, _, err := a.Store.Cancel(ctx, n.Tenant, n.ID, queue.CodeClientGone)
	a.Runner.Stop(n.ID, queue.ErrClientGone)
	if err != nil {
		a.Logger.Warn("cancel for a client that left", "request", n.ID, "error", err)
		return gone
	}
	x.state, x.attempt = rec.State.String(), rec.Attempt
	return gone
}
