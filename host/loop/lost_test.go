package loop_test

import (
	"context"
	"fmt"
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
			for k, hit := 1, true; hit && !t.Failed(); k++ {
				t.Run(fmt.Sprint(outer, " ", name, " at write ", k), func(t *testing.T) {
					hit = lostAt(t, k, outer, lose)
				})
			}
		}
	}
}

// lostAt reports whether the first attempt came to its k-th write.
func lostAt(t *testing.T, k int, outer string, lose func(*rig, queue.Fence)) bool {
	r := newRig(t, thenTell(outer+" {}", "side {}"), loop.Options{})
	var n counter
	effects := func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
		if c.Effect(ctx) != nil {
			return stopped(ctx)
		}
		n.run(c)
		return ok("done")
	}
	r.tools.calls["once_first"], r.tools.calls["once_last"], r.tools.calls["side"] = effects, effects, effects
	r.tools.calls["counts"] = r.counts
	r.tools.calls["middle"] = r.asks("counts {}", "once_last {}")
	r.tools.calls[outer] = r.asks("counts {}", "once_first {}", "middle {}")
	var mu sync.Mutex
	writes := 0
	r.spy.before = func(w store.Write) {
		mu.Lock()
		defer mu.Unlock()
		if w.Fence.Attempt != 1 {
			return
		}
		if writes++; writes == k {
			lose(r, w.Fence)
		}
	}
	brief, events := r.brief(`{"model":"m","input":"hello","background":true}`)
	l := r.hub.Listen(brief.ID, -1)
	defer l.Close()
	if err := r.claimer.Enqueue(t.Context(), brief, events); err != nil {
		t.Fatal(err)
	}
	r.events(l)
	rec := r.record(brief.ID)
	if rec.State != queue.Completed {
		t.Errorf("the response is %s", rec.State)
	}
	counted := 0
	for _, s := range rec.Steps {
		if !s.Settled() {
			t.Errorf("step %s is %s and open", s.Key(), s.State)
		}
		if s.Tool == "counts" && s.Class == queue.OK {
			counted++
		}
	}
	v, _, err := r.store.KVGet(t.Context(), "t", plugin, "n")
	if err != nil || len(v) != counted || counted > 2 || outer == "outer" && counted != 2 {
		t.Errorf("%d steps that count completed, and counted %d, %v", counted, len(v), err)
	}
	n.mu.Lock() // the first owner may not have been told yet
	defer n.mu.Unlock()
	for call, runs := range n.runs {
		if strings.HasPrefix(call, "once") && runs > 1 {
			t.Errorf("%s ran %d times", call, runs)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return writes >= k
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
