// Package host puts a Casemate host together: store, queue, loop, plugins and
// HTTP. It is the only place that wires parts; it holds no rule of theirs.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/batch"
	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/telemetry"
	"github.com/casemate/casemate/host/upstream"
	"github.com/casemate/casemate/plugins"
)

// Host is a running, or ready to run, host. Make one with New.
type Host struct {
	config   Config
	log      hclog.Logger
	driver   store.Driver
	store    *store.Store
	hub      *stream.Hub
	demo     *demo.Server
	manager  *plugins.Manager
	catalog  *guest.Catalog
	policy   *policy.Decider
	upstream *upstream.Client
	remotes  *mcp.Client   // to the MCP servers that clients name; nil: none may be
	shares   *share.Keeper // of what upstreams take at once
	late     map[string]queue.Escalation
	budget   *policy.Budget // for retries
	claimer  *claimer.Claimer
	api      *api.API
	batches  *batch.Runner
	listener net.Listener
	hard     context.Context // ends when the drain must end at once
	stop     context.CancelFunc
	files    chan []string // the files to watch, after a change of the sources
	reload   sync.Mutex
	metrics  *telemetry.Metrics
	budgets  budgets
	recorder recorder
	counted  *counted
}

// New opens the store, loads the plugins and policies and listens. What cannot
// be had is an error that says what to do; everything opened is closed again.
func New(ctx context.Context, c Config) (*Host, error) {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:8080"
	}
	if err := checkListen(c); err != nil {
		return nil, err
	}
	if err := checkAgents(c); err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	h := &Host{config: c, log: c.Logger, files: make(chan []string, 1), counted: newCounted(c.Logger.Named("metrics"))}
	h.hard, h.stop = context.WithCancel(context.Background())
	if err := h.open(ctx); err != nil {
		h.close()
		return nil, fmt.Errorf("host: %w", err)
	}
	return h, nil
}

func (h *Host) open(ctx context.Context) (err error) {
	if h.listener, err = net.Listen("tcp", h.config.Listen); err != nil {
		return err // before modules are compiled: that takes seconds
	}
	if h.driver, err = OpenStore(ctx, h.config, false); err != nil {
		return err
	}
	h.store = store.New(h.driver, store.Options{})
	if err := h.openUpstreams(); err != nil {
		return err
	}
	h.policy = policy.New(h.log.Named("policy"))
	if err := h.openPlugins(ctx); err != nil {
		return err
	}
	if err := h.catalog.Apply(ctx, sources(h.config)); err != nil {
		return err
	}
	h.warnOfBudgets(h.config.Tenants)
	h.warnOfAgents()
	return h.wire(ctx)
}

// openPlugins makes the sandbox and the catalog of what runs in it.
func (h *Host) openPlugins(ctx context.Context) (err error) {
	c := h.config
	h.openMetrics()
	h.budgets.set(c.Tenants)
	h.manager, err = plugins.New(ctx, plugins.Options{
		Logger: h.log.Named("plugins"), CacheDir: c.CacheDir, IdleBytes: c.Sandbox.IdleMemory,
		Breaker:      plugins.Breaker{Deaths: c.Sandbox.Traps, Window: c.Sandbox.Window, Open: c.Sandbox.Open},
		TenantLimits: h.budgets.tenant, Observe: h.observe,
	})
	if err != nil {
		return err
	}
	h.catalog = guest.New(h.manager, h.store, h.policy, h.guestOptions())
	return nil
}

// checkListen refuses an address that others can reach on a host that asks for
// no key.
func checkListen(c Config) error {
	if len(c.Tenants) > 0 {
		return nil
	}
	name, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("host: listen: %w", err)
	}
	if ip := net.ParseIP(name); name != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("host: listen: %q can be reached by others, but there are no tenants with keys: listen on 127.0.0.1, or configure tenants", c.Listen)
	}
	return nil
}

