package endtoend_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate/casemate/host/demo"
	"github.com/casemate/casemate/host/internal/testdb"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// next starts the host that goes on: a restart on SQLite, where one process
// owns the file; on PostgreSQL a second host that was there all along would do
// as well, and the first one stays dead.
func (r *rig) next() *host { return r.start() }

// toolScript answers the first model call with one call of a tool and every
// later one with what the tools said.
func toolScript(calls ...demo.Call) demo.Script {
	return func(_ int, req demo.Request) demo.Turn {
		if outs := toolOutputs(req.Body); len(outs) > 0 {
			return demo.Turn{Text: "tools said: " + strings.Join(outs, " | ")}
		}
		return demo.Turn{Calls: calls}
	}
}

// toolOutputs returns the tool messages of a chat request.
func toolOutputs(body []byte) []string {
	var req struct {
		Messages []struct {
			Role    string `json:"role"`
			Content any    `json:"content"`
		} `json:"messages"`
	}
	if json.Unmarshal(body, &req) != nil {
		return nil
	}
	var outs []string
	for _, m := range req.Messages {
		if m.Role == "tool" {
			outs = append(outs, fmt.Sprint(m.Content))
		}
	}
	return outs
}

// steps returns a request's steps by key, after checking that they are settled.
func settled(t *testing.T, rec store.Record) map[string]response.Step {
	t.Helper()
	steps := map[string]response.Step{}
	for _, s := range rec.Steps {
		steps[s.Key()] = s
		if s.State == response.Planned || s.State == response.Running {
			t.Errorf("step %s is %s after the response ended", s.Key(), s.State)
		}
	}
	return steps
}

// checkEvents checks that the log of a response is one legal stream.
func checkEvents(t *testing.T, rec store.Record) {
	t.Helper()
	if err := response.Validate(rec.Events); err != nil {
		t.Errorf("event log: %v", err)
		for _, e := range rec.Events {
			t.Logf("%d %s", e.Seq, e.Data)
		}
	}
}

func TestKillDuringModelCall(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		began, gate := make(chan struct{}, 1), make(chan struct{})
		r := newRig(t, url, func(n int, _ demo.Request) demo.Turn {
			if n == 0 {
				began <- struct{}{}
				return demo.Turn{Text: "never seen", Gate: gate}
			}
			return demo.Turn{Text: "second try"}
		})
		defer close(gate)
		h := r.start()
		id := h.background("hello")
		<-began
		h.kill()
		h = r.next()
		v := h.await(id)
		if v["status"] != "completed" || text(v) != "second try" {
			t.Errorf("response %v: status %v, text %q; want completed, the second try's text", id, v["status"], text(v))
		}
		rec := r.record(id)
		steps := settled(t, rec)
		if got := steps["/0"].Tries; got != 2 || len(steps) != 1 {
			t.Errorf("%d steps, step /0 with %d tries; want one with 2", len(steps), got)
		}
		if rec.Reaps != 1 || rec.Failures != 0 {
			t.Errorf("reaps %d, failures %d; want 1, 0", rec.Reaps, rec.Failures)
		}
		checkEvents(t, rec)
	})
}

// TestKillBetweenSteps kills the host when one step is settled and the next has
// done nothing yet: the settled ones must not run again.
func TestKillBetweenSteps(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		began, gate := make(chan struct{}, 1), make(chan struct{})
		r := newRig(t, url, func(n int, req demo.Request) demo.Turn {
			outs := toolOutputs(req.Body)
			switch {
			case len(outs) == 0:
				return demo.Turn{Calls: []demo.Call{{ID: "c1", Name: "wait_once", Arguments: `{}`}}}
			case n == 1: // the tool has ended and is committed, and the next step has begun
				began <- struct{}{}
				return demo.Turn{Text: "lost", Gate: gate}
			}
			return demo.Turn{Text: outs[0]}
		})
		defer close(gate)
		h := r.start()
		id := h.background("hello")
		<-began
		h.kill()
		h = r.next()
		v := h.await(id)
		if v["status"] != "completed" || !strings.Contains(text(v), `"attempt":1`) {
			t.Errorf("status %v, text %q; want completed with the first run's output", v["status"], text(v))
		}
		rec := r.record(id)
		steps := settled(t, rec)
		for key, tries := range map[string]int{"/0": 1, "/1": 1, "/2": 2} {
			if steps[key].Tries != tries {
				t.Errorf("step %s has %d tries; want %d", key, steps[key].Tries, tries)
			}
		}
		checkEvents(t, rec)
	})
}

