package processor

import (
	"context"
	"errors"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/sdk/abi"
)

// Options of a Default. Zero fields take defaults.
type Options struct {
	MaxFailures int           // retries a request may spend, 5
	InPlace     time.Duration // a retry of queued work within this waits here, 2 s
}

// Default processes a claim by one upstream call: routed, retried, metered,
// and streamed to the client when it asked for that.
type Default struct {
	caller *loop.Caller
	hub    *stream.Hub
	opt    Options
}

// NewDefault returns a Default.
func NewDefault(c *loop.Caller, hub *stream.Hub, o Options) *Default {
	if o.MaxFailures <= 0 {
		o.MaxFailures = 5
	}
	if o.InPlace <= 0 {
		o.InPlace = 2 * time.Second
	}
	return &Default{caller: c, hub: hub, opt: o}
}

// call is one claim on its way.
type call struct {
	d        *Default
	claim    queue.Claim
	body     []byte
	asked    bool // the client itself asked for the usage chunk
	producer *stream.Producer
	began    time.Time

	seq     int64  // of the next chunk shown
	answer  answer // of the target called last; nil: none was
	reply   []byte // what the client gets, of a good answer
	rest    store.Write
	tried   []abi.Tried
	history []abi.HistoryTry
	fare    loop.Fare // of the next call
	left    bool      // an ending was made: it closes the producer

	translated *translation // nil: not yet
}

// translation is the client's request in the words of another API.
type translation struct {
	body []byte
	err  error
}

// Process makes the call, and tries it again as the retry policy says. When
// ctx ends it returns the ending that fits ctx's cause.
func (d *Default) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	k := &call{d: d, claim: c, producer: d.hub.Open(c.ID, false), began: time.Now()}
	defer k.close()
	k.body, k.asked = c.Body, true
	if c.Stream && (isChat(c.Path) || isText(c.Path)) {
		k.body, k.asked = withUsage(c.Body)
	}
	if wait := k.afford(ctx); wait > 0 {
		return k.putOff(queue.UpstreamStatus, wait), nil
	}
	for try := 1; ; try++ {
		res := k.try(ctx, try)
		switch {
		case res.Failure == nil:
			return k.completed(res), nil
		case ctx.Err() != nil:
			return k.interrupted(ctx), nil
		case res.Failure.Rejected:
			return k.failed(res.Failure), nil
		case res.NoRoom(c.Realtime, try):
			res.Failure.RetryAfter = max(res.Failure.RetryAfter, time.Second)
			return k.failed(res.Failure), nil
		}
		v := k.ask(ctx, try, res)
		switch {
		case !v.Retry:
			res.Failure.RetryAfter = max(res.Failure.RetryAfter, v.RetryAfter)
			return k.failed(res.Failure), nil
		case !c.Realtime && v.Delay > d.opt.InPlace:
			return k.putOff(res.Failure.Class, v.Delay), nil
		case !pause(ctx, v.Delay):
			return k.interrupted(ctx), nil
		}
		k.fare = loop.Free
		if v.Paid {
			k.fare = loop.Paid
		}
	}
}

// pause waits for d; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// afford settles what the attempt's first call means to the retry budget.
// wait > 0: nothing pays for it. A request that is claimed again was put off, or
// else handed back, which is rare and no harm; but if only its workers were lost,
// its upstream is not pressed by that.
func (k *call) afford(ctx context.Context) (wait time.Duration) {
	switch c := k.claim; {
	case c.Attempt <= 1:
		k.fare = loop.First
	case c.Failures == 0 && c.Attempt-1 <= c.Reaps:
		k.fare = loop.Free
	default:
		k.fare, wait = k.d.caller.Again(ctx, c)
	}
	return wait
}

// putOff gives the slot back until the next try is due.
func (k *call) putOff(class queue.Class, delay time.Duration) store.Ending {
	return k.leave(queue.Outcome{To: queue.Waiting, By: queue.ByRetry, Class: class, Delay: delay, Park: k.d.caller.Park(k.claim)})
}

// try makes the call once.
func (k *call) try(ctx context.Context, try int) loop.UpstreamResult {
	k.answer, k.reply = nil, nil
	res := k.d.caller.Do(ctx, loop.UpstreamCall{
		Info: k.info(ctx), Realtime: k.claim.Realtime, Try: try, Fare: k.fare,
		Say: k.said, Serves: k.serves, Key: k.claim.ID.String(), Tried: k.tried,
	})
	k.tried = append(k.tried, res.Tried...)
	if res.Decision.Kind != "" { // none: no target could serve it
		k.rest.Decisions = append(k.rest.Decisions, res.Decision)
	}
	if res.Failure == nil {
		var err error
		if res.Reply.Streamed {
			k.reply, err = k.answer.whole()
		} else {
			k.reply, err = k.answer.body(res.Reply.Body)
		}
		if err != nil {
			res.Failure = &loop.CallFailure{Class: queue.UpstreamInvalid, Status: 502, RetryAfter: -1}
		}
	}
	if k.answer == nil {
		return res
	}
	if u := k.answer.usage(); u != (response.Usage{}) {
		k.rest.Usage = append(k.rest.Usage, store.Usage{
			Ordinal: k.claim.Attempt, Try: try, Target: res.Target, Tokens: u, Tenant: k.claim.Tenant, Model: k.claim.Model,
		})
	}
	return res
}

