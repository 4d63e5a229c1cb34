package policy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/sdk/abi"
)

func routeQuestion(targets ...string) abi.RouteQuestion {
	q := abi.RouteQuestion{V: 1, NowMS: 1_000, Seed: 7}
	for _, t := range targets {
		q.Candidates = append(q.Candidates, abi.Candidate{Target: t, Weight: 1, Healthy: true})
	}
	return q
}

func TestRouteClamps(t *testing.T) {
	long := strings.Repeat("m", 600)
	tests := []struct {
		name     string
		answer   string
		deadline int64
		want     string // "" : the built-in rules answer
		clamped  bool
	}{
		{"as it is", `{"v":1,"targets":["up/b","up/a"],"timeout_ms":5000,"reason":"r","new":{}}`, 0, `{"v":1,"targets":["up/b","up/a"],"timeout_ms":5000,"reason":"r"}`, false},
		{"unknown and repeated", `{"v":1,"targets":["x","up/b","up/b","up/a"]}`, 0, `{"v":1,"targets":["up/b","up/a"]}`, true},
		{"only unknown", `{"v":1,"targets":["x","y"]}`, 0, "", false},
		{"neither", `{"v":1}`, 0, "", false},
		{"timeout too short", `{"v":1,"targets":["up/a"],"timeout_ms":1}`, 0, `{"v":1,"targets":["up/a"],"timeout_ms":1000}`, true},
		{"timeout too long", `{"v":1,"targets":["up/a"],"timeout_ms":9007199254740991}`, 0, `{"v":1,"targets":["up/a"],"timeout_ms":3600000}`, true},
		{"timeout negative", `{"v":1,"targets":["up/a"],"timeout_ms":-5}`, 0, `{"v":1,"targets":["up/a"]}`, true},
		{"timeout past the deadline", `{"v":1,"targets":["up/a"],"timeout_ms":9000}`, 4000, `{"v":1,"targets":["up/a"],"timeout_ms":4000}`, true},
		{"reason over lines", `{"v":1,"targets":["up/a"],"reason":"a\nb\u0000"}`, 0, `{"v":1,"targets":["up/a"],"reason":"a b "}`, true},
		{"reject", `{"v":1,"reject":{"status":429,"code":"over_quota","message":"Later.","retry_after_ms":5}}`, 0, `{"v":1,"reject":{"status":429,"code":"over_quota","message":"Later.","retry_after_ms":5}}`, false},
		{"reject 200", `{"v":1,"reject":{"status":200,"code":"c","message":"m"}}`, 0, "", false},
		{"reject 600", `{"v":1,"reject":{"status":600,"code":"c","message":"m"}}`, 0, "", false},
		{"reject and targets", `{"v":1,"targets":["up/a"],"reject":{"status":429,"code":"c","message":"m"}}`, 0, "", false},
		{"reject without texts", `{"v":1,"reject":{"status":500,"code":"No Code","message":"","retry_after_ms":-1}}`, 0, `{"v":1,"reject":{"status":500,"code":"rejected_by_policy","message":"The routing policy rejected the request."}}`, true},
		{"reject with long texts", `{"v":1,"reject":{"status":500,"code":"c","message":"` + long + `","retry_after_ms":1000000000000000}}`, 0, `{"v":1,"reject":{"status":500,"code":"c","message":"` + long[:512] + `","retry_after_ms":86400000}}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := policy.New(nil)
			d.SetRoute(&module{name: "m", answer: tt.answer})
			q := routeQuestion("up/a", "up/b")
			q.Request.DeadlineInMS = tt.deadline
			ans, dec := d.Route(t.Context(), q)
			if tt.want == "" {
				checkFallback(t, dec, policy.InvalidAnswer)
				return
			}
			got, err := json.Marshal(ans)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want || string(dec.Answer) != tt.want {
				t.Errorf("got  %s\nrow  %s\nwant %s", got, dec.Answer, tt.want)
			}
			if dec.Generation != "m" || dec.Fallback != "" {
				t.Errorf("got generation %q, fallback %q, want m, none", dec.Generation, dec.Fallback)
			}
			if got := d.Counts()["route.clamped"] == 1; got != tt.clamped {
				t.Errorf("clamped: got %v, want %v", got, tt.clamped)
			}
		})
	}
}

func TestRouteWithoutCandidates(t *testing.T) {
	d := policy.New(nil)
	d.SetRoute(&module{asked: func([]byte, int64, int64) { t.Error("the module was asked") }})
	ans, _ := d.Route(t.Context(), abi.RouteQuestion{})
	if ans.Reject == nil || ans.Reject.Status != 503 {
		t.Errorf("got %+v, want a 503", ans)
	}
}

func TestBuiltinRouteOrder(t *testing.T) {
	tests := []struct {
		name string
		edit func(q *abi.RouteQuestion)
		want string
	}{
		{"tried last among the good", func(q *abi.RouteQuestion) { q.Tried = []abi.Tried{{Target: "a"}, {Target: "b"}} }, "c"},
		{"unhealthy last", func(q *abi.RouteQuestion) { q.Candidates[1].Healthy, q.Candidates[2].Healthy = false, false }, "a"},
		{"cooling last", func(q *abi.RouteQuestion) { q.Candidates[0].CooldownMS, q.Candidates[2].CooldownMS = 1, 1 }, "b"},
		{"full last", func(q *abi.RouteQuestion) {
			q.Candidates[0].Limit, q.Candidates[0].InFlight = 2, 2
			q.Candidates[1].Limit, q.Candidates[1].InFlight = 1, 3
		}, "c"},
		{"tried before unhealthy", func(q *abi.RouteQuestion) {
			q.Tried = []abi.Tried{{Target: "a"}}
			q.Candidates[1].Healthy, q.Candidates[2].Healthy = false, false
		}, "a"},
		{"weight 0 last", func(q *abi.RouteQuestion) { q.Candidates[0].Weight, q.Candidates[1].Weight = 0, 0 }, "c"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range int64(50) {
				q := routeQuestion("a", "b", "c")
				q.Seed = seed
				tt.edit(&q)
				ans := policy.BuiltinRoute(q)
				if len(ans.Targets) != 3 || ans.Targets[0] != tt.want {
					t.Fatalf("seed %d: got %v, want all three, %s first", seed, ans.Targets, tt.want)
				}
			}
		})
	}
}

func TestBuiltinRouteShares(t *testing.T) {
	const draws = 20_000
	tests := []struct {
		name string
		edit func(c []abi.Candidate)
		want map[string]float64
	}{
		{"weights", func(c []abi.Candidate) { c[1].Weight = 3 }, map[string]float64{"a": 0.25, "b": 0.75}},
		{"load", func(c []abi.Candidate) { c[0].InFlight = 3 }, map[string]float64{"a": 0.2, "b": 0.8}},
		{"errors", func(c []abi.Candidate) { c[0].ErrorRate = 1 }, map[string]float64{"a": 0.0476, "b": 0.9524}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]float64{}
			for seed := range int64(draws) {
				q := routeQuestion("a", "b")
				q.Seed = seed
				tt.edit(q.Candidates)
				got[policy.BuiltinRoute(q).Targets[0]] += 1.0 / draws
			}
			for target, want := range tt.want {
				if diff := got[target] - want; diff < -0.015 || diff > 0.015 {
					t.Errorf("%s: got %.3f, want %.3f", target, got[target], want)
				}
			}
		})
	}
}

func TestBuiltinRouteRepeats(t *testing.T) {
	q := routeQuestion("a", "b", "c", "d", "e")
	want := fmt.Sprint(policy.BuiltinRoute(q).Targets)
	for range 10 {
		if got := fmt.Sprint(policy.BuiltinRoute(q).Targets); got != want {
			t.Fatalf("got %s, then %s", want, got)
		}
	}
}
