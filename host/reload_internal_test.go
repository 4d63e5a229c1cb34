package host

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/plugins"
)

// reloadable is a host with one tenant, its configuration and what it logs.
func reloadable(t *testing.T, tenant Tenant) (*Host, Config, *bytes.Buffer) {
	t.Helper()
	log := &bytes.Buffer{}
	c := Config{
		Listen: "127.0.0.1:0", Store: "sqlite:" + filepath.Join(t.TempDir(), "c.db"),
		Logger:    hclog.New(&hclog.LoggerOptions{Output: log}),
		Upstreams: []Upstream{{Name: "demo", Kind: "demo"}},
		Models:    []Model{{Name: "m", Targets: []Target{{Upstream: "demo", Model: "demo"}}}},
		Tenants:   []Tenant{tenant},
	}
	h, err := New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h, c, log
}

// TestReloadAppliesBudgets: what tenants may use of plugins changes with the
// file, and a limit that limits nothing is told.
func TestReloadAppliesBudgets(t *testing.T) {
	h, c, log := reloadable(t, Tenant{Name: "a", KeyHashes: [][32]byte{{1}}, PluginFuelPerMinute: 1000, PluginInstances: 1})
	if got, want := h.budgets.tenant("a"), (plugins.TenantLimits{FuelPerMinute: 1000, Instances: 1}); got != want {
		t.Errorf("at first: %+v, want %+v", got, want)
	}
	c.Tenants = []Tenant{{
		Name: "a", KeyHashes: [][32]byte{{1}}, PluginFuelPerMinute: 2000,
		PluginLimits: map[string]Limits{"sums": {Fuel: 5000}},
	}}
	if err := h.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, want := h.budgets.tenant("a"), (plugins.TenantLimits{FuelPerMinute: 2000}); got != want {
		t.Errorf("after a reload: %+v, want %+v", got, want)
	}
	if got := h.budgets.call("a", "sums"); got.Fuel != 5000 {
		t.Errorf("after a reload: %+v, want 5000 fuel", got)
	}
	if text := log.String(); strings.Contains(text, "restart") || !strings.Contains(text, "not loaded") || !strings.Contains(text, "sums") {
		t.Errorf("log is %q, want a word on the plugin that is not there, none on a restart", text)
	}
}

// TestReloadAppliesLimits: weights, caps and reserves of tenants change with
// the file, and those of a tenant that left it out end.
func TestReloadAppliesLimits(t *testing.T) {
	h, c, log := reloadable(t, Tenant{Name: "a", KeyHashes: [][32]byte{{1}}, MaxRunning: 4, MaxRunningTotal: 6})
	lane := queue.Lane{Tenant: "a", Model: "m", Weight: 1, Cap: 4, Reserve: queue.Reserve{Queued: 1}}
	wantLimits(t, h, lane, queue.Gate{Tenant: "a", Cap: 6, Reserve: queue.Reserve{Queued: 1}})
	c.Tenants = []Tenant{{Name: "a", KeyHashes: [][32]byte{{1}}, Weight: 3, MaxRunning: 9, Reserve: Reserve{Realtime: 2, Queued: -1}}}
	if err := h.Reload(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	wantLimits(t, h, queue.Lane{Tenant: "a", Model: "m", Weight: 3, Cap: 9, Reserve: queue.Reserve{Realtime: 2}})
	if strings.Contains(log.String(), "restart") {
		t.Errorf("log is %q, want no word on a restart", log.String())
	}
}

// TestLimitsOfTheTenantWithoutAName: a host without tenants has none of the
// limits that a tenant of the same name had in a configuration before.
func TestLimitsOfTheTenantWithoutAName(t *testing.T) {
	c := Config{
		Listen: "127.0.0.1:0", Store: "sqlite:" + filepath.Join(t.TempDir(), "c.db"),
		Upstreams: []Upstream{{Name: "demo", Kind: "demo"}},
		Models:    []Model{{Name: "m", Targets: []Target{{Upstream: "demo", Model: "demo"}}}},
		Tenants:   []Tenant{{Name: "default", KeyHashes: [][32]byte{{1}}, MaxRunning: 4, MaxRunningTotal: 6}},
	}
	for _, tenants := range [][]Tenant{c.Tenants, nil} {
		c.Tenants = tenants
		h, err := New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if tenants == nil {
			wantLimits(t, h, queue.Lane{Tenant: "default", Model: "m", Weight: 1})
		}
		h.close()
	}
}

func wantLimits(t *testing.T, h *Host, lane queue.Lane, gates ...queue.Gate) {
	t.Helper()
	s, err := h.store.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Lanes) != 1 || s.Lanes[0].Lane != lane {
		t.Errorf("lanes: got %+v, want %+v", s.Lanes, lane)
	}
	var got []queue.Gate
	for _, g := range s.Gates {
		got = append(got, g.Gate)
	}
	if !slices.Equal(got, gates) {
		t.Errorf("gates: got %+v, want %+v", got, gates)
	}
}
