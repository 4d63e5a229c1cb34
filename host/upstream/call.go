package upstream

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/casemate/casemate/host/object"
	"github.com/casemate/casemate/host/queue"
)

// Call is one call of one target.
type Call struct {
	Target string // abi.Candidate.Target
	Model  string // the alias; "": the target need not be one of an alias
	Path   string // "/chat/completions", ResponsesPath, "/embeddings": appended to the base URL
	// Body is a valid JSON object. Its "model" becomes the target's; every other byte
	// is sent as it is.
	Body           []byte
	IdempotencyKey string        // sent as Idempotency-Key; "": none
	Timeout        time.Duration // shortens Config.Total; 0: no
	Realtime       bool          // somebody waits for the answer: for Config.Slots
	// OnData gets the data of each event when the answer is an event stream: a
	// valid JSON object that is no error, so never "[DONE]". Only the end of a
	// response that failed it gets as well, for the tokens that it cost; what it
	// returns for that does not count. The slice is only
	// valid during the call. An error ends the call: one that wraps ErrInvalid
	// with queue.UpstreamInvalid, others with queue.HostError. nil: an event
	// stream is an error.
	OnData func(data []byte) error
}

// Reply is a successful answer.
type Reply struct {
	Status      int
	ContentType string        // media type without parameters
	Body        []byte        // the whole body, a JSON object, when Streamed is false
	Streamed    bool          // the answer was an event stream
	Done        bool          // [DONE] or a terminal event was seen; a stream that ended without may have been cut
	FirstEvent  time.Duration // from the start to the first data event or byte of the body
	Total       time.Duration
}

// The limits that end a call, as causes of its context.
var (
	errFirstEvent = errors.New("no first event")
	errIdle       = errors.New("no next event")
	errTotal      = errors.New("took too long")
)

// errTooLong: a body is over its cap.
var errTooLong = errors.New("body too long")

// How much of a body is read, and for how long, when it is an error's or comes
// after the end of the answer.
const (
	maxErrorBody  = 64 << 10
	errorBodyTime = 5 * time.Second
	maxTail       = 4 << 10
	tailTime      = 100 * time.Millisecond
)

// Do makes one call and returns when its body has ended. What the answer is
// follows from its own content type, whatever was asked for. It holds a slot of
// the target meanwhile, and the wait for one counts toward the time of the call.
// The error is an *Error.
func (c *Client) Do(ctx context.Context, call Call) (Reply, error) {
	e := c.endpoints[call.Target]
	switch {
	case e == nil || call.Model != "" && !c.serves(call.Model, e):
		return Reply{}, fail(queue.HostError, "unknown target")
	case !object.Begins(call.Body):
		return Reply{}, fail(queue.HostError, "request is not a JSON object")
	case ctx.Err() != nil:
		return Reply{}, interrupted(ctx)
	}
	x := &exchange{client: c, endpoint: e, call: call, parent: ctx}
	total := c.limits.Total
	if call.Timeout > 0 {
		total = min(total, call.Timeout)
	}
	timed, stop := context.WithTimeoutCause(ctx, total, errTotal)
	defer stop()
	x.ctx, x.cancel = context.WithCancelCause(timed)
	defer x.cancel(nil)
	release, err := x.admit()
	if err != nil {
		return Reply{}, err
	}
	defer release()
	x.start = time.Now()
	rep, err := x.counted()
	if err != nil {
		err.Begun = x.begun
		return Reply{}, err
	}
	return rep, nil
}

// admit takes a slot of the target, unless that asked to be left alone. What it
// refuses says nothing about the target's health.
func (x *exchange) admit() (release func(), _ *Error) {
	slots := x.client.limits.Slots
	if e := x.barred(); e != nil {
		return nil, e
	}
	if slots == nil {
		return func() {}, nil
	}
	release, err := slots.Acquire(x.ctx, x.call.Target, x.call.Realtime)
	if err == nil && x.ctx.Err() == nil {
		e := x.barred() // meanwhile, perhaps by the call whose slot this was
		if e == nil {
			return release, nil
		}
		release()
		return nil, e
	}
	if err == nil { // it came too late
		release()
	}
	if x.parent.Err() != nil {
		return nil, interrupted(x.parent)
	}
	e := uncalled("no slot", err)
	var wait interface{ RetryAfter() time.Duration }
	if errors.As(err, &wait) {
		e.RetryAfter = min(max(wait.RetryAfter(), 0), MaxRetryAfter)
	}
	return nil, e
}

