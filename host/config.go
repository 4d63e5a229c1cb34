package host

import (
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says what a Host is made of. The zero value of every field but Store
// and Models is usable.
type Config struct {
	Listen string // "127.0.0.1:8080"; a port of 0 takes a free one
	Store  string // "sqlite:PATH" or "postgres://…"

	Upstreams []Upstream
	Models    []Model
	Plugins   []Plugin
	Policies  Policies
	Tenants   []Tenant // none: one tenant "default" that needs no key

	MaxBodyBytes int64         // of a request, 32 MiB
	Slots        int           // queued requests that run here at once, 64
	Lease        time.Duration // how long this host may be silent before others take its work over, 20 s
	Poll         time.Duration // longest wait between two looks at an empty queue, 1 s
	Drain        time.Duration // how long a shutdown lets work go on, 10 s
	MaxReaps     int           // dead workers that a request may outlive, 3
	MaxFailures  int           // retries that a request may spend, 5

	FirstEvent time.Duration // of an upstream call: to its first event, 60 s
	Idle       time.Duration // between two reads, 60 s
	Total      time.Duration // of the whole call, 10 min

	CacheDir string // compiled modules are kept here; "": in memory only
	Logger   hclog.Logger
}

// Upstream is a model endpoint.
type Upstream struct {
	Name    string
	Kind    string // "openai", or "demo": the built-in demo model
	BaseURL string // of kind openai, ending in /v1
	APIKey  string
}

// Model is an alias that clients ask for.
type Model struct {
	Name    string
	Targets []Target
}

// Target is one upstream's model behind an alias.
type Target struct {
	Upstream string
	Model    string
	Weight   float64 // against the alias's other targets, 1
	Limit    int     // calls in flight that the upstream takes; 0: no limit
}

// Plugin is a tool module and the op strings it is granted, "kv.get/1".
type Plugin struct {
	File   string
	Grants []string
}

// Policies are module files; "" is the built-in policy.
type Policies struct {
	Route string
	Retry string
}

// Tenant is a customer of this host, known by its keys.
type Tenant struct {
	Name       string
	KeyHashes  [][32]byte // SHA-256 of each key
	Models     []string   // that it may use; none: all
	ToolMode   string     // "auto" (every tool is offered) or "opt_in"
	ToolAllow  []string   // "plugin" or "plugin/tool"; none: all
	Weight     float64    // its share of the claims, 1
	MaxRunning int        // requests that run at once per model; 0: no cap
}

// kindDemo is the kind of the built-in upstream.
const kindDemo = "demo"
