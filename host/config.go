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
	Agents    []Agent
	MCP       MCP
	Tenants   []Tenant // none: one tenant "default" that needs no key
	Sandbox   Sandbox

	MaxBodyBytes int64         // of a request, 32 MiB
	MaxFileBytes int64         // of an uploaded file, 512 MiB
	MaxLines     int           // of a batch, 100,000
	KeepBatches  time.Duration // how long batches are kept after their end, with their files, 30 days
	Slots        int           // queued requests that run here at once, 64
	Realtime     int           // realtime requests that run here at once, 1024
	Lease        time.Duration // how long this host may be silent before others take its work over, 20 s
	Poll         time.Duration // longest wait between two looks at an empty queue, 1 s
	Drain        time.Duration // how long a shutdown lets work go on, 10 s
	MaxReaps     int           // dead workers that a request may outlive, 3
	MaxFailures  int           // retries that a request may spend, 5
	RetryBudget  RetryBudget
	Retention    time.Duration // what ended is kept so long, and what it used for ever; 0: for ever
	// Notify is the URL of a connection to the same PostgreSQL on which LISTEN
	// works, where Store goes through a pooler; "off": hosts poll only.
	Notify string

	FirstEvent time.Duration // of an upstream call: to its first event, 60 s
	Idle       time.Duration // between two reads, 60 s
	Total      time.Duration // of the whole call, 10 min

	CacheDir   string // compiled modules are kept here; "": in memory only
	MetricsKey string // that GET /metrics asks for; "": none, but then it is shown only where tenants need no key either
	Logger     hclog.Logger
}

// Upstream is a model endpoint.
type Upstream struct {
	Name    string
	Kind    string // "chat", or "openai" for the same, "responses", or "demo": the built-in demo model
	BaseURL string // not of kind demo; ending in /v1
	APIKey  string
}

// Model is an alias that clients ask for.
type Model struct {
	Name     string
	Targets  []Target
	Escalate Escalation // To is "" for none
	// Record says when a request that is no response is written: "before" it is
	// begun, "after" it has ended, or "off": only what it used is; "": before.
	Record string
	// ContextWindow is how many tokens input and output may have together; 0: not
	// known.
	ContextWindow int
}

// Agent is a tool that is a model with instructions and tools of its own.
type Agent struct {
	Name          string
	Description   string
	Parameters    []byte // a JSON Schema of an object; nil: one string, input
	Model         string // a Model.Name
	Instructions  string
	Tools         []string // "plugin", "plugin/tool" or "agents/name"
	MaxModelCalls int      // in one call of the agent; 0: as many as a response may make
}

// MCP is what clients may do with MCP servers of their own choice.
type MCP struct {
	HTTP []HTTPRule // which servers they may name; none: none
}

// Escalation runs queued requests on another model when their deadline is near.
type Escalation struct {
	To     string // a Model.Name
	Within time.Duration
}

// RetryBudget bounds the retries that this host makes of one model's calls.
// Zero fields take the defaults.
type RetryBudget struct {
	Ratio        float64 // retries that a first try pays for
	MinPerSecond float64 // retries a second that nothing has to pay for
}

// Reserve parts a cap between realtime and queued requests.
type Reserve struct {
	Realtime int // slots that queued requests never take
	// Queued slots are not taken by realtime requests while requests are queued;
	// 0: one where the cap is above one; below 0: none.
	Queued int
}

// Target is one upstream's model behind an alias.
type Target struct {
	Upstream string
	Model    string
	Weight   float64 // against the alias's other targets, 1
	Limit    int     // calls in flight that it takes of all hosts together; 0: any number
	Reserve  Reserve // of Limit
}

// Plugin is a tool module and what it is granted.
type Plugin struct {
	File    string
	Grants  []string   // op strings, "kv.get/1"
	HTTP    []HTTPRule // what http.fetch/1 may be used for; none: nothing
	Secrets []Secret
	// Effects of its tools by name, "pure", "idempotent" or "once", in place of
	// what the module says.
	Effects map[string]string
	Limits  Limits
}

// HTTPRule lets http.fetch/1 send some requests.
type HTTPRule struct {
	Scheme  string   // "https" or "http"
	Host    string   // a name, "*." and a name, or an address; lower case
	Port    int      // 0: that of the scheme
	Methods []string // none: GET and HEAD
	Path    string   // that paths begin with; "": all
	Private bool     // the host may have a private address
}

// Secret is a value that a plugin may send to Host in Header, as
// {{secret:NAME}}, and never sees.
type Secret struct {
	Name   string
	Value  string
	Host   string
	Header string
}

// Limits bound one call of a plugin. Zero fields take the defaults of its kind:
// a tool has 500 M fuel, 30 s, 64 MiB and 1 MiB of output, a policy 50 M fuel,
// 100 ms, 16 MiB and 16 KiB.
type Limits struct {
	Fuel     uint64
	Wall     time.Duration
	Memory   uint64 // bytes
	Output   int    // bytes
	LogLines int    // 1,000
	LogBytes int    // 256 KiB
	Emits    int    // 100
	Calls    int    // of capabilities, 256
}

// Policies are module files; "" is the built-in policy.
type Policies struct {
	Route  string
	Retry  string
	Limits Limits // of each decision
}

// Sandbox is what all plugins share.
type Sandbox struct {
	IdleMemory uint64 // bytes that instances without a call may hold; 0: the sandbox's default

	// A plugin that traps so many times within Window is not called for this
	// tenant for the time Open; 0: the sandbox's defaults.
	Traps  int
	Window time.Duration
	Open   time.Duration
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
	// MaxRunningTotal is of all models together; 0: no cap.
	MaxRunningTotal int
	Reserve         Reserve // of both caps

	PluginFuelPerMinute uint64            // that its calls of tools use together; 0: no cap
	PluginInstances     int               // of tools that run at once for it; 0: no cap
	PluginLimits        map[string]Limits // by plugin, in place of the plugin's own where set
}

// Kinds of an upstream that are none of the client's: the built-in one, and
// another name of chat.
const (
	kindDemo   = "demo"
	kindOpenAI = "openai"
)
