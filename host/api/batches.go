package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/tenant"
)

// BatchStore is what the API needs of the store for batches; see store.Batches.
type BatchStore interface {
	CreateBatch(ctx context.Context, b store.Batch, window time.Duration) (store.Batch, error)
	Batch(ctx context.Context, tenant string, id queue.ID) (store.Batch, error)
	ListBatches(ctx context.Context, tenant string, p store.BatchPage) ([]store.Batch, bool, error)
	CancelBatch(ctx context.Context, tenant string, id queue.ID) (store.Batch, error)
}

// Outputs makes the files of a batch that has not ended.
type Outputs interface {
	// Write hands what has ended so far to emit, a line of the file at a time: of
	// the output, or of the errors.
	Write(ctx context.Context, b store.Batch, errors bool, emit func(line []byte) error) error
}

const (
	pathBatches = "/v1/batches"
	// batchPrefix begins the public id of a batch.
	batchPrefix = "batch_"
	// The windows that a batch may ask for.
	minWindow, maxWindow = time.Minute, 7 * 24 * time.Hour
)

// batchRoutes are the routes of batches.
func (a *API) batchRoutes() []route {
	if a.Batches == nil || a.Uploads == nil {
		return nil
	}
	return []route{
		{path: pathBatches, methods: map[string]handler{"POST": a.createBatch, "GET": a.listBatches}},
		{path: pathBatches + "/{id}", methods: map[string]handler{"GET": a.batch}},
		{path: pathBatches + "/{id}/cancel", methods: map[string]handler{"POST": a.cancelBatch}},
		{path: pathBatches + "/{id}/retry", methods: map[string]handler{"POST": a.retryBatch}},
	}
}

// batchObject is a batch as clients see it.
type batchObject struct {
	ID               string          `json:"id"`
	Object           string          `json:"object"`
	Endpoint         string          `json:"endpoint"`
	Errors           *batchErrors    `json:"errors"`
	InputFileID      string          `json:"input_file_id"`
	CompletionWindow string          `json:"completion_window"`
	Status           string          `json:"status"`
	OutputFileID     *string         `json:"output_file_id"`
	ErrorFileID      *string         `json:"error_file_id"`
	CreatedAt        int64           `json:"created_at"`
	InProgressAt     *int64          `json:"in_progress_at"`
	ExpiresAt        int64           `json:"expires_at"`
	FinalizingAt     *int64          `json:"finalizing_at"`
	CompletedAt      *int64          `json:"completed_at"`
	FailedAt         *int64          `json:"failed_at"`
	ExpiredAt        *int64          `json:"expired_at"`
	CancellingAt     *int64          `json:"cancelling_at"`
	CancelledAt      *int64          `json:"cancelled_at"`
	RequestCounts    batchCounts     `json:"request_counts"`
	Metadata         json.RawMessage `json:"metadata"`
	Usage            json.RawMessage `json:"usage,omitempty"`
	RetryOf          string          `json:"retry_of,omitempty"`
}

type batchErrors struct {
	Object string          `json:"object"`
	Data   json.RawMessage `json:"data"`
}

type batchCounts struct {
	Total     int `json:"total"`
	Completed int `json:"completed"`
	Failed    int `json:"failed"`
}

func objectOfBatch(b store.Batch) batchObject {
	o := batchObject{
		ID: batchPrefix + b.ID.String(), Object: "batch", Endpoint: b.Endpoint, InputFileID: filePrefix + b.Input.String(),
		CompletionWindow: b.Window, Status: b.State.String(), OutputFileID: fileOrNull(b.Output), ErrorFileID: fileOrNull(b.Errors),
		CreatedAt: b.Created.Unix(), ExpiresAt: b.Expires.Unix(), InProgressAt: unixOrNull(b.Started), FinalizingAt: unixOrNull(b.Finalized),
		CancellingAt: unixOrNull(b.Canceling), Metadata: b.Metadata, Usage: b.Usage,
	}
	if b.State != store.BatchValidating { // the number is not known before
		o.RequestCounts = batchCounts{b.Total, b.Completed, b.Failed}
	}
	switch ended := unixOrNull(b.Ended); b.State {
	case store.BatchCompleted:
		o.CompletedAt = ended
	case store.BatchFailed:
		o.FailedAt = ended
	case store.BatchExpired:
		o.ExpiredAt = ended
	case store.BatchCanceled:
		o.CancelledAt = ended
	case store.BatchValidating, store.BatchRunning, store.BatchFinalizing, store.BatchCanceling:
	}
	if b.Faults != nil && b.State == store.BatchFailed {
		o.Errors = &batchErrors{"list", b.Faults}
	}
	if b.Parent != (queue.ID{}) {
		o.RetryOf = batchPrefix + b.Parent.String()
	}
	return o
}

