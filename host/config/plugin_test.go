package config_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/config"
	"github.com/casemate/casemate/plugins/egress"
	"github.com/casemate/casemate/sdk/abi"
)

const sandboxed = `
plugins:
  - file: fetch.wasm
    grants: [http.fetch/1, kv.get/1]
    http:
      - host: api.example.com
      - {scheme: http, host: 10.1.2.3, port: 8080, methods: [GET, POST], path: /v1/, private: true}
    secrets:
      - {name: TOKEN, env: FETCH_TOKEN, host: api.example.com, header: Authorization}
    tools:
      fetch: {effects: idempotent}
    limits:
      fuel: 2G
      wall: 5s
      memory: 128MiB
      output: 65536
      log_lines: 10
      log_bytes: 4KiB
      emits: 3
      calls: 4
policies:
  limits: {fuel: 1000000, wall: 50ms, memory: 8MiB}
tenants:
  - name: a
    keys: [{env: KEY}]
    limits: {plugin_fuel_per_minute: 50G, plugin_instances: 8}
    plugin_limits:
      fetch: {fuel: 100M, wall: 1s}
      notes: {memory: 65536}
sandbox:
  idle_memory: 512MiB
  breaker: {traps: 3, window: 1m, open: 30s}
metrics: {key_env: SCRAPE_KEY}
`

func TestLoadReadsTheSandbox(t *testing.T) {
	dir := write(t, map[string]string{"c.yaml": small("") + sandboxed, "fetch.wasm": "x"})
	got, err := config.Load(filepath.Join(dir, "c.yaml"), []string{"FETCH_TOKEN=t0k", "KEY=k", "SCRAPE_KEY=s"})
	if err != nil {
		t.Fatal(err)
	}
	wantPlugin := config.Plugin{
		File: filepath.Join(dir, "fetch.wasm"), Grants: []string{"http.fetch/1", "kv.get/1"},
		HTTP: []config.HTTPRule{
			{Scheme: "https", Host: "api.example.com", Path: "/"},
			{Scheme: "http", Host: "10.1.2.3", Port: 8080, Methods: []string{"GET", "POST"}, Path: "/v1/", Private: true},
		},
		Secrets: []config.Secret{{Name: "TOKEN", Value: "t0k", Host: "api.example.com", Header: "Authorization"}},
		Effects: map[string]string{"fetch": "idempotent"},
		Limits: config.Limits{
			Fuel: 2_000_000_000, Wall: 5 * time.Second, Memory: 128 << 20, Output: 65536, LogLines: 10, LogBytes: 4096,
			Emits: 3, Calls: 4,
		},
	}
	tenant := got.Tenants[0]
	for _, tt := range []struct {
		what      string
		got, want any
	}{
		{"plugin", got.Plugins, []config.Plugin{wantPlugin}},
		{"policies", got.Policies.Limits, config.Limits{Fuel: 1_000_000, Wall: 50 * time.Millisecond, Memory: 8 << 20}},
		{"fuel per minute", tenant.PluginFuelPerMinute, uint64(50_000_000_000)},
		{"instances", tenant.PluginInstances, 8},
		{"plugin limits", tenant.PluginLimits, map[string]config.Limits{
			"fetch": {Fuel: 100_000_000, Wall: time.Second}, "notes": {Memory: 65536},
		}},
		{"sandbox", got.Sandbox, config.Sandbox{IdleMemory: 512 << 20, Traps: 3, Window: time.Minute, Open: 30 * time.Second}},
		{"metrics key", got.MetricsKey, "s"},
		{"warnings", got.Warnings, []string(nil)},
	} {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.what, tt.got, tt.want)
		}
	}
}

func TestSandboxFromTheEnvironment(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"c.yaml": small("sandbox: {idle_memory: 1GiB}\n")}), "c.yaml")
	got, err := config.Load(path, []string{
		"CASEMATE_SANDBOX_IDLE_MEMORY=64MiB", "CASEMATE_SANDBOX_BREAKER_TRAPS=9",
		"CASEMATE_SANDBOX_BREAKER_WINDOW=2m", "CASEMATE_SANDBOX_BREAKER_OPEN=3s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := (config.Sandbox{IdleMemory: 64 << 20, Traps: 9, Window: 2 * time.Minute, Open: 3 * time.Second}); got.Sandbox != want {
		t.Errorf("got %+v, want %+v", got.Sandbox, want)
	}
}

// plug is a file with one plugin that has the given keys on line 3.
func plug(keys string) string { return small("") + "plugins: [{file: c.yaml, " + keys + "}]\n" }

// rented is a file with one tenant that has the given keys on line 3.
func rented(keys string) string {
	return small("") + "tenants: [{name: a, keys: [{env: K}], " + keys + "}]\n"
}

