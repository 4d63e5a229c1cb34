package endtoend_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
)

// TestResumeAtEveryNumber resumes a stream with two tool calls after each of
// its events, while it runs and when it has ended, on the host that runs it and
// on another: what comes is the rest of the same bytes.
func TestResumeAtEveryNumber(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		gate := make(chan struct{})
		open := sync.OnceFunc(func() { close(gate) })
		defer open()
		r := newRig(t, url, func(_ int, req demo.Request) demo.Turn {
			switch outs := toolOutputs(req.Body); len(outs) {
			case 0:
				return demo.Turn{Text: "first the one", Calls: []demo.Call{{ID: "c1", Name: "wait_once", Arguments: `{"ms":0}`}}}
			case 1:
				return demo.Turn{Calls: []demo.Call{{ID: "c2", Name: "wait_again", Arguments: `{"ms":0}`}}}
			}
			return demo.Turn{Text: strings.Repeat("and so on, ", 8), ChunkRunes: 11, Gate: gate, GateAfter: 4}
		})
		a := r.start()
		hosts := []*host{a}
		if strings.HasPrefix(url, "postgres") {
			hosts = append(hosts, r.startAt(site{name: "other"}))
		}
		first := a.ask(t, map[string]any{"model": "m", "input": "go", "background": true})
		first.until("response.output_text.delta") // of the first model call
		for range 2 {
			first.until("response.mcp_call.completed")
		}
		first.until("response.output_text.delta")
		first.until("response.output_text.delta")
		id, seen := first.id(), first.last()

		var live []*viewer
		for _, h := range hosts {
			for n := int64(-1); n <= seen; n++ {
				live = append(live, h.watch(t, id, n))
			}
		}
		open()
		first.rest()
		checkWhole(t, a, id, first.frames)
		var wg sync.WaitGroup
		for _, v := range live {
			wg.Go(v.rest)
		}
		wg.Wait()
		for i, v := range live {
			n := int64(i)%(seen+2) - 1
			checkTail(t, fmt.Sprintf("live, after %d", n), v.frames, first.frames[n+1:])
		}
		for _, h := range hosts {
			for n := int64(-1); n <= first.last(); n++ {
				v := h.watch(t, id, n)
				v.rest()
				checkTail(t, fmt.Sprintf("ended, after %d", n), v.frames, first.frames[n+1:])
				if !v.done {
					t.Errorf("after %d: no [DONE]", n)
				}
			}
		}
	})
}

// crashPoints are where a response may be when its host is killed: before,
// while and after each of its three model calls shows something, and in each of
// its two tool calls.
var crashPoints = []struct {
	name    string
	phase   int  // how many tools have answered
	visible bool // the model call is cut after it showed something
	tool    bool // the tool runs, not the model
}{
	{"first model call", 0, false, false},
	{"first model call, visible", 0, true, false},
	{"first tool", 0, false, true},
	{"second model call", 1, false, false},
	{"second model call, visible", 1, true, false},
	{"second tool", 1, false, true},
	{"third model call", 2, false, false},
	{"third model call, visible", 2, true, false},
}

// crashScript stops each response at its point, once.
type crashScript struct {
	mu      sync.Mutex
	stopped map[string]bool
	gate    chan struct{}
}

func (c *crashScript) turn(_ int, req demo.Request) demo.Turn {
	phase := len(toolOutputs(req.Body))
	turn := demo.Turn{Text: fmt.Sprintf("This is what model call %d says.", phase), ChunkRunes: 4}
	for i, p := range crashPoints {
		for _, kind := range []string{"foreground", "background"} {
			name := fmt.Sprintf("%s %d.", kind, i)
			if !strings.Contains(string(req.Body), name) {
				continue
			}
			ms := 0
			if p.tool && phase == p.phase {
				ms = 60_000 // on the first attempt only
			}
			if phase < 2 {
				turn.Calls = []demo.Call{{ID: fmt.Sprint("c", phase), Name: "wait_again", Arguments: fmt.Sprintf(`{"ms":%d}`, ms)}}
			}
			c.mu.Lock()
			if phase == p.phase && !p.tool && !c.stopped[name] {
				c.stopped[name], turn.Gate = true, c.gate
				if p.visible {
					turn.GateAfter = 4
				}
			}
			c.mu.Unlock()
		}
	}
	return turn
}

// TestKilledAtEachPoint kills a host while sixteen responses are each at a point
// of their own. Clients that were watching go on with the last number they saw,
// on another host.
func TestKilledAtEachPoint(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		script := &crashScript{stopped: map[string]bool{}, gate: make(chan struct{})}
		open := sync.OnceFunc(func() { close(script.gate) })
		defer open()
		r := newRig(t, url, script.turn)
		a := r.startAt(site{name: "a"})
		shared := strings.HasPrefix(url, "postgres")
		var b *host
		if shared {
			b = r.startAt(site{name: "b", slots: 1})
		}
		var clients, loyal []*viewer
		for i := range crashPoints {
			for _, kind := range []string{"foreground", "background"} {
				client := a.ask(t, map[string]any{"model": "m", "input": fmt.Sprintf("%s %d.", kind, i), "background": kind == "background"})
				client.until("response.in_progress")
				clients = append(clients, client)
				if shared { // one that never leaves the host that lives
					loyal = append(loyal, b.watch(t, client.id(), -1))
				}
			}
		}
		for i, client := range clients {
			r.reach(client, i/2)
		}
		a.kill()
		open() // for a response that the other host had claimed
		for _, client := range clients {
			client.rest()
			client.leave()
		}
		if !shared {
			b = r.startAt(site{name: "b"})
		}
		for i, client := range clients {
			t.Run(fmt.Sprintf("%s, %d", crashPoints[i/2].name, i%2), func(t *testing.T) {
				on := b.watch(t, client.id(), client.last())
				on.rest()
				whole := append(client.frames, on.frames...)
				checkWhole(t, b, client.id(), whole)
				if shared {
					loyal[i].rest()
					checkTail(t, "who stayed", loyal[i].frames, whole)
				}
				for _, s := range settled(t, r.record(client.id())) {
					if most := 2; s.Tries > most {
						t.Errorf("step %s has %d tries, want %d at most", s.Key(), s.Tries, most)
					}
				}
			})
		}
	})
}

// reach waits until a response is at its point and its client has seen that.
func (r *rig) reach(client *viewer, point int) {
	r.Helper()
	p := crashPoints[point]
	for range p.phase {
		client.until("response.mcp_call.completed")
	}
	switch {
	case p.visible:
		client.until("response.output_text.delta")
		client.until("response.output_text.delta")
	case p.tool:
		client.until("response.mcp_call.in_progress")
		r.toolRuns(client.id())
	default:
		r.eventually("model call "+fmt.Sprint(p.phase)+" of "+client.id()+" runs", func() bool {
			steps := r.record(client.id()).Steps
			return len(steps) == 2*p.phase+1 && steps[2*p.phase].Tries == 1
		})
	}
}