func fileOrNull(id queue.ID) *string {
	if id == (queue.ID{}) {
		return nil
	}
	s := filePrefix + id.String()
	return &s
}

func unixOrNull(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	at := t.Unix()
	return &at
}

// batchError is the answer to an error of the store of batches.
func batchError(err error) error {
	if errors.Is(err, queue.ErrNotFound) {
		return &Error{Status: http.StatusNotFound, Code: "not_found", Param: "id", Message: "There is no such batch.", cause: err}
	}
	return fmt.Errorf("api: batch: %w", err)
}

// batchRequest is what a client asks for.
type batchRequest struct {
	InputFileID string            `json:"input_file_id"`
	Endpoint    string            `json:"endpoint"`
	Window      string            `json:"completion_window"`
	Metadata    map[string]string `json:"metadata"`
	OutputKeep  *struct {
		Anchor  string      `json:"anchor"`
		Seconds json.Number `json:"seconds"`
	} `json:"output_expires_after"`
}

// createBatch serves POST /v1/batches.
func (a *API) createBatch(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	body, err := x.body(a.MaxBodyBytes)
	if err != nil {
		return err
	}
	var req batchRequest
	if err := json.Unmarshal(body, &req); err != nil {
		var kind *json.UnmarshalTypeError
		param := ""
		if errors.As(err, &kind) {
			param, _, _ = strings.Cut(kind.Field, ".")
		}
		return &response.BadRequest{Param: param, Code: "invalid_type", Message: "The body must be an object with input_file_id, endpoint and completion_window, strings, and metadata, an object of strings."}
	}
	b, window, err := a.newBatch(x, &req)
	if err != nil {
		return err
	}
	return a.insertBatch(x, b, window)
}

// insertBatch stores a batch and answers with it.
func (a *API) insertBatch(x *exchange, b store.Batch, window time.Duration) error {
	b, err := a.Batches.CreateBatch(x.r.Context(), b, window)
	if errors.Is(err, queue.ErrNotFound) {
		return noInput()
	}
	if err != nil {
		return batchError(err)
	}
	a.batchAdded()
	return x.writeJSON(http.StatusOK, objectOfBatch(b))
}

func (a *API) batchAdded() {
	if a.BatchAdded != nil {
		a.BatchAdded()
	}
}

func noInput() error {
	return &response.BadRequest{Param: "input_file_id", Code: "file_not_found", Message: "There is no file with that id."}
}

// newBatch checks what a client asks for.
func (a *API) newBatch(x *exchange, req *batchRequest) (b store.Batch, window time.Duration, err error) {
	bad := func(param, code, message string) (store.Batch, time.Duration, error) {
		return store.Batch{}, 0, &response.BadRequest{Param: param, Code: code, Message: message}
	}
	for _, p := range []struct{ name, value string }{
		{"input_file_id", req.InputFileID}, {"endpoint", req.Endpoint}, {"completion_window", req.Window},
	} {
		if p.value == "" {
			return bad(p.name, "missing_required_parameter", p.name+" is required.")
		}
	}
	if !a.batchable(req.Endpoint) {
		return bad("endpoint", "invalid_value", "endpoint must be one of "+strings.Join(a.batchPaths(), ", ")+".")
	}
	if window, err = time.ParseDuration(req.Window); err != nil || len(req.Window) > 32 || window < minWindow || window > maxWindow {
		return bad("completion_window", "invalid_value", `completion_window must be "24h", or another time from 1m to 168h.`)
	}
	b = store.Batch{ID: queue.NewID(), Tenant: x.tenant.Name, Endpoint: req.Endpoint, Window: req.Window}
	if b.Metadata, err = batchMetadata(req.Metadata); err != nil {
		return b, 0, err
	}
	if req.OutputKeep != nil {
		if b.OutputKeep, err = expiresAfter(req.OutputKeep.Anchor, req.OutputKeep.Seconds.String()); err != nil {
			return bad("output_expires_after", "invalid_value", strings.ReplaceAll(badMessage(err), "expires_after", "output_expires_after"))
		}
	}
	if b.Input, err = fileID(req.InputFileID); err != nil {
		return b, 0, noInput()
	}
	f, err := a.Uploads.File(x.r.Context(), x.tenant.Name, b.Input)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return b, 0, noInput()
	case err != nil:
		return b, 0, fmt.Errorf("api: batch: %w", err)
	case f.Purpose != "batch" || f.State != store.Ready:
		return bad("input_file_id", "invalid_value", "The file must have been uploaded with the purpose batch.")
	}
	return b, window, nil
}

