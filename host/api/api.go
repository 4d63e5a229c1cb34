// Package api is the host's HTTP face: the OpenAI-compatible routes below /v1,
// liveness, readiness and metrics. It checks what clients send, makes requests
// of it, and says how they ended, at once or as a stream of events. It runs no
// request and decides nothing about states.
package api

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/tenant"
)

// Store is what the API needs of the store; see store.Driver for its methods.
type Store interface {
	Get(ctx context.Context, tenant string, id queue.ID, parts store.Parts) (store.Record, error)
	Cancel(ctx context.Context, tenant string, id queue.ID) (store.Record, bool, error)
	Delete(ctx context.Context, tenant string, id queue.ID) error
	// Healthy reports whether the last write reached the database: if not, new
	// requests are refused.
	Healthy() bool
}

// Runner takes requests in. Its errors may say how long a client should wait,
// by a method RetryAfter() time.Duration.
type Runner interface {
	// Submit inserts a realtime request with its first events, in Processing,
	// and runs it on this host; n.Worker is the Runner's to set. The error may
	// wrap queue.ErrAtCap.
	Submit(ctx context.Context, n queue.New, events []response.Event) (Run, error)
	// Enqueue inserts a request, with its first events, for any host to claim.
	Enqueue(ctx context.Context, n queue.New, events []response.Event) error
	// Stop ends this host's run of id, if there is one, at once.
	Stop(id queue.ID, cause error)
}

// Run is a request that runs on this host.
type Run interface {
	// Wait returns the outcome once it is committed. The error wraps
	// queue.ErrLeaseLost when the request goes on elsewhere.
	Wait(ctx context.Context) (queue.Outcome, error)
}

// Models knows the model aliases.
type Models interface {
	Models() []string
	Has(model string) bool
}

// Tools knows the server tools.
type Tools interface {
	// Granted returns the loaded tools that the operator grants to tenant.
	// Their Name is not looked at.
	Granted(tenant string) []response.ServerTool
}

// Tenants knows who a key belongs to.
type Tenants interface {
	ByKey(key string) (tenant.Tenant, bool)
	Open() (tenant.Tenant, bool)
}

// Health says whether this host can do its work.
type Health interface {
	Ready() []Condition
}

// Condition is one thing that readiness depends on.
type Condition struct {
	Name     string `json:"name"`
	OK       bool   `json:"ok"`
	Optional bool   `json:"optional,omitempty"` // reported, but the host is ready without it
	Message  string `json:"message,omitempty"`
}

// Options of an API. The ports and Hub are required.
type Options struct {
	Store   Store
	Runner  Runner
	Models  Models
	Tools   Tools
	Tenants Tenants
	Health  Health // nil: always ready
	Hub     *stream.Hub
	// Metrics answers GET /metrics; nil: there is nothing at that path. With
	// MetricsKey only who sends it is answered; without, only on a host whose
	// one tenant needs no key.
	Metrics    http.Handler
	MetricsKey string

	MaxBodyBytes       int64         // of a request's body; 0: 32 MiB
	ReadTimeout        time.Duration // for a request's body to arrive; 0: 1 min
	WriteTimeout       time.Duration // for a client to take one event or answer; 0: 30 s
	Heartbeat          time.Duration // of a stream on which nothing happens; 0: 15 s
	Deadline           time.Duration // of requests that a client waits for; 0: 10 min, < 0: none
	BackgroundDeadline time.Duration // of the others; 0: 24 h, < 0: none
	Logger             hclog.Logger  // nil: no log
}

func (o Options) withDefaults() Options {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = 32 << 20
	}
	for _, d := range []struct {
		field *time.Duration
		unset time.Duration
	}{
		{&o.ReadTimeout, time.Minute},
		{&o.WriteTimeout, 30 * time.Second},
		{&o.Heartbeat, 15 * time.Second},
		{&o.Deadline, 10 * time.Minute},
		{&o.BackgroundDeadline, 24 * time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.unset
		}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// API answers HTTP requests. It is safe for concurrent use.
type API struct {
	Options
	routes   []route
	draining atomic.Bool
}

// New returns an API.
func New(o Options) *API {
	a := &API{Options: o.withDefaults()}
	a.routes = a.table()
	return a
}

// Drain is called when the host begins to shut down: from now on new requests
// are refused with 503, and a connection that breaks cancels nothing, since it
// may be the host that breaks it.
func (a *API) Drain() { a.draining.Store(true) }

// Handler returns the handler for all routes; unknown paths are answered too.
func (a *API) Handler() http.Handler { return http.HandlerFunc(a.serve) }

// limited returns d for queue.New, where 0 means no deadline.
func limited(d time.Duration) time.Duration { return max(d, 0) }
