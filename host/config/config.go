// Package config reads a YAML file and the environment into plain values, and
// says of everything that is wrong where it stands and what is wanted. It
// opens no store, loads no plugin and knows no other package of the host.
package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// ErrInvalid is wrapped by every error that a change of the file or of the
// environment can mend.
var ErrInvalid = errors.New("invalid configuration")

// maxFile is the most bytes that a configuration file may have.
const maxFile = 1 << 20

// File is a configuration: what the file says, with the environment over it.
// Zero numbers and durations were not set: the host has its defaults for them.
type File struct {
	Listen    string // host:port
	Store     string // "sqlite:PATH" or "postgres://…"
	Upstreams []Upstream
	Models    []Model
	Plugins   []Plugin
	Policies  Policies
	Agents    []Agent
	MCP       MCP
	Tenants   []Tenant
	Sandbox   Sandbox
	Log       Log
	Files     Files
	Batches   Batches
	Record    string // what is written of a request on the default path: before, after or off; "": before

	MaxBodyBytes  int64         // of a request
	Slots         int           // requests run at once from the queue
	RealtimeSlots int           // requests run at once that somebody waits for
	Lease         time.Duration // a worker that is silent this long is dead
	Poll          time.Duration // between two looks at an empty queue
	Drain         time.Duration // given to running requests at shutdown
	MaxReaps      int           // a request may lose this many workers
	MaxFailures   int           // retries that a request may spend
	Timeouts      Timeouts
	RetryBudget   RetryBudget
	Retention     time.Duration // what ended is kept so long; 0: for ever
	// Notify is where LISTEN is possible, a postgres:// URL, or "off"; "": where
	// Store says.
	Notify     string
	CacheDir   string // of compiled modules
	MetricsKey string // that GET /metrics asks for: value of the variable that metrics.key_env names

	// Warnings are for the log: things that work, though hardly as meant.
	Warnings []string
}

// Upstream is a model endpoint.
type Upstream struct {
	Name        string
	Kind        string  // "chat", or "openai" for the same, "responses" or "demo"
	BaseURL     string  // not of kind demo
	APIKey      string  // value of the variable that api_key_env names
	MaxInFlight int     // calls to each of its models at once, of all hosts together; 0: any number
	Reserve     Reserve // of MaxInFlight
}

// Model is a name that clients ask for, and what may answer it.
type Model struct {
	Name     string
	Targets  []Target
	Escalate Escalation // To is "" for none
	Record   string     // File.Record for this model; "": as there
	// ContextWindow is how many tokens input and output may have together; 0: not
	// known.
	ContextWindow int
}

// Target is a model of an upstream.
type Target struct {
	Upstream string
	Model    string  // the upstream's own name of it
	Weight   float64 // 1 unless set
}

// Tenant is one user of the host.
type Tenant struct {
	Name      string
	KeyHashes [][sha256.Size]byte
	// Models are the names that the tenant may use; nil: every one.
	Models   []string
	ToolMode string // "auto" or "opt_in"
	// ToolAllow are what the tenant may use, "plugin" or "plugin/tool"; nil:
	// every tool.
	ToolAllow  []string
	Weight     float64 // share of the queue, 1 unless set
	MaxRunning int     // requests run at once for each model; 0: no cap
	// MaxRunningTotal is of all models together; 0: no cap.
	MaxRunningTotal int
	Reserve         Reserve // of both caps

	PluginFuelPerMinute uint64 // that calls of tools use together; 0: no cap
	PluginInstances     int    // of tools that run at once; 0: no cap
	// PluginLimits are in place of a plugin's own where they are set, by the
	// plugin's name.
	PluginLimits map[string]Limits
}

// Sandbox is what all plugins of the host share.
type Sandbox struct {
	IdleMemory uint64 // bytes that instances without a call may hold

	// A plugin that traps so many times within Window is not called for this
	// tenant while its breaker is open.
	Traps  int
	Window time.Duration
	Open   time.Duration
}

// Log says what is logged, and how.
type Log struct {
	Level  string // trace, debug, info, warn, error; "" is info
	Format string // text or json; "" is text
}

// Timeouts bound one call of an upstream.
type Timeouts struct {
	FirstEvent time.Duration
	Idle       time.Duration
	Total      time.Duration
}

const (
	defaultListen = "127.0.0.1:8080"
	defaultStore  = "sqlite:data/casemate.db"
)

// Load reads the file at path, with environ ("NAME=value") over it. Paths in
// the file are taken from the directory of the file, paths in the environment
// from the working directory. The error joins all that is wrong.
func Load(path string, environ []string) (File, error) { return load(path, environ, true) }

// LoadWithoutSecrets is Load for a program that only looks at the store: the
// variables that the file names as places of keys need not be there, and what
// they hold is not read.
func LoadWithoutSecrets(path string, environ []string) (File, error) {
	return load(path, environ, false)
}

func load(path string, environ []string, secrets bool) (File, error) {
	data, err := read(path)
	if err != nil {
		return File{}, err
	}
	r := newReader(path, filepath.Dir(path), environ)
	r.secrets = secrets
	r.file.Listen, r.file.Store = defaultListen, defaultStore
	r.document(data)
	return r.finish()
}

// Default is the configuration of no file: loopback, a SQLite file, the
// built-in demo model, and of the shipped tools and policies those found in
// the first of dirs that has any. Environ goes over it, as in Load.
func Default(environ, dirs []string) (File, error) {
	r := newReader("", "", environ)
	r.secrets = true
	r.file.Listen, r.file.Store = defaultListen, defaultStore
	r.file.Upstreams = []Upstream{{Name: "demo", Kind: kindDemo}}
	r.file.Models = []Model{{Name: "demo", Targets: []Target{{Upstream: "demo", Model: "demo", Weight: 1}}}}
	r.shipped(dirs)
	return r.finish()
}

// shipped adds the tools and policies of the first of dirs that has any.
func (r *reader) shipped(dirs []string) {
	find := func(dir, name string) (string, bool) {
		file := filepath.Join(dir, name+".wasm")
		info, err := os.Stat(file)
		return file, err == nil && info.Mode().IsRegular()
	}
	names := []string{"calculator", "notes", "route-default", "retry-default"}
	at := slices.IndexFunc(dirs, func(dir string) bool {
		return slices.ContainsFunc(names, func(name string) bool { _, ok := find(dir, name); return ok })
	})
	missing := names
	if at >= 0 {
		missing = nil
		for _, name := range names {
			file, ok := find(dirs[at], name)
			switch {
			case !ok:
				missing = append(missing, name)
			case name == "calculator":
				r.file.Plugins = append(r.file.Plugins, Plugin{File: file})
			case name == "notes":
				r.file.Plugins = append(r.file.Plugins, Plugin{File: file, Grants: []string{"kv.get/1", "kv.put/1"}})
			case name == "route-default":
				r.file.Policies.Route = file
			case name == "retry-default":
				r.file.Policies.Retry = file
			}
		}
	}
	if len(missing) > 0 {
		r.file.Warnings = append(r.file.Warnings, fmt.Sprintf(
			"no module %s in %s: those tools are not on offer and the built-in policies decide; make build makes them",
			strings.Join(missing, ", "), strings.Join(dirs, " or ")))
	}
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("config: %s: %w: not a regular file", path, ErrInvalid)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("config: %s: %w: %d bytes, more than %d", path, ErrInvalid, info.Size(), maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	return data, nil
}
