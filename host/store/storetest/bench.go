package storetest

import (
	"fmt"
	"testing"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Benchmark measures commits of one write and of 64: each settles a step of a
// running request and appends an event, which is what the loop does most.
func Benchmark(b *testing.B, open func(b *testing.B) store.Driver) {
	b.Helper()
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) { benchmarkWrite(b, open(b), batch) })
	}
}

func benchmarkWrite(b *testing.B, d store.Driver, batch int) {
	b.Cleanup(func() { d.Close() })
	p, err := d.Heartbeat(b.Context(), store.Beat{Host: "h", Lease: forever})
	if err != nil {
		b.Fatal(err)
	}
	writes := make([]store.Write, batch)
	for i := range writes {
		writes[i].Insert = request(by(p.Worker))
	}
	commit := func() {
		results, err := d.Write(b.Context(), writes)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range results {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	commit()
	for i := range writes {
		writes[i] = store.Write{Fence: queue.Fence{ID: writes[i].Insert.ID, Attempt: 1, State: queue.Processing}}
	}
	kilobyte := make([]byte, 1024)
	seq := 0
	for b.Loop() {
		for i := range writes {
			writes[i].Steps = []response.Step{{Ordinal: seq, Kind: response.ModelCall, State: response.Completed, Output: kilobyte}}
			writes[i].Events = []response.Event{{Seq: int64(seq), Data: kilobyte[:200]}}
		}
		seq++
		commit()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(seq*batch), "us/write")
}
