package host

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSettingsReachTheQueue: what is configured is what the claimer and the
// budget work by.
func TestSettingsReachTheQueue(t *testing.T) {
	h, err := New(t.Context(), Config{
		Listen: "127.0.0.1:0", Store: "sqlite:" + filepath.Join(t.TempDir(), "c.db"),
		Upstreams: []Upstream{{Name: "demo", Kind: "demo"}},
		Models: []Model{
			{Name: "m", Targets: []Target{{Upstream: "demo", Model: "demo", Limit: 3}}, Escalate: Escalation{To: "n", Within: time.Minute}},
			{Name: "n", Targets: []Target{{Upstream: "demo", Model: "other"}}},
		},
		Slots: 2, Realtime: 3, Lease: 4 * time.Second, Poll: 5 * time.Second, Drain: 6 * time.Second,
		MaxReaps: 7, MaxFailures: 8, Retention: 9 * time.Hour, RetryBudget: RetryBudget{Ratio: 0.001, MinPerSecond: 0.3},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	o := h.claims()
	if o.Slots != 2 || o.Realtime != 3 || o.Lease != 4*time.Second || o.Poll != 5*time.Second || o.Drain != 6*time.Second ||
		o.MaxReaps != 7 || o.MaxFailures != 8 || o.Keep != 9*time.Hour || o.Targets != h.shares {
		t.Errorf("got %+v", o)
	}
	if e := o.Escalate(); len(e) != 1 || e["m"].To != "n" || e["m"].Within != time.Minute {
		t.Errorf("escalations: got %v", e)
	}
	if n := o.Room("n"); n != -1 {
		t.Errorf("room of a model without a limit: got %d, want -1", n)
	}
	paid := 0
	for h.budget.Withdraw("m") {
		paid++
	}
	if paid != 3 { // what ten seconds bring
		t.Errorf("retries paid at first: got %d, want 3", paid)
	}
}

func TestAgentParametersAreASchema(t *testing.T) {
	c := Config{Agents: []Agent{{Name: "a"}, {Name: "b", Parameters: []byte(`{"type":"object","properties":{"x":{"$ref":"#"}}}`)}}}
	if err := checkAgents(c); err == nil || !strings.Contains(err.Error(), "agent b: parameters: ") {
		t.Errorf("got %v, want what is wrong with agent b", err)
	}
	c.Agents[1].Parameters = []byte(`{"type":"object","properties":{"x":{"type":"string"}}}`)
	if err := checkAgents(c); err != nil {
		t.Error(err)
	}
}