func badMessage(err error) string {
	var bad *response.BadRequest
	if errors.As(err, &bad) {
		return bad.Message
	}
	return ""
}

// batchPaths are the endpoints that this host serves to batches.
func (a *API) batchPaths() (paths []string) {
	for _, p := range []string{pathResponses, pathCompletions, pathTexts, pathEmbeddings} {
		if a.batchable(p) {
			paths = append(paths, p)
		}
	}
	return paths
}

func (a *API) batchable(endpoint string) bool {
	switch endpoint {
	case pathResponses, pathCompletions, pathTexts, pathEmbeddings:
	default:
		return false
	}
	for _, rt := range a.routes {
		if rt.path == endpoint && rt.methods["POST"] != nil {
			return true
		}
	}
	return false
}

// batchMetadata checks metadata and returns it as JSON, nil for none.
func batchMetadata(m map[string]string) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	bad := len(m) > 16
	for k, v := range m {
		bad = bad || len([]rune(k)) > 64 || len([]rune(v)) > 512 || strings.ContainsRune(k+v, 0)
	}
	if bad {
		return nil, &response.BadRequest{Param: "metadata", Code: "invalid_value", Message: "metadata may have 16 keys of at most 64 characters, with values of at most 512."}
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("api: batch: %w", err)
	}
	return data, nil
}

// findBatch returns the batch of the path.
func (x *exchange) findBatch() (store.Batch, error) {
	id, err := prefixedID(x.path.id, batchPrefix)
	if err != nil {
		return store.Batch{}, batchError(err)
	}
	b, err := x.a.Batches.Batch(x.r.Context(), x.tenant.Name, id)
	if err != nil {
		return store.Batch{}, batchError(err)
	}
	return b, nil
}

// batch serves GET /v1/batches/{id}.
func (a *API) batch(x *exchange) error {
	b, err := x.findBatch()
	if err != nil {
		return err
	}
	return x.writeJSON(http.StatusOK, objectOfBatch(b))
}

// listBatches serves GET /v1/batches.
func (a *API) listBatches(x *exchange) error {
	p := store.BatchPage{Limit: 20}
	q := x.r.URL.Query()
	var err error
	if s := q.Get("limit"); s != "" && s != "0" {
		if p.Limit, err = strconv.Atoi(s); err != nil || p.Limit < 1 || p.Limit > maxPage {
			return &response.BadRequest{Param: "limit", Code: "invalid_value", Message: fmt.Sprintf("limit must be 1 to %d.", maxPage)}
		}
	}
	if s := q.Get("after"); s != "" {
		if p.After, err = prefixedID(s, batchPrefix); err != nil {
			return unknownAfter("batch")
		}
	}
	batches, more, err := a.Batches.ListBatches(x.r.Context(), x.tenant.Name, p)
	if errors.Is(err, queue.ErrNotFound) {
		return unknownAfter("batch")
	}
	if err != nil {
		return batchError(err)
	}
	var data []json.RawMessage
	var ids []string
	for _, b := range batches {
		o := objectOfBatch(b)
		raw, err := json.Marshal(o)
		if err != nil {
			return fmt.Errorf("api: batches: %w", err)
		}
		data, ids = append(data, raw), append(ids, o.ID)
	}
	return x.writeJSON(http.StatusOK, newList(data, ids, more))
}