func TestKillDuringToolCall(t *testing.T) {
	tests := []struct {
		tool    string
		posts   int32 // on the first attempt, so that an effect has begun
		state   response.StepState
		tries   int
		message string
	}{
		{"wait_again", 0, response.Completed, 2, `"attempt":2`},
		{"wait_again", 1, response.Completed, 2, `"attempt":2`},
		{"wait_once", 0, response.Completed, 2, `"attempt":2`},
		{"wait_once", 1, response.Abandoned, 1, "interrupted"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s %d posts", tt.tool, tt.posts), func(t *testing.T) {
			testdb.Each(t, func(t *testing.T, url string) {
				out, args := newOutside(t), `{"ms":60000}`
				if tt.posts > 0 {
					args = fmt.Sprintf(`{"ms":60000,"url":%q}`, out.URL)
				}
				r := newRig(t, url, toolScript(demo.Call{ID: "c1", Name: tt.tool, Arguments: args}))
				r.outside = out
				h := r.start()
				id := h.background("hello")
				r.toolRuns(id)
				r.eventually("the tool has posted", func() bool { return out.posts.Load() == tt.posts })
				h.kill()
				h = r.next()
				v := h.await(id)
				if v["status"] != "completed" || !strings.Contains(text(v), tt.message) {
					t.Errorf("status %v, text %q; want completed and %q", v["status"], text(v), tt.message)
				}
				rec := r.record(id)
				s := settled(t, rec)["/1"]
				if s.State != tt.state || s.Tries != tt.tries {
					t.Errorf("tool step is %s after %d tries; want %s after %d", s.State, s.Tries, tt.state, tt.tries)
				}
				key := strings.TrimPrefix(id, "resp_") + "//1"
				if tt.state == response.Completed && !strings.Contains(string(s.Output), key) {
					t.Errorf("output %s; want the key %s of the first try", s.Output, key)
				}
				if n, want := out.posts.Load(), tt.posts*int32(tt.tries); n != want {
					t.Errorf("it posted %d times; want %d", n, want)
				}
				checkEvents(t, rec)
			})
		})
	}
}

// TestKillDuringNestedCall kills the host while a tool waits for the second of
// two that it calls: the first one, which posted and may run only once, must
// not run again, and its result must be there.
func TestKillDuringNestedCall(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		out := newOutside(t)
		r := newRig(t, url, toolScript(demo.Call{ID: "c1", Name: "relay", Arguments: fmt.Sprintf(`{"ms":60000,"url":%q}`, out.URL)}))
		r.outside = out
		h := r.start()
		id := h.background("hello")
		r.eventually("the second tool runs", func() bool {
			for _, s := range r.record(id).Steps {
				if s.Key() == "/1/1" && s.State == response.Running {
					return true
				}
			}
			return false
		})
		h.kill()
		h = r.next()
		v := h.await(id)
		want := regexp.MustCompile(`"attempt":1.* then .*"attempt":2`)
		if v["status"] != "completed" || !want.MatchString(strings.ReplaceAll(text(v), `\"`, `"`)) {
			t.Errorf("status %v, text %q; want completed, the first result kept and the second made again", v["status"], text(v))
		}
		rec := r.record(id)
		steps := settled(t, rec)
		for key, tries := range map[string]int{"/1": 2, "/1/0": 1, "/1/1": 2} {
			if s := steps[key]; s.State != response.Completed || s.Tries != tries {
				t.Errorf("step %s is %s after %d tries; want completed after %d", key, s.State, s.Tries, tries)
			}
		}
		if n := out.posts.Load(); n != 1 {
			t.Errorf("it posted %d times; want once", n)
		}
		checkEvents(t, rec)
	})
}

// toolRuns waits until the tool step of a response has begun.
func (r *rig) toolRuns(id string) {
	r.Helper()
	r.eventually("the tool of "+id+" runs", func() bool {
		for _, s := range r.record(id).Steps {
			if s.Kind == response.ToolCall && s.State == response.Running {
				return true
			}
		}
		return false
	})
}

