package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// PluginCall is one call of a plugin as it is counted.
type PluginCall struct {
	Plugin string // as Metrics.Name was given it
	Tenant string // "": none
	Entry  string
	Class  string
	Wall   time.Duration
	Fuel   uint64
	Memory uint64 // linear memory, bytes
	// HostCalls are capability calls, refused ones included; LogsDropped are
	// lines over a cap.
	HostCalls   int
	LogsDropped int
	// Opened: the call opened a breaker. Checked: a policy was asked twice, and
	// Impure: the answers differed.
	Opened          bool
	Checked, Impure bool
}

// How many plugins and tenants have series of their own; the rest share
// "other".
const (
	maxPlugins = 500
	maxTenants = 200
)

// plugins are the metrics of calls. A call of a small tool takes microseconds,
// so its series are looked up once for all of them.
type plugins struct {
	names   names
	tenants names
	entries set
	classes set
	ops     set
	reasons set

	calls     *prometheus.CounterVec
	fuel      *prometheus.CounterVec
	wall      *prometheus.HistogramVec
	hostCalls *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	refused   *prometheus.CounterVec
	openings  *prometheus.CounterVec
	checked   *prometheus.CounterVec
	impure    *prometheus.CounterVec
	memory    *prometheus.Desc
	byTenant  *prometheus.CounterVec
	fuelOf    *prometheus.CounterVec

	mu        sync.RWMutex
	series    map[callKey]*callSeries
	ofTenants map[tenantKey]*tenantSeries
	peaks     map[string]*atomic.Uint64 // by plugin
}

// callKey and tenantKey are combinations of labels. There is none of plugins
// and tenants: that would be too many.
type (
	callKey   struct{ plugin, entry, class string }
	tenantKey struct{ tenant, class string }
)

// callSeries are the series of one callKey.
type callSeries struct {
	calls, fuel, hostCalls, dropped prometheus.Counter
	wall                            prometheus.Observer
	peak                            *atomic.Uint64
}

// tenantSeries are those of one tenantKey.
type tenantSeries struct{ calls, fuel prometheus.Counter }

// wallBuckets go from a small tool's microseconds to the default limit.
var wallBuckets = []float64{
	3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1, 3, 10, 30,
}

func (p *plugins) init(s Sets) {
	p.names.most, p.tenants.most = maxPlugins, maxTenants
	p.entries, p.classes = newSet(s.Entries), newSet(s.Classes)
	p.ops, p.reasons = newSet(s.Ops), newSet(s.Reasons)
	p.calls = counters("plugin_calls_total",
		"Calls of plugins, by plugin, entry and outcome class.", "plugin", "entry", "class")
	p.fuel = counters("plugin_fuel_total", "Fuel that calls of plugins used.", "plugin", "entry")
	p.wall = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "plugin_wall_seconds", Buckets: wallBuckets,
		Help: "Time of calls of plugins, from instance in hand to the end, host functions included.",
	}, []string{"plugin", "entry"})
	p.hostCalls = counters("plugin_host_calls_total",
		"Capability calls of plugins, refused ones included.", "plugin")
	p.dropped = counters("plugin_log_lines_dropped_total",
		"Log lines of plugins that were over a cap.", "plugin")
	p.refused = counters("plugin_refused_total",
		"Capability calls that were refused, by plugin, op and reason.", "plugin", "op", "reason")
	p.openings = counters("plugin_breaker_openings_total",
		"How often a plugin died so often that it was not called for a tenant for a while.", "plugin")
	p.checked = counters("policy_checked_total",
		"Decisions of policies that were asked for a second time, to see whether they are the same.", "plugin")
	p.impure = counters("policy_impure_total",
		"Decisions of policies that were not the same the second time.", "plugin")
	p.byTenant = counters("tenant_plugin_calls_total", "Calls of tools, by tenant and outcome class.", "tenant", "class")
	p.fuelOf = counters("tenant_plugin_fuel_total", "Fuel that calls of tools used, by tenant.", "tenant")
	p.memory = prometheus.NewDesc(prometheus.BuildFQName(namespace, "", "plugin_memory_peak_bytes"),
		"Largest linear memory of a call since the start, by plugin.", []string{"plugin"}, nil)
	p.series, p.ofTenants = map[callKey]*callSeries{}, map[tenantKey]*tenantSeries{}
	p.peaks = map[string]*atomic.Uint64{}
}