// cancelBatch serves POST /v1/batches/{id}/cancel. It may be repeated: a batch
// that has ended, or just ends, is answered as it is.
func (a *API) cancelBatch(x *exchange) error {
	id, err := prefixedID(x.path.id, batchPrefix)
	if err != nil {
		return batchError(err)
	}
	// A client that leaves now has still asked for it.
	ctx, stop := context.WithTimeout(context.WithoutCancel(x.r.Context()), 10*time.Second)
	defer stop()
	b, err := a.Batches.CancelBatch(ctx, x.tenant.Name, id)
	if err != nil {
		return batchError(err)
	}
	a.batchAdded()
	return x.writeJSON(http.StatusOK, objectOfBatch(b))
}

// retryBatch serves POST /v1/batches/{id}/retry: a new batch, with a window of
// its own, of the lines that did not succeed.
func (a *API) retryBatch(x *exchange) error {
	if err := a.admit(); err != nil {
		return err
	}
	was, err := x.findBatch()
	if err != nil {
		return err
	}
	switch {
	case !was.State.Final():
		return &Error{
			Status: http.StatusConflict, Code: "batch_in_progress", Final: true,
			Message: "The batch has not ended: cancel it or wait for its end.",
		}
	case was.Failed == 0:
		return &response.BadRequest{Param: "id", Code: "nothing_to_retry", Message: "The batch has no lines that failed, expired or were cancelled."}
	}
	window, err := time.ParseDuration(was.Window)
	if err != nil {
		return fmt.Errorf("api: batch: %w", err)
	}
	err = a.insertBatch(x, store.Batch{
		ID: queue.NewID(), Tenant: was.Tenant, Endpoint: was.Endpoint, Window: was.Window, Input: was.Input, Parent: was.ID,
		Metadata: bytes.Clone(was.Metadata), OutputKeep: was.OutputKeep,
	}, window)
	var bad *response.BadRequest
	if errors.As(err, &bad) {
		bad.Param, bad.Message = "id", "The input file of the batch is gone: upload it again and make a new batch."
	}
	return err
}

// MayAsk reports whether a tenant may ask for a model.
func (a *API) MayAsk(t tenant.Tenant, model string) bool { return a.mayUse(t, model) == nil }

// Line is Prepare for the runner of batches: an error that is the line's own
// fault has a method Refusal, which answers it.
func (a *API) Line(ctx context.Context, t tenant.Tenant, path string, body []byte) (queue.New, []response.Event, error) {
	if int64(len(body)) > a.MaxBodyBytes {
		return queue.New{}, nil, &Refused{explain(&http.MaxBytesError{Limit: a.MaxBodyBytes})}
	}
	n, events, err := a.Prepare(ctx, t, path, body)
	if err == nil {
		return n, events, nil
	}
	e := explain(err)
	if e == nil || e.Status >= http.StatusInternalServerError || e.RetryAfter > 0 ||
		e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests {
		return queue.New{}, nil, err
	}
	return queue.New{}, nil, &Refused{e}
}

// Refused is an answer to a line that can be no request.
type Refused struct{ answer *Error }

// UnknownTenant is the answer to a line of a tenant that is no more.
func UnknownTenant() *Refused {
	return &Refused{&Error{Status: http.StatusUnauthorized, Code: "invalid_api_key", Message: "The tenant of this batch is not known any more."}}
}

func (r *Refused) Error() string { return r.answer.Error() }

// Refusal returns the status and body that answer the line.
func (r *Refused) Refusal() (status int, body []byte) { return r.answer.rendered() }

// rendered is the answer as it is sent.
func (e *Error) rendered() (status int, body []byte) {
	body, err := json.Marshal(e)
	if err != nil {
		body = []byte(`{"error":{"message":"The host made a mistake.","type":"server_error","param":null,"code":"server_error"}}`)
	}
	return e.Status, body
}

// Failure returns what answers a request of a batch that did not succeed.
func Failure(rec store.Record) (status int, body []byte) {
	e := explain(failed(stored(rec)))
	if e == nil {
		e = &Error{Status: http.StatusInternalServerError, Code: "server_error", Message: "The request failed inside the host."}
	}
	return e.rendered()
}