// secretOf is a secret with the given keys in place of good ones.
func secretOf(keys string) string {
	return plug("grants: [http.fetch/1], http: [{host: a.example}], secrets: [{" + keys + "}]")
}

func TestWrongSandbox(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"fuel unit", plug("limits: {fuel: 5MB}"), `@:3: plugins[0].limits.fuel: "5MB": want a whole number from 1k to 1000T, plain or with k, M, G or T, like 500M`},
		{"fuel fraction", plug("limits: {fuel: 1.5}"), "@:3: plugins[0].limits.fuel: want a whole number, plain or with a unit"},
		{"fuel fraction with a unit", plug("limits: {fuel: 1.5M}"), `plugins[0].limits.fuel: "1.5M": want a whole number`},
		{"fuel too small", plug("limits: {fuel: 999}"), "want a whole number from 1k"},
		{"fuel that overflows", plug("limits: {fuel: 99999999999T}"), "want a whole number from 1k"},
		{"fuel is a list", plug("limits: {fuel: []}"), "plugins[0].limits.fuel: want a whole number, plain or with a unit"},
		{"memory unit", plug("limits: {memory: 64MB}"), `plugins[0].limits.memory: "64MB": want a whole number from 64KiB to 4GiB, plain or with KiB, MiB or GiB, like 64MiB`},
		{"memory below a page", plug("limits: {memory: 65535}"), "from 64KiB to 4GiB"},
		{"negative memory", plug("limits: {memory: -1}"), `"-1": want a whole number from 64KiB`},
		{"output too large", plug("limits: {output: 1GiB}"), "plugins[0].limits.output: "},
		{"wall", plug("limits: {wall: 25h}"), `plugins[0].limits.wall: "25h": want a duration from 1ms to 24h, like 30s`},
		{"wall without unit", plug("limits: {wall: 5}"), `plugins[0].limits.wall: "5": want a duration from 1ms to 24h, like 30s`},
		{"wall without value", plug("limits: {wall: }"), "plugins[0].limits.wall: has no value; want a duration, like 30s, or leave the key out"},
		{"no method", plug("http: [{host: a.example, methods: []}]"), "plugins[0].http[0].methods: is empty: want at least one, or leave the key out"},
		{"no calls", plug("limits: {calls: 0}"), `plugins[0].limits.calls: "0": want a whole number from 1`},
		{"log volume", plug("limits: {log_bytes: 1TiB}"), "plugins[0].limits.log_bytes: "},
		{"unknown limit", plug("limits: {cpu: 1}"), `plugins[0].limits."cpu": unknown key; known here: calls, emits, fuel, log_bytes, log_lines, memory, output, wall`},
		{"policy limit", small("policies: {limits: {wall: 0s}}\n"), "@:1: policies.limits.wall: "},

		{"rule without host", plug("http: [{scheme: https}]"), "plugins[0].http[0].host: is missing"},
		{"rule scheme", plug("http: [{scheme: ftp, host: a.example}]"), `plugins[0].http[0].scheme: "ftp": want https or http`},
		{"host with a scheme", plug("http: [{host: 'https://a.example'}]"), "plugins[0].http[0].host: want a name in lower case without scheme, port and path"},
		{"host with a port", plug("http: [{host: 'a.example:80'}]"), "plugins[0].http[0].host: want a name"},
		{"host in capitals", plug("http: [{host: A.example}]"), "plugins[0].http[0].host: want a name in lower case"},
		{"host that is everything", plug("http: [{host: '*'}]"), "plugins[0].http[0].host: want a name"},
		{"address in another spelling", plug("http: [{host: 127.1}]"), "plugins[0].http[0].host: want a"},
		{"address that is not one", plug("http: [{host: 10.0.0.256}]"), "plugins[0].http[0].host: want a name"},
		{"address with a zone", plug("http: [{host: 'fe80::1%eth0'}]"), "plugins[0].http[0].host: want a name"},
		{"address in hexadecimal", plug("http: [{host: a.0x7f}]"), "plugins[0].http[0].host: want a name"},
		{"metadata address", plug("http: [{host: 169.254.169.254, private: true}]"), "plugins[0].http[0].host: no request to 169.254.169.254 is ever allowed"},
		{"port", plug("http: [{host: a.example, port: 65536}]"), "plugins[0].http[0].port: "},
		{"method", plug("http: [{host: a.example, methods: [get]}]"), `plugins[0].http[0].methods[0]: "get": want GET, HEAD,`},
		{"no method", plug("http: [{host: a.example, methods: []}]"), "plugins[0].http[0].methods: is empty"},
		{"path without slash", plug("http: [{host: a.example, path: v1}]"), "plugins[0].http[0].path: want what paths begin with"},
		{"path with dots", plug("http: [{host: a.example, path: /v1/..}]"), "plugins[0].http[0].path: want what"},
		{"path with an escape", plug("http: [{host: a.example, path: /%2e%2e/}]"), "plugins[0].http[0].path: want what"},
		{"private", plug("http: [{host: a.example, private: 'yes'}]"), "plugins[0].http[0].private: want true or false"},

		{"secret without variable", secretOf("name: T, host: a.example, header: X"), "plugins[0].secrets[0].env: is missing"},
		{"secret in the file", secretOf("name: T, value: hunter2"), `plugins[0].secrets[0]."value": unknown key; known here: env, header, host, name`},
		{"secret of no variable", secretOf("name: T, env: NO_SUCH, host: a.example, header: X"), "plugins[0].secrets[0].env: the environment has no NO_SUCH"},
		{"secret with a line end", secretOf("name: T, env: BAD, host: a.example, header: X"), "plugins[0].secrets[0].env: BAD holds a space, a line end"},
		{"secret for a domain", secretOf("name: T, env: K, host: '*.a.example', header: X"), "plugins[0].secrets[0].host: want one host"},
		{"secret in the Host header", secretOf("name: T, env: K, host: a.example, header: Host"), "plugins[0].secrets[0].header: is a header that the host writes"},
		{"secret in no header", secretOf(`name: T, env: K, host: a.example, header: "X:"`), `plugins[0].secrets[0].header: "X:" does not match`},
		{"secret name", secretOf("name: a b, env: K, host: a.example, header: X"), `plugins[0].secrets[0].name: "a b" does not match`},
		{"secret in a proxy's header", secretOf("name: T, env: K, host: a.example, header: Proxy-Authorization"), "plugins[0].secrets[0].header: is a header that the host writes"},
		{"secret twice", plug("secrets: [{name: T, env: K, host: a.example, header: X}, {name: T, env: K, host: a.example, header: x}]"), `plugins[0].secrets[1]: "T" is there twice for this host and header`},

		{"effects", plug("tools: {fetch: {effects: none}}"), `plugins[0].tools.fetch.effects: "none": want pure, idempotent or once`},
		{"no effects", plug("tools: {fetch: {}}"), "plugins[0].tools.fetch.effects: is missing"},
		{"tool name", plug("tools: {a/b: {effects: pure}}"), `plugins[0].tools."a/b": "a/b" does not match`},
		{"tool twice", plug("tools: {a: {effects: pure}, a: {effects: once}}"), "plugins[0].tools.a: is there twice"},

		{"fuel per minute", rented("limits: {plugin_fuel_per_minute: lots}"), `tenants[0].limits.plugin_fuel_per_minute: "lots": want`},
		{"instances", rented("limits: {plugin_instances: 0}"), "tenants[0].limits.plugin_instances: "},
		{"plugin limits by file", rented("plugin_limits: {notes.wasm: {fuel: 1M}}"), `tenants[0].plugin_limits."notes.wasm": "notes.wasm" does not match`},
		{"plugin limits of agents", rented("plugin_limits: {agents: {fuel: 1M}}"), `tenants[0].plugin_limits."agents": agents are no plugin`},
		{"unknown plugin limit", rented("plugin_limits: {notes: {cpu: 1}}"), `tenants[0].plugin_limits.notes."cpu": unknown key`},

		{"idle memory", small("sandbox: {idle_memory: 1}\n"), "@:1: sandbox.idle_memory: "},
		{"idle memory of another type", small("sandbox: {idle_memory: true}\n"), "@:1: sandbox.idle_memory: want a whole number, plain or with a unit"},
		{"traps", small("sandbox: {breaker: {traps: 0}}\n"), `@:1: sandbox.breaker.traps: "0": want a whole number from 1`},
		{"window", small("sandbox: {breaker: {window: 1}}\n"), `@:1: sandbox.breaker.window: "1": want a duration`},
		{"unknown breaker key", small("sandbox: {breaker: {trap: 1}}\n"), `sandbox.breaker."trap": unknown key; known here: open, traps, window`},
		{"unknown sandbox key", small("sandbox: {idle: 1}\n"), `sandbox."idle": unknown key; known here: breaker, idle_memory`},
		{"metrics key missing", small("metrics: {key_env: NO_SUCH}\n"), "@:1: metrics.key_env: the environment has no NO_SUCH"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(write(t, map[string]string{"c.yaml": tt.text}), "c.yaml")
			_, err := config.Load(path, []string{"K=k", "BAD=hunter2\n"})
			if want := strings.ReplaceAll(tt.want, "@", path); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the message: %v", err)
			}
		})
	}
}

