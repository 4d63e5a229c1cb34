package main

import (
	"fmt"
	"math"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/casemate/casemate/plugins"
)

const (
	stopCalls = 200
	stopWall  = 10 * time.Millisecond
	goalStop  = 3 * time.Millisecond // past the deadline, p99

	gcRounds = 100
	goalGC   = time.Millisecond // what a slice of fuel stays below
)

// runaways are calls that do not end by themselves.
var runaways = []struct{ guest, name, title, input string }{
	{"c", "loop", "endless loop", "l"},
	{"c", "recursion", "recursion without loops", "r"},
	{"c", "bulk_memory", "memory.fill of 48 MiB, again and again", "m"},
	{"go", "sleep", "sleep", "z10000"},
}

// benchStop measures how long after its deadline a runaway guest ends, how long
// after it the caller has the result, the instance restored, and the call that
// follows on the same plugin.
func (b *bench) benchStop() error {
	control := selfStopped()
	rows := [][]string{{"for comparison: a Go loop that looks at the clock", millis(percentile(control, 0.5)), millis(percentile(control, 0.99)), "–", "–", "–"}}
	for _, w := range runaways {
		g := b.guest(w.guest)
		if g == nil {
			continue
		}
		p, err := b.peer(wayOurs, g)
		if err != nil {
			return err
		}
		s, err := stopAll(p.(*ours), w.input)
		if err != nil {
			return fmt.Errorf("%s: %w", w.title, err)
		}
		p99 := percentile(s.stopped, 0.99)
		b.report.atMost("stop_"+w.name+"_p99", "%.2fms", p99.Seconds()*1e3, goalStop.Seconds()*1e3)
		b.report.line("stop_"+w.name+"_reused", fmt.Sprintf("%d/%d", stopCalls-s.made, stopCalls), fmt.Sprintf("%d/%d", stopCalls, stopCalls), s.made == 0)
		rows = append(rows, []string{
			w.title, millis(percentile(s.stopped, 0.5)), millis(p99),
			millis(percentile(s.returned, 0.5)), millis(percentile(s.returned, 0.99)), duration(float64(percentile(s.next, 0.5))),
		})
	}
	b.report.table(fmt.Sprintf("Runaway guests with a deadline of %v: how long after it the guest had ended, and how long after it the caller had the result, "+
		"with the instance restored; %d calls each.", stopWall, stopCalls),
		[]string{"guest does", "ended, p50", "ended, p99", "returned, p50", "returned, p99", "next call, p50"}, rows)
	if b.guest("c") == nil {
		return nil
	}
	return b.benchPauses()
}

// selfStopped returns, sorted, how late a loop ends that does nothing but look
// at the clock: what the machine adds to every figure here.
func selfStopped() (late []time.Duration) {
	for range stopCalls {
		began := time.Now()
		for time.Since(began) < stopWall {
			continue
		}
		late = append(late, time.Since(began)-stopWall)
	}
	slices.Sort(late)
	return late
}

// stops are times of runaway calls after their deadline, and of the calls after
// each; all sorted.
type stops struct {
	stopped, returned, next []time.Duration
	made                    uint64 // instances, because one was not reused
}

func stopAll(o *ours, input string) (s stops, err error) {
	next := func() (time.Duration, error) {
		began := time.Now()
		r := o.do("bench", []byte(smallInput), plugins.Limits{})
		return time.Since(began), failed(r)
	}
	if _, err := next(); err != nil { // makes the instance
		return s, err
	}
	made := o.manager.Stats().Made
	for range stopCalls {
		began := time.Now()
		r := o.do("bench", []byte(input), plugins.Limits{Wall: stopWall, Fuel: 1 << 50})
		s.returned = append(s.returned, time.Since(began)-stopWall)
		s.stopped = append(s.stopped, r.Usage.Wall-stopWall)
		if r.Class != plugins.Deadline {
			return s, fmt.Errorf("ended as %s, not %s: %s", r.Class, plugins.Deadline, r.Detail)
		}
		took, err := next()
		if err != nil {
			return s, err
		}
		s.next = append(s.next, took)
	}
	s.made = o.manager.Stats().Made - made
	for _, times := range [][]time.Duration{s.stopped, s.returned, s.next} {
		slices.Sort(times)
	}
	return s, nil
}

func percentile(sorted []time.Duration, p float64) time.Duration {
	return sorted[int(math.Ceil(p*float64(len(sorted))))-1]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", d.Seconds()*1e3) }

// benchPauses measures how long the garbage collector stops the world beside a
// guest that never yields by itself.
func (b *bench) benchPauses() error {
	p, err := b.peer(wayOurs, b.guest("c"))
	if err != nil {
		return err
	}
	idle := gcPauses()
	var stop atomic.Bool
	var wg sync.WaitGroup
	var failure error
	wg.Go(func() {
		for !stop.Load() && failure == nil {
			r := p.(*ours).do("bench", []byte("l"), plugins.Limits{Wall: 100 * time.Millisecond, Fuel: 1 << 50})
			if r.Class != plugins.Deadline {
				failure = fmt.Errorf("ended as %s, not %s: %s", r.Class, plugins.Deadline, r.Detail)
			}
		}
	})
	busy := gcPauses()
	stop.Store(true)
	wg.Wait()
	if failure != nil {
		return failure
	}
	b.report.atMost("gc_pause_beside_loop_p99", "%.2fms", busy*1e3, goalGC.Seconds()*1e3)
	b.report.table(fmt.Sprintf("Pauses of the host's garbage collector, p99 of %d collections.", gcRounds),
		[]string{"", "p99"}, [][]string{
			{"nothing runs", fmt.Sprintf("%.2f ms", idle*1e3)},
			{"beside an endless loop in a guest", fmt.Sprintf("%.2f ms", busy*1e3)},
		})
	return nil
}

// gcPauses collects garbage and returns the 99th percentile of its pauses in
// seconds.
func gcPauses() float64 {
	const name = "/sched/pauses/total/gc:seconds"
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	before := slices.Clone(sample[0].Value.Float64Histogram().Counts)
	for range gcRounds {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	metrics.Read(sample)
	h := sample[0].Value.Float64Histogram()
	var total, seen uint64
	for i, n := range h.Counts {
		total += n - before[i]
	}
	for i, n := range h.Counts {
		seen += n - before[i]
		if float64(seen) >= 0.99*float64(total) {
			return h.Buckets[i+1]
		}
	}
	return math.Inf(1)
}
