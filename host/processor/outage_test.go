package processor_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/upstream"
)

// world is a queue with one lane, in memory, and one upstream, by the clock of
// a synctest bubble: enough to see how many calls an outage leads to.
type world struct {
	*testing.T
	stage  processor.Processor
	client *upstream.Client
	budget *policy.Budget
	began  time.Time

	mu       sync.Mutex
	queue    []*entry
	byID     map[queue.ID]*entry
	idle     time.Time // nothing is due before
	parked   time.Time
	down     *failure        // nil: the upstream is up
	calls    []time.Duration // when each was made
	bodies   []string
	first    []time.Duration // when each request was claimed first
	attempts int
	parks    int
	refuse   error // every write
}

// entry is one request.
type entry struct {
	claim   queue.Claim
	due     time.Time
	running bool
	rec     store.Record
	ended   queue.State
	class   queue.Class
}

// newWorld must be called in a bubble.
func newWorld(t *testing.T, maxFailures int, slots upstream.Slots) *world {
	w := &world{T: t, budget: policy.NewBudget(policy.BudgetOptions{}), began: time.Now(), byID: map[queue.ID]*entry{}}
	var err error
	w.client, err = upstream.New(upstream.Config{
		Upstreams: []upstream.Upstream{{Name: "up", BaseURL: "http://up/v1"}},
		Models: []upstream.Model{
			{Name: "m", Targets: []upstream.Target{{Upstream: "up", Model: "real"}}},
			{Name: "big", Targets: []upstream.Target{{Upstream: "up", Model: "large"}}},
		},
		HTTP: &http.Client{Transport: w}, Slots: slots,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.stages(w.budget, maxFailures)
	return w
}

// stages makes the stages.
func (w *world) stages(b *policy.Budget, maxFailures int) {
	hub := stream.NewHub(nil, stream.Options{})
	caller := &loop.Caller{Policy: policy.New(nil), Upstream: w.client, Budget: b}
	w.stage = processor.Processor{
		Responses: loop.New(w, caller, noTools{}, hub, loop.Options{MaxFailures: maxFailures}),
		Default:   processor.NewDefault(caller, hub, processor.Options{MaxFailures: maxFailures}),
	}
}

// RoundTrip is the upstream.
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.bodies = append(w.bodies, string(body))
	w.calls = append(w.calls, time.Since(w.began))
	down := w.down
	w.mu.Unlock()
	<-time.After(200 * time.Millisecond)
	switch {
	case down == nil:
	case down.err != nil:
		return nil, down.err
	default:
		res := answered(down.code, `{}`)
		if down.retryAfter != "" {
			res.Header.Set("Retry-After", down.retryAfter)
		}
		return res, nil
	}
	return answered(http.StatusOK, `{"choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`), nil
}

func answered(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}
}

// WriteAsync implements loop.Store.
func (w *world) WriteAsync(_ context.Context, write store.Write, done func(error)) {
	w.mu.Lock()
	err := w.refuse
	if err == nil {
		w.byID[write.Fence.ID].take(write)
	}
	w.mu.Unlock()
	done(err)
}

// take applies a write to what is stored.
func (e *entry) take(w store.Write) {
	e.claim.Failures += w.Failures
	e.rec.Decisions = append(e.rec.Decisions, w.Decisions...)
	e.rec.Usage = append(e.rec.Usage, w.Usage...)
	for _, s := range w.Steps {
		if len(e.rec.Steps) == s.Ordinal {
			e.rec.Steps = append(e.rec.Steps, s)
		}
		e.rec.Steps[s.Ordinal] = s
	}
}

// Get implements loop.Store.
func (w *world) Get(_ context.Context, _ string, id queue.ID, _ store.Parts) (store.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.byID[id].rec, nil
}

type noTools struct{}

func (noTools) Resolve(string, []response.Offer) loop.Toolset           { return noTools{} }
func (noTools) Tools() []response.ServerTool                            { return nil }
func (noTools) Check(response.ServerTool, []byte) error                 { return nil }
func (noTools) Call(context.Context, loop.ToolCall) (r loop.ToolResult) { return r }
func (noTools) Release()                                                {}

// paths are those of the stages.
var paths = []string{"/v1/chat/completions", processor.ResponsesPath}

// enqueue adds a request.
func (w *world) enqueue(path string) *entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := queue.Claim{ID: queue.NewID(), Tenant: "t", Model: "m", Path: path, State: queue.Processing, Created: time.Now()}
	c.Body = []byte(`{"model":"m","messages":[{"role":"user","content":"hello"}]}`)
	if path == processor.ResponsesPath {
		req, err := response.ParseRequest([]byte(`{"model":"m","input":"hello","store":false}`))
		if err != nil {
			w.Fatal(err)
		}
		if c.Body, err = (response.Brief{Request: req}).Encode(); err != nil {
			w.Fatal(err)
		}
	}
	e := &entry{claim: c, due: time.Now()}
	w.queue, w.byID[c.ID], w.idle = append(w.queue, e), e, time.Time{}
	return e
}

