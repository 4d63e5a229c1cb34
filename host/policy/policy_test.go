package policy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/sdk/abi"
)

// module is an Asker with a fixed answer.
type module struct {
	name   string
	answer string
	err    error
	asked  func(question []byte, seed, nowMS int64)
}

func (m *module) Ask(_ context.Context, q policy.Question) ([]byte, uint64, error) {
	if m.asked != nil {
		m.asked(q.Text, q.Seed, q.NowMS)
	}
	return []byte(m.answer), 42, m.err
}

func (m *module) Generation() string { return m.name }

// classed is an error that knows its class.
type classed struct{ class queue.Class }

func (c classed) Error() string      { return "the guest's own words" }
func (c classed) Class() queue.Class { return c.class }

func TestFallback(t *testing.T) {
	tests := []struct {
		name   string
		answer string
		err    error
		want   string
	}{
		{"trap", "", fmt.Errorf("wrapped: %w", classed{queue.GuestTrap}), "guest_trap"},
		{"overrun", "", classed{queue.GuestDeadline}, "guest_deadline"},
		{"class out of the set", "", classed{"tenant secret"}, "guest_error"},
		{"ok is no failure", "", classed{queue.OK}, "guest_error"},
		{"deadline of the context", "", context.DeadlineExceeded, "guest_deadline"},
		{"canceled", "", context.Canceled, "canceled"},
		{"other error", "", errors.New("x"), "guest_error"},
		{"empty answer", "", nil, "invalid_answer"},
		{"no JSON", `{"v":1,`, nil, "invalid_answer"},
		{"two values", `{"v":1,"action":"fail","targets":["up/a"]} {}`, nil, "invalid_answer"},
		{"no version", `{"action":"fail","targets":["up/a"]}`, nil, "invalid_answer"},
		{"another version", `{"v":2,"action":"fail","targets":["up/a"]}`, nil, "invalid_answer"},
		{"wrong type", `{"v":1,"action":7,"targets":"up/a"}`, nil, "invalid_answer"},
		{"unknown action, no targets", `{"v":1,"action":"maybe","targets":[]}`, nil, "invalid_answer"},
		{"fraction", `{"v":1,"action":"retry","delay_ms":1.5,"targets":["up/a"],"timeout_ms":1.5}`, nil, "invalid_answer"},
		{
			"too long", `{"v":1,"action":"fail","targets":["up/a"],"reason":"` + strings.Repeat("x", 70_000) + `"}`,
			nil, "invalid_answer",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := policy.New(nil)
			m := &module{name: "sha256:m", answer: tt.answer, err: tt.err}
			d.SetRoute(m)
			d.SetRetry(m)
			q := routeQuestion("up/a", "up/b")
			ans, dec := d.Route(t.Context(), q)
			checkFallback(t, dec, tt.want)
			if want := policy.BuiltinRoute(q); fmt.Sprint(ans.Targets) != fmt.Sprint(want.Targets) {
				t.Errorf("targets: got %v, want those of the built-in rules: %v", ans.Targets, want.Targets)
			}
			v, dec := d.Retry(t.Context(), failed(queue.UpstreamNetwork), bounds)
			checkFallback(t, dec, tt.want)
			if !v.Retry {
				t.Errorf("got %+v, want the retry of the built-in rules", v)
			}
			counts := d.Counts()
			for _, kind := range []string{"route", "retry"} {
				if got := counts[kind+".fallback."+tt.want]; got != 1 {
					t.Errorf("%s.fallback.%s: got %d, want 1", kind, tt.want, got)
				}
				if got := counts[kind+".decisions"]; got != 1 {
					t.Errorf("%s.decisions: got %d, want 1", kind, got)
				}
			}
		})
	}
}

func checkFallback(t *testing.T, dec policy.Decision, want string) {
	t.Helper()
	if dec.Fallback != want || dec.Generation != policy.Builtin || dec.Fuel != 42 {
		t.Errorf("%s: got fallback %q, generation %q, fuel %d; want %q, builtin, 42",
			dec.Kind, dec.Fallback, dec.Generation, dec.Fuel, want)
	}
	if !json.Valid(dec.Question) || !json.Valid(dec.Answer) {
		t.Errorf("%s: question or answer is not JSON", dec.Kind)
	}
}

func TestBuiltinIsNoFallback(t *testing.T) {
	d := policy.New(nil)
	_, dec := d.Route(t.Context(), routeQuestion("up/a"))
	if dec.Generation != policy.Builtin || dec.Fallback != "" || dec.Kind != abi.KindRoute {
		t.Errorf("got %+v, want a decision of the built-in rules, no fallback", dec)
	}
	if got := d.Counts()["route.builtin"]; got != 1 {
		t.Errorf("route.builtin: got %d, want 1", got)
	}
}

