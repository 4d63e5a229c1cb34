package plugins_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/plugins/internal/testguests"
	"github.com/casemate/casemate/sdk/abi"
)

// disturbance is a call that leaves as much behind as it can.
type disturbance struct {
	tool, arguments string
	limits          plugins.Limits
	cancel          time.Duration // after this; 0: never
	want            plugins.Class
}

func disturbances(language string) []disturbance {
	all := []disturbance{
		{tool: "count", arguments: `{}`, want: plugins.OK},
		{tool: "grow", arguments: `{}`, want: plugins.OK},
		{tool: "grow", arguments: `{}`, limits: plugins.Limits{Fuel: 40_000}, want: plugins.Fuel},
		{tool: "trap", arguments: `{}`, want: plugins.Trap},
		{tool: "spin", arguments: `{}`, limits: plugins.Limits{Wall: 2 * time.Millisecond, Fuel: 1 << 40}, want: plugins.Deadline},
		{tool: "spin", arguments: `{}`, limits: plugins.Limits{Fuel: 3_000_000}, want: plugins.Fuel},
		{tool: "spin", arguments: `{}`, limits: plugins.Limits{Fuel: 1 << 40}, cancel: time.Millisecond, want: plugins.Canceled},
		{tool: "sum", arguments: `{"a":1}`, want: plugins.Failed},
		{tool: "sha256", arguments: `{"n":70000}`, want: plugins.OK},
	}
	if language == testguests.Go {
		all = append(all, disturbance{tool: "leave", arguments: `{}`, want: plugins.OK})
	}
	return all
}

func callGuest(ctx context.Context, p *plugins.Plugin, tool, arguments string, l plugins.Limits) plugins.Result {
	return p.Call(ctx, plugins.Call{
		Entry: abi.ExportToolCall, Input: fmt.Appendf(nil, `{"v":1,"tool":%q,"arguments":%s}`, tool, arguments), Limits: l,
	})
}

// TestPristineInEveryLanguage: a counter in memory and one in a global read 1,
// whatever the call before did to the instance, and cost the same fuel.
func TestPristineInEveryLanguage(t *testing.T) {
	for _, language := range testguests.Languages() {
		for name, o := range ways() {
			t.Run(language+"/"+name, func(t *testing.T) {
				testPristine(t, loadInto(t, managerWith(t, o), testguests.Wasm(t, language)), language)
			})
		}
	}
}

// ways are those in which instances are restored: the best that the system has,
// and the one that every system has.
func ways() map[string]plugins.Options {
	o := plugins.Options{Breaker: plugins.Breaker{Deaths: -1}}
	return map[string]plugins.Options{"native": o, "portable": plugins.Portable(o)}
}

func testPristine(t *testing.T, p *plugins.Plugin, language string) {
	t.Helper()
	const rounds = 150
	if why := p.Unrestorable(); why != nil {
		t.Fatalf("unrestorable: %v", why)
	}
	all := disturbances(language)
	random := rand.New(rand.NewPCG(1, 2))
	fuel := map[uint64]bool{}
	for round := range rounds {
		d := all[round%len(all)]
		if round >= len(all) {
			d = all[random.IntN(len(all))]
		}
		disturb(t, p, d)
		res := callGuest(t.Context(), p, "count", `{}`, plugins.Limits{})
		wantClass(t, res, plugins.OK)
		var out struct {
			Output struct{ Memory, Global int }
		}
		if err := json.Unmarshal(res.Output, &out); err != nil {
			t.Fatal(err)
		}
		if out.Output.Memory != 1 || out.Output.Global != 1 {
			t.Fatalf("after %s (%s): counters = %s, want 1 and 1", d.tool, d.want, res.Output)
		}
		fuel[res.Usage.Fuel] = true
	}
	if len(fuel) != 1 {
		t.Errorf("the same call used %v fuel, want one value", fuel)
	}
}

func disturb(t *testing.T, p *plugins.Plugin, d disturbance) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if d.cancel > 0 {
		stop := time.AfterFunc(d.cancel, cancel)
		defer stop.Stop()
	}
	res := callGuest(ctx, p, d.tool, d.arguments, d.limits)
	if res.Class != d.want {
		t.Errorf("%s %s = %s (%s), want %s", d.tool, d.arguments, res.Class, res.Detail, d.want)
	}
}
