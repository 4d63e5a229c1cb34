package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// flex is the service tier whose requests wait in the queue.
const flex = "flex"

// turn is a request for a response with all that it refers to resolved.
type turn struct {
	a      *API
	tenant tenant.Tenant
	body   []byte
	// cached, where not nil, is asked first for the context that the response
	// with a public id hands to its child.
	cached func(id string) ([]response.Item, bool)
	line   bool // of a batch: it is queued, whatever its tier

	req    *response.Request
	brief  response.Brief
	tools  []response.ServerTool
	n      queue.New
	first  *response.Stream // what is told of the response before it runs
	events []response.Event // of its log, before it runs
	queued bool             // any host may claim it; else it runs on this one
	key    *store.Key       // nil: none
	join   *store.Join      // nil: no conversation
}

// turn makes a turn of a body. cached may be nil.
func (a *API) turn(x *exchange, body []byte, cached func(id string) ([]response.Item, bool)) (*turn, error) {
	t := &turn{a: a, tenant: x.tenant, body: body, cached: cached, n: queue.New{ID: queue.NewID()}}
	err := t.resolve(x.r.Context())
	if x.model = t.n.Model; err == nil {
		x.response = t.n.ID
	}
	return t, err
}

// Prepare makes a request of the body of a batch's line, to be inserted with
// its first events. The caller says which line it is. The error, for the line,
// is a *response.BadRequest or an *Error, or else this host's.
func (a *API) Prepare(ctx context.Context, t tenant.Tenant, path string, body []byte) (queue.New, []response.Event, error) {
	if err := checkJSON(body); err != nil {
		return queue.New{}, nil, err
	}
	if path != pathResponses {
		n, err := a.prepareForward(t, path, body)
		return n, nil, err
	}
	p := &turn{a: a, tenant: t, body: body, line: true, n: queue.New{ID: queue.NewID()}}
	if err := p.resolve(ctx); err != nil {
		return queue.New{}, nil, err
	}
	if err := p.shows(); err != nil {
		return queue.New{}, nil, err
	}
	switch {
	case p.n.Stream:
		return queue.New{}, nil, notInBatch("stream")
	case p.n.Background:
		return queue.New{}, nil, notInBatch("background")
	case p.join != nil:
		return queue.New{}, nil, notInBatch("conversation")
	}
	p.n.DeadlineIn = limited(a.BackgroundDeadline)
	return p.n, p.events, nil
}

// prepareForward makes a request of a body that goes to the upstream as it is.
func (a *API) prepareForward(t tenant.Tenant, path string, body []byte) (queue.New, error) {
	asked, err := parseForward(body)
	if err != nil {
		return queue.New{}, err
	}
	if err := a.mayUse(t, asked.model); err != nil {
		return queue.New{}, err
	}
	if asked.stream {
		return queue.New{}, notInBatch("stream")
	}
	return queue.New{
		ID: queue.NewID(), Tenant: t.Name, Model: asked.model, Path: path, Tier: "default",
		DeadlineIn: limited(a.BackgroundDeadline), Body: body,
	}, nil
}

func notInBatch(param string) error {
	return &response.BadRequest{Param: param, Code: "unsupported_parameter", Message: param + " is not possible in a batch."}
}

// tier is the service tier that a request is served at.
func tier(asked string) string {
	if asked == flex {
		return flex
	}
	return "default"
}

// resolve reads the body, once more after a conversation went on meanwhile, and
// looks up what it refers to. The id of the request stays.
func (t *turn) resolve(ctx context.Context) error {
	req, err := response.ParseRequest(t.body)
	if err != nil {
		return err
	}
	if err := t.a.mayUse(t.tenant, req.Model); err != nil {
		return err
	}
	t.req, t.n.Model, t.brief, t.join = req, req.Model, response.Brief{Request: req}, nil
	if err := t.context(ctx); err != nil {
		return err
	}
	req.Input = response.NameItems(req.Input, t.n.ID)
	secret, err := t.offer()
	if err != nil {
		return err
	}
	if err := response.CheckTools(t.brief); err != nil {
		return err
	}
	if err := response.CheckOutputs(t.brief); err != nil {
		return err
	}
	if err := t.fit(); err != nil {
		return err
	}
	return t.make(secret)
}

