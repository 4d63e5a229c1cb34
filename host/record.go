package host

import (
	"sync/atomic"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/store"
)

// recorder says when requests are written that go to their upstream as they
// came: see Model.Record.
type recorder struct{ rules atomic.Pointer[recordRules] }

type recordRules struct {
	modes  map[string]string  // by model
	lanes  map[[2]string]bool // those with a cap
	capped map[string]bool    // tenants with a cap over all their lanes
}

// set takes what models say, and which limits tenants have.
func (r *recorder) set(models []Model, l store.Limits) {
	rules := &recordRules{modes: map[string]string{}, lanes: map[[2]string]bool{}, capped: map[string]bool{}}
	for _, m := range models {
		rules.modes[m.Name] = m.Record
	}
	for _, lane := range l.Lanes {
		rules.lanes[[2]string{lane.Tenant, lane.Model}] = lane.Cap > 0
	}
	for _, g := range l.Gates {
		rules.capped[g.Tenant] = g.Cap > 0
	}
	r.rules.Store(rules)
}

// mode is api.Options.Record. Under a cap a request holds a slot while it runs,
// and that is counted with its row.
func (r *recorder) mode(tenant, model string) string {
	rules := r.rules.Load()
	mode := rules.modes[model]
	if mode == "" || rules.capped[tenant] || rules.lanes[[2]string{tenant, model}] {
		return api.RecordBefore
	}
	return mode
}
