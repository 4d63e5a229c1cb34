package host_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host"
	"github.com/casemate/casemate/host/internal/testguest"
)

// send makes one request of a host and returns the body of the answer.
func send(t *testing.T, method, url, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", method, url, res.StatusCode, text, err)
	}
	return string(text)
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMetrics asks a host for a calculation and reads what it counted.
func TestMetrics(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sums.wasm")
	write(t, file, testguest.Build(t, "../examples/tools/calculator"))
	h, err := host.New(t.Context(), host.Config{
		Listen: "127.0.0.1:0", Store: "sqlite:" + filepath.Join(dir, "c.db"), Logger: hclog.NewNullLogger(),
		Upstreams: []host.Upstream{{Name: "demo", Kind: "demo"}},
		Models:    []host.Model{{Name: "m", Targets: []host.Target{{Upstream: "demo", Model: "demo"}}}},
		Plugins:   []host.Plugin{{File: file}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	base := "http://" + h.Addr().String()
	if got := send(t, "POST", base+"/v1/responses", `{"model":"m","input":"What is 6*7?"}`); !strings.Contains(got, "42") {
		t.Fatalf("answer %s, want 42", got)
	}
	text := send(t, "GET", base+"/metrics", "")
	for _, want := range []string{
		`casemate_plugin_calls_total{class="ok",entry="tool_call",plugin="sums"} 1`,
		`casemate_plugin_fuel_total{entry="tool_call",plugin="sums"} `,
		`casemate_policy_builtin_total{kind="route"} 2`,
		`casemate_tenant_plugin_calls_total{class="ok",tenant="default"} 1`,
		`casemate_policy_decisions_total{kind="route"} 2`,
		`casemate_requests_total{class="ok",path="/v1/responses",state="completed"} 1`,
		`casemate_plugin_instances_idle `,
		`casemate_store_healthy 1`,
		`casemate_build_info{version="` + host.Version + `"} 1`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(text, "calculator") {
		t.Error("what a plugin calls itself is a label")
	}
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(text, "\ncasemate_queue_requests{state=\"pending\"} 0\n"); {
		if time.Now().After(deadline) {
			t.Fatal("the store was not counted within 20 s of a scrape")
		}
		text = send(t, "GET", base+"/metrics", "")
	}
}
