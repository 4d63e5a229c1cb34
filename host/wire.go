package host

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/batch"
	"github.com/casemate/casemate/host/claimer"
	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/mcp"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/processor"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/stream"
	"github.com/casemate/casemate/host/tenant"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/egress"
)

// Version is the version of this host.
const Version = "0.1.0"

// wire makes the stages and joins them.
func (h *Host) wire(ctx context.Context) error {
	c := h.config
	h.remotes = remotes(c)
	h.hub = stream.NewHub(h.store, stream.Options{})
	h.budget = policy.NewBudget(policy.BudgetOptions(c.RetryBudget))
	caller := &loop.Caller{Policy: judged{h.policy, h.metrics}, Upstream: h.upstream, Budget: h.budget, Escalates: h.escalates}
	h.claimer = claimer.New(h.store, watched{processor.Processor{
		Responses: loop.New(h.store, caller, h.catalog, h.hub, loop.Options{
			MaxFailures: c.MaxFailures, Logger: h.log.Named("loop"), Live: h.leased, Remotes: h.reached(), Check: checkArguments,
		}),
		Default: processor.NewDefault(caller, h.hub, processor.Options{MaxFailures: c.MaxFailures}),
	}, h.metrics}, h.claims())
	tenants, err := tenants(c)
	if err != nil {
		return err
	}
	if err := h.store.SetLimits(ctx, limits(c)); err != nil {
		return err
	}
	h.recorder.set(c.Models, limits(c))
	outputs := batch.Outputs{Store: h.store, Failure: api.Failure}
	h.api = api.New(api.Options{
		Store: h.store, Runner: runner{h.claimer}, Models: h.models(), Tools: granted{h.catalog},
		Tenants: tenants, Health: h, Hub: h.hub, Record: h.recorder.mode, MaxBodyBytes: c.MaxBodyBytes, Logger: h.log.Named("api"),
		Metrics: h.metrics.Handler(), MetricsKey: c.MetricsKey, MCP: mcp.NewServer(Version),
		Agents: agents(c), Remotes: h.named(), Uploads: h.store, Batches: h.store, Outputs: outputs,
		BatchAdded: func() { h.batches.Wake() }, // made below, with this
		Files:      api.Contents{Store: h.store, Max: bodyBytes(c)}, MaxFileBytes: c.MaxFileBytes,
	})
	h.batches = batch.New(h.store, lines{h.api, tenants}, outputs, batch.Options{
		MaxLine: int(bodyBytes(c)), MaxLines: c.MaxLines, Keep: store.TidyRequest{KeepBatches: c.KeepBatches},
		Logger: h.log.Named("batch"),
	})
	return nil
}

// bodyBytes is how large a request may be, and what it refers to together.
func bodyBytes(c Config) int64 {
	if c.MaxBodyBytes > 0 {
		return c.MaxBodyBytes
	}
	return 32 << 20
}

// reached is what the loop reaches clients' servers by; named is what the API
// asks about them. Both are nil where no server may be named: a nil *mcp.Client
// would not be a nil port.
func (h *Host) reached() loop.Remotes {
	if h.remotes == nil {
		return nil
	}
	return h.remotes
}

func (h *Host) named() api.Remotes {
	if h.remotes == nil {
		return nil
	}
	return h.remotes
}

// claims says what this host claims, and how.
func (h *Host) claims() claimer.Options {
	c := h.config
	return claimer.Options{
		Host: name(), Version: Version, Models: h.serving, Room: h.room, Escalate: h.escalations, Targets: h.shares,
		Slots: c.Slots, Realtime: c.Realtime, Lease: c.Lease, Poll: c.Poll, Drain: c.Drain, MaxReaps: c.MaxReaps,
		MaxFailures: c.MaxFailures, Keep: c.Retention, Logger: h.log.Named("claimer"),
	}
}

// leased reports whether this host holds its lease. The loop is made before the
// claimer that it is a part of.
func (h *Host) leased() bool { return h.claimer.Leased() }

// sources lists the module files of c.
func sources(c Config) []guest.Source {
	var all []guest.Source
	for _, p := range c.Plugins {
		s := guest.Source{Role: guest.Tool, File: p.File, Grants: p.Grants, Effects: p.Effects, Limits: p.Limits.forPlugins()}
		s.HTTP = rules(p.HTTP)
		for _, secret := range p.Secrets {
			s.Secrets = append(s.Secrets, egress.Secret{Name: secret.Name, Host: secret.Host, Header: secret.Header, Value: secret.Value})
		}
		all = append(all, s)
	}
	limits := c.Policies.Limits.forPlugins()
	if c.Policies.Route != "" {
		all = append(all, guest.Source{Role: guest.Route, File: c.Policies.Route, Limits: limits})
	}
	if c.Policies.Retry != "" {
		all = append(all, guest.Source{Role: guest.Retry, File: c.Policies.Retry, Limits: limits})
	}
	return all
}

func tenants(c Config) (*tenant.Directory, error) {
	var entries []tenant.Entry
	for _, t := range c.Tenants {
		entries = append(entries, tenant.Entry{
			Tenant: tenant.Tenant{
				Name: t.Name, Models: t.Models, Tools: tenant.Tools{Mode: t.ToolMode, Allow: t.ToolAllow},
				Limits: tenant.Limits{Weight: t.Weight, MaxRunning: t.MaxRunning},
			},
			KeyHashes: t.KeyHashes,
		})
	}
	return tenant.New(entries)
}

// Ready implements api.Health.
func (h *Host) Ready() []api.Condition {
	all := []api.Condition{
		{Name: "store", OK: h.store.Healthy()},
		{Name: "lease", OK: h.claimer.Live()},
	}
	for _, c := range h.catalog.Conditions() {
		cond := api.Condition{Name: fmt.Sprintf("%s %s", c.Source.Role, c.Source.File), OK: c.Err == nil, Optional: true, Message: "in use: " + c.Digest}
		if c.Err != nil {
			cond.Message = c.Err.Error()
			if c.Digest != "" {
				cond.Message += "; still in use: " + c.Digest
			}
		}
		all = append(all, cond)
	}
	return all
}

// runner is the claimer as the API sees it.
type runner struct{ *claimer.Claimer }

// Submit implements api.Runner.
func (r runner) Submit(ctx context.Context, w store.Write) (api.Run, error) {
	run, err := r.Claimer.Submit(ctx, w)
	if err != nil {
		return nil, err // not run: a nil *Run is not a nil api.Run
	}
	return run, nil
}

// Perform implements api.Runner.
func (r runner) Perform(ctx context.Context, w store.Write, row bool) (api.Run, error) {
	run, err := r.Claimer.Perform(ctx, w, row)
	if err != nil {
		return nil, err
	}
	return run, nil
}

// granted is the catalog as the API sees it: plugins are granted to every
// tenant, and each tenant's own rules narrow that.
type granted struct{ *guest.Catalog }

// Granted implements api.Tools.
func (g granted) Granted(string) []response.ServerTool { return g.Catalog.Granted() }

// LoadError is why a module was not loaded, with what its guest said meanwhile.
type LoadError = plugins.LoadError

// Pack writes a guest's descriptor into its module; see plugins.Pack.
func Pack(ctx context.Context, wasm []byte) ([]byte, error) { return plugins.Pack(ctx, wasm) }

// Inspect says what a module is without running it; see plugins.Inspect.
func Inspect(wasm []byte) (plugins.Inspection, error) { return plugins.Inspect(wasm) }
