package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/api"
	"github.com/casemate/casemate/host/tenant"
)

// counts stands for the handler of the metrics.
var counts = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte("casemate_build_info 1\n"))
})

func TestMetricsAreForTheOperator(t *testing.T) {
	nobody, err := tenant.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	const key = "scrape-key"
	for _, tt := range []struct {
		name   string
		change func(*api.Options)
		auth   string
		status int
		code   string
	}{
		{"one tenant without a key", func(o *api.Options) { o.Tenants = nobody }, "", 200, ""},
		{"tenants and no key for metrics", func(*api.Options) {}, "Bearer key-acme", 403, "metrics_key_needed"},
		{"the key", func(o *api.Options) { o.MetricsKey = key }, "Bearer " + key, 200, ""},
		{"no key", func(o *api.Options) { o.MetricsKey = key }, "", 401, "invalid_api_key"},
		{"a tenant's key", func(o *api.Options) { o.MetricsKey = key }, "Bearer key-acme", 401, "invalid_api_key"},
		{"a key is asked for without tenants too", func(o *api.Options) { o.Tenants, o.MetricsKey = nobody, key }, "", 401, "invalid_api_key"},
		{"no metrics", func(o *api.Options) { o.Tenants, o.Metrics = nobody, nil }, "", 404, "unknown_url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, func(o *api.Options) { o.Metrics = counts }, tt.change)
			a := h.do("GET", "/metrics", "", "Authorization", tt.auth)
			if tt.status == 200 {
				if a.status != 200 || string(a.body) != "casemate_build_info 1\n" || a.header.Get("Content-Type") != "text/plain" {
					t.Errorf("got %d %s %q, want the metrics", a.status, a.header.Get("Content-Type"), a.body)
				}
				h.awaitLog(`"route":"/metrics","status":200`)
				return
			}
			a.wantError(t, tt.status, tt.code, "")
			if strings.Contains(string(a.body), key) {
				t.Errorf("the key is in the answer: %s", a.body)
			}
		})
	}
	a := newHost(t, func(o *api.Options) { o.Metrics = counts }).do("POST", "/metrics", "")
	a.wantError(t, 405, "method_not_allowed", "")
}
