package config

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Reserve parts caps between those who wait for an answer and what is queued.
type Reserve struct {
	// Realtime slots are never taken by queued requests; 0: none.
	Realtime int
	// Queued slots are not taken by realtime requests while requests are queued;
	// 0: one where the cap is above one; below 0: none.
	Queued int
}

// Escalation runs queued requests on another model when their deadline is near.
type Escalation struct {
	To     string
	Within time.Duration
}

// RetryBudget bounds how many retries a host makes of one model's calls.
type RetryBudget struct {
	Ratio        float64 // retries a first try pays for
	MinPerSecond float64 // retries a second that nothing has to pay for
}

// notifyOff is the value of notify that means polling only.
const notifyOff = "off"

// queueSettings are those of the queue.
var queueSettings = []setting{
	whole("realtime_slots", 1_000_000, func(f *File) *int { return &f.RealtimeSlots }),
	{"notify", "!!str", func(r *reader, v string, _ bool) error {
		r.file.Notify = v
		return checkNotify(v)
	}},
	{"retention", durationTags, func(r *reader, v string, _ bool) (err error) {
		r.file.Retention, err = parseDuration(v, time.Minute, 10*365*24*time.Hour)
		return err
	}},
	rate("retry_budget.ratio", 10, func(f *File) *float64 { return &f.RetryBudget.Ratio }),
	rate("retry_budget.min_per_second", 100_000, func(f *File) *float64 { return &f.RetryBudget.MinPerSecond }),
}

func rate(key string, most float64, dst func(*File) *float64) setting {
	return setting{key, "!!float !!int", func(r *reader, v string, _ bool) error {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= 0.001 && n <= most) {
			return fmt.Errorf("%s: want a number from 0.001 to %g", brief(v), most)
		}
		*dst(&r.file) = n
		return nil
	}}
}

// checkNotify never repeats its value: it may hold a password.
func checkNotify(v string) error {
	if v == notifyOff {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("want off, or the postgres:// URL of a connection that does not go through a pooler")
	}
	return nil
}

// notified refuses hints for a database that has none to give.
func (r *reader) notified() {
	if r.file.Notify != "" && r.file.Notify != notifyOff && strings.HasPrefix(r.file.Store, "sqlite:") {
		r.wrong(r.places["notify"], "only a store on PostgreSQL has it; leave the key out")
	}
}

// escalation reads where a model's requests go when they are late.
func (r *reader) escalation(m *Model) value {
	return func(n *yaml.Node, path string) {
		r.object(n, path, map[string]value{
			"to":     r.text(&m.Escalate.To, matches(modelName)),
			"within": r.duration(&m.Escalate.Within, time.Second, 24*time.Hour),
		})
		r.needs(n, path, "to", "within")
		r.later = append(r.later, func() { // the name may come after this key
			to := m.Escalate.To
			switch {
			case to == "":
			case to == m.Name:
				r.wrong(r.at(n, join(path, "to")), "is the model itself; want another")
			case !slices.ContainsFunc(r.file.Models, func(m Model) bool { return m.Name == to }):
				r.wrong(r.at(n, join(path, "to")), "no model is named %s", brief(to))
			}
		})
	}
}

// reserve reads how caps are parted.
func (r *reader) reserve(dst *Reserve) value {
	return func(n *yaml.Node, path string) {
		r.object(n, path, map[string]value{
			"realtime": r.slots(&dst.Realtime),
			"queued": func(n *yaml.Node, path string) {
				before := len(r.errs)
				r.slots(&dst.Queued)(n, path)
				if len(r.errs) == before && dst.Queued == 0 {
					dst.Queued = -1
				}
			},
		})
	}
}

// slots reads how many slots are kept free, from 0.
func (r *reader) slots(dst *int) value {
	return func(n *yaml.Node, path string) {
		s, ok := r.scalar(n, path, "!!int")
		if !ok {
			return
		}
		v, err := strconv.Atoi(s)
		if err != nil || v < 0 || v > 1_000_000 {
			r.wrong(r.at(n, path), "%s: want a whole number from 0 to 1000000", brief(s))
			return
		}
		*dst = v
	}
}

// limit is one cap of the configuration.
type limit struct {
	key   string
	slots int // 0: not set
}

// reserved refuses a reserve that one of the caps has no room for.
func (r *reader) reserved(n *yaml.Node, path string, reserve Reserve, caps ...limit) {
	sum := reserve.Realtime + max(reserve.Queued, 0)
	if sum == 0 {
		return
	}
	none := true
	for _, c := range caps {
		none = none && c.slots == 0
		if c.slots > 0 && sum >= c.slots {
			r.wrong(r.at(n, join(path, "limits.reserve")), "reserves %d of the %d slots of %s: want at least one that is free for both", sum, c.slots, c.key)
		}
	}
	if none {
		r.wrong(r.at(n, join(path, "limits.reserve")), "there is no cap to reserve slots of: set %s", caps[0].key)
	}
}