// openUpstreams starts the demo model if it is asked for, and makes the client.
func (h *Host) openUpstreams() (err error) {
	h.late = late(h.config.Models)
	h.openShares()
	c := upstream.Config{Slots: h.shares}
	for _, u := range h.config.Upstreams {
		up := upstream.Upstream{Name: u.Name, Kind: upstream.Kind(u.Kind), BaseURL: u.BaseURL, APIKey: u.APIKey}
		if u.Kind == kindDemo || u.Kind == kindOpenAI {
			up.Kind = upstream.Chat
		}
		if u.Kind == kindDemo {
			if h.demo == nil {
				if h.demo, err = demo.Start(nil); err != nil {
					return err
				}
			}
			up.BaseURL = h.demo.URL()
		}
		c.Upstreams = append(c.Upstreams, up)
	}
	for _, m := range h.config.Models {
		model := upstream.Model{Name: m.Name}
		for _, t := range m.Targets {
			model.Targets = append(model.Targets, upstream.Target{Upstream: t.Upstream, Model: t.Model, Weight: t.Weight, Limit: t.Limit})
		}
		c.Models = append(c.Models, model)
	}
	c.FirstEvent, c.Idle, c.Total = h.config.FirstEvent, h.config.Idle, h.config.Total
	h.upstream, err = upstream.New(c)
	return err
}

// Addr returns the address that the host listens on.
func (h *Host) Addr() net.Addr { return h.listener.Addr() }

// Run serves until ctx ends; then it takes no more requests, lets work go on
// for the drain time, hands the rest back and returns nil. A part that fails
// ends the others and is the error. Run may be called once.
func (h *Host) Run(ctx context.Context) error {
	defer h.close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// The store and the hub outlive the work; connections outlive it a little.
	base, endBase := context.WithCancel(context.Background())
	conns, endConns := context.WithCancelCause(context.Background())
	var parts sync.WaitGroup
	part := func(name string, run func() error) {
		parts.Go(func() {
			if err := run(); err != nil {
				stop(fmt.Errorf("host: %s: %w", name, err))
			}
		})
	}
	part("store", func() error { return h.store.Run(base) })
	part("stream", func() error { return h.hub.Run(base) })
	part("shares", func() error { return h.shares.Run(base) })
	part("hints", func() error { return h.store.Watch(base, h.claimer.Hint) })
	part("watch", func() error { return h.watch(ctx) })
	part("batches", func() error { return h.batches.Run(ctx) })
	part("metrics", func() error { return h.counted.run(ctx, h.store.Stats) })
	server := &http.Server{
		Handler: h.api.Handler(), BaseContext: func(net.Listener) context.Context { return conns },
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: h.log.StandardLogger(nil),
	}
	part("http", func() error {
		select { // connections wait in the listener until the host takes requests
		case <-h.claimer.Ready():
		case <-ctx.Done():
		}
		if err := server.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	part("drain", func() error { // refuse new work as soon as the end is known
		<-ctx.Done()
		h.api.Drain()
		return nil
	})
	err := h.claimer.Run(ctx, h.hard)
	stop(err)
	h.log.Info("this run", "policy_decisions", h.policy.Counts(), "late_results", h.claimer.Late())
	endConns(queue.ErrShutdown)
	h.shutServer(server)
	endBase()
	parts.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// shutServer lets answers that are under way go out, briefly.
func (h *Host) shutServer(server *http.Server) {
	ctx, cancel := context.WithTimeout(h.hard, 3*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		if err := server.Close(); err != nil {
			h.log.Warn("close connections", "error", err)
		}
	}
	if err := h.api.Wait(ctx); err != nil { // the server does not know of WebSockets
		h.log.Warn("close connections", "error", err)
	}
}

// Stop ends a drain at once: what still runs is handed back.
func (h *Host) Stop() { h.stop() }

// close closes what is open, in the reverse order.
func (h *Host) close() {
	h.stop()
	if h.listener != nil {
		h.listener.Close()
	}
	if h.manager != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := h.manager.Close(ctx); err != nil {
			h.log.Warn("close plugins", "error", err)
		}
	}
	if h.remotes != nil {
		h.remotes.Close()
	}
	if h.demo != nil {
		h.demo.Close()
	}
	if h.driver != nil {
		if err := h.driver.Close(); err != nil {
			h.log.Warn("close store", "error", err)
		}
	}
}

// name is what operators see of this host.
func name() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
}
