package main

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
)

// batch is how long one scenario runs in one round: short, so that most batches
// pass undisturbed on a machine that does other things as well.
const batch = 10 * time.Millisecond

// scenario is something to be timed.
type scenario struct {
	name    string
	workers []func() error // each in a goroutine of its own, one call each time
	calls   int            // of each worker in a batch
	times   []float64      // ns a call of all workers together, one a round
}

// median is the nanoseconds that one call took; with several workers, the time
// that passed for each call of any.
func (s *scenario) median() float64 {
	sorted := slices.Sorted(slices.Values(s.times))
	n := len(sorted)
	return (sorted[n/2] + sorted[(n-1)/2]) / 2
}

// run makes n calls of each worker and returns the time that passed.
func (s *scenario) run(n int) (time.Duration, error) {
	errs := make([]error, len(s.workers))
	loop := func(i int) {
		for range n {
			if errs[i] = s.workers[i](); errs[i] != nil {
				return
			}
		}
	}
	began := time.Now()
	if len(s.workers) == 1 {
		loop(0)
	} else {
		var wg sync.WaitGroup
		for i := range s.workers {
			wg.Go(func() { loop(i) })
		}
		wg.Wait()
	}
	took := time.Since(began)
	for _, err := range errs {
		if err != nil {
			return 0, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return took, nil
}

// calibrate finds how many calls fill a batch.
func (s *scenario) calibrate() error {
	for s.calls = 1; ; s.calls *= 2 {
		took, err := s.run(s.calls)
		if err != nil {
			return err
		}
		if took >= batch/4 {
			s.calls = max(1, int(float64(s.calls)*float64(batch)/float64(took)))
			return nil
		}
	}
}

// measure runs all scenarios once in each round, each time beginning with
// another, so that what the machine does besides hits all of them alike.
func measure(rounds int, all []*scenario) error {
	for _, s := range all {
		if err := s.calibrate(); err != nil {
			return err
		}
	}
	for round := range rounds {
		for i := range all {
			s := all[(i+round*len(all)/rounds)%len(all)]
			runtime.GC() // the garbage of the one before is not its own
			took, err := s.run(s.calls)
			if err != nil {
				return err
			}
			s.times = append(s.times, float64(took.Nanoseconds())/float64(s.calls*len(s.workers)))
		}
	}
	return nil
}

// ratio is the median of a's time over b's, round by round.
func ratio(a, b *scenario) float64 {
	r := scenario{}
	for i := range a.times {
		r.times = append(r.times, a.times[i]/b.times[i])
	}
	return r.median()
}
