// Package api is the host's HTTP face: the OpenAI-compatible routes below /v1,
// WebSocket connections among them, /mcp, liveness, readiness and metrics. It
// checks what clients send, makes requests of it, and says how they ended, at
// once or as a stream of events. It runs no request and decides nothing about
// states.
package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/tenant"
	"github.com/casemate/casemate/host/tokens"
)

// Store is what the API needs of the store; see store.Driver for its methods.
type Store interface {
	Get(ctx context.Context, tenant string, id queue.ID, parts store.Parts) (store.Record, error)
	Cancel(ctx context.Context, tenant string, id queue.ID, code string) (store.Record, bool, error)
	Delete(ctx context.Context, tenant string, id queue.ID) error
	Keyed(ctx context.Context, tenant string, k store.Key) (*store.Repeated, error)
	// Healthy reports whether the last write reached the database: if not, new
	// requests are refused.
	Healthy() bool

	store.Conversations
}

// Runner takes requests in. Its errors may say how long a client should wait,
// by a method RetryAfter() time.Duration.
type Runner interface {
	// Submit makes a write whose Insert is a realtime request, in Processing,
	// and runs that on this host; Insert.Worker is the Runner's to set. The
	// error may wrap queue.ErrAtCap, a *store.Repeated or a
	// *store.ConversationBusy.
	Submit(ctx context.Context, w store.Write) (Run, error)
	// Perform runs w.Insert as Submit does, but without a row: it asks no cap,
	// and writes after it answered: with row the request as it ended, else only
	// what it used.
	Perform(ctx context.Context, w store.Write, row bool) (Run, error)
	// Enqueue makes a write whose Insert is a request for any host to claim.
	Enqueue(ctx context.Context, w store.Write) error
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
	// Window returns how many tokens a model takes; 0: that is not known.
	Window(model string) int
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
	Health  Health     // nil: always ready
	MCP     ToolServer // of /mcp; nil: there is nothing at that path
	Files   Files      // nil: there are none
	Uploads FileStore  // of /v1/files; nil: there is nothing at that path
	Batches BatchStore // of /v1/batches, with Uploads; nil: there is nothing at that path
	Outputs Outputs    // of batches that run; needed with Batches
	// BatchAdded is called when there is something to do for a batch; nil: whoever
	// goes on with batches finds out in a while.
	BatchAdded func()
	Remotes    Remotes // nil: no servers but this host's
	Agents     []response.Agent
	Hub        *stream.Hub
	// Metrics answers GET /metrics; nil: there is nothing at that path. With
	// MetricsKey only who sends it is answered; without, only on a host whose
	// one tenant needs no key.
	Metrics    http.Handler
	MetricsKey string

	// Record says when a tenant's request for a model is written that goes to the
	// upstream as it came; nil: always RecordBefore, which is also what a cap on
	// the tenant or its lane needs.
	Record func(tenant, model string) string

	MaxBodyBytes       int64         // of a request's body; 0: 32 MiB
	MaxFileBytes       int64         // of an upload; 0: 512 MiB
	ReadTimeout        time.Duration // for a request's body to arrive; 0: 1 min
	WriteTimeout       time.Duration // for a client to take one event or answer; 0: 30 s
	Heartbeat          time.Duration // of a stream on which nothing happens; 0: 15 s
	Deadline           time.Duration // of requests that a client waits for; 0: 10 min, < 0: none
	BackgroundDeadline time.Duration // of the others; 0: 24 h, < 0: none
	MaxSocket          time.Duration // how long a WebSocket may stay; 0: 60 min
	Logger             hclog.Logger  // nil: no log
}

func (o Options) withDefaults() Options {
	if o.MaxBodyBytes <= 0 {
		o.MaxBodyBytes = 32 << 20
	}
	if o.MaxFileBytes <= 0 {
		o.MaxFileBytes = 512 << 20
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
		{&o.MaxSocket, time.Hour},
	} {
		if *d.field == 0 {
			*d.field = d.unset
		}
	}
	if o.Record == nil {
		o.Record = func(string, string) string { return RecordBefore }
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
	drain    chan struct{}  // closed when draining begins
	sockets  sync.WaitGroup // of WebSocket connections
	open     census         // of them
	memories memories       // of them, too
	tokens   tokens.Counter

	unloggedMu sync.Mutex
	unlogged   map[queue.ID]Run // of requests with a key, while their own connections wait
}

// New returns an API.
func New(o Options) *API {
	a := &API{Options: o.withDefaults(), drain: make(chan struct{})}
	a.routes = append(append(a.table(), a.fileRoutes()...), a.batchRoutes()...)
	return a
}

// Drain is called when the host begins to shut down: from now on new requests
// are refused with 503, and a connection that breaks cancels nothing, since it
// may be the host that breaks it. A WebSocket ends with the turn that is under
// way.
func (a *API) Drain() {
	if a.draining.CompareAndSwap(false, true) {
		close(a.drain)
	}
}

// Wait returns when no WebSocket connection is left, or ctx ends. An
// http.Server does not know of them, so it is called after the server's
// Shutdown and before what the turns need goes away.
func (a *API) Wait(ctx context.Context) error {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		a.sockets.Wait()
	}()
	select {
	case <-gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("api: WebSocket connections are left: %w", context.Cause(ctx))
	}
}

// Handler returns the handler for all routes; unknown paths are answered too.
func (a *API) Handler() http.Handler { return http.HandlerFunc(a.serve) }

// limited returns d for queue.New, where 0 means no deadline.
func limited(d time.Duration) time.Duration { return max(d, 0) }
