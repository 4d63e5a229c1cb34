package host_test

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
)

func TestLoadConfigMapsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	err := os.WriteFile(path, []byte(`listen: 127.0.0.1:0
slots: 3
log: {level: error}
upstreams: [{name: u, kind: openai, base_url: http://127.0.0.1:1/v1, api_key_env: K, limits: {max_in_flight: 9}}]
models: [{name: m, targets: [{upstream: u, model: x, weight: 2}]}]
tenants: [{name: a, keys: [{env: A}], models: [m], tools: {mode: opt_in, allow: [p]}, limits: {weight: 3, max_running: 4}}]
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
		Upstreams: []host.Upstream{{Name: "u", Kind: "openai", BaseURL: "http://127.0.0.1:1/v1", APIKey: "key"}},
		Models:    []host.Model{{Name: "m", Targets: []host.Target{{Upstream: "u", Model: "x", Weight: 2, Limit: 9}}}},
		Tenants: []host.Tenant{{
			Name: "a", KeyHashes: got.Tenants[0].KeyHashes, Models: []string{"m"}, ToolMode: "opt_in", ToolAllow: []string{"p"},
			Weight: 3, MaxRunning: 4,
		}},
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