// barred returns the error of a target that asked to be left alone, or nil.
func (x *exchange) barred() *Error {
	wait := x.endpoint.health.barred(time.Now())
	if wait == 0 {
		return nil
	}
	e := uncalled("asked to be left alone", nil)
	e.RetryAfter = wait
	return e
}

// uncalled is the error of a target that was not called.
func uncalled(reason string, cause error) *Error {
	e := fail(queue.RateLimited, reason)
	e.Status, e.NoCall, e.cause = http.StatusTooManyRequests, true, cause
	return e
}

func (c *Client) serves(alias string, e *endpoint) bool {
	for _, o := range c.models[alias] {
		if o.endpoint == e {
			return true
		}
	}
	return false
}

// An exchange is one call under way.
type exchange struct {
	client   *Client
	endpoint *endpoint
	call     Call
	parent   context.Context // of the caller
	ctx      context.Context // of the call: ends with a limit, too
	cancel   context.CancelCauseFunc
	start    time.Time   // of the call: the wait for a slot is over
	first    *time.Timer // nil: the first event may take as long as the call
	begun    bool
}

// counted runs the exchange and lets the target's health know, even when OnData
// panics.
func (x *exchange) counted() (rep Reply, err *Error) {
	err = fail(queue.HostError, "not taken")
	x.endpoint.health.enter()
	defer func() {
		now := time.Now()
		rep.Total = now.Sub(x.start)
		x.endpoint.health.leave(x.start, now, rep.FirstEvent, err)
	}()
	return x.run()
}

// run sends the request and reads the answer.
func (x *exchange) run() (Reply, *Error) {
	limits := x.client.limits
	req, err := x.request()
	if err != nil {
		return Reply{}, err
	}
	if string(object.Value(x.call.Body, "stream")) == "true" {
		x.first = time.AfterFunc(limits.FirstEvent, func() { x.cancel(errFirstEvent) })
		defer x.first.Stop()
	}
	res, doErr := limits.HTTP.Do(req)
	if doErr != nil {
		return Reply{}, x.broken(doErr, "not reached")
	}
	defer res.Body.Close()
	body, err := x.body(res)
	if err != nil {
		return Reply{}, err
	}
	return x.answer(res, body)
}

// request builds the HTTP request.
func (x *exchange) request() (*http.Request, *Error) {
	body, err := withModel(x.call.Body, x.endpoint.model)
	if err != nil {
		return nil, fail(queue.HostError, "request cannot be built")
	}
	req, err := http.NewRequestWithContext(x.ctx, http.MethodPost, x.endpoint.base+x.call.Path, bytes.NewReader(body))
	if err != nil || !strings.HasPrefix(x.call.Path, "/") || !headerSafe(x.call.IdempotencyKey) {
		return nil, fail(queue.HostError, "request cannot be built")
	}
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "application/json, text/event-stream")
	h.Set("Accept-Encoding", "identity") // compression would hold events back
	h.Set("User-Agent", "casemate")
	h.Set(queue.HopHeader, "1")
	if x.endpoint.key != "" {
		h.Set("Authorization", "Bearer "+x.endpoint.key)
	}
	if x.call.IdempotencyKey != "" {
		// Written past Set, in lower case: under its canonical name the key would
		// make net/http send the request again by itself on a broken connection.
		h["idempotency-key"] = []string{x.call.IdempotencyKey}
	}
	return req, nil
}

