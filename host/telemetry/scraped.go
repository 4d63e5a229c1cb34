package telemetry

import (
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// scraped shows what others keep count of.
type scraped struct {
	from    Sources
	kinds   set
	states  set
	reasons set // of a policy's fallback
	all     map[string]*prometheus.Desc
}

// fallbackInvalid is the one reason of a fallback that is no outcome class.
const fallbackInvalid = "invalid_answer"

func newScraped(s Sets, from Sources) *scraped {
	c := &scraped{from: from, kinds: newSet(s.Kinds), states: newSet(s.States), reasons: newSet(s.Classes), all: map[string]*prometheus.Desc{}}
	c.reasons[fallbackInvalid] = struct{}{}
	desc := func(name, help string, labels ...string) {
		c.all[name] = prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	if from.Pool != nil {
		desc("plugin_instances_idle", "Instances of plugins without a call.")
		desc("plugin_instances_idle_bytes", "Memory that instances without a call hold, about.")
		desc("plugin_instances_made_total", "Instances of plugins that were made from an image.")
		desc("plugin_restores_total", "Instances of plugins that were brought back to their image after a call.")
		desc("plugin_instances_lost_total", "Instances of plugins that were closed because they could not be brought back to their image.")
	}
	if from.Policy != nil {
		desc("policy_decisions_total", "Decisions, by kind of policy.", "kind")
		desc("policy_builtin_total", "Decisions that the built-in rules made because no module was asked.", "kind")
		desc("policy_clamped_total", "Answers that were cut to what the host allows.", "kind")
		desc("policy_fallbacks_total", "Decisions that the built-in rules made because the module did not, by reason.", "kind", "reason")
	}
	if from.Queue != nil {
		desc("queue_requests", "Requests in the store, by state; a sample.", "state")
		desc("queue_pending", "Requests that wait for a host, by model; a sample.", "model")
		desc("requests_running", "Requests that run on this host.")
		desc("store_writes_waiting", "Writes that wait for the database.")
		desc("store_healthy", "Whether the last write reached the database, 1 or 0.")
		desc("late_results_total", "Results that came after their claim was lost.")
		desc("unrecorded_total", "Requests of record: after or off that ended, and could not be written.")
		desc("retry_budget_total", "Retries of upstream calls that were paid, refunded or refused, by model.", "model", "what")
		desc("target_cooldown_seconds", "How long targets are left alone yet, by target.", "target")
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *scraped) Describe(to chan<- *prometheus.Desc) {
	for _, d := range c.all {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *scraped) Collect(to chan<- prometheus.Metric) {
	show := func(name string, v float64, labels ...string) {
		kind := prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(c.all[name], kind, v, labels...)
	}
	if c.from.Pool != nil {
		p := c.from.Pool()
		show("plugin_instances_idle", float64(p.Idle))
		show("plugin_instances_idle_bytes", float64(p.IdleBytes))
		show("plugin_instances_made_total", float64(p.Made))
		show("plugin_restores_total", float64(p.Restored))
		show("plugin_instances_lost_total", float64(p.Lost))
	}
	if c.from.Policy != nil {
		c.policy(c.from.Policy(), show)
	}
	if c.from.Queue != nil {
		c.queue(c.from.Queue(), show)
	}
}

// policy shows counts by "KIND.WHAT" and "KIND.fallback.REASON". Reasons that
// are not known share a series.
func (c *scraped) policy(counts map[string]uint64, show func(string, float64, ...string)) {
	type fallback struct{ kind, reason string }
	fallbacks := map[fallback]uint64{}
	for key, n := range counts {
		kind, what, _ := strings.Cut(key, ".")
		if c.kinds.of(kind) == other {
			continue
		}
		what, reason, _ := strings.Cut(what, ".")
		switch what {
		case "decisions", "builtin", "clamped":
			show("policy_"+what+"_total", float64(n), kind)
		case "fallback":
			fallbacks[fallback{kind, c.reasons.of(reason)}] += n
		}
	}
	for f, n := range fallbacks {
		show("policy_fallbacks_total", float64(n), f.kind, f.reason)
	}
}

func (c *scraped) queue(q Queue, show func(string, float64, ...string)) {
	for state, n := range q.States {
		if c.states.of(state) != other {
			show("queue_requests", float64(n), state)
		}
	}
	for model, n := range q.Pending {
		if utf8.ValidString(model) { // no other text is a label
			show("queue_pending", float64(n), model)
		}
	}
	for model, n := range q.Retries {
		if utf8.ValidString(model) {
			show("retry_budget_total", float64(n.Paid), model, "paid")
			show("retry_budget_total", float64(n.Refunded), model, "refunded")
			show("retry_budget_total", float64(n.Refused), model, "refused")
		}
	}
	for target, seconds := range q.Cooldowns {
		if utf8.ValidString(target) {
			show("target_cooldown_seconds", seconds, target)
		}
	}
	healthy := 0.0
	if q.Healthy {
		healthy = 1
	}
	show("store_healthy", healthy)
	show("requests_running", float64(q.Running))
	show("store_writes_waiting", float64(q.Writes))
	show("late_results_total", float64(q.LateResults))
	show("unrecorded_total", float64(q.Unrecorded))
}
