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
)

// flex is the service tier whose requests wait in the queue.
const flex = "flex"

// create serves POST /v1/responses.
func (a *API) create(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	req, err := response.ParseRequest(body)
	if err != nil {
		return err
	}
	if err := x.mayUse(req.Model); err != nil {
		return err
	}
	brief, tools, err := a.brief(x, req)
	if err != nil {
		return err
	}
	encoded, err := brief.Encode()
	if err != nil {
		return fmt.Errorf("api: create: %w", err)
	}
	if req.PreviousResponseID != "" && int64(len(encoded)) > a.MaxBodyBytes {
		return &response.BadRequest{
			Param: "previous_response_id", Code: "context_length_exceeded",
			Message: fmt.Sprintf("The request and the responses that it goes on from are larger than %d bytes together.", a.MaxBodyBytes),
		}
	}
	n := queue.New{
		ID: queue.NewID(), Tenant: x.tenant.Name, Model: req.Model, Path: pathResponses, Tier: tier(req.ServiceTier),
		Stream: req.Stream, Background: req.Background, Store: req.Store, Body: encoded,
		DeadlineIn: limited(a.Deadline),
	}
	if n.Background {
		n.DeadlineIn = limited(a.BackgroundDeadline)
	}
	x.response = n.ID
	// A stored flex request waits its turn like a background one, with its
	// client on the line. Without a log nobody could tell that client the end.
	queued := n.Background || n.Tier == flex && n.Store
	first := response.NewStream(n.ID, n.ID.Time(), req, tools)
	events := first.Created(queued)
	if !n.Store {
		events = nil
	}
	switch {
	case n.Stream:
		return a.createStream(x, n, events, queued)
	case n.Background:
		if err := a.Runner.Enqueue(x.r.Context(), n, events); err != nil {
			return err
		}
		x.state = queue.Pending.String()
		return x.write(http.StatusOK, "application/json", first.Response())
	}
	return a.createWait(x, n, events, queued)
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
	if !x.tenant.MayUse(model) || !x.a.Models.Has(model) {
		return &Error{
			Status: http.StatusNotFound, Code: "model_not_found", Param: "model",
			Message: "The model does not exist, or this key may not use it.",
		}
	}
	x.model = model
	return nil
}

// tier is the service tier that a request is served at.
func tier(asked string) string {
	if asked == flex {
		return flex
	}
	return "default"
}

// brief resolves once what a request refers to: its ancestors and its tools.
func (a *API) brief(x *exchange, req *response.Request) (response.Brief, []response.ServerTool, error) {
	brief := response.Brief{Request: req}
	var err error
	if req.PreviousResponseID != "" {
		if brief.Context, err = a.ancestors(x, req.PreviousResponseID); err != nil {
			return brief, nil, err
		}
	}
	tools, err := offer(x.tenant, req, a.Tools.Granted(x.tenant.Name))
	if err != nil {
		return brief, nil, err
	}
	for _, t := range tools {
		brief.Offers = append(brief.Offers, t.Offer)
	}
	if err := response.CheckTools(brief); err != nil {
		return brief, nil, err
	}
	return brief, tools, response.CheckOutputs(brief)
}

// ancestors returns the context that a response hands to its child.
func (a *API) ancestors(x *exchange, previous string) ([]response.Item, error) {
	missing := &response.BadRequest{
		Param: "previous_response_id", Code: "previous_response_not_found",
		Message: "There is no completed, stored response with that id.",
	}
	id, err := responseID(previous)
	if err != nil {
		return nil, missing
	}
	rec, err := a.Store.Get(x.r.Context(), x.tenant.Name, id, store.Parts{Body: true, Result: true})
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return nil, missing
	case err != nil:
		return nil, fmt.Errorf("api: previous response: %w", err)
	case !rec.Store || rec.Path != pathResponses:
		return nil, missing
	case !rec.State.Final():
		return nil, &response.BadRequest{
			Param: "previous_response_id", Code: "previous_response_in_progress",
			Message: "The previous response has not ended yet.",
		}
	case rec.State != queue.Completed || rec.Result == nil:
		return nil, missing
	}
	brief, err := response.DecodeBrief(rec.Body)
	if err != nil {
		return nil, fmt.Errorf("api: previous response: %w", err)
	}
	items, err := response.Ancestor(brief, rec.Result.Body)
	if err != nil {
		return nil, fmt.Errorf("api: previous response: %w", err)
	}
	return items, nil
}

// createWait submits a request and answers with its end.
func (a *API) createWait(x *exchange, n queue.New, events []response.Event, queued bool) error {
	if queued {
		if err := a.Runner.Enqueue(x.r.Context(), n, events); err != nil {
			return err
		}
		return a.await(x, n)
	}
	run, err := a.Runner.Submit(x.r.Context(), n, events)
	if err != nil {
		return err
	}
	x.attempt = 1
	return a.wait(x, n, run)
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
	l := a.Hub.Listen(n.ID, math.MaxInt64-1) // no event is that late: only the end is heard
	defer l.Close()
	for {
		if _, err := l.Next(x.r.Context()); err != nil {
			if x.r.Context().Err() != nil {
				return a.abandon(x, n)
			}
			if !errors.Is(err, io.EOF) {
				return fmt.Errorf("api: await: %w", err)
			}
			break
		}
	}
	rec, err := a.Store.Get(x.r.Context(), n.Tenant, n.ID, store.Parts{Result: true})
	if err != nil {
		return fmt.Errorf("api: await: %w", err)
	}
	x.attempt = rec.Attempt
	return x.outcome(stored(rec))
}

// stored is the outcome that the record of a response in a final state tells
// of.
func stored(rec store.Record) queue.Outcome {
	o := queue.Outcome{To: rec.State, Class: rec.Class, Code: rec.Code}
	if rec.Result != nil {
		o.Status, o.ContentType, o.Body = rec.Result.Status, rec.Result.ContentType, rec.Result.Body
	}
	if rec.State == queue.Failed && o.Class == queue.UpstreamStatus {
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
	rec, _, err := a.Store.Cancel(ctx, n.Tenant, n.ID)
	a.Runner.Stop(n.ID, queue.ErrClientGone)
	if err != nil {
		a.Logger.Warn("cancel for a client that left", "request", n.ID, "error", err)
		return gone
	}
	x.state, x.attempt = rec.State.String(), rec.Attempt
	return gone
}
