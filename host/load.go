package host

import (
	"cmp"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/config"
	"github.com/casemate/casemate/host/telemetry"
)

// LoadConfig reads the file at path, with the variables of environ
// ("CASEMATE_LISTEN=…") over it. Without a path it is the configuration for a
// first look: loopback, a SQLite file, the built-in demo model, and the shipped
// tools and policies that are found in build/wasm below the working directory
// or beside the directory of the executable.
//
// Logger becomes Config.Logger, at the level that is configured, if one is;
// nil makes one that writes to standard error. Its errors name file, line, key
// and what is wanted.
func LoadConfig(path string, environ []string, logger hclog.Logger) (Config, error) {
	f, err := loadFile(path, environ)
	if err != nil {
		return Config{}, err
	}
	if logger == nil {
		if logger, err = telemetry.Logger(os.Stderr, f.Log.Level, f.Log.Format); err != nil {
			return Config{}, err
		}
	} else if f.Log.Level != "" {
		level, err := telemetry.Level(f.Log.Level)
		if err != nil {
			return Config{}, err
		}
		logger.SetLevel(level)
	}
	for _, w := range f.Warnings {
		logger.Warn("configuration: " + w)
	}
	c := fromFile(f)
	c.Logger = logger
	return c, nil
}

// LoadStoreConfig is LoadConfig for a program that only looks at the store: it
// needs none of the variables that hold keys, and logs nothing.
func LoadStoreConfig(path string, environ []string) (Config, error) {
	if path == "" {
		return LoadConfig(path, environ, hclog.NewNullLogger())
	}
	f, err := config.LoadWithoutSecrets(path, environ)
	if err != nil {
		return Config{}, err
	}
	c := fromFile(f)
	c.Logger = hclog.NewNullLogger()
	return c, nil
}

func loadFile(path string, environ []string) (config.File, error) {
	if path != "" {
		return config.Load(path, environ)
	}
	dirs := []string{filepath.Join("build", "wasm")}
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", "build", "wasm"))
	}
	return config.Default(environ, dirs)
}

// fromFile maps the values of a file; what the file left out stays zero.
func fromFile(f config.File) Config {
	c := Config{
		Listen:       f.Listen,
		Store:        f.Store,
		Policies:     Policies{Route: f.Policies.Route, Retry: f.Policies.Retry, Limits: Limits(f.Policies.Limits)},
		Sandbox:      Sandbox(f.Sandbox),
		MaxBodyBytes: f.MaxBodyBytes,
		MaxFileBytes: f.Files.MaxBytes,
		MaxLines:     f.Batches.MaxLines,
		KeepBatches:  f.Batches.Keep,
		Slots:        f.Slots,
		Realtime:     f.RealtimeSlots,
		RetryBudget:  RetryBudget(f.RetryBudget),
		Retention:    f.Retention,
		Notify:       f.Notify,
		Lease:        f.Lease,
		Poll:         f.Poll,
		Drain:        f.Drain,
		MaxReaps:     f.MaxReaps,
		MaxFailures:  f.MaxFailures,
		FirstEvent:   f.Timeouts.FirstEvent,
		Idle:         f.Timeouts.Idle,
		Total:        f.Timeouts.Total,
		CacheDir:     f.CacheDir,
		MetricsKey:   f.MetricsKey,
	}
	upstreams := make(map[string]config.Upstream, len(f.Upstreams))
	for _, u := range f.Upstreams {
		c.Upstreams = append(c.Upstreams, Upstream{Name: u.Name, Kind: u.Kind, BaseURL: u.BaseURL, APIKey: u.APIKey})
		upstreams[u.Name] = u
	}
	for _, m := range f.Models {
		model := Model{
			Name: m.Name, Escalate: Escalation(m.Escalate), Record: cmp.Or(m.Record, f.Record), ContextWindow: m.ContextWindow,
		}
		for _, t := range m.Targets {
			u := upstreams[t.Upstream]
			model.Targets = append(model.Targets, Target{
				Upstream: t.Upstream, Model: t.Model, Weight: t.Weight, Limit: u.MaxInFlight, Reserve: Reserve(u.Reserve),
			})
		}
		c.Models = append(c.Models, model)
	}
	for _, p := range f.Plugins {
		c.Plugins = append(c.Plugins, fromPlugin(p))
	}
	for _, a := range f.Agents {
		c.Agents = append(c.Agents, Agent(a))
	}
	for _, r := range f.MCP.HTTP {
		c.MCP.HTTP = append(c.MCP.HTTP, HTTPRule(r))
	}
	for _, t := range f.Tenants {
		c.Tenants = append(c.Tenants, fromTenant(t))
	}
	return c
}

func fromPlugin(f config.Plugin) Plugin {
	p := Plugin{File: f.File, Grants: f.Grants, Effects: f.Effects, Limits: Limits(f.Limits)}
	for _, r := range f.HTTP {
		p.HTTP = append(p.HTTP, HTTPRule(r))
	}
	for _, s := range f.Secrets {
		p.Secrets = append(p.Secrets, Secret(s))
	}
	return p
}

func fromTenant(f config.Tenant) Tenant {
	t := Tenant{
		Name: f.Name, KeyHashes: f.KeyHashes, Models: f.Models, ToolMode: f.ToolMode, ToolAllow: f.ToolAllow,
		Weight: f.Weight, MaxRunning: f.MaxRunning, MaxRunningTotal: f.MaxRunningTotal, Reserve: Reserve(f.Reserve),
		PluginFuelPerMinute: f.PluginFuelPerMinute, PluginInstances: f.PluginInstances,
	}
	for plugin, l := range f.PluginLimits {
		if t.PluginLimits == nil {
			t.PluginLimits = map[string]Limits{}
		}
		t.PluginLimits[plugin] = Limits(l)
	}
	return t
}