// TestWarnings: what works, though hardly as meant, loads and is told.
func TestWarnings(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown op", plug("grants: [kv.get/2]"), `@:3: plugins[0].grants[0]: this host knows no "kv.get/2"; it knows kv.get/1, `},
		{"grant without rules", plug("grants: [http.fetch/1]"), "@:3: plugins[0]: http.fetch/1 is granted, but without rules under http no request is allowed"},
		{"rules without grant", plug("http: [{host: a.example}]"), "@:3: plugins[0].http: has no use: http.fetch/1 is not among the grants"},
		{"private address", plug("grants: [http.fetch/1], http: [{host: 192.168.0.1}]"), "plugins[0].http[0]: 192.168.0.1 is a private address: without private: true"},
		{"carrier's address", plug("grants: [http.fetch/1], http: [{host: 100.64.0.1}]"), "plugins[0].http[0]: 100.64.0.1 is a private address"},
		{"what a policy cannot do", small("policies: {limits: {calls: 3}}\n"), "@:1: policies.limits: emits and calls have no use"},
		{"loopback by name", plug("grants: [http.fetch/1], http: [{host: localhost}]"), "localhost is a private address"},
		{"secret for another host", secretOf("name: T, env: K, host: b.example, header: X"), "plugins[0].secrets: T has no use: no https rule under http allows its host b.example"},
		{"secret over http", plug("grants: [http.fetch/1], http: [{host: a.example, scheme: http}], secrets: [{name: T, env: K, host: a.example, header: X}]"), "T has no use: no https rule"},
		{"nothing", plug("grants: [http.fetch/1], http: [{host: '*.example', path: /a/b}], secrets: [{name: T, env: K, host: a.example, header: X}]"), ""},
		{"one secret for two headers", plug("grants: [http.fetch/1], http: [{host: a.example}], secrets: [{name: T, env: K, host: a.example, header: X}, {name: T, env: K, host: a.example, header: Y}]"), ""},
		{"nothing to say of private", plug("grants: [http.fetch/1], http: [{host: '::1', private: true}]"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(write(t, map[string]string{"c.yaml": tt.text}), "c.yaml")
			got, err := config.Load(path, []string{"K=hunter2"})
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(got.Warnings, "\n")
			if want := strings.ReplaceAll(tt.want, "@", path); want == "" && all != "" || !strings.Contains(all, want) || strings.Count(all, "\n") > 0 {
				t.Errorf("got  %q\nwant one: %q", got.Warnings, want)
			}
			if strings.Contains(all, "hunter2") {
				t.Errorf("a secret is in a warning: %s", all)
			}
		})
	}
}

