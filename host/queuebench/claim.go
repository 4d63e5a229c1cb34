package queuebench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// Cost is what claims of 50 took, one connection, commit included.
type Cost struct {
	Lanes   int // at most: those that have requests
	Backlog int
	Claims  int
	Mean    time.Duration
	P50     time.Duration
	P99     time.Duration
}

const (
	warmClaims  = 20
	refillEvery = 10 // claims
)

// ClaimCost measures claims while the backlog is kept as it is, lane by lane.
func ClaimCost(ctx context.Context, d store.Driver, load *Load, claims int) (Cost, error) {
	worker, err := join(ctx, d)
	if err != nil {
		return Cost{}, err
	}
	s := store.New(d, store.Options{}) // it says how much of a claim is urgent
	var took []time.Duration
	var claimed []queue.Claim
	for i := range warmClaims + claims {
		began := time.Now()
		got, err := s.Claim(ctx, store.ClaimRequest{Worker: worker, Models: load.Names(), N: claimSize})
		if err != nil {
			return Cost{}, err
		}
		if len(got) < claimSize {
			return Cost{}, fmt.Errorf("a claim of %d beside %d pending requests returned %d", claimSize, load.made, len(got))
		}
		if i >= warmClaims {
			took = append(took, time.Since(began))
		}
		claimed = append(claimed, got...)
		if i%refillEvery == refillEvery-1 {
			if err := load.again(ctx, d, claimed); err != nil {
				return Cost{}, err
			}
			claimed = claimed[:0]
		}
	}
	lanes := min(load.Tenants*load.Models, load.made)
	if load.Whale {
		lanes = min(lanes, load.made/2+load.Models)
	}
	c := Cost{Lanes: lanes, Backlog: load.made, Claims: claims, Mean: mean(took)}
	c.P50, c.P99 = percentiles(took)
	return c, nil
}

// Fairness is how claims were parted among tenants of equal weight, all of whom
// had enough to claim.
type Fairness struct {
	Tenants int
	Served  int
	// Jain is 1 when all got the same, and 1/Tenants when one got it all.
	Jain  float64
	Whale float64 // the part of the tenant that owns half of the backlog
	Claim time.Duration
}

// Fair claims so often and counts who was served.
func Fair(ctx context.Context, d store.Driver, load Load, claims int) (Fairness, error) {
	worker, err := join(ctx, d)
	if err != nil {
		return Fairness{}, err
	}
	s := store.New(d, store.Options{})
	served := map[string]int{}
	f := Fairness{Tenants: load.Tenants}
	began := time.Now()
	for range claims {
		got, err := s.Claim(ctx, store.ClaimRequest{Worker: worker, Models: load.Names(), N: claimSize})
		if err != nil {
			return Fairness{}, err
		}
		for _, c := range got {
			served[c.Tenant]++
			f.Served++
		}
	}
	f.Claim = time.Since(began) / time.Duration(max(claims, 1))
	sum, squares := 0.0, 0.0
	for _, n := range served {
		sum += float64(n)
		squares += float64(n) * float64(n)
	}
	if squares > 0 {
		f.Jain = sum * sum / (float64(f.Tenants) * squares)
		f.Whale = float64(served[load.whale()]) / sum
	}
	return f, nil
}

// Fresh counts the claims until a tenant that comes new beside one with a
// backlog has its request claimed.
func Fresh(ctx context.Context, d store.Driver, backlog int) (claims int, err error) {
	load := Load{Tenants: 1, Models: 1, Prefix: "whale-"}
	if err := load.FillTo(ctx, d, backlog); err != nil {
		return 0, err
	}
	worker, err := join(ctx, d)
	if err != nil {
		return 0, err
	}
	s := store.New(d, store.Options{})
	fresh := load.request(0, nil)
	fresh.Tenant = "fresh"
	for i := range 1000 {
		if i == warmClaims {
			if err := written(d.Write(ctx, []store.Write{{Insert: fresh}})); err != nil {
				return 0, err
			}
		}
		got, err := s.Claim(ctx, store.ClaimRequest{Worker: worker, Models: load.Names(), N: claimSize})
		if err != nil {
			return 0, err
		}
		for _, c := range got {
			if c.ID == fresh.ID {
				return i - warmClaims + 1, nil
			}
		}
	}
	return 0, fmt.Errorf("a fresh tenant's request was not claimed beside a backlog of %d", backlog)
}

func mean(all []time.Duration) time.Duration {
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(max(len(all), 1))
}

// percentiles returns the median and the 99th percentile.
func percentiles(all []time.Duration) (p50, p99 time.Duration) {
	if len(all) == 0 {
		return 0, 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2], sorted[len(sorted)*99/100]
}