func TestWarningIsRareAndSaysNothingOfTheRequest(t *testing.T) {
	var out bytes.Buffer
	d := policy.New(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Trace}))
	d.SetRoute(&module{name: "sha256:m", answer: "tenant text", err: nil})
	q := routeQuestion("up/a")
	q.Request.Tenant = "tenant-name"
	q.Request.Metadata = map[string]string{"k": "metadata-text"}
	for range 100 {
		d.Route(t.Context(), q)
	}
	if got := strings.Count(out.String(), "\n"); got != 1 {
		t.Errorf("lines: got %d, want 1", got)
	}
	if !strings.Contains(out.String(), "[WARN]") || !strings.Contains(out.String(), "invalid_answer") {
		t.Errorf("got %q, want a warning with the code", &out)
	}
	for _, secret := range []string{"tenant", "metadata-text"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the line holds %q: %s", secret, &out)
		}
	}
}

func TestQuestionIsBounded(t *testing.T) {
	var got abi.RouteQuestion
	var gotSeed, gotNow int64
	d := policy.New(nil)
	d.SetRoute(&module{answer: `{"v":1,"targets":["up/0"]}`, asked: func(q []byte, seed, now int64) {
		gotSeed, gotNow = seed, now
		if err := json.Unmarshal(q, &got); err != nil {
			t.Errorf("question: %v", err)
		}
	}})
	q := abi.RouteQuestion{Seed: -1, NowMS: math.MaxInt64}
	q.Request.Metadata = map[string]string{strings.Repeat("k", 65): "x"}
	for i := range 40 {
		q.Request.Metadata[fmt.Sprintf("key%02d", i)] = strings.Repeat("é", 600)
	}
	for i := range 100 {
		q.Candidates = append(q.Candidates, abi.Candidate{Target: fmt.Sprintf("up/%d", i), Weight: float64(i % 50)})
	}
	q.Candidates = append(q.Candidates, q.Candidates[3])
	q.Candidates[40].LatencyMS, q.Candidates[40].ErrorRate = math.Inf(1), math.NaN()
	q.Candidates[0].Weight = 1000
	for range 200 {
		q.Tried = append(q.Tried, abi.Tried{Target: "up/1"})
	}
	d.Route(t.Context(), q)
	if got.V != 1 || gotSeed != 1<<53-1 || gotNow != 1<<53-1 || got.Seed != gotSeed || got.NowMS != gotNow {
		t.Errorf("v %d, seed %d (%d), now %d (%d): want 1, 2^53-1, 2^53-1", got.V, got.Seed, gotSeed, got.NowMS, gotNow)
	}
	if n := len(got.Request.Metadata); n != 16 {
		t.Errorf("metadata: got %d keys, want 16", n)
	}
	if n := len(got.Request.Metadata["key00"]); n != 512 {
		t.Errorf("metadata text: got %d bytes, want 512", n)
	}
	if n := len(got.Candidates); n != abi.MaxCandidates {
		t.Errorf("candidates: got %d, want %d", n, abi.MaxCandidates)
	}
	for _, c := range got.Candidates {
		if c.Weight < 18 {
			t.Errorf("candidate with weight %v kept, although heavier ones were cut", c.Weight)
		}
	}
	if got.Candidates[0].Target != "up/0" {
		t.Errorf("first candidate: got %s, want up/0: the order stays", got.Candidates[0].Target)
	}
	if len(got.Tried) != 64 {
		t.Errorf("tried: got %d, want 64", len(got.Tried))
	}
	if len(q.Candidates) != 101 || !math.IsNaN(q.Candidates[40].ErrorRate) {
		t.Error("the caller's question was changed")
	}
}

func TestSwapUnderLoad(t *testing.T) {
	d := policy.New(nil)
	good := &module{name: "good", answer: `{"v":1,"targets":["up/b"]}`}
	inside, release := make(chan struct{}), make(chan struct{})
	slow := &module{name: "slow", answer: `{"v":1,"targets":["up/a"]}`, asked: func([]byte, int64, int64) {
		close(inside)
		<-release
	}}
	d.SetRoute(slow)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, dec := d.Route(t.Context(), routeQuestion("up/a", "up/b"))
		if dec.Generation != "slow" {
			t.Errorf("in flight: got %s, want slow: it ends on the old module", dec.Generation)
		}
	})
	<-inside
	d.SetRoute(good)
	if _, dec := d.Route(t.Context(), routeQuestion("up/a", "up/b")); dec.Generation != "good" {
		t.Errorf("next: got %s, want good", dec.Generation)
	}
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				if i%2 == 0 {
					d.SetRoute(nil)
				} else {
					d.SetRoute(good)
				}
				if ans, dec := d.Route(t.Context(), routeQuestion("up/a", "up/b")); len(ans.Targets) == 0 || dec.Fallback != "" {
					t.Errorf("got %v, %q", ans.Targets, dec.Fallback)
				}
			}
		})
	}
	close(release)
	wg.Wait()
}
