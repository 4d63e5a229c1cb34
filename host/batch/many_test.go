package batch

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
	"github.com/casemate/casemate/host/store/postgres"
	"github.com/casemate/casemate/host/store/sqlite"
)

// manyLines: 100,000 take a minute or two.
var manyLines = flag.Int("batch.lines", 3000, "how many lines TestManyLines loads")

// mostHeap is what loading a batch may need at most, whatever its size: a group
// of lines, three times, a chunk or two, and what waits to be collected.
const mostHeap = 64 << 20

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// TestManyLines: a batch is loaded, canceled and written in constant memory.
func TestManyLines(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (store.Driver, error){
		"sqlite": func(t *testing.T) (store.Driver, error) {
			return sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "casemate.db"), sqlite.Options{})
		},
		"postgres": func(t *testing.T) (store.Driver, error) {
			return postgres.Open(t.Context(), testdb.Postgres(t), postgres.Options{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			r := onDriver(t, d)
			n := *manyLines
			input := r.uploadMany(n)
			run := r.runner(r.s, Options{Poll: time.Millisecond, Slice: 10 * time.Millisecond, MaxLines: n})
			b := r.batch(input)
			goOn := func(what string, done func(store.Batch) bool) {
				began := time.Now()
				heap := peak(func() {
					for !done(r.get(b.ID)) && time.Since(began) < time.Hour {
						run.once(t.Context())
					}
				})
				t.Logf("%d lines %s in %s with %d KiB of heap", n, what, time.Since(began).Round(time.Millisecond), heap>>10)
				if heap > mostHeap {
					t.Errorf("%s: the heap grew by %d KiB, want %d at most", what, heap>>10, mostHeap>>10)
				}
			}
			goOn("validated", func(b store.Batch) bool { return b.State != store.BatchValidating })
			goOn("loaded", func(b store.Batch) bool { return b.Line == n })
			if _, err := r.s.CancelBatch(t.Context(), tenant, b.ID); err != nil {
				t.Fatal(err)
			}
			goOn("canceled and written", func(b store.Batch) bool { return b.State == store.BatchCanceled })
			b = r.get(b.ID)
			f, err := r.s.File(t.Context(), tenant, b.Errors)
			if err != nil || b.Total != n || b.Failed != n || f.Bytes < int64(100*n) {
				t.Errorf("got %+v, %+v, %v", b, f, err)
			}
		})
	}
}

// uploadMany stores an input of n lines of about a kilobyte, a chunk at a time.
func (r *rig) uploadMany(n int) queue.ID {
	r.Helper()
	f := store.File{ID: queue.NewID(), Tenant: tenant, Name: "many.jsonl"}
	if err := r.s.CreateFile(r.Context(), f); err != nil {
		r.Fatal(err)
	}
	var bytes int64
	var rest []byte
	chunk := 0
	put := func(least int) {
		for len(rest) >= least && len(rest) > 0 {
			part := rest[:min(len(rest), store.FileChunk)]
			if err := r.s.PutChunk(r.Context(), f.ID, chunk, part); err != nil {
				r.Fatal(err)
			}
			bytes += int64(len(part))
			rest = append(rest[:0], rest[len(part):]...)
			chunk++
		}
	}
	filler := strings.Repeat("many words ", 90)
	for i := range n {
		rest = fmt.Appendln(rest, line(fmt.Sprint("line-", i), filler))
		put(store.FileChunk)
	}
	put(1)
	if _, err := r.s.FinishFile(r.Context(), f.ID, store.FileEnd{Purpose: "batch", Bytes: bytes}); err != nil {
		r.Fatal(err)
	}
	return f.ID
}

// peak returns by how much the live heap grew at most while f ran.
func peak(f func()) int64 {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	base := int64(sample[0].Value.Uint64())
	ctx, cancel := context.WithCancel(context.Background())
	most := make(chan int64)
	go func() {
		var high int64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
			metrics.Read(sample)
			high = max(high, int64(sample[0].Value.Uint64())-base)
			<-tick.C
		}
		most <- high
	}()
	f()
	cancel()
	return <-most
}
