package telemetry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/host/telemetry"
)

var sets = telemetry.Sets{
	Classes: []string{"ok", "guest_trap", "guest_error"}, Entries: []string{"tool_call", "route", "retry"},
	Ops: []string{"kv.get/1", "http.fetch/1"}, Reasons: []string{"not_granted", "egress_rule"},
	Paths:  []string{"/v1/responses"},
	States: []string{"pending", "completed"}, Kinds: []string{"route", "retry"}, Steps: []string{"tool_call"},
}

// scrape returns what a Prometheus server would read.
func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Fatalf("status %d, %s: %s", w.Code, w.Header().Get("Content-Type"), w.Body)
	}
	return w.Body.String()
}

// value returns the value of one series, "" if it is not there.
func value(text, series string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

func TestMetrics(t *testing.T) {
	m := telemetry.New("1.2.3", sets, telemetry.Sources{
		Pool: func() telemetry.Pool {
			return telemetry.Pool{Idle: 3, IdleBytes: 4096, Made: 4, Restored: 5, Lost: 1}
		},
		Policy: func() map[string]uint64 {
			return map[string]uint64{
				"route.decisions": 9, "route.builtin": 4, "retry.clamped": 1, "route.fallback.guest_trap": 2,
				"route.fallback.invalid_answer": 1,
			}
		},
		Queue: func() telemetry.Queue {
			return telemetry.Queue{
				States: map[string]int{"pending": 7}, Pending: map[string]int{"small": 6}, Running: 2, Writes: 1, Healthy: true,
				LateResults: 8, Unrecorded: 9,
				Retries:   map[string]telemetry.RetryBudget{"big": {Paid: 5, Refunded: 4, Refused: 3}},
				Cooldowns: map[string]float64{"main/big": 1.5},
			}
		},
	})
	m.Name([]string{"calculator", "route"}, []string{"acme"})
	for i := range 2 {
		m.PluginCall(telemetry.PluginCall{
			Plugin: "calculator", Tenant: "acme", Entry: "tool_call", Class: "ok", Wall: 20 * time.Microsecond,
			Fuel: 1000, Memory: uint64(65536 * (2 - i)), HostCalls: 3, LogsDropped: 1,
		})
	}
	m.PluginCall(telemetry.PluginCall{Plugin: "calculator", Entry: "tool_call", Tenant: "acme", Class: "guest_trap", Fuel: 7, Opened: true})
	m.PluginCall(telemetry.PluginCall{Plugin: "route", Entry: "route", Class: "ok", Checked: true, Impure: true})
	m.Refused("calculator", "http.fetch/1", "egress_rule")
	m.Request("/v1/responses", "completed", "ok")
	m.Request("/v1/responses", "pending", "guest_trap")
	m.Retry("tool_call", "guest_trap")

	text := scrape(t, m)
	for series, want := range map[string]string{
		`casemate_build_info{version="1.2.3"}`:                                                      "1",
		`casemate_plugin_calls_total{class="ok",entry="tool_call",plugin="calculator"}`:             "2",
		`casemate_plugin_calls_total{class="guest_trap",entry="tool_call",plugin="calculator"}`:     "1",
		`casemate_plugin_fuel_total{entry="tool_call",plugin="calculator"}`:                         "2007",
		`casemate_plugin_wall_seconds_count{entry="tool_call",plugin="calculator"}`:                 "3",
		`casemate_plugin_wall_seconds_bucket{entry="tool_call",plugin="calculator",le="3e-05"}`:     "3",
		`casemate_plugin_wall_seconds_bucket{entry="tool_call",plugin="calculator",le="1e-05"}`:     "1",
		`casemate_plugin_memory_peak_bytes{plugin="calculator"}`:                                    "131072",
		`casemate_plugin_host_calls_total{plugin="calculator"}`:                                     "6",
		`casemate_plugin_log_lines_dropped_total{plugin="calculator"}`:                              "2",
		`casemate_plugin_refused_total{op="http.fetch/1",plugin="calculator",reason="egress_rule"}`: "1",
		`casemate_tenant_plugin_fuel_total{tenant="acme"}`:                                          "2007",
		`casemate_tenant_plugin_calls_total{class="ok",tenant="acme"}`:                              "2",
		`casemate_plugin_breaker_openings_total{plugin="calculator"}`:                               "1",
		`casemate_policy_checked_total{plugin="route"}`:                                             "1",
		`casemate_policy_impure_total{plugin="route"}`:                                              "1",
		`casemate_plugin_restores_total`:                                                            "5",
		`casemate_plugin_instances_made_total`:                                                      "4",
		`casemate_plugin_instances_lost_total`:                                                      "1",
		`casemate_plugin_instances_idle`:                                                            "3",
		`casemate_plugin_instances_idle_bytes`:                                                      "4096",
		`casemate_policy_decisions_total{kind="route"}`:                                             "9",
		`casemate_policy_builtin_total{kind="route"}`:                                               "4",
		`casemate_policy_clamped_total{kind="retry"}`:                                               "1",
		`casemate_policy_fallbacks_total{kind="route",reason="guest_trap"}`:                         "2",
		`casemate_policy_fallbacks_total{kind="route",reason="invalid_answer"}`:                     "1",
		`casemate_requests_total{class="ok",path="/v1/responses",state="completed"}`:                "1",
		`casemate_requests_total{class="guest_trap",path="/v1/responses",state="pending"}`:          "1",
		`casemate_retries_total{class="guest_trap",kind="tool_call"}`:                               "1",
		`casemate_queue_requests{state="pending"}`:                                                  "7",
		`casemate_queue_pending{model="small"}`:                                                     "6",
		`casemate_requests_running`:                                                                 "2",
		`casemate_store_writes_waiting`:                                                             "1",
		`casemate_store_healthy`:                                                                    "1",
		`casemate_retry_budget_total{model="big",what="paid"}`:                                      "5",
		`casemate_retry_budget_total{model="big",what="refunded"}`:                                  "4",
		`casemate_retry_budget_total{model="big",what="refused"}`:                                   "3",
		`casemate_target_cooldown_seconds{target="main/big"}`:                                       "1.5",
		`casemate_late_results_total`:                                                               "8",
		`casemate_unrecorded_total`:                                                                 "9",
	} {
		if got := value(text, series); got != want {
			t.Errorf("%s = %q, want %s", series, got, want)
		}
	}
	checkHelp(t, text)
}

// checkHelp wants a text and a type for every metric of ours.
func checkHelp(t *testing.T, text string) {
	t.Helper()
	seen := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^(casemate_[a-z_]+?)(?:_bucket|_sum|_count)?[{ ]`).FindAllStringSubmatch(text, -1) {
		seen[match[1]] = true
	}
	if len(seen) < 20 {
		t.Errorf("%d metrics of ours, want 20 or more", len(seen))
	}
	for name := range seen {
		if !regexp.MustCompile(`(?m)^# HELP ` + name + ` [A-Z].*\.$`).MatchString(text) {
			t.Errorf("%s has no text that ends in a full stop", name)
		}
		if want := "# TYPE " + name + " "; !strings.Contains(text, want) {
			t.Errorf("%s has no type", name)
		}
	}
}

