package loop_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/loop"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
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
	eachLoss(t, func(t *testing.T, d database, lose func(*rig, queue.Fence)) {
		for _, outer := range []string{"outer", "once_outer"} {
			t.Run(outer, func(t *testing.T) { // on a database of its own
				l := newLossy(t, d, outer, lose)
				for k, hit := 1, true; hit && !t.Failed(); k++ {
					var rec store.Record
					rec, hit = l.lostAt(k)
					if outer == "outer" && completed(rec, "counts") != 2 {
						t.Errorf("write %d: counted %d times, want 2", k, completed(rec, "counts"))
					}
				}
			})
		}
	})
}

// lossy is a rig whose runs lose their claim at one of their writes.
type lossy struct {
	*rig
	kept int // bytes that counts has written so far

	mu  sync.Mutex
	all map[queue.ID]*loss
}

// loss is what is known of one response.
type loss struct {
	counter
	at, writes int
}

// loses makes the first attempts at r's responses lose their claim.
func loses(r *rig, lose func(*rig, queue.Fence)) *lossy {
	l := &lossy{rig: r, all: map[queue.ID]*loss{}}
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

// effects is a tool with an effect, which is counted for its response.
func (l *lossy) effects(ctx context.Context, c loop.ToolCall) loop.ToolResult {
	if c.Effect(ctx) != nil {
		return stopped(ctx)
	}
	l.of(id(c)).run(c)
	return ok("done")
}

func newLossy(t *testing.T, d database, outer string, lose func(*rig, queue.Fence)) *lossy {
	l := loses(newRigAt(t, d, thenTell(outer+" {}", "side {}"), loop.Options{}), lose)
	l.tools.calls["once_first"], l.tools.calls["once_last"], l.tools.calls["side"] = l.effects, l.effects, l.effects
	l.tools.calls["counts"] = l.counts
	l.tools.calls["middle"] = l.asks("counts {}", "once_last {}")
	l.tools.calls[outer] = l.asks("counts {}", "once_first {}", "middle {}")
	return l
}

func (l *lossy) of(id queue.ID) *loss {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all[id]
}

// lostAt runs a response whose first attempt is lost at its k-th write, and
// reports whether it came to that many. Whatever happened, the response
// completes, no step is left open, no once step has more than one effect and
// what counts has written is what its steps say.
func (l *lossy) lostAt(k int) (store.Record, bool) {
	brief, events := l.brief(`{"model":"m","input":"hello","background":true}`)
	n := &loss{at: k}
	l.mu.Lock()
	l.all[brief.ID] = n
	l.mu.Unlock()
	listener := l.hub.Listen(brief.ID, -1)
	defer listener.Close()
	if err := l.claimer.Enqueue(l.Context(), store.Write{Insert: &brief, Events: events}); err != nil {
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
	if err != nil || len(v)-l.kept != counted || counted > 2 {
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
	return rec, n.writes >= k
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

// completed counts the steps of a tool that completed.
func completed(rec store.Record, tool string) int {
	n := 0
	for _, s := range rec.Steps {
		if s.Tool == tool && s.State == response.Completed {
			n++
		}
	}
	return n
}

// TestAgentLostAtEachWrite takes a run of agents, and of tools below them, from
// its owner at each of its writes: what was done is never done again, and the
// agents go on where they were.
func TestAgentLostAtEachWrite(t *testing.T) {
	eachLoss(t, func(t *testing.T, d database, lose func(*rig, queue.Fence)) {
		c := newCrewAt(t, d, map[string]demo.Script{
			"":       thenTell("expert "+asks, "once_side {}"),
			"expert": thenTell("once_first {}", "counts {}", "middle {}", "deep "+asks),
			"deep":   thenTell("once_deep {}"),
		}, loop.Options{})
		c.agent("expert", "once_first", "counts", "middle", "agents/deep", "once_last")
		c.agent("deep", "once_deep")
		c.shown = []string{"agents/expert", "once_side"}
		l := loses(c.rig, lose)
		for _, tool := range []string{"once_side", "once_first", "once_last", "once_deep"} {
			c.tools.calls[tool] = l.effects
		}
		c.tools.calls["counts"], c.tools.calls["middle"] = l.counts, l.asks("counts {}", "once_last {}")
		for k, hit := 1, true; hit && !t.Failed(); k++ {
			before := len(c.upstream.Requests())
			var rec store.Record
			rec, hit = l.lostAt(k)
			if n := completed(rec, "counts"); n != 2 {
				t.Errorf("write %d: counted %d times, want 2", k, n)
			}
			if n := completed(rec, "expert") + completed(rec, "deep") + completed(rec, "middle"); n != 3 {
				t.Errorf("write %d: %d of the agents and the tool between them completed, want 3", k, n)
			}
			for _, tool := range []string{"once_side", "once_first", "once_last", "once_deep"} {
				if s := rec.Steps[slices.IndexFunc(rec.Steps, func(s response.Step) bool { return s.Tool == tool })]; s.State != response.Completed && s.State != response.Abandoned {
					t.Errorf("write %d: %s is %s", k, tool, s.State)
				}
			}
			if n := len(c.upstream.Requests()) - before; n < 6 || n > 8 {
				t.Errorf("write %d: %d calls of models, want 6 and those that were lost", k, n)
			}
		}
	})
}

// TestRemoteLostAtEachWrite does so with a run that lists the tools of two
// servers and calls them, one of them with the client's approval.
func TestRemoteLostAtEachWrite(t *testing.T) {
	eachLoss(t, func(t *testing.T, d database, lose func(*rig, queue.Fence)) {
		m := &remotes{list: map[string]func(context.Context) ([]response.RemoteTool, error){
			"maps": lists("once_find", "once_ask"), "docs": lists("once_read"),
		}}
		r := newRigAt(t, d, func(_ int, req demo.Request) demo.Turn {
			if outs := told(req.Body); len(outs) > 1 {
				return demo.Turn{Text: "told"}
			}
			return demo.Turn{Calls: calls("once_find {}", "once_read {}")}
		}, loop.Options{Remotes: m})
		server := maps()
		server.Approval = response.Approval{Named: []string{"once_ask"}}
		r.refers(server, response.Remote{Label: "docs", URL: "https://docs.example/mcp"}, response.Remote{Label: plugin})
		refers := r.change
		r.change = func(j *response.Brief, n *queue.New) {
			refers(j, n)
			j.Request.Input = items(t, `{"type":"mcp_approval_request","id":"mcpr_1","server_label":"maps","name":"once_ask","arguments":"{}"}`,
				`{"type":"mcp_approval_response","approval_request_id":"mcpr_1","approve":true}`)
		}
		l := loses(r, lose)
		m.call = func(ctx context.Context, c loop.ToolCall) loop.ToolResult {
			l.of(id(c)).run(c)
			return ok("done")
		}
		for k, hit := 1, true; hit && !t.Failed(); k++ {
			var rec store.Record
			rec, hit = l.lostAt(k)
			got := l.object(rec.Result.Body)
			if n := strings.Count(got.kinds(), "mcp_list_tools"); n != 3 || got.text() != "told" {
				t.Errorf("write %d: text %q, items %s", k, got.text(), got.kinds())
			}
			if n := strings.Count(got.kinds(), "mcp_call:completed") + strings.Count(got.kinds(), "mcp_call:failed"); n != 3 {
				t.Errorf("write %d: %d calls: %s", k, n, got.kinds())
			}
		}
	})
}

// items are input items.
func items(t *testing.T, raw ...string) []response.Item {
	t.Helper()
	var all []response.Item
	if err := json.Unmarshal([]byte("["+strings.Join(raw, ",")+"]"), &all); err != nil {
		t.Fatal(err)
	}
	return all
}