// claim returns the next request that may run, nil if there is none.
func (w *world) claim() *entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if now.Before(w.parked) || now.Before(w.idle) {
		return nil
	}
	w.idle = now.Add(time.Hour)
	for _, e := range w.queue {
		switch {
		case e.running || e.ended != 0:
			continue
		case now.Before(e.due):
			if e.due.Before(w.idle) {
				w.idle = e.due
			}
			continue
		}
		w.idle = time.Time{}
		if e.claim.Attempt == 0 {
			w.first = append(w.first, now.Sub(w.began))
		}
		e.running = true
		e.claim.Attempt++
		e.claim.Age = now.Sub(e.claim.Created)
		w.attempts++
		return e
	}
	return nil
}

// work runs requests until ctx ends.
func (w *world) work(ctx context.Context) {
	for ctx.Err() == nil {
		e := w.claim()
		if e == nil {
			<-time.After(100*time.Millisecond + rand.N(100*time.Millisecond))
			continue
		}
		w.run(e)
	}
}

// run runs a request that was claimed.
func (w *world) run(e *entry) queue.Outcome {
	w.mu.Lock()
	c := e.claim
	w.mu.Unlock()
	end, err := w.stage.Process(context.Background(), c)
	if err != nil {
		w.Error(err)
	}
	w.mu.Lock()
	e.take(end.Rest)
	e.running = false
	if o := end.Outcome; o.To == queue.Waiting {
		e.due = time.Now().Add(o.Delay)
		if e.due.Before(w.idle) {
			w.idle = e.due
		}
		if o.Park > 0 {
			w.parks++
			w.parked = time.Now().Add(o.Park)
		}
	} else {
		e.ended, e.class = o.To, o.Class
	}
	w.mu.Unlock()
	if end.Done != nil {
		end.Done(true)
	}
	return end.Outcome
}

// set changes how the upstream fails.
func (w *world) set(down *failure) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// before counts what came up to at.
func before(all []time.Duration, at time.Duration) (n int) {
	for _, t := range all {
		if t <= at {
			n++
		}
	}
	return n
}

func (w *world) open() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.queue {
		if e.ended == 0 {
			n++
		}
	}
	return n
}

// failure is how an upstream fails: with an error, or a status.
type failure struct {
	err        error
	code       int
	retryAfter string
}

// TestOutageIsNotMultiplied lets an upstream fail for two minutes while a
// thousand requests are queued and five more come each second. What is tried
// again stays within the budget in each second of it, and once the upstream is
// back all of them succeed: the failures that a request usually has outlast it.
func TestOutageIsNotMultiplied(t *testing.T) {
	const outage, queued, perSecond = 2 * time.Minute, 1000, 5
	for name, down := range map[string]failure{
		"not reached":             {err: errors.New("connection refused")},
		"503":                     {code: 503},
		"503 with a Retry-After":  {code: 503, retryAfter: "1"},
		"429":                     {code: 429},
		"429 with a Retry-After":  {code: 429, retryAfter: "2"},
		"garbage in place of one": {code: 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 5, nil)
				w.set(&down)
				for i := range queued {
					w.enqueue(paths[i%2])
				}
				ctx, stop := context.WithCancel(t.Context())
				var workers sync.WaitGroup
				for range 64 {
					workers.Go(func() { w.work(ctx) })
				}
				for time.Since(w.began) < outage {
					for i := range perSecond {
						w.enqueue(paths[i%2])
					}
					<-time.After(time.Second)
				}
				w.set(nil)
				total := len(w.queue)
				for w.open() > 0 && time.Since(w.began) < outage+10*time.Minute {
					<-time.After(time.Second)
				}
				took := time.Since(w.began) - outage
				stop()
				workers.Wait()
				w.withinBudget(outage)
				for _, e := range w.queue {
					if e.ended != queue.Completed {
						t.Errorf("a request is %s %s after %d attempts; want all completed", e.ended, e.class, e.claim.Attempt)
						break
					}
				}
				t.Logf("%d requests, %d calls in the outage, %d in all, %d attempts, %d parks; over %s after it",
					total, before(w.calls, outage), len(w.calls), w.attempts, w.parks, took)
				if took > 5*time.Minute {
					t.Errorf("it took %s after the outage until all had succeeded", took)
				}
			})
		})
	}
}

// withinBudget checks each second of an outage.
func (w *world) withinBudget(outage time.Duration) {
	const ratio, least, reserve = 0.2, 2, 20
	for at := time.Second; at <= outage; at += time.Second {
		calls, first := before(w.calls, at), before(w.first, at)
		if most := float64(first)*(1+ratio) + least*at.Seconds() + reserve; float64(calls) > most {
			w.Errorf("%s: %d calls for %d requests; want at most %.0f", at, calls, first, most)
			return
		}
	}
	// Later, too: of what is left of the beginning, the reserve alone may be.
	from := outage - time.Minute
	calls, first := before(w.calls, outage)-before(w.calls, from), before(w.first, outage)-before(w.first, from)
	if most := float64(first)*(1+ratio) + least*60 + reserve; float64(calls) > most {
		w.Errorf("the last minute: %d calls for %d requests; want at most %.0f", calls, first, most)
	}
}
