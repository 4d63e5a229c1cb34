package host

import (
	"maps"
	"slices"
	"sync/atomic"

	"github.com/casemate/casemate/plugins"
)

// budgets are what tenants may use of plugins. They are asked before each call
// and may change at any time.
type budgets struct {
	tenants atomic.Pointer[map[string]Tenant]
}

// set replaces them.
func (b *budgets) set(tenants []Tenant) {
	byName := make(map[string]Tenant, len(tenants))
	for _, t := range tenants {
		byName[t.Name] = t
	}
	b.tenants.Store(&byName)
}

func (b *budgets) of(tenant string) Tenant {
	if all := b.tenants.Load(); all != nil {
		return (*all)[tenant]
	}
	return Tenant{}
}

// tenant returns the bounds of all calls for a tenant.
func (b *budgets) tenant(tenant string) plugins.TenantLimits {
	t := b.of(tenant)
	return plugins.TenantLimits{FuelPerMinute: t.PluginFuelPerMinute, Instances: t.PluginInstances}
}

// call returns what stands in place of a plugin's limits for a tenant.
func (b *budgets) call(tenant, plugin string) plugins.Limits {
	return b.of(tenant).PluginLimits[plugin].forPlugins()
}

// warnOfBudgets tells of limits for plugins that are not there: a misspelt name
// would be no limit.
func (h *Host) warnOfBudgets(tenants []Tenant) {
	loaded := map[string]bool{}
	for _, t := range h.catalog.Granted() {
		loaded[t.Plugin] = true
	}
	for _, t := range tenants {
		for _, plugin := range slices.Sorted(maps.Keys(t.PluginLimits)) {
			if !loaded[plugin] {
				h.log.Warn("a tenant has limits for a plugin that is not loaded: the name is that of its descriptor, as in tools.allow",
					"tenant", t.Name, "plugin", plugin)
			}
		}
	}
}

// forPlugins returns l as package plugins takes it.
func (l Limits) forPlugins() plugins.Limits {
	return plugins.Limits{
		Fuel: l.Fuel, Wall: l.Wall, MemoryBytes: l.Memory, OutputBytes: l.Output,
		LogLines: l.LogLines, LogBytes: l.LogBytes, Emits: l.Emits, Calls: l.Calls,
	}
}
