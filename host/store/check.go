package store

import (
	"fmt"
	"math"
	"slices"

	"github.com/casemate/casemate/host/queue"
)

// check returns an error that wraps ErrInvalid when no database should see the
// request.
func (c *ClaimRequest) check() error {
	if err := names("model", c.Models...); err != nil {
		return err
	}
	if c.Window < 0 {
		return fmt.Errorf("window %s is negative: %w", c.Window, ErrInvalid)
	}
	for from, e := range c.Escalate {
		if from == "" || e.To == "" || e.To == from || e.Within < 0 {
			return fmt.Errorf("model %q escalates to %q within %s: %w", from, e.To, e.Within, ErrInvalid)
		}
		if err := names("model", from, e.To); err != nil {
			return err
		}
	}
	for _, m := range c.OnlyEscalate {
		if _, ok := c.Escalate[m]; !ok || !slices.Contains(c.Models, m) {
			return fmt.Errorf("model %q is only escalated, and is not asked for or has no model to escalate to: %w", m, ErrInvalid)
		}
	}
	return nil
}

func (b *Beat) check() error {
	if err := names("host", b.Host, b.Version); err != nil {
		return err
	}
	seen := make(map[string]bool, len(b.Targets))
	for _, u := range b.Targets {
		if err := names("target", u.Target); err != nil {
			return err
		}
		if u.Target == "" || seen[u.Target] || !counts(u.Limit) || !counts(u.Keep) || !counts(u.Want) || u.Cooldown < 0 {
			return fmt.Errorf("target %q: limit %d, keep %d, want %d, cooldown %s, or twice in a beat: %w",
				u.Target, u.Limit, u.Keep, u.Want, u.Cooldown, ErrInvalid)
		}
		seen[u.Target] = true
	}
	return nil
}

// Weights outside of these would make virtual time stand still or run off.
const leastWeight, mostWeight = 1e-6, 1e6

func (l *Limits) check() error {
	lanes := make(map[[2]string]bool, len(l.Lanes))
	for _, l := range l.Lanes {
		key := [2]string{l.Tenant, l.Model}
		fit := l.Weight >= leastWeight && l.Weight <= mostWeight && fits(l.Cap, l.Reserve)
		if l.Tenant == "" || l.Model == "" || !fit || lanes[key] {
			return fmt.Errorf("lane %q %q: weight %g, cap %d, reserve %+v, or set twice: %w", l.Tenant, l.Model, l.Weight, l.Cap, l.Reserve, ErrInvalid)
		}
		if err := names("lane", l.Tenant, l.Model); err != nil {
			return err
		}
		lanes[key] = true
	}
	gates := make(map[string]bool, len(l.Gates))
	for _, g := range l.Gates {
		if g.Tenant == "" || !fits(g.Cap, g.Reserve) || gates[g.Tenant] {
			return fmt.Errorf("gate %q: cap %d, reserve %+v, or set twice: %w", g.Tenant, g.Cap, g.Reserve, ErrInvalid)
		}
		if err := names("gate", g.Tenant); err != nil {
			return err
		}
		gates[g.Tenant] = true
	}
	return nil
}

// fits reports whether a reserve leaves a slot of the cap that anybody may take.
func fits(limit int, r queue.Reserve) bool {
	return counts(limit) && r.Realtime >= 0 && r.Queued >= 0 &&
		(r == queue.Reserve{} || r.Realtime < limit && r.Queued < limit-r.Realtime)
}

// counts reports whether n is a number that every database can hold.
func counts(n int) bool { return n >= 0 && n <= math.MaxInt32 }