// TestNoForeignText: whatever a guest, a client or a database calls itself, no
// label repeats it.
func TestNoForeignText(t *testing.T) {
	const evil = "evil\"}\n# HELP"
	m := telemetry.New("1", sets, telemetry.Sources{
		Policy: func() map[string]uint64 {
			return map[string]uint64{evil + ".decisions": 1, "route.fallback." + evil: 1, "route.fallback.x" + evil: 2, "route." + evil: 1}
		},
		Queue: func() telemetry.Queue {
			return telemetry.Queue{States: map[string]int{evil: 1}, Pending: map[string]int{"\xff": 1}}
		},
	})
	m.Name([]string{"calculator", "\xff"}, []string{"acme", "\xff"})
	m.PluginCall(telemetry.PluginCall{Plugin: "\xff", Tenant: "\xff", Entry: "\xff", Class: "\xff"})
	m.PluginCall(telemetry.PluginCall{Plugin: evil, Tenant: evil, Entry: evil, Class: evil, Fuel: 1, Opened: true})
	m.Refused(evil, evil, evil)
	m.Request(evil, evil, evil)
	m.Retry(evil, evil)
	text := scrape(t, m)
	if strings.Contains(text, "evil") {
		t.Errorf("a foreign word is in:\n%s", text)
	}
	for _, series := range []string{
		`casemate_plugin_calls_total{class="other",entry="other",plugin="other"} 2`,
		`casemate_plugin_refused_total{op="other",plugin="other",reason="other"} 1`,
		`casemate_tenant_plugin_fuel_total{tenant="other"} 1`,
		`casemate_requests_total{class="other",path="other",state="other"} 1`,
		`casemate_policy_fallbacks_total{kind="route",reason="other"} 3`,
		`casemate_retries_total{class="other",kind="other"} 1`,
	} {
		if !strings.Contains(text, series+"\n") {
			t.Errorf("no %s", series)
		}
	}
}

// TestNamesAreBounded: tenants beyond the bound share one series.
func TestNamesAreBounded(t *testing.T) {
	m := telemetry.New("1", sets, telemetry.Sources{})
	for i := range 1000 {
		name := fmt.Sprintf("tenant-%d", i)
		m.Name(nil, []string{name})
		m.PluginCall(telemetry.PluginCall{Tenant: name, Fuel: 1})
	}
	text := scrape(t, m)
	if n := strings.Count(text, "\ncasemate_tenant_plugin_fuel_total{"); n != 201 {
		t.Errorf("%d series, want 201", n)
	}
	if got := value(text, `casemate_tenant_plugin_fuel_total{tenant="other"}`); got != "800" {
		t.Errorf("%s in other, want 800", got)
	}
}

// TestConcurrentCalls counts from many goroutines while it is scraped.
func TestConcurrentCalls(t *testing.T) {
	m := telemetry.New("1", sets, telemetry.Sources{})
	m.Name([]string{"a", "b"}, nil)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				m.PluginCall(telemetry.PluginCall{
					Plugin: []string{"a", "b"}[i%2], Entry: "tool_call", Class: "ok", Fuel: 1, Memory: uint64(g*500 + i),
				})
			}
		})
	}
	wg.Go(func() { scrape(t, m) })
	wg.Wait()
	text := scrape(t, m)
	for series, want := range map[string]string{
		`casemate_plugin_fuel_total{entry="tool_call",plugin="a"}`: "1000",
		`casemate_plugin_memory_peak_bytes{plugin="b"}`:            "1999",
	} {
		if got := value(text, series); got != want {
			t.Errorf("%s = %s, want %s", series, got, want)
		}
	}
}

func BenchmarkPluginCall(b *testing.B) {
	m := telemetry.New("1", sets, telemetry.Sources{})
	m.Name([]string{"a"}, nil)
	for b.Loop() {
		m.PluginCall(telemetry.PluginCall{Plugin: "a", Entry: "tool_call", Tenant: "t", Class: "ok", Fuel: 1, Memory: 1})
	}
}
