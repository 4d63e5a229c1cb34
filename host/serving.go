package host

import (
	"context"
	"maps"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/share"
)

// openShares makes what parts the upstreams' limits with other hosts. The
// client and the claimer, which it asks, are made after it.
func (h *Host) openShares() {
	limits, reserves := map[string]int{}, map[string]queue.Reserve{}
	for _, m := range h.config.Models {
		for _, t := range m.Targets {
			name := t.Upstream + "/" + t.Model
			limits[name], reserves[name] = t.Limit, t.Reserve.of(t.Limit)
		}
	}
	h.shares = share.New(share.Options{
		Limits: limits, Reserve: reserves, Live: h.leased,
		Ask:      func(ctx context.Context) error { return h.claimer.Beat(ctx) },
		Cooldown: func() map[string]time.Duration { return h.upstream.Cooldowns() },
		Cool:     func(target string, d time.Duration) { h.upstream.Cool(target, d) },
	})
}

// room is how many more queued requests of a model its targets could serve from
// here now; -1: any number. Those that cool down serve none.
func (h *Host) room(model string) int {
	sum := 0
	for _, c := range h.upstream.Candidates(model) {
		if c.CooldownMS > 0 {
			continue
		}
		n := h.shares.Room(c.Target)
		if n < 0 {
			return -1
		}
		sum += n
	}
	return sum
}

// serving returns the models whose requests can be served now, and those that
// only another model can serve.
func (h *Host) serving() (models, onlyEscalate []string) {
	late := h.escalations()
	for _, m := range h.config.Models {
		_, escalates := late[m.Name]
		switch {
		case h.room(m.Name) != 0:
			models = append(models, m.Name)
		case escalates:
			models, onlyEscalate = append(models, m.Name), append(onlyEscalate, m.Name)
		}
	}
	return models, onlyEscalate
}

// escalations are those to models that can serve now.
func (h *Host) escalations() map[string]queue.Escalation {
	late := maps.Clone(h.late)
	maps.DeleteFunc(late, func(_ string, e queue.Escalation) bool { return h.room(e.To) == 0 })
	return late
}

// escalates reports whether requests of a model may run on another one.
func (h *Host) escalates(model string) bool {
	_, ok := h.late[model]
	return ok
}

// late returns, by model, which requests run on another model.
func late(models []Model) map[string]queue.Escalation {
	all := map[string]queue.Escalation{}
	for _, m := range models {
		if m.Escalate.To != "" {
			all[m.Name] = queue.Escalation(m.Escalate)
		}
	}
	return all
}
