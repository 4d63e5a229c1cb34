package loop

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// end is the ending of a run whose root is not driven on. An error is one that
// no cause explains: the store refused what this run wrote.
func (r *run) end(h halt) (store.Ending, error) {
	switch {
	case h.stopped:
		return r.interrupted()
	case h.wait > 0:
		return r.putOff(h), nil
	}
	final := response.End{Usage: r.ledger.usage(), Completed: time.Now()}
	o := queue.Outcome{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200}
	switch h.plan.Action {
	case response.Complete:
		final.Status = "completed"
	case response.Incomplete:
		final.Status, final.Reason = "incomplete", h.plan.Reason
	case response.Fail, response.Do: // Do never ends a response
		if r.root.rejected != nil {
			return r.failed(r.root.rejected), nil
		}
		return r.failed(h.plan.Failure), nil
	}
	return r.ending(o, final), nil
}

// failed ends the response with a failure that the client is told.
func (r *run) failed(f *response.Failure) store.Ending {
	if f == nil {
		f = &response.Failure{Code: "server_error", Message: "The response could not be produced.", Status: 500, Class: queue.HostError}
	}
	o := queue.Outcome{
		To: queue.Failed, By: queue.ByOutcome, Class: f.Class, Status: f.Status, Code: f.Code, Message: f.Message,
		Rejected: f.Rejected, Final: f.Final, RetryAfter: f.RetryAfter,
	}
	for _, s := range r.ledger.of("") {
		if s.State == response.Failed && s.Kind == response.ModelCall && s.RetryAfter > 0 {
			o.RetryAfter = time.Duration(s.RetryAfter) * time.Millisecond
		}
	}
	return r.ending(o, response.End{Status: "failed", Failure: f, Usage: r.ledger.usage(), Completed: time.Now()})
}

// ending closes the stream and binds what is pending to the outcome.
func (r *run) ending(o queue.Outcome, f response.End) store.Ending {
	o.ContentType = "application/json"
	if r.brief.Direct != nil {
		o.Body = r.direct()
		return r.leave(o, true)
	}
	stream := r.root.screen.stream
	r.root.emit(stream.Finish(f))
	o.Body = stream.Response()
	e := r.leave(o, true)
	if o.To == queue.Completed {
		e.Rest.Append = r.appended(o.Body)
	}
	return e
}

// direct is the result of a call without a model.
func (r *run) direct() []byte {
	receipt := response.ToolReceipt{Failed: true, Error: "internal", Output: string(response.ErrorOutput("internal", "The tool was not run."))}
	for _, s := range r.ledger.of("") {
		if s.Kind == response.ToolCall && s.Settled() {
			receipt = response.Receipt(s)
		}
	}
	b, err := json.Marshal(struct {
		Output string `json:"output"`
		Error  string `json:"error"`
		Failed bool   `json:"failed"`
	}{receipt.Output, receipt.Error, receipt.Failed})
	if err != nil { // there is nothing in it that JSON does not have
		return nil
	}
	return b
}

// appended is what the response adds to its conversation: its input, and its
// output but for what interrupted tries left behind.
func (r *run) appended(object []byte) *store.Append {
	if r.brief.Conversation == "" {
		return nil
	}
	id, err := queue.ParseID(r.brief.Conversation)
	output, odd := response.LastingOutput(object)
	if err != nil || odd != nil { // neither is the client's to make
		r.loop.opt.Logger.Error("the conversation is not appended to", "request", r.claim.ID, "error", errors.Join(err, odd))
		return nil
	}
	a := &store.Append{Conversation: id}
	for _, it := range slices.Concat(r.brief.Request.Input, output) {
		a.Items = append(a.Items, store.Item{ID: it.ID, Data: it.Raw})
	}
	return a
}

// putOff gives the slot back until the next try is due.
func (r *run) putOff(h halt) store.Ending {
	return r.leave(queue.Outcome{
		To: queue.Waiting, By: queue.ByRetry, Class: h.class, Delay: h.wait, Park: r.loop.caller.Park(r.claim),
	}, false)
}

// leave makes the ending of what is pending. Its events commit with it and are
// shown after it.
func (r *run) leave(o queue.Outcome, final bool) store.Ending {
	w := r.root.pending
	r.root.pending = store.Write{}
	events := append(r.out.rest(), w.Events...)
	w.Events = nil
	if r.claim.Store {
		w.Events = events
	}
	producer := r.out.producer
	return store.Ending{Outcome: o, Rest: w, Done: func(committed bool) {
		if committed {
			producer.Publish(events)
		}
		producer.Close(final && committed)
	}}
}

// interrupted waits for the steps to stop and ends the run as the cause of its
// context asks.
func (r *run) interrupted() (store.Ending, error) {
	r.root.drain()
	cause := context.Cause(r.ctx)
	switch {
	case errors.Is(cause, queue.ErrCanceled), errors.Is(cause, queue.ErrClientGone):
		return r.canceled(cause), nil
	case errors.Is(cause, queue.ErrDeadline):
		return r.failed(&response.Failure{
			Code: "server_error", Message: "The deadline of the request passed.", Status: 504, Class: queue.ClassDeadline,
		}), nil
	case !queue.HandBack(cause) && !errors.Is(cause, queue.ErrLeaseLost):
		return store.Ending{Rest: store.Write{Usage: r.root.pending.Usage}}, cause
	case r.claim.Realtime && !r.claim.Store: // nobody is left who waits for it
		return r.failed(&response.Failure{
			Code: "server_error", Message: "The host that ran the request stopped.", Status: 503, Class: queue.WorkerLost,
		}), nil
	}
	// Handed back, or the lease is lost and the write will say so.
	return r.leave(queue.Outcome{To: queue.Pending, By: queue.ByHandBack}, false), nil
}

// canceled lets go of a request that was canceled: nothing of what was pending
// is written but its usage.
func (r *run) canceled(cause error) store.Ending {
	usage := r.root.pending.Usage
	r.root.pending = store.Write{}
	r.out.close()
	r.out.take()
	e := r.leave(queue.CanceledBy(cause), true)
	e.Rest.Usage = usage
	return e
}
