package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Reader is what the files of a batch are made of.
type Reader interface {
	Batch(ctx context.Context, tenant string, id queue.ID) (store.Batch, error)
	Lines(ctx context.Context, id queue.ID, after, limit int) ([]store.Line, error)
	LineResults(ctx context.Context, ids []queue.ID) (map[queue.ID]store.Result, error)
}

// Outputs makes the files of a batch out of how its lines ended, in the order of
// the lines.
type Outputs struct {
	Store Reader
	// Failure returns the status and the JSON body that answer a request that
	// failed.
	Failure func(rec store.Record) (status int, body []byte)
}

// The most lines and about the most bytes of results that are held at once.
const (
	pageLines = 500
	pageBytes = 4 << 20
)

// Write hands what has ended so far to emit, a line of the file at a time: of
// the output, or of the errors. The error says so when the batch was settled
// meanwhile, since some lines may be missing then.
func (o Outputs) Write(ctx context.Context, b store.Batch, errors bool, emit func(line []byte) error) error {
	err := o.each(ctx, b, func(_ store.Line, e ended) error {
		if e.failed != errors {
			return nil
		}
		return emit(e.text)
	})
	if err != nil {
		return err
	}
	now, err := o.Store.Batch(ctx, b.Tenant, b.ID)
	if err != nil {
		return fmt.Errorf("batch: write: %w", err)
	}
	if now.Settled {
		return fmt.Errorf("batch: %s was settled while its lines were read", b.ID)
	}
	return nil
}

// ended is what a line came to.
type ended struct {
	text    []byte // with its end
	answer  []byte // the body of what succeeded
	failed  bool   // it belongs to the errors
	expired bool
}

// each calls f with every line that has ended. A page's results are read in
// parts, so that few large ones are held at once.
func (o Outputs) each(ctx context.Context, b store.Batch, f func(store.Line, ended) error) error {
	for after := 0; ; {
		page, err := o.Store.Lines(ctx, b.ID, after, pageLines)
		if err != nil {
			return fmt.Errorf("batch: lines: %w", err)
		}
		if len(page) == 0 {
			return nil
		}
		after = page[len(page)-1].Line
		for len(page) > 0 {
			n, ids := part(page)
			results, err := o.Store.LineResults(ctx, ids)
			if err != nil {
				return fmt.Errorf("batch: results: %w", err)
			}
			for _, l := range page[:n] {
				e, ok, err := o.line(&b, &l, results)
				if err == nil && ok {
					err = f(l, e)
				}
				if err != nil {
					return err
				}
			}
			page = page[n:]
		}
	}
}

// part returns how many lines' results may be held at once, and which these are.
func part(page []store.Line) (n int, ids []queue.ID) {
	var bytes int64
	for i := range page {
		l := &page[i]
		if bytes += l.Result; n > 0 && bytes > pageBytes {
			break
		}
		if l.State.Final() { // what failed may have a result without a body
			ids = append(ids, l.Request)
		}
		n++
	}
	return n, ids
}

// outputLine is a line of a batch's file.
type outputLine struct {
	ID       string          `json:"id"`
	CustomID string          `json:"custom_id"`
	Response *outputResponse `json:"response"`
	Error    *outputError    `json:"error"`
}

type outputResponse struct {
	Status    int             `json:"status_code"`
	RequestID string          `json:"request_id"`
	Body      json.RawMessage `json:"body"`
}

type outputError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// The errors of lines that have no response.
var (
	lineExpired  = outputError{"batch_expired", "This request could not be executed before the completion window expired."}
	lineCanceled = outputError{"batch_cancelled", "This request was not executed because the batch was cancelled."}
	lineStopped  = outputError{"request_cancelled", "This request was cancelled."}
	lineDeleted  = outputError{"response_deleted", "The response of this request was deleted before the batch ended."}
	lineLost     = outputError{"server_error", "The result of this request could not be stored."}
)

// line returns what a line came to; ok is false while it goes on.
func (o Outputs) line(b *store.Batch, l *store.Line, results map[queue.ID]store.Result) (e ended, ok bool, err error) {
	out := outputLine{ID: fmt.Sprintf("batch_req_%s_%d", b.ID, l.Line), CustomID: l.CustomID}
	e.failed = true
	canceled := b.State == store.BatchCanceling || b.State == store.BatchCanceled
	over := canceled || b.State == store.BatchFinalizing || b.State.Final()
	result, have := results[l.Request]
	switch {
	case l.Status != 0:
		out.Response = &outputResponse{l.Status, requestID(b, l), oneLine(l.Refusal)}
	case l.Request == (queue.ID{}) && !over:
		return e, false, nil
	case l.Request == (queue.ID{}) && canceled, l.State == queue.Canceled && canceled:
		out.Error = &lineCanceled
	case l.Lost:
		out.Error = &lineDeleted
	case l.Request == (queue.ID{}), l.State == queue.Expired, l.State == queue.Failed && l.Class == queue.ClassDeadline:
		out.Error, e.expired = &lineExpired, true
	case !l.State.Final():
		return e, false, nil
	case l.State == queue.Canceled:
		out.Error = &lineStopped
	case l.State == queue.Completed && !have:
		out.Error = &lineLost
	case l.State == queue.Completed:
		out.Response, e.failed, e.answer = &outputResponse{result.Status, requestID(b, l), oneLine(result.Body)}, false, result.Body
	default:
		rec := store.Record{ID: l.Request, Tenant: b.Tenant, Path: b.Endpoint, Store: true, State: l.State, Class: l.Class, Code: l.Code}
		if have {
			rec.Result = &result
		}
		status, body := o.Failure(rec)
		out.Response = &outputResponse{status, requestID(b, l), oneLine(body)}
	}
	if e.text, err = encode(out); err != nil {
		return e, false, fmt.Errorf("batch: line %d: %w", l.Line, err)
	}
	return e, true, nil
}

// requestID names the request of a line as a header of an answer would.
func requestID(b *store.Batch, l *store.Line) string {
	id := l.Request
	if id == (queue.ID{}) {
		id = b.ID
	}
	return "req_" + id.String()
}

// oneLine returns a body as JSON without line ends: what is no JSON as a string.
func oneLine(body []byte) json.RawMessage {
	var b bytes.Buffer
	if len(body) > 0 && json.Compact(&b, body) == nil {
		return b.Bytes()
	}
	s, err := json.Marshal(string(body))
	if err != nil {
		return json.RawMessage(`""`)
	}
	return s
}

// encode leaves <, > and & as they are.
func encode(l outputLine) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
