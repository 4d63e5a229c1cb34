package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/casemate/casemate/plugins"
	"github.com/casemate/casemate/sdk/abi"
)

// largest is a question with as many candidates as one may have.
func largest(seed int64) abi.RouteQuestion {
	q := abi.RouteQuestion{V: abi.Version, Seed: seed}
	for i := range abi.MaxCandidates {
		target := fmt.Sprintf("upstream-%02d/model", i)
		q.Candidates = append(q.Candidates, abi.Candidate{Target: target, Weight: 1 + float64(i%3), Healthy: true})
	}
	return q
}

func TestDecideNamesEachTargetOnce(t *testing.T) {
	for seed := range int64(200) {
		q := largest(seed)
		a, err := decide(q)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(a.Targets)
		if got := len(slices.Compact(a.Targets)); got != abi.MaxCandidates {
			t.Fatalf("seed %d: %d different targets, want %d", seed, got, abi.MaxCandidates)
		}
	}
}

func TestDecideByWeight(t *testing.T) {
	weights := map[string]float64{"a": 1, "b": 3, "c": 6}
	q := abi.RouteQuestion{V: abi.Version}
	for _, target := range []string{"a", "b", "c"} {
		q.Candidates = append(q.Candidates, abi.Candidate{Target: target, Weight: weights[target], Healthy: true})
	}
	const rounds = 20000
	first := map[string]int{}
	for seed := range int64(rounds) {
		q.Seed = seed
		a, err := decide(q)
		if err != nil {
			t.Fatal(err)
		}
		first[a.Targets[0]]++
	}
	for target, weight := range weights {
		got, want := float64(first[target])/rounds, weight/10
		if got < want-0.015 || got > want+0.015 {
			t.Errorf("%s came first in %.3f of the answers, want %.3f", target, got, want)
		}
	}
}

// livesLong asks one instance many questions: what they leave in its memory
// must not add up.
func livesLong(t *testing.T, p *plugins.Plugin) {
	const most = 12 << 20 // three quarters of what a policy may have
	for seed := range int64(100) {
		input, err := json.Marshal(largest(seed))
		if err != nil {
			t.Fatal(err)
		}
		r := p.Call(t.Context(), plugins.Call{
			Entry: abi.ExportRoute, Input: input, Seed: seed,
			Limits: plugins.Limits{Wall: time.Minute},
		})
		if r.Class != plugins.OK {
			t.Fatalf("question %d: %s: %s", seed, r.Class, r.Detail)
		}
		if r.Usage.Memory > most {
			t.Fatalf("question %d: %d bytes of memory, want at most %d", seed, r.Usage.Memory, most)
		}
	}
}
