package loop_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// losses are the ways in which a run loses its claim when it is about to write.
var losses = map[string]func(r *rig, f queue.Fence){
	// It is told, and may write what it has.
	"told": func(r *rig, f queue.Fence) { r.claimer.Stop(f.ID, queue.ErrShutdown) },
	// It goes on until the store refuses it, while another has taken over.
	"not told": func(r *rig, f queue.Fence) {
		r.store.WriteAsync(context.Background(), store.Write{Fence: f, Move: &store.Move{To: queue.Pending, By: queue.ByHandBack}}, func(error) {})
	},
}

// TestLostAtEachWrite takes a run of tools that call tools from its owner at
// each of its writes in turn. Whatever had begun then: no once step has more
// than one effect, state is written once, nothing is left open, and the response
// completes.
func TestLostAtEachWrite(t *testing.T) {
	for name, lose := range losses {
		for _, outer := range []string{"outer", "once_outer"} {
			t.Run(outer+" "+name, func(t *testing.T) {
				l := newLossy(t, outer, lose)
				for k, hit := 1, true; hit && !t.Failed(); k++ {
					hit = l.lostAt(k)
				}
			})
		}
	}
}

// lossy is a rig whose runs lose their claim at one of their writes.
type lossy struct {
	*rig
	outer string
	kept  int // bytes that counts has written so far

	mu  sync.Mutex
	all map[queue.ID]*loss
}

// loss is what is known of one response.
type loss struct {
	counter
	at, writes int
}

func newLossy(t *testing.T, outer string, lose func(*rig, queue.Fence)) *lossy {
	l := &lossy{rig: newRig(t, thenTell(outer+" {}", "side {}"), loop.Options{}), outer: outer, all: map[queue.ID]*loss{}}
	effects := func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Effect(ctx) != nil {
			return stopped(ctx)
		}
		id, err := queue.ParseID(strings.TrimPrefix(c.Info.ResponseID, "resp_"))
		l.check(err)
		l.of(id).run(c)
		return ok("done")
	}
	l.tools.calls["once_first"], l.tools.calls["once_last"], l.tools.calls["side"] = effects, effects, effects
	l.tools.calls["counts"] = l.counts
	l.tools.calls["middle"] = l.asks("counts {}", "once_last {}")
	l.tools.calls[outer] = l.asks("counts {}", "once_first {}", "middle {}")
	l.spy.mu.Lock()
	defer l.spy.mu.Unlock()
	l.spy.before = func(w store.Write) {
		if w.Fence.Attempt != 1 {
			return
		}
		n := l.of(w.Fence.ID)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.writes++; n.writes == n.at {
			lose(l.rig, w.Fence)
		}
	}
	return l
}

func (l *lossy) of(id queue.ID) *loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[id]
}

// lostAt reports whether the first attempt at a response came to its k-th write.
func (l *lossy) lostAt(k int) bool {
	brief, events := l.brief(`{"model":"m","input":"hello","background":true}`)
	n := &loss{at: k}
	l.mu.Lock()
	l.all[brief.ID] = n
	l.mu.Unlock()
	listener := l.hub.Listen(brief.ID, -1)
	defer listener.Close()
	if err := l.claimer.Enqueue(l.Context(), brief, events); err != nil {
		l.Fatal(err)
	}
	l.events(listener)
	rec := l.record(brief.ID)
	if rec.State != queue.Completed {
		l.Errorf("write %d: the response is %s", k, rec.State)
	}
	counted := 0
	for _, s := range rec.Steps {
		if !s.Settled() {
			l.Errorf("write %d: step %s is %s and open", k, s.Key(), s.State)
		}
		if s.Tool == "counts" && s.Class == queue.OK {
			counted++
		}
	}
	v, _, err := l.store.KVGet(l.Context(), "t", plugin, "n")
	if err != nil || len(v)-l.kept != counted || counted > 2 || l.outer == "outer" && counted != 2 {
		l.Errorf("write %d: %d steps that count completed, and counted %d, %v", k, counted, len(v)-l.kept, err)
	}
	l.kept = len(v)
	n.mu.Lock() // the first owner may not have been told yet
	defer n.mu.Unlock()
	for call, runs := range n.runs {
		if strings.HasPrefix(call, "once") && runs > 1 {
			l.Errorf("write %d: %s ran %d times", k, call, runs)
		}
	}
	return n.writes >= k
}

// counts is a tool that adds a byte to what its plugin keeps.
func (r *rig) counts(ctx context.Context, _ loop.ToolCall) loop.ToolResult {
	old, had, err := r.store.KVGet(ctx, "t", plugin, "n")
	if err != nil {
		return loop.ToolResult{Class: queue.ClassCanceled, RetryAfter: -1}
	}
	res := ok("counted")
	res.KV = []store.KVPut{{Plugin: plugin, Key: "n", Value: append(old, '1'), Checked: true, Had: had, Was: old}}
	return res
}
