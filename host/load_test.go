package host_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

func TestLoadConfigMapsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	err := os.WriteFile(path, []byte(`listen: 127.0.0.1:0
slots: 3
realtime_slots: 6
max_reaps: 7
max_failures: 8
retention: 9h
retry_budget: {ratio: 0.5, min_per_second: 11}
log: {level: error}
upstreams: [{name: u, kind: openai, base_url: http://127.0.0.1:1/v1, api_key_env: K, limits: {max_in_flight: 9, reserve: {realtime: 2, queued: 1}}}]
models:
  - {name: m, targets: [{upstream: u, model: x, weight: 2}], escalate: {to: n, within: 5m}}
  - {name: n, targets: [{upstream: u, model: y}]}
tenants:
  - name: a
    keys: [{env: A}]
    models: [m]
    tools: {mode: opt_in, allow: [p]}
    limits: {weight: 3, max_running: 4, max_running_total: 5, reserve: {realtime: 1}, plugin_fuel_per_minute: 1G, plugin_instances: 2}
    plugin_limits: {p: {fuel: 1M}}
plugins:
  - file: c.yaml
    grants: [http.fetch/1]
    http: [{host: a.example, port: 8443, methods: [POST], path: /v1/, private: true}]
    secrets: [{name: T, env: K, host: a.example, header: X-Key}]
    tools: {t: {effects: pure}}
    limits: {fuel: 1k, wall: 2s, memory: 64KiB, output: 3, log_lines: 4, log_bytes: 5, emits: 6, calls: 7}
policies: {limits: {wall: 20ms}}
sandbox: {idle_memory: 1MiB, breaker: {traps: 1, window: 2s, open: 3s}}
metrics: {key_env: K}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	log := hclog.New(&hclog.LoggerOptions{Output: &bytes.Buffer{}})
	got, err := host.LoadConfig(path, []string{"K=key", "A=a", "CASEMATE_SLOTS=5"}, log)
	if err != nil {
		t.Fatal(err)
	}
	want := host.Config{
		Listen: "127.0.0.1:0", Store: "sqlite:data/casemate.db", Slots: 5, Logger: log,
		Realtime: 6, MaxReaps: 7, MaxFailures: 8, Retention: 9 * time.Hour, RetryBudget: host.RetryBudget{Ratio: 0.5, MinPerSecond: 11},
		Upstreams: []host.Upstream{{Name: "u", Kind: "openai", BaseURL: "http://127.0.0.1:1/v1", APIKey: "key"}},
		Models: []host.Model{{
			Name: "m", Escalate: host.Escalation{To: "n", Within: 5 * time.Minute},
			Targets: []host.Target{{Upstream: "u", Model: "x", Weight: 2, Limit: 9, Reserve: host.Reserve{Realtime: 2, Queued: 1}}},
		}, {
			Name: "n", Targets: []host.Target{{Upstream: "u", Model: "y", Weight: 1, Limit: 9, Reserve: host.Reserve{Realtime: 2, Queued: 1}}},
		}},
		Tenants: []host.Tenant{{
			Name: "a", KeyHashes: got.Tenants[0].KeyHashes, Models: []string{"m"}, ToolMode: "opt_in", ToolAllow: []string{"p"},
			Weight: 3, MaxRunning: 4, MaxRunningTotal: 5, Reserve: host.Reserve{Realtime: 1}, PluginFuelPerMinute: 1_000_000_000, PluginInstances: 2,
			PluginLimits: map[string]host.Limits{"p": {Fuel: 1_000_000}},
		}},
		Plugins: []host.Plugin{{
			File: path, Grants: []string{"http.fetch/1"},
			HTTP: []host.HTTPRule{
				{Scheme: "https", Host: "a.example", Port: 8443, Methods: []string{"POST"}, Path: "/v1/", Private: true},
			},
			Secrets: []host.Secret{{Name: "T", Value: "key", Host: "a.example", Header: "X-Key"}},
			Effects: map[string]string{"t": "pure"},
			Limits: host.Limits{
				Fuel: 1000, Wall: 2 * time.Second, Memory: 64 << 10, Output: 3, LogLines: 4, LogBytes: 5, Emits: 6, Calls: 7,
			},
		}},
		Policies:   host.Policies{Limits: host.Limits{Wall: 20 * time.Millisecond}},
		Sandbox:    host.Sandbox{IdleMemory: 1 << 20, Traps: 1, Window: 2 * time.Second, Open: 3 * time.Second},
		MetricsKey: "key",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if len(got.Tenants[0].KeyHashes) != 1 {
		t.Errorf("got %d key hashes, want 1", len(got.Tenants[0].KeyHashes))
	}
	if log.GetLevel() != hclog.Error {
		t.Errorf("level is %v, want the configured one", log.GetLevel())
	}
}

func TestLoadConfigWithoutFile(t *testing.T) {
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	got, err := host.LoadConfig("", nil, hclog.New(&hclog.LoggerOptions{Output: &out}))
	if err != nil {
		t.Fatal(err)
	}
	if got.Listen != "127.0.0.1:8080" || len(got.Models) != 1 || got.Models[0].Name != "demo" {
		t.Errorf("got %+v, want the demo on loopback", got)
	}
	if !strings.Contains(out.String(), "make build") {
		t.Errorf("log is %q, want a warning that names make build", out.String())
	}
	if entries, _ := os.ReadDir("."); len(entries) > 0 {
		t.Errorf("loading left %v behind", entries)
	}
}
