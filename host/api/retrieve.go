package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// find returns the stored response of the path. Another tenant's, an unstored
// one and a request of another kind do not exist.
func (x *exchange) find(parts store.Parts) (store.Record, error) {
	id, err := responseID(x.path.id)
	if err != nil {
		return store.Record{}, err
	}
	rec, err := x.a.Store.Get(x.r.Context(), x.tenant.Name, id, parts)
	if err != nil {
		return store.Record{}, fmt.Errorf("api: response %s: %w", id, err)
	}
	if !rec.Store || rec.Path != pathResponses {
		return store.Record{}, queue.ErrNotFound
	}
	x.response, x.model, x.state, x.attempt = id, rec.Model, rec.State.String(), rec.Attempt
	return rec, nil
}

// retrieve serves GET /v1/responses/{id}.
func (a *API) retrieve(x *exchange) error {
	q, err := x.query()
	if err != nil {
		return err
	}
	if q.stream {
		rec, err := x.find(store.Parts{})
		if err != nil {
			return err
		}
		f := a.feed(x, &sse{x: x}, rec.ID, true, q.after)
		defer f.l.Close()
		return f.run(x.r.Context())
	}
	rec, err := x.find(store.Parts{Result: true, Events: true})
	if err != nil {
		return err
	}
	object, err := objectOf(rec)
	if err != nil {
		return err
	}
	return x.write(http.StatusOK, "application/json", object)
}

// objectOf returns the Response object of a stored request as it stands: the
// stored result where there is one, else what its events add up to.
func objectOf(rec store.Record) ([]byte, error) {
	ended := rec.State == queue.Completed || rec.State == queue.Failed
	if ended && rec.Result != nil && len(rec.Result.Body) > 0 {
		return rec.Result.Body, nil
	}
	s, err := response.Restore(rec.Events)
	if err != nil {
		return nil, fmt.Errorf("api: response %s: %w", rec.ID, err)
	}
	if n := len(rec.Events); rec.State.Final() && n > 0 && !terminal(eventType(rec.Events[n-1].Data)) {
		s.Finish(endOf(rec))
	}
	return s.Response(), nil
}

// listing is how a client wants to see a response.
type listing struct {
	stream bool
	after  int64 // -1: from the first event
}

// query reads stream and starting_after from the query, or from a JSON body:
// an official client sends the one there and the other here.
func (x *exchange) query() (listing, error) {
	l := listing{after: -1}
	body, err := x.read(1 << 16)
	if err != nil {
		return l, err
	}
	if err := l.body(body); err != nil {
		return l, err
	}
	q := x.r.URL.Query()
	if s := q.Get("stream"); s != "" {
		on, err := strconv.ParseBool(s)
		if err != nil {
			return l, &response.BadRequest{Param: "stream", Code: "invalid_type", Message: "stream must be true or false."}
		}
		l.stream = on
	}
	if s := q.Get("starting_after"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return l, &response.BadRequest{Param: "starting_after", Code: "invalid_type", Message: "starting_after must be an integer."}
		}
		l.after = n
	}
	if l.after < -1 || l.after > 1<<53 {
		return l, &response.BadRequest{
			Param: "starting_after", Code: "invalid_value", Message: "starting_after must be the sequence_number of an event.",
		}
	}
	return l, nil
}

// body reads what a GET's body says, if there is one.
func (l *listing) body(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if err := checkJSON(body); err != nil {
		return err
	}
	var sent struct {
		Stream *bool  `json:"stream"`
		After  *int64 `json:"starting_after"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return &response.BadRequest{
			Code: "invalid_type", Message: "The body must be an object with stream, a boolean, and starting_after, an integer.",
		}
	}
	if sent.Stream != nil {
		l.stream = *sent.Stream
	}
	if sent.After != nil {
		l.after = *sent.After
	}
	return nil
}

// cancel serves POST /v1/responses/{id}/cancel. It may be repeated: a response
// that has ended is answered as it ended.
func (a *API) cancel(x *exchange) error {
	rec, err := x.find(store.Parts{})
	if err != nil {
		return err
	}
	if !rec.Background {
		return &response.BadRequest{
			Param: "id", Code: "not_cancellable",
			Message: "Only a background response can be canceled; close the connection of any other.",
		}
	}
	if !rec.State.Final() {
		// A client that leaves now has still asked for it.
		ctx, stop := context.WithTimeout(context.WithoutCancel(x.r.Context()), 10*time.Second)
		defer stop()
		_, did, err := a.Store.Cancel(ctx, x.tenant.Name, rec.ID, "")
		if err != nil {
			return fmt.Errorf("api: cancel %s: %w", rec.ID, err)
		}
		if did {
			a.Runner.Stop(rec.ID, queue.ErrCanceled)
		}
	}
	if rec, err = x.find(store.Parts{Result: true, Events: true}); err != nil {
		return err
	}
	object, err := objectOf(rec)
	if err != nil {
		return err
	}
	return x.write(http.StatusOK, "application/json", object)
}

// remove serves DELETE /v1/responses/{id}.
func (a *API) remove(x *exchange) error {
	rec, err := x.find(store.Parts{})
	if err != nil {
		return err
	}
	if err := a.Store.Delete(x.r.Context(), x.tenant.Name, rec.ID); err != nil {
		return fmt.Errorf("api: delete %s: %w", rec.ID, err)
	}
	return x.writeJSON(http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{responsePrefix + rec.ID.String(), "response", true})
}
