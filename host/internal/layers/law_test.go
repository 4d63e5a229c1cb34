package layers

// law lists, for each package pattern, the packages of this module that it may
// import; "!" before a pattern shuts out. Patterns follow path.Match and the
// first line that matches counts. A package with no line fails the test, so a
// new package needs a decision. Files that are tests are free.
var law = []struct{ pkg, mayImport string }{
	// What authors of plugins import, and what they write.
	{"sdk/abi", ""},
	{"sdk/internal/*", "sdk/abi sdk/internal/*"},
	{"sdk/*", "sdk/abi sdk/internal/*"},
	{"sdk/*/*", "sdk/* sdk/internal/*"}, // kits for tests of plugins
	{"examples/tools/*", "sdk/*"},
	{"policies/*", "sdk/*"},

	// The host's side of the boundary. It never sees host.
	{"plugins/capability", ""},
	{"plugins/manifest", "sdk/abi"},
	{"plugins/egress", "sdk/abi plugins/capability"},
	{"plugins/egress/egresstest", ""},
	{"plugins/plugintest", "plugins plugins/capability sdk/abi"},
	{"plugins/plugintest/plugintesting", "plugins plugins/plugintest"},
	{"plugins/internal/testguests", "sdk/guesttest"},
	{"plugins/internal/*", "sdk/abi plugins/manifest plugins/capability plugins/internal/* plugins/internal/*/*"},
	{"plugins/internal/*/*", "sdk/abi plugins/manifest plugins/capability plugins/internal/* plugins/internal/*/*"},
	{"plugins", "sdk/abi plugins/manifest plugins/capability plugins/internal/* plugins/internal/*/*"},

	// Vocabulary: no I/O, no stage.
	{"host/queue", ""},
	{"host/object", ""},
	{"host/tenant", ""},
	{"host/response", "host/queue"},
	{"host/policy", "sdk/abi host/queue host/response"},

	// Values and loggers; host maps them.
	{"host/config", ""},
	{"host/telemetry", ""},

	// The store and its drivers. A stage may know store, never a driver.
	{"host/store", "host/queue host/response"},
	{"host/store/*", "host/store host/queue host/response"},

	// Stages.
	{"host/demo", ""},
	{"host/upstream", "sdk/abi host/object host/queue"},
	{"host/translate", "host/queue host/response"},
	{"host/tokens", ""},
	{"host/batch", "host/queue host/response host/store"},
	{"host/mcp", "plugins/capability plugins/egress sdk/abi host/queue host/response host/store host/loop"},
	{"host/stream", "host/queue host/response host/store"},
	{"host/loop", "sdk/abi host/queue host/response host/policy host/store host/stream host/upstream host/translate"},
	{"host/processor", "sdk/abi host/object host/queue host/response host/policy host/store host/stream host/upstream host/translate host/loop"},
	{"host/share", "host/queue host/store"},
	{"host/claimer", "host/queue host/response host/store"},
	{"host/api", "host/object host/queue host/response host/store host/stream host/tenant host/tokens"},
	{"host/guest", "plugins plugins/capability plugins/egress plugins/manifest plugins/plugintest sdk/abi host/queue host/response host/policy host/loop host/store"},

	// The only place that wires, and what stands on it.
	{"host", "host/* host/store/* plugins plugins/capability plugins/egress sdk/abi !host/store/storetest"},
	{"host/doctor", "host/queue host/store"},
	{"host/queuebench", "host/claimer host/queue host/store"},
	{"host/cmd/*", "host host/doctor host/queuebench host/store plugins/plugintest"},
	{"examples/embed", "host"},

	// Support of tests and benchmarks.
	{"host/internal/layers", ""},
	{"host/internal/testdb", ""},
	{"host/internal/testguest", "sdk/guesttest"},
	{"host/internal/endtoend", ""},
	{"host/internal/fleet", ""},
	{"host/internal/bench", "host host/* host/store/* host/internal/* plugins plugins/* sdk/abi"},
}

// owner names the packages that may import a third-party module.
type owner struct{ module, pkgs string }

// owners lists every third-party module: one that has no line may not be
// imported, so a new one needs a decision. Guest code may import none.
var owners = []owner{
	{"github.com/tetratelabs/wazero", "plugins/internal/engine"},
	{"golang.org/x/sys", "plugins/internal/engine"},
	{"github.com/prometheus/client_golang", "host/telemetry"},
	{"github.com/jackc/pgx/v5", "host/store/postgres"},
	{"modernc.org/sqlite", "host/store/sqlite"},
	{"github.com/gofrs/flock", "host/store/sqlite"},
	{"go.yaml.in/yaml/v3", "host/config"},
	{"github.com/google/jsonschema-go", "plugins/manifest"},
	{"github.com/hashicorp/go-hclog", "host host/* host/internal/* host/cmd/* plugins plugins/internal/*"},
	{"github.com/fsnotify/fsnotify", "host host/cmd/*"},
	{"github.com/google/uuid", "host/queue"},
	{"github.com/coder/websocket", "host/api"},
	{"github.com/modelcontextprotocol/go-sdk", "host/mcp"},
	{"github.com/tiktoken-go/tokenizer", "host/tokens"},
	{"golang.org/x/sync", "host host/* host/store/* plugins plugins/internal/*"},
	{"github.com/fergusstrange/embedded-postgres", "host/internal/testdb"},
	{"github.com/lib/pq", "host/internal/testdb"}, // embedded-postgres brings it
}
