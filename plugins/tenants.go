package plugins

import (
	"errors"
	"sync"
	"time"
)

// TenantLimits bound all calls of tools for one tenant, of all plugins together.
// Zero fields are no bound.
type TenantLimits struct {
	FuelPerMinute uint64
	Instances     int // calls at once
}

// errTenantFuel is why a call of a tenant without fuel ends.
var errTenantFuel = errors.New("the tenant's fuel for this minute is used up")

// tenants is what each tenant uses now.
type tenants struct {
	limits func(tenant string) TenantLimits // nil: no bounds

	mu sync.Mutex
	by map[string]*tenantUse
}

// tenantUse is what one tenant uses. Its level of fuel rises steadily by a
// minute's fuel in a minute, up to that much.
type tenantUse struct {
	gate gate

	mu    sync.Mutex
	level float64 // may go below zero by one slice of each call
	asOf  time.Time
}

// of returns a tenant's use and limits, or nil when it has no limits.
func (t *tenants) of(tenant string) (*tenantUse, TenantLimits) {
	if t.limits == nil {
		return nil, TenantLimits{}
	}
	l := t.limits(tenant)
	if l == (TenantLimits{}) {
		return nil, l
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.by[tenant]
	if u == nil {
		u = &tenantUse{level: float64(l.FuelPerMinute), asOf: time.Now()}
		t.by[tenant] = u
	}
	return u, l
}

// spend takes fuel off the level and reports whether there is any left.
func (u *tenantUse) spend(fuel, perMinute uint64, now time.Time) bool {
	if perMinute == 0 {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if passed := now.Sub(u.asOf); passed > 0 {
		u.level = min(float64(perMinute), u.level+float64(perMinute)*passed.Minutes())
		u.asOf = now
	}
	u.level -= float64(fuel)
	return u.level > 0
}
