package host

import "testing"

// A cap needs a row while a request runs, whatever its model says.
func TestRecorder(t *testing.T) {
	c := Config{
		Models: []Model{{Name: "before", Record: "before"}, {Name: "after", Record: "after"}, {Name: "off", Record: "off"}, {Name: "unset"}},
		Tenants: []Tenant{
			{Name: "free", Weight: 3}, {Name: "capped", MaxRunning: 4}, {Name: "gated", MaxRunningTotal: 4},
		},
	}
	var r recorder
	r.set(c.Models, limits(c))
	for _, tt := range []struct{ tenant, model, want string }{
		{"free", "before", "before"},
		{"free", "after", "after"},
		{"free", "off", "off"},
		{"free", "unset", "before"},
		{"free", "unknown", "before"},
		{"capped", "after", "before"},
		{"capped", "off", "before"},
		{"gated", "off", "before"},
		{"unknown", "after", "after"},
	} {
		if got := r.mode(tt.tenant, tt.model); got != tt.want {
			t.Errorf("%s, %s: got %q, want %q", tt.tenant, tt.model, got, tt.want)
		}
	}
	c.Tenants[0].MaxRunning = 1
	r.set(c.Models, limits(c))
	if got := r.mode("free", "after"); got != "before" {
		t.Errorf("once it has a cap: got %q, want before", got)
	}
}
