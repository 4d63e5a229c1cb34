package loop

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// end is the ending that a plan asks for.
func (r *run) end(p response.Plan) store.Ending {
	final := response.End{Usage: response.TotalUsage(r.steps), Completed: time.Now()}
	o := queue.Outcome{To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200}
	switch p.Action {
	case response.Complete:
		final.Status = "completed"
	case response.Incomplete:
		final.Status, final.Reason = "incomplete", p.Reason
	case response.Fail, response.Do: // Do never ends a response
		if r.rejected != nil {
			return r.failed(r.rejected)
		}
		return r.failed(p.Failure)
	}
	return r.ending(o, final)
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
	for _, s := range r.steps {
		if s.State == response.Failed && s.Kind == response.ModelCall && s.RetryAfter > 0 {
			o.RetryAfter = time.Duration(s.RetryAfter) * time.Millisecond
		}
	}
	return r.ending(o, response.End{Status: "failed", Failure: f, Usage: response.TotalUsage(r.steps), Completed: time.Now()})
}

// ending closes the stream and binds what is pending to the outcome.
func (r *run) ending(o queue.Outcome, f response.End) store.Ending {
	r.emit(r.stream.Finish(f))
	o.ContentType, o.Body = "application/json", r.stream.Response()
	return r.leave(o, true)
}

// putOff gives the slot back until the next try is due.
func (r *run) putOff(wait time.Duration) store.Ending {
	class := queue.UpstreamStatus
	for _, t := range r.tries {
		if n := len(t.history); n > 0 && time.Now().Before(t.due) {
			class = queue.Class(t.history[n-1].Class)
		}
	}
	return r.leave(queue.Outcome{To: queue.Waiting, By: queue.ByRetry, Class: class, Delay: wait, Park: r.loop.caller.Park(r.claim)}, false)
}

// leave makes the ending of what is pending. Its events commit with it and are
// shown after it.
func (r *run) leave(o queue.Outcome, final bool) store.Ending {
	w := r.pending
	r.pending = store.Write{}
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
// context asks. An error is one that no cause explains: the store refused what
// this run wrote.
func (r *run) interrupted() (store.Ending, error) {
	r.drain()
	cause := context.Cause(r.ctx)
	switch {
	case errors.Is(cause, queue.ErrCanceled), errors.Is(cause, queue.ErrClientGone):
		return r.canceled(), nil
	case errors.Is(cause, queue.ErrDeadline):
		return r.failed(&response.Failure{
			Code: "server_error", Message: "The deadline of the request passed.", Status: 504, Class: queue.ClassDeadline,
		}), nil
	case !queue.HandBack(cause) && !errors.Is(cause, queue.ErrLeaseLost):
		return store.Ending{Rest: store.Write{Usage: r.pending.Usage}}, cause
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
func (r *run) canceled() store.Ending {
	usage := r.pending.Usage
	r.pending = store.Write{}
	r.out.close()
	r.out.take()
	e := r.leave(queue.Outcome{To: queue.Canceled, By: queue.ByCancel, Class: queue.ClassCanceled}, true)
	e.Rest.Usage = usage
	return e
}