// PluginCall counts one call.
func (m *Metrics) PluginCall(c PluginCall) {
	p := &m.plugins
	s := p.of(c)
	s.calls.Inc()
	s.fuel.Add(float64(c.Fuel))
	s.wall.Observe(c.Wall.Seconds())
	s.hostCalls.Add(float64(c.HostCalls))
	s.dropped.Add(float64(c.LogsDropped))
	for {
		peak := s.peak.Load()
		if c.Memory <= peak || s.peak.CompareAndSwap(peak, c.Memory) {
			break
		}
	}
	if c.Tenant != "" {
		t := p.ofTenant(c)
		t.calls.Inc()
		t.fuel.Add(float64(c.Fuel))
	}
	p.count(p.openings, c.Plugin, c.Opened)
	p.count(p.checked, c.Plugin, c.Checked)
	p.count(p.impure, c.Plugin, c.Impure)
}

// count counts what seldom happens.
func (p *plugins) count(vec *prometheus.CounterVec, plugin string, happened bool) {
	if happened {
		vec.WithLabelValues(p.names.of(plugin)).Inc()
	}
}

// Refused counts a refused capability call.
func (m *Metrics) Refused(plugin, op, reason string) {
	p := &m.plugins
	p.refused.WithLabelValues(p.names.of(plugin), p.ops.of(op), p.reasons.of(reason)).Inc()
}

// of returns the series of a call.
func (p *plugins) of(c PluginCall) *callSeries {
	key := callKey{p.names.of(c.Plugin), p.entries.of(c.Entry), p.classes.of(c.Class)}
	return once(p, p.series, key, func() *callSeries {
		peak := p.peaks[key.plugin]
		if peak == nil {
			peak = &atomic.Uint64{}
			p.peaks[key.plugin] = peak
		}
		return &callSeries{
			calls: p.calls.WithLabelValues(key.plugin, key.entry, key.class),
			fuel:  p.fuel.WithLabelValues(key.plugin, key.entry), wall: p.wall.WithLabelValues(key.plugin, key.entry),
			hostCalls: p.hostCalls.WithLabelValues(key.plugin), dropped: p.dropped.WithLabelValues(key.plugin), peak: peak,
		}
	})
}

// ofTenant returns the series of a call's tenant.
func (p *plugins) ofTenant(c PluginCall) *tenantSeries {
	key := tenantKey{p.tenants.of(c.Tenant), p.classes.of(c.Class)}
	return once(p, p.ofTenants, key, func() *tenantSeries {
		return &tenantSeries{p.byTenant.WithLabelValues(key.tenant, key.class), p.fuelOf.WithLabelValues(key.tenant)}
	})
}

// once returns what a map of p has for key, made when it is asked for first.
func once[K comparable, V any](p *plugins, all map[K]*V, key K, build func() *V) *V {
	p.mu.RLock()
	v := all[key]
	p.mu.RUnlock()
	if v != nil {
		return v
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if v = all[key]; v == nil {
		v = build()
		all[key] = v
	}
	return v
}

func (p *plugins) vecs() []prometheus.Collector {
	return []prometheus.Collector{
		p.calls, p.fuel, p.wall, p.hostCalls, p.dropped, p.refused, p.openings, p.checked, p.impure, p.byTenant, p.fuelOf,
	}
}

// Describe implements prometheus.Collector.
func (p *plugins) Describe(to chan<- *prometheus.Desc) {
	for _, v := range p.vecs() {
		v.Describe(to)
	}
	to <- p.memory
}

// Collect implements prometheus.Collector.
func (p *plugins) Collect(to chan<- prometheus.Metric) {
	for _, v := range p.vecs() {
		v.Collect(to)
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for plugin, peak := range p.peaks {
		to <- prometheus.MustNewConstMetric(p.memory, prometheus.GaugeValue, float64(peak.Load()), plugin)
	}
}