// show shows chunks, which nobody writes to any more.
func (k *call) show(chunks [][]byte) {
	if len(chunks) == 0 {
		return
	}
	events := make([]response.Event, len(chunks))
	for i, data := range chunks {
		events[i] = response.Event{Seq: k.seq, Data: data}
		k.seq++
	}
	k.producer.Publish(events)
}

// completed answers with what the upstream said, in the form asked for.
func (k *call) completed(res loop.UpstreamResult) store.Ending {
	k.d.caller.Good(k.fare, k.claim.Served())
	o := queue.Outcome{
		To: queue.Completed, By: queue.ByOutcome, Class: queue.OK, Status: 200,
		ContentType: "application/json", Body: k.reply,
	}
	_, own := k.answer.(*translated)
	switch {
	case res.Reply.Streamed:
	case k.claim.Stream:
		k.show(k.answer.chunks(k.reply))
	case !own:
		o.ContentType = res.Reply.ContentType
	}
	return k.leave(o)
}

// failed ends the request with the last failure.
func (k *call) failed(f *loop.CallFailure) store.Ending {
	o := queue.Outcome{
		To: queue.Failed, By: queue.ByOutcome, Class: f.Class, Status: f.Status, Code: f.Code, Message: f.Message,
		Param: f.Param, Rejected: f.Rejected,
	}
	if f.RetryAfter > 0 {
		o.RetryAfter = f.RetryAfter
	}
	return k.leave(o)
}

// interrupted is the ending that fits the cause of ctx.
func (k *call) interrupted(ctx context.Context) store.Ending {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, queue.ErrCanceled), errors.Is(cause, queue.ErrClientGone):
		e := k.leave(queue.CanceledBy(cause))
		e.Rest = store.Write{Usage: e.Rest.Usage}
		return e
	case errors.Is(cause, queue.ErrDeadline):
		return k.failed(&loop.CallFailure{Class: queue.ClassDeadline, Status: 504, Message: "The deadline of the request passed."})
	case k.claim.Realtime: // nobody is left who waits for it
		return k.failed(&loop.CallFailure{Class: queue.WorkerLost, Status: 503, Message: "The host that ran the request stopped."})
	}
	return k.leave(queue.Outcome{To: queue.Pending, By: queue.ByHandBack})
}

// close tells listeners that no ending was made, if none was.
func (k *call) close() {
	if !k.left {
		k.producer.Close(false)
	}
}

func (k *call) leave(o queue.Outcome) store.Ending {
	k.left = true
	return store.Ending{Outcome: o, Rest: k.rest, Done: func(committed bool) {
		k.producer.Close(committed && o.To.Final())
	}}
}

// ask puts a failed try to the retry policy.
func (k *call) ask(ctx context.Context, try int, res loop.UpstreamResult) policy.Verdict {
	f := res.Failure
	q := abi.RetryQuestion{
		V: abi.Version, NowMS: time.Now().UnixMilli(), Seed: loop.Seed(), Request: k.info(ctx),
		Step:     abi.StepInfo{Kind: "request"},
		Failures: k.claim.Failures + k.rest.Failures, MaxFailures: k.d.opt.MaxFailures,
		Outcome: abi.FailedTry{
			Class: string(f.Class), Code: f.Code, Status: f.Status, RetryAfterMS: -1, VisibleOutputSent: k.seq > 0,
		},
		History: k.history,
	}
	if f.RetryAfter >= 0 {
		q.Outcome.RetryAfterMS = f.RetryAfter.Milliseconds()
	}
	q.DeadlineInMS = q.Request.DeadlineInMS
	b := policy.Bounds{
		MaxFailures: k.d.opt.MaxFailures, Began: true, Tries: try - 1 + max(k.claim.Attempt-1-k.claim.Reaps, 0),
		Model: k.claim.Served(), Realtime: k.claim.Realtime, InPlace: k.d.opt.InPlace,
	}
	if res.Called {
		b.Budget = k.d.caller.Budget
	}
	v, d := k.d.caller.Policy.Retry(ctx, q, b)
	k.rest.Decisions = append(k.rest.Decisions, store.Decision{
		Try: try, Kind: d.Kind, Question: d.Question, Answer: d.Answer,
		Generation: d.Generation, Fallback: d.Fallback, Fuel: d.Fuel,
	})
	k.history = append(k.history, abi.HistoryTry{Class: string(f.Class), Status: f.Status, DelayMS: v.Delay.Milliseconds()})
	if v.Retry && v.Count {
		k.rest.Failures++
	}
	return v
}

// info is what policies learn of the request. Its model is the one that serves
// this attempt, as the targets are.
func (k *call) info(ctx context.Context) abi.RequestInfo {
	i := abi.RequestInfo{
		ID: k.claim.ID.String(), Tenant: k.claim.Tenant, Path: k.claim.Path, Model: k.claim.Served(),
		Tier: k.claim.Tier, Stream: k.claim.Stream, Queued: !k.claim.Realtime, Failures: k.claim.Failures + k.rest.Failures,
		AgeMS: (k.claim.Age + time.Since(k.began)).Milliseconds(), InputBytes: int64(len(k.claim.Body)),
		Modalities: []string{"text"},
	}
	if end, ok := ctx.Deadline(); ok {
		i.DeadlineInMS = max(1, time.Until(end).Milliseconds())
	}
	return i
}
