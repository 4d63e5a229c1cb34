// Command route-default is the routing policy that Casemate ships: usable
// targets first, the least loaded of them for its weight, chance by weight
// among equals. It decides only; the host holds the limits and the health of
// targets.
package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/policy"
)

func init() {
	policy.Plugin("route-default", "0.1.0", "Least loaded by weight among healthy targets; chance by weight among equals.")
	policy.Route(decide)
}

func main() {}

func decide(q abi.RouteQuestion) (abi.RouteAnswer, error) {
	if len(q.Candidates) == 0 {
		return abi.RouteAnswer{Reject: &abi.Reject{
			Status: 503, Code: "no_target", Message: "no upstream serves this model",
		}}, nil
	}
	left := untried(q)
	order := slices.Clone(left)
	shuffle(policy.Rand(q.Seed), order)
	slices.SortStableFunc(order, before)
	targets := make([]string, len(order))
	for i, c := range order {
		targets[i] = c.Target
	}
	reason := fmt.Sprintf("%s of %d", rankOf(order[0]), len(q.Candidates))
	return abi.RouteAnswer{Targets: targets, Reason: reason}, nil
}

// untried returns the candidates that have not failed this step yet, or all
// of them once each has.
func untried(q abi.RouteQuestion) []abi.Candidate {
	var left []abi.Candidate
	for _, c := range q.Candidates {
		tried := func(t abi.Tried) bool { return t.Target == c.Target }
		if !slices.ContainsFunc(q.Tried, tried) {
			left = append(left, c)
		}
	}
	if len(left) == 0 {
		return q.Candidates
	}
	return left
}

// rank orders candidates by how likely a call is to be served at all.
type rank int

const (
	usable  rank = iota
	full         // at its limit: a slot may come free
	cooling      // told us to wait
	ailing       // reported as down
	drained      // weight 0: only when there is nothing else
)

func (r rank) String() string {
	return [...]string{"least loaded", "full", "cooling down", "unhealthy", "drained"}[r]
}

func rankOf(c abi.Candidate) rank {
	switch {
	case c.Weight <= 0:
		return drained
	case !c.Healthy:
		return ailing
	case c.CooldownMS > 0:
		return cooling
	case c.Limit > 0 && c.InFlight >= c.Limit:
		return full
	}
	return usable
}

// before orders a before b when it is negative. Candidates that compare equal
// keep the order that chance gave them.
func before(a, b abi.Candidate) int {
	ra, rb := rankOf(a), rankOf(b)
	if ra != rb {
		return cmp.Compare(ra, rb)
	}
	if ra == cooling && a.CooldownMS != b.CooldownMS {
		return cmp.Compare(a.CooldownMS, b.CooldownMS)
	}
	return cmp.Compare(load(a), load(b))
}

func load(c abi.Candidate) float64 {
	if c.Weight <= 0 {
		return float64(c.InFlight)
	}
	return float64(c.InFlight) / c.Weight
}

// shuffle puts candidates in an order of chance in which each place goes to
// one of those left with a probability that is its share of their weight.
func shuffle(r *rand.Rand, candidates []abi.Candidate) {
	for i := range candidates {
		j := i + draw(r, candidates[i:])
		// Rotated, not swapped: what is left keeps the order of the question,
		// so that a draw depends on the seed and the weights alone.
		chosen := candidates[j]
		copy(candidates[i+1:j+1], candidates[i:j])
		candidates[i] = chosen
	}
}

// draw returns the index of one of the candidates by chance and weight.
func draw(r *rand.Rand, candidates []abi.Candidate) int {
	total := 0.0
	for _, c := range candidates {
		total += max(c.Weight, 0)
	}
	const steps = 1 << 53
	point := float64(float64(r.Uint64()>>11) / steps * total) // converted: never fused with what follows
	for i, c := range candidates {
		point -= max(c.Weight, 0)
		if point < 0 {
			return i
		}
	}
	return 0 // no weight at all, or lost to rounding
}
