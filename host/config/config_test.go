package config_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/config"
)

// write puts files, by their names, into a fresh directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const full = `listen: 0.0.0.0:9000
store: sqlite:state/c.db
log: {level: warn, format: json}
max_body_bytes: 1048576
slots: 8
lease: 5s
poll: 100ms
drain: 2s
max_reaps: 2
max_failures: 7
cache_dir: cache
timeouts: {first_event: 1s, idle: 2s, total: 3s}
upstreams:
  - name: main
    kind: openai
    base_url: https://models.example/v1
    api_key_env: MAIN_KEY
    limits: {max_in_flight: 4}
  - name: demo
    kind: demo
models:
  - name: org/big:free
    targets:
      - {upstream: main, model: big, weight: 2.5}
      - {upstream: demo, model: demo}
plugins:
  - file: notes.wasm
    grants: [kv.get/1, kv.put/1]
policies:
  route: route.wasm
tenants:
  - name: acme
    keys: [{env: CASEMATE_ACME_KEY}, {sha256: ` + zeros + `}]
    models: [org/big:free]
    tools: {mode: opt_in, allow: [notes/notes, calculator]}
    limits: {weight: 3, max_running: 5}
  - name: globex
    keys: [{sha256: "` + ones + `"}]
`

const (
	zeros = "a000000000000000000000000000000000000000000000000000000000000000"
	ones  = "1111111111111111111111111111111111111111111111111111111111111111"
)

func TestLoadReadsEveryKey(t *testing.T) {
	dir := write(t, map[string]string{"c.yaml": full, "notes.wasm": "x", "route.wasm": "x"})
	env := []string{"MAIN_KEY=sk-1", "CASEMATE_ACME_KEY=acme-1", "CASEMATE_TEST_POSTGRES=whatever", "HOME=/nowhere"}
	got, err := config.Load(filepath.Join(dir, "c.yaml"), env)
	if err != nil {
		t.Fatal(err)
	}
	want := config.File{
		Listen: "0.0.0.0:9000",
		Store:  "sqlite:" + filepath.Join(dir, "state/c.db"),
		Upstreams: []config.Upstream{
			{Name: "main", Kind: "openai", BaseURL: "https://models.example/v1", APIKey: "sk-1", MaxInFlight: 4},
			{Name: "demo", Kind: "demo"},
		},
		Models: []config.Model{{Name: "org/big:free", Targets: []config.Target{
			{Upstream: "main", Model: "big", Weight: 2.5}, {Upstream: "demo", Model: "demo", Weight: 1},
		}}},
		Plugins:  []config.Plugin{{File: filepath.Join(dir, "notes.wasm"), Grants: []string{"kv.get/1", "kv.put/1"}}},
		Policies: config.Policies{Route: filepath.Join(dir, "route.wasm")},
		Tenants: []config.Tenant{
			{
				Name: "acme", KeyHashes: [][32]byte{sha256.Sum256([]byte("acme-1")), {0xa0}},
				Models: []string{"org/big:free"}, ToolMode: "opt_in", ToolAllow: []string{"notes/notes", "calculator"}, Weight: 3, MaxRunning: 5,
			},
			{
				Name: "globex", KeyHashes: [][32]byte{[32]byte([]byte(strings.Repeat("\x11", 32)))},
				ToolMode: "auto", Weight: 1,
			},
		},
		Log: config.Log{Level: "warn", Format: "json"}, MaxBodyBytes: 1 << 20, Slots: 8,
		Lease: 5 * time.Second, Poll: 100 * time.Millisecond, Drain: 2 * time.Second, MaxReaps: 2, MaxFailures: 7,
		Timeouts: config.Timeouts{FirstEvent: time.Second, Idle: 2 * time.Second, Total: 3 * time.Second},
		CacheDir: filepath.Join(dir, "cache"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestEnvironmentIsOverTheFile(t *testing.T) {
	dir := write(t, map[string]string{"c.yaml": small("listen: 127.0.0.1:1\nlog: {level: warn}\nslots: 3\n")})
	got, err := config.Load(filepath.Join(dir, "c.yaml"), []string{
		"CASEMATE_LISTEN=localhost:2", "CASEMATE_STORE=sqlite:rel.db", "CASEMATE_LOG_LEVEL=error", "CASEMATE_LOG_FORMAT=json",
		"CASEMATE_MAX_BODY_BYTES=10", "CASEMATE_SLOTS=4", "CASEMATE_LEASE=9s", "CASEMATE_DRAIN=8s",
		"CASEMATE_TIMEOUTS_IDLE=7s", "CASEMATE_CACHE_DIR=rel", "CASEMATE_POLL=", "CASEMATE_OTHER=",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := config.File{
		Listen: "localhost:2", Store: "sqlite:rel.db", Log: config.Log{Level: "error", Format: "json"},
		MaxBodyBytes: 10, Slots: 4, Lease: 9 * time.Second, Drain: 8 * time.Second,
		Timeouts: config.Timeouts{Idle: 7 * time.Second}, CacheDir: "rel",
		Upstreams: got.Upstreams, Models: got.Models,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// small is head and the least that a file must hold.
func small(head string) string {
	return head + "upstreams: [{name: demo, kind: demo}]\nmodels: [{name: demo, targets: [{upstream: demo, model: demo}]}]\n"
}

// TestWrongFile: every error names file and line, the key and what is wanted.
func TestWrongFile(t *testing.T) {
	const tenant = "tenants: [{name: a, keys: [{env: KEY}]}]\n"
	tests := []struct {
		name, text string
		env        []string
		want       string // with @ for the name of the file
	}{
		{"empty", "", nil, "@:1: the file is empty"},
		{"only a comment", "# nothing\n", nil, "@:1: the file is empty"},
		{"a list", "- a\n", nil, "@:1: want a mapping of keys"},
		{"not YAML", small("a: [\n"), nil, "not YAML"},
		{"tab", small("log:\n\tlevel: info\n"), nil, "@:2: not YAML"},
		{"two documents", small("") + "---\na: 1\n", nil, "@:3: a second document; want one"},
		{"unknown key", small("\nlisen: 127.0.0.1:1\n"), nil, `@:2: "lisen": unknown key; known here: agents, batches, cache_dir, drain`},
		{"unknown nested key", small("log:\n  levle: info\n"), nil, `@:2: log."levle": unknown key; known here: format, level`},
		{"merge key", small("<<: {a: b}\n"), nil, `@:1: "<<": unknown key`},
		{"duplicate key", small("slots: 1\nslots: 2\n"), nil, "@:2: slots: is there twice, first on line 1"},
		{"duplicate nested key", small("log:\n  level: info\n  level: info\n"), nil, "@:3: log.level: is there twice"},
		{"key without value", small("listen:\n"), nil, "@:1: listen: has no value; want a string, or leave the key out"},
		{"number for a string", small("listen: 8080\n"), nil, "@:1: listen: want a string (put it in quotes)"},
		{"string for a number", small("slots: many\n"), nil, "@:1: slots: want a whole number"},
		{"list for a mapping", small("log: [a]\n"), nil, "@:1: log: want a mapping"},
		{"mapping for a list", small("plugins: {file: a}\n"), nil, "@:1: plugins: want a list"},
		{"alias", small("store: &a sqlite:x\nlisten: *a\n"), nil, "@:2: listen: aliases are not supported"},
		{"zero slots", small("slots: 0\n"), nil, `@:1: slots: "0": want a whole number from 1`},
		{"huge number", small("max_body_bytes: 99999999999999999999\n"), nil, "@:1: max_body_bytes: "},
		{"duration without unit", small("lease: '30'\n"), nil, "@:1: lease: \"30\": want a duration from 1s to 720h"},
		{"negative duration", small("lease: -3s\n"), nil, "@:1: lease: "},
		{"bad level", small("log: {level: loud}\n"), nil, `@:1: log.level: "loud": want trace, debug, info, warn or error`},
		{"listen without port", small("listen: localhost\n"), nil, "@:1: listen: \"localhost\": want host:port"},
		{"listen with a bad port", small("listen: localhost:http\n"), nil, "@:1: listen: "},
		{"open without tenants", small("listen: 0.0.0.0:80\n"), nil, "@:1: listen: \"0.0.0.0:80\" is not a loopback address, and without tenants"},
		{"open to all without tenants", small("listen: :80\n"), nil, "is not a loopback address"},
		{"open by name without tenants", small("listen: example.com:80\n"), nil, "is not a loopback address"},
		{"store of an unknown kind", small("store: mysql://user:hunter2@x\n"), nil, "@:1: store: want sqlite:PATH or postgres://"},
		{"store URL", small("store: 'postgres://u:hunter2%@x'\n"), nil, "@:1: store: not a URL"},
		{"store path with NUL", small("store: \"sqlite:a\\0b\"\n"), nil, "@:1: store: "},
		{"no models", "upstreams: [{name: demo, kind: demo}]\n", nil, "@:1: models: want at least one"},
		{"no upstreams", "models: [{name: m, targets: [{upstream: u, model: x}]}]\nupstreams: []\n", nil, "@:1: upstreams: want at least one"},
		{"no targets", "upstreams: [{name: demo, kind: demo}]\nmodels: [{name: m, targets: []}]\n", nil, "@:2: models[0].targets: want at least one"},
		{"unknown upstream", "upstreams: [{name: demo, kind: demo}]\nmodels:\n  - name: m\n    targets:\n      - {upstream: dmeo, model: x}\n", nil, `@:5: models[0].targets[0].upstream: no upstream is named "dmeo"`},
		{"same target twice", "upstreams: [{name: demo, kind: demo}]\nmodels: [{name: m, targets: [{upstream: demo, model: x}, {upstream: demo, model: x}]}]\n", nil, `models[0].targets[1]: "x" of demo is there twice`},
		{"same model twice", "upstreams: [{name: demo, kind: demo}]\nmodels:\n  - {name: m, targets: [{upstream: demo, model: x}]}\n  - {name: m, targets: [{upstream: demo, model: y}]}\n", nil, `@:4: models[1].name: "m" is there twice, first on line 3`},
		{"same upstream twice", "upstreams: [{name: d, kind: demo}, {name: d, kind: demo}]\nmodels: [{name: m, targets: [{upstream: d, model: x}]}]\n", nil, "@:1: upstreams[1].name: \"d\" is there twice"},
		{"name with NUL", "upstreams: [{name: \"a\\0\", kind: demo}]\nmodels: [{name: m, targets: [{upstream: d, model: x}]}]\n", nil, `@:1: upstreams[0].name: "a\x00" does not match`},
		{"name missing", "upstreams: [{kind: demo}]\nmodels: [{name: m, targets: [{upstream: d, model: x}]}]\n", nil, "@:1: upstreams[0].name: is missing"},
		{"weight zero", "upstreams: [{name: d, kind: demo}]\nmodels: [{name: m, targets: [{upstream: d, model: x, weight: 0}]}]\n", nil, "models[0].targets[0].weight: \"0\": want a number from 0.001 to 1000"},
		{"weight not a number", "upstreams: [{name: d, kind: demo}]\nmodels: [{name: m, targets: [{upstream: d, model: x, weight: .nan}]}]\n", nil, "models[0].targets[0].weight: "},
		{"openai without URL", one("kind: openai"), nil, "@:2: upstreams[0].base_url: is missing"},
		{"URL scheme", one("kind: openai, base_url: 'ftp://x'"), nil, "@:2: upstreams[0].base_url: want http://HOST/… or https://HOST/…"},
		{"URL with password", one("kind: openai, base_url: 'http://u:hunter2@x'"), nil, "upstreams[0].base_url: holds a password"},
		{"URL with query", one("kind: openai, base_url: 'http://x/?a'"), nil, "upstreams[0].base_url: want no ?"},
		{"demo with URL", one("kind: demo, base_url: 'http://x'"), nil, "upstreams[0].base_url: an upstream of kind demo has none"},
		{"kind", one("kind: azure"), nil, `upstreams[0].kind: "azure": want chat, responses, demo or openai`},
		{"key variable missing", one("kind: openai, base_url: 'http://x', api_key_env: NO_KEY"), nil, "@:2: upstreams[0].api_key_env: the environment has no NO_KEY"},
		{"key variable with line end", one("kind: openai, base_url: 'http://x', api_key_env: K"), []string{"K=hunter2\n"}, "@:2: upstreams[0].api_key_env: K holds a space, a line end"},
		{"inline key", one("kind: openai, base_url: 'http://x', api_key: hunter2"), nil, `upstreams[0]."api_key": unknown key; known here: api_key_env`},
		{"plugin file missing", small("plugins:\n  - file: gone.wasm\n"), nil, "@:2: plugins[0].file: "},
		{"plugin is a directory", small("plugins:\n  - file: .\n"), nil, "@:2: plugins[0].file: "},
		{"plugin file empty", small("plugins:\n  - file: ''\n"), nil, "@:2: plugins[0].file: want the path"},
		{"plugin twice", small("plugins: [{file: c.yaml}, {file: ./c.yaml}]\n"), nil, "plugins[1]: "},
		{"grant", small("plugins: [{file: c.yaml, grants: [kv]}]\n"), nil, `plugins[0].grants[0]: "kv" does not match`},
		{"grant twice", small("plugins: [{file: c.yaml, grants: [kv.get/1, kv.get/1]}]\n"), nil, `plugins[0].grants[1]: "kv.get/1" is there twice`},
		{"policy file missing", small("policies: {retry: gone.wasm}\n"), nil, "@:1: policies.retry: "},
		{"tenant without keys", small("tenants: [{name: a, keys: []}]\n"), nil, "@:1: tenants[0].keys: want at least one"},
		{"tenant key missing", small(tenant), nil, "@:1: tenants[0].keys[0].env: the environment has no KEY"},
		{"tenant hash", small("tenants: [{name: a, keys: [{sha256: abc}]}]\n"), nil, "tenants[0].keys[0].sha256: want the SHA-256"},
		{"tenant with neither", small("tenants: [{name: a, keys: [{}]}]\n"), nil, "tenants[0].keys[0]: want one of env and sha256"},
		{"tenant with both", small("tenants: [{name: a, keys: [{env: KEY, sha256: " + zeros + "}]}]\n"), []string{"KEY=k"}, "tenants[0].keys[0]: want one of"},
		{"shared key", small("tenants:\n  - {name: a, keys: [{env: KEY}]}\n  - {name: b, keys: [{env: KEY}]}\n"), []string{"KEY=k"}, "@:3: tenants[1].keys[0]: this key belongs to tenant a already"},
		{"tenant model", small("tenants: [{name: a, keys: [{env: KEY}], models: [x]}]\n"), []string{"KEY=k"}, `tenants[0].models: no model is named "x"`},
		{"tool mode", small("tenants: [{name: a, keys: [{env: KEY}], tools: {mode: on}}]\n"), []string{"KEY=k"}, `tenants[0].tools.mode: "on": want auto or opt_in`},
		{"no tools that are all", small("tenants: [{name: a, keys: [{env: KEY}], tools: {allow: []}}]\n"), []string{"KEY=k"}, "@:1: tenants[0].tools.allow: is empty: want at least one"},
		{"no models that are all", small("tenants: [{name: a, keys: [{env: KEY}], models: []}]\n"), []string{"KEY=k"}, "@:1: tenants[0].models: is empty"},
		{"tool entry", small("tenants: [{name: a, keys: [{env: KEY}], tools: {allow: [a/b/c]}}]\n"), []string{"KEY=k"}, `tenants[0].tools.allow[0]: "a/b/c" does not match`},
		{"variable unknown", small(""), []string{"CASEMATE_LISTN=x"}, "CASEMATE_LISTN: no such setting; known: CASEMATE_BATCHES_KEEP, CASEMATE_BATCHES_MAX_LINES, CASEMATE_CACHE_DIR, "},
		{"variable wrong", small(""), []string{"CASEMATE_SLOTS=x"}, `CASEMATE_SLOTS: "x": want a whole number`},
		{"variable opens the door", small(""), []string{"CASEMATE_LISTEN=0.0.0.0:1"}, "CASEMATE_LISTEN: \"0.0.0.0:1\" is not a loopback address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(write(t, map[string]string{"c.yaml": tt.text}), "c.yaml")
			_, err := config.Load(path, tt.env)
			if err == nil {
				t.Fatal("no error")
			}
			if !errors.Is(err, config.ErrInvalid) {
				t.Errorf("%v does not wrap ErrInvalid", err)
			}
			if want := strings.ReplaceAll(tt.want, "@", path); !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the message: %v", err)
			}
		})
	}
}

// one is a file whose only upstream has the given keys.
func one(keys string) string {
	return "models: [{name: m, targets: [{upstream: u, model: x}]}]\nupstreams: [{name: u, " + keys + "}]\n"
}

func TestEveryMistakeIsTold(t *testing.T) {
	path := filepath.Join(write(t, map[string]string{"c.yaml": small("slots: 0\nlease: x\nfoo: 1\n")}), "c.yaml")
	_, err := config.Load(path, nil)
	for line := 1; line <= 3; line++ {
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s:%d: ", path, line)) {
			t.Errorf("line %d is missing in: %v", line, err)
		}
	}
}

func TestUnreadableFile(t *testing.T) {
	dir := write(t, map[string]string{"big.yaml": strings.Repeat("#\n", 1<<20)})
	for name, want := range map[string]string{
		"gone.yaml": "no such file", "big.yaml": "more than 1048576", ".": "not a regular file",
	} {
		_, err := config.Load(filepath.Join(dir, name), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func TestDefault(t *testing.T) {
	dir := write(t, map[string]string{
		"calculator.wasm": "x", "notes.wasm": "x", "route-default.wasm": "x", "retry-default.wasm": "x", "other.wasm": "x",
	})
	got, err := config.Default([]string{"CASEMATE_LISTEN=127.0.0.1:0"}, []string{"no-such-directory", dir})
	if err != nil {
		t.Fatal(err)
	}
	want := config.File{
		Listen: "127.0.0.1:0", Store: "sqlite:data/casemate.db",
		Upstreams: []config.Upstream{{Name: "demo", Kind: "demo"}},
		Models:    []config.Model{{Name: "demo", Targets: []config.Target{{Upstream: "demo", Model: "demo", Weight: 1}}}},
		Plugins: []config.Plugin{
			{File: filepath.Join(dir, "calculator.wasm")},
			{File: filepath.Join(dir, "notes.wasm"), Grants: []string{"kv.get/1", "kv.put/1"}},
		},
		Policies: config.Policies{Route: filepath.Join(dir, "route-default.wasm"), Retry: filepath.Join(dir, "retry-default.wasm")},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDefaultTellsWhatIsNotBuilt(t *testing.T) {
	dir := write(t, map[string]string{"notes.wasm": "x"})
	for _, tt := range []struct {
		dirs []string
		want string
	}{
		{[]string{"nowhere"}, "no module calculator, notes, route-default, retry-default in nowhere"},
		{[]string{dir}, "no module calculator, route-default, retry-default in " + dir},
	} {
		got, err := config.Default(nil, tt.dirs)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], tt.want) || !strings.Contains(got.Warnings[0], "make build") {
			t.Errorf("got %q, want one warning with %q and make build", got.Warnings, tt.want)
		}
	}
	if _, err := config.Default([]string{"CASEMATE_LISTEN=:80"}, nil); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("an open door without tenants: got %v, want ErrInvalid", err)
	}
}

// TestExamples loads each file of examples/configs with its modules in place.
func TestExamples(t *testing.T) {
	const examples = "../../examples/configs"
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("got %d examples, %v; want 3 or more", len(files), err)
	}
	root := t.TempDir()
	for _, dir := range []string{"examples/configs", "build/wasm"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, guest := range []string{"calculator", "notes", "fetch", "route-default", "retry-default", "retry-eager"} {
		if err := os.WriteFile(filepath.Join(root, "build/wasm", guest+".wasm"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			here := filepath.Join(root, "examples/configs", filepath.Base(file))
			if err := os.WriteFile(here, text, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := config.Load(here, []string{"OPENAI_API_KEY=k", "ACME_API_KEY=k", "FETCH_TOKEN=k", "SCRAPE_KEY=k"})
			if err != nil {
				t.Fatal(err)
			}
			if len(f.Warnings) > 0 {
				t.Errorf("warnings %q, want none", f.Warnings)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(full)
	f.Add(small("") + sandboxed)
	f.Add("a: &a [*a]\n")
	f.Add("---\n")
	f.Add("? [a]\n: b\n")
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(write(t, map[string]string{"c.yaml": text}), "c.yaml")
		if _, err := config.Load(path, nil); err != nil && !errors.Is(err, config.ErrInvalid) {
			t.Errorf("%v does not wrap ErrInvalid", err)
		}
	})
}
