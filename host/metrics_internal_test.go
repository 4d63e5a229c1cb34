package host

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/guest"
	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/telemetry"
	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

// TestSources maps every key of a plugin to what the catalog is given.
func TestSources(t *testing.T) {
	got := sources(Config{
		Plugins: []Plugin{{
			File: "a.wasm", Grants: []string{"kv.get/1"}, Effects: map[string]string{"t": "pure"},
			HTTP:    []HTTPRule{{Scheme: "http", Host: "h", Port: 1, Methods: []string{"PUT"}, Path: "/p", Private: true}},
			Secrets: []Secret{{Name: "n", Value: "v", Host: "h", Header: "x"}},
			Limits:  Limits{Fuel: 1, Wall: 2, Memory: 3, Output: 4, LogLines: 5, LogBytes: 6, Emits: 7, Calls: 8},
		}},
		Policies: Policies{Route: "r.wasm", Retry: "t.wasm", Limits: Limits{Fuel: 9}},
	})
	want := []guest.Source{
		{
			Role: guest.Tool, File: "a.wasm", Grants: []string{"kv.get/1"}, Effects: map[string]string{"t": "pure"},
			HTTP:    []egress.Rule{{Scheme: "http", Host: "h", Port: 1, Methods: []string{"PUT"}, PathPrefix: "/p", Private: true}},
			Secrets: []egress.Secret{{Name: "n", Value: "v", Host: "h", Header: "x"}},
			Limits: plugins.Limits{
				Fuel: 1, Wall: 2, MemoryBytes: 3, OutputBytes: 4, LogLines: 5, LogBytes: 6, Emits: 7, Calls: 8,
			},
		},
		{Role: guest.Route, File: "r.wasm", Limits: plugins.Limits{Fuel: 9}},
		{Role: guest.Retry, File: "t.wasm", Limits: plugins.Limits{Fuel: 9}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestBudgets(t *testing.T) {
	var b budgets
	if got := b.tenant("a"); got != (plugins.TenantLimits{}) {
		t.Errorf("before any: %+v, want no limits", got)
	}
	b.set([]Tenant{{Name: "a", PluginFuelPerMinute: 5, PluginInstances: 6, PluginLimits: map[string]Limits{"p": {Wall: time.Second}}}})
	if got, want := b.tenant("a"), (plugins.TenantLimits{FuelPerMinute: 5, Instances: 6}); got != want {
		t.Errorf("tenant a: %+v, want %+v", got, want)
	}
	if got, want := b.call("a", "p"), (plugins.Limits{Wall: time.Second}); got != want {
		t.Errorf("plugin p of tenant a: %+v, want %+v", got, want)
	}
	for _, of := range [][2]string{{"a", "q"}, {"b", "p"}} {
		if got := b.call(of[0], of[1]); got != (plugins.Limits{}) {
			t.Errorf("plugin %s of tenant %s: %+v, want none", of[1], of[0], got)
		}
	}
}

// TestRestartNeeded: what Reload applies needs none.
func TestRestartNeeded(t *testing.T) {
	old := Config{Slots: 1, Tenants: []Tenant{{Name: "a", PluginInstances: 1}}, Sandbox: Sandbox{Traps: 1}}
	c := Config{
		Slots: 2, Plugins: []Plugin{{File: "a"}}, Policies: Policies{Route: "b"}, Sandbox: Sandbox{Traps: 2}, MetricsKey: "k",
		Tenants: []Tenant{{Name: "a", PluginInstances: 2, PluginFuelPerMinute: 3, PluginLimits: map[string]Limits{"p": {}}}},
	}
	if got, want := restartNeeded(old, c), []string{"Sandbox", "Slots", "MetricsKey"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if c.Tenants[0].PluginInstances != 2 {
		t.Error("the configuration was changed")
	}
	c = old
	c.Tenants = []Tenant{{Name: "b", PluginInstances: 1}}
	if got, want := restartNeeded(old, c), []string{"Tenants"}; !slices.Equal(got, want) {
		t.Errorf("another tenant: got %v, want %v", got, want)
	}
}

// TestLabelSets: what is counted under a closed label is in its set.
func TestLabelSets(t *testing.T) {
	s := labels()
	for _, set := range []struct {
		name   string
		values []string
		least  int
		some   string
	}{
		{"classes", s.Classes, 22, "guest_throttled"},
		{"entries", s.Entries, 3, "tool_call"},
		{"ops", s.Ops, 8, "http.fetch/1"},
		{"reasons", s.Reasons, 7, "not_granted"},
		{"paths", s.Paths, 3, "/v1/responses"},
		{"states", s.States, 8, "waiting"},
		{"kinds", s.Kinds, 2, "route"},
		{"steps", s.Steps, 3, "tool_call"},
	} {
		if len(set.values) < set.least || !slices.Contains(set.values, set.some) {
			t.Errorf("%s: %v, want %d or more with %s", set.name, set.values, set.least, set.some)
		}
	}
	// A fallback may have one reason that is no class.
	if policy.InvalidAnswer != "invalid_answer" {
		t.Errorf("InvalidAnswer is %q, which package telemetry does not know", policy.InvalidAnswer)
	}
}

// TestObserve: what a tenant is said to use is what its tools use.
func TestObserve(t *testing.T) {
	h := &Host{metrics: telemetry.New("1", labels(), telemetry.Sources{})}
	h.metrics.Name([]string{"p"}, []string{"acme"})
	for _, entry := range []string{abi.ExportToolCall, abi.ExportRoute, abi.ExportRetry} {
		h.observe(plugins.Observation{Plugin: "dir/p.wasm", Entry: entry, Tenant: "acme", Class: plugins.OK, Usage: plugins.Usage{Fuel: 7}})
	}
	w := httptest.NewRecorder()
	h.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`casemate_tenant_plugin_fuel_total{tenant="acme"} 7`,
		`casemate_tenant_plugin_calls_total{class="ok",tenant="acme"} 1`,
		`casemate_plugin_fuel_total{entry="route",plugin="p"} 7`,
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, w.Body)
		}
	}
}

func TestLabel(t *testing.T) {
	for file, want := range map[string]string{"build/wasm/calculator.wasm": "calculator", "/x/notes.v2.wasm": "notes.v2", "plain": "plain"} {
		if got := label(file); got != want {
			t.Errorf("label(%q) = %q, want %q", file, got, want)
		}
	}
}