func TestKillAfterVisibleOutput(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		gate := make(chan struct{})
		r := newRig(t, url, func(n int, _ demo.Request) demo.Turn {
			if n == 0 {
				return demo.Turn{Text: "first words of many", ChunkRunes: 6, Gate: gate, GateAfter: 3}
			}
			return demo.Turn{Text: "the whole answer"}
		})
		defer close(gate)
		h := r.start()
		id := h.background("hello")
		r.eventually("a delta is in the log", func() bool {
			for _, e := range r.record(id).Events {
				if strings.Contains(string(e.Data), "response.output_text.delta") {
					return true
				}
			}
			return false
		})
		h.kill()
		h = r.next()
		v := h.await(id)
		items := v["output"].([]any)
		if v["status"] != "completed" || len(items) != 2 || text(v) != "the whole answer" {
			t.Fatalf("status %v, output %v; want completed with the cut item and the whole one", v["status"], items)
		}
		if got := items[0].(map[string]any)["status"]; got != "incomplete" {
			t.Errorf("the cut item is %v; want incomplete", got)
		}
		rec := r.record(id)
		checkEvents(t, rec)
		// What the client that resumes is sent is the rest of the same log.
		for _, req := range r.upstream.Requests()[1:] {
			if strings.Contains(string(req.Body), "first words") {
				t.Errorf("the cut text went back to the model: %s", req.Body)
			}
		}
	})
}

func TestStopPastLease(t *testing.T) {
	url := testdb.Postgres(t) // a second host must take over while the first one sleeps
	r := newRig(t, url, toolScript(demo.Call{ID: "c1", Name: "wait_again", Arguments: `{"ms":3000}`}))
	first := r.start()
	id := first.background("hello")
	r.toolRuns(id)
	first.signal(syscall.SIGSTOP)
	second := r.start()
	v := second.await(id)
	if v["status"] != "completed" || !strings.Contains(text(v), `"attempt":2`) {
		t.Fatalf("status %v, text %q; want completed by the second attempt", v["status"], text(v))
	}
	before := r.record(id)
	first.signal(syscall.SIGCONT)
	r.eventually("the first host finds its lease lost", func() bool {
		return strings.Contains(first.logs.String(), "given up for dead") || strings.Contains(first.logs.String(), "lease lost")
	})
	r.eventually("the first host is ready again", func() bool {
		status, _ := first.get("/readyz")
		return status == 200
	})
	after := r.record(id)
	if after.State != queue.Completed || after.Attempt != before.Attempt || len(after.Events) != len(before.Events) {
		t.Errorf("after the late write: state %s, attempt %d, %d events; want completed, %d, %d",
			after.State, after.Attempt, len(after.Events), before.Attempt, len(before.Events))
	}
	if s := settled(t, after)["/1"]; !strings.Contains(string(s.Output), `"attempt":2`) {
		t.Errorf("tool output %s was overwritten by the late one", s.Output)
	}
	checkEvents(t, after)
}

func TestTermHandsBack(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		r := newRig(t, url, toolScript(demo.Call{ID: "c1", Name: "wait_again", Arguments: `{"ms":60000}`}))
		h := r.start()
		id := h.background("hello")
		r.toolRuns(id)
		h.term()
		rec := r.record(id)
		if rec.State != queue.Pending || rec.Worker != 0 || rec.Reaps != 0 || rec.Failures != 0 {
			t.Fatalf("after SIGTERM: %s, worker %d, reaps %d, failures %d; want pending and nothing spent",
				rec.State, rec.Worker, rec.Reaps, rec.Failures)
		}
		h = r.next()
		v := h.await(id)
		if v["status"] != "completed" || !strings.Contains(text(v), `"attempt":2`) {
			t.Errorf("status %v, text %q; want completed by the second attempt", v["status"], text(v))
		}
		checkEvents(t, r.record(id))
	})
}

func TestOnceStepIsNeverTriedAgain(t *testing.T) {
	testdb.Each(t, func(t *testing.T, url string) {
		out := newOutside(t)
		r := newRig(t, url, toolScript(demo.Call{ID: "c1", Name: "flaky_once", Arguments: fmt.Sprintf(`{"url":%q}`, out.URL)}))
		r.outside = out
		r.retry = built + "/stubborn.wasm"
		h := r.start()
		v := h.await(h.background("hello"))
		if v["status"] != "completed" || !strings.Contains(text(v), "try me again") {
			t.Errorf("status %v, text %q; want completed, the model told", v["status"], text(v))
		}
		s := settled(t, r.record(v["id"].(string)))["/1"]
		if s.State != response.Failed || s.Tries != 1 || out.posts.Load() != 1 {
			t.Errorf("step is %s after %d tries and %d posts; want failed after one", s.State, s.Tries, out.posts.Load())
		}
	})
}
