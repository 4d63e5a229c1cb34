package config_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/config"
)

// queued is a file with everything that is said of the queue.
const queued = `store: postgres://db/casemate
listen: 127.0.0.1:0
slots: 20
realtime_slots: 200
notify: postgres://direct/casemate
retention: 720h
retry_budget: {ratio: 0.5, min_per_second: 3}
upstreams: [{name: demo, kind: demo}]
models:
  - escalate: {to: quick, within: 10m}
    name: slow
    targets: [{upstream: demo, model: a}]
  - {name: quick, targets: [{upstream: demo, model: b}]}
tenants:
  - name: acme
    keys: [{sha256: ` + zeros + `}]
    limits: {max_running: 5, max_running_total: 8, reserve: {realtime: 2, queued: 1}}
  - name: globex
    keys: [{sha256: "` + ones + `"}]
    limits: {max_running_total: 8, reserve: {queued: 0}}
`

func TestLoadReadsTheQueue(t *testing.T) {
	dir := write(t, map[string]string{"c.yaml": queued})
	got, err := config.Load(filepath.Join(dir, "c.yaml"), []string{"CASEMATE_RETENTION=48h", "CASEMATE_RETRY_BUDGET_RATIO=0.1"})
	if err != nil {
		t.Fatal(err)
	}
	if got.RealtimeSlots != 200 || got.Notify != "postgres://direct/casemate" || got.Retention != 48*time.Hour {
		t.Errorf("got %d realtime slots, notify %q, retention %s", got.RealtimeSlots, got.Notify, got.Retention)
	}
	if want := (config.RetryBudget{Ratio: 0.1, MinPerSecond: 3}); got.RetryBudget != want {
		t.Errorf("retry budget: got %+v, want %+v", got.RetryBudget, want)
	}
	if want := (config.Escalation{To: "quick", Within: 10 * time.Minute}); got.Models[0].Escalate != want {
		t.Errorf("escalate: got %+v, want %+v", got.Models[0].Escalate, want)
	}
	var limits [][]int
	for _, x := range got.Tenants {
		limits = append(limits, []int{x.MaxRunning, x.MaxRunningTotal, x.Reserve.Realtime, x.Reserve.Queued})
	}
	if want := [][]int{{5, 8, 2, 1}, {0, 8, 0, -1}}; !reflect.DeepEqual(limits, want) {
		t.Errorf("limits: got %v, want %v", limits, want)
	}
}

func TestLoadRefusesOfTheQueue(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"no such model", "to: quick", "to: quack", `models[0].escalate.to: no model is named "quack"`},
		{"itself", "to: quick", "to: slow", "models[0].escalate.to: is the model itself"},
		{"no time", ", within: 10m", "", "models[0].escalate.within: is missing"},
		{"long time", "within: 10m", "within: 300h", "models[0].escalate.within: "},
		{"all reserved", "queued: 1}", "queued: 3}", "tenants[0].limits.reserve: reserves 5 of the 5 slots of max_running"},
		{"no cap", "max_running: 5, max_running_total: 8, ", "", "tenants[0].limits.reserve: there is no cap"},
		{"upstream's reserve", "kind: demo}", "kind: demo, limits: {max_in_flight: 2, reserve: {realtime: 2}}}", "upstreams[0].limits.reserve: reserves 2 of the 2 slots of max_in_flight"},
		{"upstream without cap", "kind: demo}", "kind: demo, limits: {reserve: {realtime: 2}}}", "upstreams[0].limits.reserve: there is no cap"},
		{"reserve below 0", "realtime: 2", "realtime: -2", `limits.reserve.realtime: "-2": want a whole number from 0`},
		{"retention too short", "720h", "1s", "retention: "},
		{"ratio of zero", "ratio: 0.5", "ratio: 0", "retry_budget.ratio: \"0\": want a number from 0.001"},
		{"unknown key", "ratio: 0.5", "ration: 0.5", `retry_budget."ration": unknown key; known here: min_per_second, ratio`},
		{"notify", "postgres://direct/casemate", "nats://x:hunter2@y", "notify: want off, or the postgres:// URL"},
		{"notify on SQLite", "postgres://db/casemate", "sqlite:x.db", "notify: only a store on PostgreSQL has it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(queued, c.from) {
				t.Fatalf("nothing to replace: %q", c.from)
			}
			dir := write(t, map[string]string{"c.yaml": strings.Replace(queued, c.from, c.to, 1)})
			_, err := config.Load(filepath.Join(dir, "c.yaml"), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the message holds a password: %v", err)
			}
		})
	}
}

// TestLoadWithoutSecrets: who only looks at the store need not have the keys.
func TestLoadWithoutSecrets(t *testing.T) {
	text := small("store: sqlite:x.db\n") + "tenants: [{name: a, keys: [{env: CASEMATE_NOT_THERE}]}]\n"
	path := filepath.Join(write(t, map[string]string{"c.yaml": text}), "c.yaml")
	if _, err := config.Load(path, nil); err == nil {
		t.Error("Load: want an error, since the key is not there")
	}
	got, err := config.LoadWithoutSecrets(path, []string{"CASEMATE_NOT_THERE=k"})
	if err != nil || !strings.HasSuffix(got.Store, "x.db") || len(got.Tenants) != 1 || len(got.Tenants[0].KeyHashes) != 0 {
		t.Errorf("got %q, %d tenants, %v", got.Store, len(got.Tenants), err)
	}
}