// TestKnownOps: every op of the ABI may be granted without a warning.
func TestKnownOps(t *testing.T) {
	ops := []string{
		abi.OpKVGet, abi.OpKVPut, abi.OpKVDelete, abi.OpKVList, abi.OpHTTPFetch, abi.OpToolCall, abi.OpTimeNow, abi.OpRand,
	}
	path := filepath.Join(write(t, map[string]string{"c.yaml": plug("grants: [" + strings.Join(ops, ", ") + "], http: [{host: a.example}]")}), "c.yaml")
	got, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Warnings) > 0 {
		t.Errorf("warnings %q, want none", got.Warnings)
	}
}

// TestRulesAreUnderstood: what the file may say of a host, the sandbox takes as
// it is, and what the sandbox would refuse is told with its line.
func TestRulesAreUnderstood(t *testing.T) {
	for _, host := range []string{
		"a.example", "*.a.example", "a", "a_b.example", "xn--bcher-kva.example", "10.0.0.1", "::1", "2001:db8::1", "1.2.3.4.example",
		"A.example", "a..example", "-a.example", ".example", "*", "*.", "*.10.0.0.1", "a.example.", "a b", "bücher.example", "1.2.3",
		"a.0x1", "[::1]", "http://a", "a:80", "a/b", "010.0.0.1", "::ffff:10.0.0.1%eth0",
	} {
		path := filepath.Join(write(t, map[string]string{"c.yaml": plug("grants: [http.fetch/1], http: [{host: '" + host + "'}]")}), "c.yaml")
		f, err := config.Load(path, nil)
		if err != nil {
			continue // this package may be the stricter one
		}
		r := f.Plugins[0].HTTP[0]
		if err := (egress.Options{Rules: []egress.Rule{{Scheme: r.Scheme, Host: r.Host, PathPrefix: r.Path}}}).Validate(); err != nil {
			t.Errorf("host %q is accepted here, but %v", host, err)
		}
	}
}
