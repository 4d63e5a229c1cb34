package host

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/telemetry"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/capability"
	"github.com/casemate/casemate/sdk/abi"
)

// labels are the closed sets of this host's metrics.
func labels() telemetry.Sets {
	s := telemetry.Sets{
		Entries: []string{abi.ExportToolCall, abi.ExportRoute, abi.ExportRetry},
		Ops: []string{
			abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall, abi.OpTimeNow, abi.OpRand,
		},
		Reasons: []string{
			capability.AuditNotGranted, capability.AuditRule, capability.AuditAddress, capability.AuditRedirect,
			capability.AuditSecret, capability.AuditHeader, capability.AuditTool,
		},
		Paths: api.Paths(),
		Kinds: []string{abi.KindRoute, abi.KindRetry},
		Steps: []string{"model_call", "tool_call", "request"},
	}
	for _, c := range queue.Classes() {
		s.Classes = append(s.Classes, string(c))
	}
	for _, state := range queue.States() {
		s.States = append(s.States, state.String())
	}
	return s
}

// openMetrics makes the metrics. What they ask is opened later, but before
// anybody is answered.
func (h *Host) openMetrics() {
	h.metrics = telemetry.New(Version, labels(), telemetry.Sources{
		Pool: func() telemetry.Pool { return telemetry.Pool(h.manager.Stats()) },
		Policy: func() map[string]uint64 {
			return h.policy.Counts()
		},
		Queue: h.queueNow,
	})
	h.name(h.config)
}

// name lets the plugins and tenants of c have series of their own.
func (h *Host) name(c Config) {
	var files, tenants []string
	for _, s := range sources(c) {
		files = append(files, label(s.File))
	}
	for _, t := range c.Tenants {
		tenants = append(tenants, t.Name)
	}
	if len(tenants) == 0 {
		tenants = []string{"default"}
	}
	h.metrics.Name(files, tenants)
}

// label names a plugin in metrics: by its file, which the operator chose, and
// not by what the module calls itself.
func label(file string) string { return strings.TrimSuffix(filepath.Base(file), ".wasm") }

// observe counts a call of a plugin. Decisions of policies are the host's
// doing: they do not count as a tenant's.
func (h *Host) observe(o plugins.Observation) {
	if o.Entry != abi.ExportToolCall {
		o.Tenant = ""
	}
	h.metrics.PluginCall(telemetry.PluginCall{
		Plugin: label(o.Plugin), Tenant: o.Tenant, Entry: o.Entry, Class: string(o.Class),
		Wall: o.Usage.Wall, Fuel: o.Usage.Fuel, Memory: o.Usage.Memory,
		HostCalls: o.Usage.HostCalls, LogsDropped: o.Usage.LogsDropped,
		Opened: o.Opened, Checked: o.Checked, Impure: o.Impure,
	})
}

// queueNow is what a scrape is told of requests: this host's as they are, the
// store's as they were when last counted.
func (h *Host) queueNow() telemetry.Queue {
	q := telemetry.Queue{
		Running: h.claimer.Running(), Writes: h.store.Backlog(), Healthy: h.store.Healthy(), LateResults: h.claimer.Late(),
		Unrecorded: h.claimer.Unrecorded(),
		States:     map[string]int{}, Pending: map[string]int{}, Retries: map[string]telemetry.RetryBudget{}, Cooldowns: map[string]float64{},
	}
	for model, n := range h.budget.Counts() {
		q.Retries[model] = telemetry.RetryBudget{Paid: n.Paid, Refunded: n.Refunds, Refused: n.Refused}
	}
	for _, m := range h.config.Models {
		for _, c := range h.upstream.Candidates(m.Name) {
			if c.CooldownMS > 0 {
				q.Cooldowns[c.Target] = float64(c.CooldownMS) / 1000
			}
		}
	}
	stats, ok := h.counted.last()
	if !ok {
		return q
	}
	for _, state := range queue.States() {
		if !state.Final() {
			q.States[state.String()] = stats.States[state]
		}
	}
	for _, m := range h.config.Models {
		q.Pending[m.Name] = 0
	}
	for _, l := range stats.Lanes {
		if _, ok := q.Pending[l.Model]; ok {
			q.Pending[l.Model] += l.Pending
		}
	}
	return q
}

// watched counts how attempts end.
type watched struct {
	stage interface {
		Process(ctx context.Context, c queue.Claim) (store.Ending, error)
	}
	metrics *telemetry.Metrics
}

// Process implements claimer.Processor.
func (w watched) Process(ctx context.Context, c queue.Claim) (store.Ending, error) {
	e, err := w.stage.Process(ctx, c)
	if err != nil {
		w.metrics.Request(c.Path, "", string(queue.HostError))
		return e, err
	}
	w.metrics.Request(c.Path, e.Outcome.To.String(), string(e.Outcome.Class))
	return e, nil
}

// judged counts the retries that policies decide.
type judged struct {
	*policy.Decider
	metrics *telemetry.Metrics
}

// Retry implements loop.Policy.
func (j judged) Retry(ctx context.Context, q abi.RetryQuestion, b policy.Bounds) (policy.Verdict, policy.Decision) {
	v, d := j.Decider.Retry(ctx, q, b)
	if v.Retry {
		j.metrics.Retry(q.Step.Kind, q.Outcome.Class)
	}
	return v, d
}

// guestOptions joins the catalog with log, metrics and budgets.
func (h *Host) guestOptions() guest.Options {
	return guest.Options{
		Logger: h.log.Named("plugins"), Audit: h.log.Named("audit"), TenantLimits: h.budgets.call,
		Refused: func(file, op, reason string) { h.metrics.Refused(label(file), op, reason) },
	}
}