// body returns the decompressed, capped and watched body of an answer.
func (x *exchange) body(res *http.Response) (io.Reader, *Error) {
	watched := &watchedBody{x: x, r: res.Body}
	var r io.Reader = watched
	if !res.Uncompressed {
		switch strings.ToLower(strings.TrimSpace(res.Header.Get("Content-Encoding"))) {
		case "", "identity":
		case "gzip", "x-gzip":
			r = &gunzip{r: watched}
		default:
			if ok(res.StatusCode) {
				return nil, x.status(fail(queue.UpstreamInvalid, "unknown content encoding"), res)
			}
			r = strings.NewReader("")
		}
	}
	return &cappedBody{r: r, left: x.client.limits.MaxReplyBytes}, nil
}

// answer reads the body as what it says it is.
func (x *exchange) answer(res *http.Response, body io.Reader) (Reply, *Error) {
	contentType, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil {
		contentType = "" // read as JSON, which decides
	}
	rep := Reply{Status: res.StatusCode, ContentType: contentType}
	switch stream := contentType == "text/event-stream"; {
	case !ok(res.StatusCode):
		return rep, x.refused(res, body)
	case stream && x.call.OnData == nil:
		return rep, x.status(fail(queue.UpstreamInvalid, "unexpected event stream"), res)
	case stream:
		rep.Streamed = true
		return rep, x.status(x.stream(&rep, body), res)
	default:
		return rep, x.status(x.whole(&rep, body), res)
	}
}

// ok reports whether a status comes with an answer. Others of the 2xx, such as
// 202, come with a promise or with nothing.
func ok(status int) bool {
	return status == http.StatusOK || status == http.StatusCreated || status == http.StatusNonAuthoritativeInfo
}

// status completes an error with what the head of the answer says.
func (x *exchange) status(err *Error, res *http.Response) *Error {
	if err == nil {
		return nil
	}
	if err.Status == 0 && res.StatusCode >= http.StatusMultipleChoices {
		err.Status = res.StatusCode // a good status would be no help to anyone
	}
	if err.RetryAfter < 0 {
		err.RetryAfter = retryAfter(res.Header, time.Now())
	}
	return err
}

// refused returns the error of an answer without a good status. Of its body
// only a known code is kept.
func (x *exchange) refused(res *http.Response, body io.Reader) *Error {
	var e *Error
	switch {
	case res.StatusCode >= http.StatusBadRequest:
		e = fail(classOf(res.StatusCode), "")
		t := time.AfterFunc(errorBodyTime, func() { x.cancel(errIdle) })
		defer t.Stop()
		text, err := io.ReadAll(io.LimitReader(body, maxErrorBody))
		if x.ctx.Err() != nil && x.parent.Err() != nil {
			return interrupted(x.parent)
		}
		if err == nil && object.Valid(text) {
			raw := object.Value(text, "error")
			if len(raw) == 0 || raw[0] != '{' {
				raw = text // some write the fields without the envelope
			}
			e.Code = fromEnvelope(raw).Code
		}
	case res.StatusCode >= http.StatusMultipleChoices:
		e = fail(queue.UpstreamStatus, "redirect refused")
	default:
		e = fail(queue.UpstreamInvalid, "no answer")
	}
	return x.status(e, res)
}

// interrupted returns the error of a call whose caller's context has ended.
func interrupted(parent context.Context) *Error {
	e := fail(queue.ClassCanceled, "canceled")
	if errors.Is(parent.Err(), context.DeadlineExceeded) {
		e = fail(queue.ClassDeadline, "deadline")
	}
	e.cause = context.Cause(parent)
	return e
}

// broken returns the error for what sending or reading ended with.
func (x *exchange) broken(err error, reason string) *Error {
	switch cause := context.Cause(x.ctx); {
	case errors.Is(cause, errFirstEvent), errors.Is(cause, errIdle), errors.Is(cause, errTotal):
		return fail(queue.UpstreamTimeout, cause.Error())
	case x.parent.Err() != nil:
		return interrupted(x.parent)
	case errors.Is(err, errTooLong), errors.Is(err, errEventTooLong):
		return fail(queue.UpstreamInvalid, "body or event too long")
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, new(flate.CorruptInputError)):
		return fail(queue.UpstreamInvalid, "broken compression")
	}
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return fail(queue.UpstreamTimeout, reason)
	}
	return fail(queue.UpstreamNetwork, reason)
}
