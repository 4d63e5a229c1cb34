package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Sets are the values that labels may have. What is in none of them is counted
// as "other", so that no series ever holds a word of a guest or a client.
type Sets struct {
	Classes []string // outcome classes
	Entries []string // of a plugin: tool_call, route, retry
	Ops     []string // capability calls
	Reasons []string // why one was refused
	Paths   []string // of requests
	States  []string // of requests
	Kinds   []string // of policy decisions
	Steps   []string // kinds of what is tried again
}

// Sources are asked at each scrape; nil ones are left out. They must not block.
type Sources struct {
	Pool   func() Pool
	Policy func() map[string]uint64 // as policy.Decider.Counts
	Queue  func() Queue
}

// Pool is the instances of all plugins.
type Pool struct {
	Idle      int    // instances without a call
	IdleBytes uint64 // that they hold
	Made      uint64 // from an image, since the start
	Restored  uint64 // to their image after a call, since the start
	Lost      uint64 // closed because they could not be restored, since the start
}

// Queue is what waits and runs.
type Queue struct {
	States      map[string]int         // requests in the store by state
	Pending     map[string]int         // by model
	Running     int                    // on this host
	Writes      int                    // that wait for the database
	Healthy     bool                   // the last write reached it
	LateResults uint64                 // that came after their claim was lost
	Unrecorded  uint64                 // requests that ended and could not be written
	Retries     map[string]RetryBudget // by model
	Cooldowns   map[string]float64     // seconds that targets are left alone yet, by target; those without are not in it
}

// RetryBudget is what became of the retries of one model's upstream calls.
type RetryBudget struct{ Paid, Refunded, Refused uint64 }

// Metrics counts what the host does and shows it to a Prometheus server. It is
// safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	plugins  plugins
	requests *prometheus.CounterVec
	retries  *prometheus.CounterVec
	paths    set
	states   set
	classes  set
	steps    set
}

// namespace begins the name of every metric.
const namespace = "casemate"

// New returns Metrics with a registry of their own.
func New(version string, sets Sets, from Sources) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		paths:    newSet(sets.Paths), states: newSet(sets.States), classes: newSet(sets.Classes),
		steps: newSet(sets.Steps),
		requests: counters("requests_total",
			"Attempts that ended on this host, by path, the state that they left the request in, and outcome class.",
			"path", "state", "class"),
		retries: counters("retries_total",
			"Failed tries that are made again, by what was tried and outcome class.", "kind", "class"),
	}
	m.plugins.init(sets)
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1, with the version of this host.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		&m.plugins, m.requests, m.retries, newScraped(sets, from),
	)
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// scrapes is how many scrapes are answered at once.
const scrapes = 4

// Handler answers GET with all metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: scrapes, Timeout: 10 * time.Second})
}

// Name makes plugins and tenants names that labels may have. Those of before
// stay known.
func (m *Metrics) Name(plugins, tenants []string) {
	m.plugins.names.add(plugins)
	m.plugins.tenants.add(tenants)
}

// Request counts how an attempt of a request ended.
func (m *Metrics) Request(path, state, class string) {
	m.requests.WithLabelValues(m.paths.of(path), m.states.of(state), m.classes.of(class)).Inc()
}

// Retry counts a failed try that is made again.
func (m *Metrics) Retry(kind, class string) {
	m.retries.WithLabelValues(m.steps.of(kind), m.classes.of(class)).Inc()
}