// make makes the request that is submitted.
func (t *turn) make(secret response.Secret) error {
	req, a := t.req, t.a
	encoded, err := t.brief.Encode()
	if err != nil {
		return fmt.Errorf("api: create: %w", err)
	}
	if err := t.checkSize(len(encoded)); err != nil {
		return err
	}
	t.n = queue.New{
		ID: t.n.ID, Tenant: t.tenant.Name, Model: req.Model, Path: pathResponses, Tier: tier(req.ServiceTier),
		Stream: req.Stream, Background: req.Background, Store: req.Store, Body: encoded,
		DeadlineIn: limited(a.Deadline),
	}
	if t.n.Background {
		t.n.DeadlineIn = limited(a.BackgroundDeadline)
	}
	if len(secret) > 0 {
		if t.n.Secret, err = json.Marshal(secret); err != nil {
			return fmt.Errorf("api: create: %w", err)
		}
	}
	// A stored flex request waits its turn like a background one, with its
	// client on the line. Without a log nobody could tell that client the end.
	t.queued = t.line || t.n.Background || t.n.Tier == flex && t.n.Store
	t.first, t.events = response.NewStream(t.n.ID, t.n.ID.Time(), req, t.tools), nil
	if events := t.first.Created(t.queued); t.n.Store || t.line { // a line's answer is kept in any case
		t.events = events
	}
	return nil
}

// checkSize refuses what became too large by what it refers to.
func (t *turn) checkSize(bytes int) error {
	if int64(bytes) <= t.a.MaxBodyBytes {
		return nil
	}
	param := "input"
	switch {
	case t.req.PreviousResponseID != "":
		param = "previous_response_id"
	case t.req.Conversation != "":
		param = "conversation"
	case bytes <= 3*len(t.body): // large by itself
		return nil
	}
	return t.tooLarge(param)
}

// shows refuses a turn that has nothing for its model to see.
func (t *turn) shows() error {
	if s := t.req.Instructions; len(t.brief.Items()) > 0 || s != nil && *s != "" {
		return nil
	}
	return &response.BadRequest{
		Param: "input", Code: "missing_required_parameter",
		Message: "There is nothing for the model to see: send at least one item of input.",
	}
}

// write is what inserts the turn's request.
func (t *turn) write() store.Write {
	return store.Write{Insert: &t.n, Events: t.events, Key: t.key, Join: t.join}
}

// conversationTries is how often a turn is resolved again when its conversation
// went on while it was.
const conversationTries = 3

// submit hands a turn to the runner. The run is nil where any host may run it.
func (a *API) submit(ctx context.Context, t *turn) (Run, error) {
	for try := 0; ; try++ {
		if err := t.shows(); err != nil {
			return nil, err
		}
		run, err := a.hand(ctx, t)
		var busy *store.ConversationBusy
		switch {
		case !errors.As(err, &busy) && t.join != nil && errors.Is(err, queue.ErrNotFound):
			return nil, notThere("conversation", "conversation", err)
		case busy == nil:
			return run, err
		case !busy.Stale || try == conversationTries:
			return nil, &Error{
				Status: http.StatusConflict, Code: "conversation_busy", Param: "conversation", RetryAfter: time.Second, cause: err,
				Message: "Another response of the conversation has not ended yet.",
			}
		}
		if err := t.resolve(ctx); err != nil {
			return nil, err
		}
	}
}

func (a *API) hand(ctx context.Context, t *turn) (Run, error) {
	if t.queued {
		return nil, a.Runner.Enqueue(ctx, t.write())
	}
	run, err := a.Runner.Submit(ctx, t.write())
	if err == nil {
		a.remember(t, run)
	}
	return run, err
}
