package policy_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/sdk/abi"
	"github.com/casemate/casemate/sdk/internal/guest"
	"github.com/casemate/casemate/sdk/policy"
)

func init() {
	policy.Plugin("test-policy", "0.1.0", "")
	policy.Retry(func(q abi.RetryQuestion) (abi.RetryAnswer, error) {
		if q.MaxFailures == 0 {
			return abi.RetryAnswer{}, errors.New("no budget")
		}
		return policy.AgainFree(250*time.Millisecond, "again"), nil
	})
	policy.Route(func(q abi.RouteQuestion) (abi.RouteAnswer, error) {
		return abi.RouteAnswer{Targets: []string{q.Candidates[0].Target}}, nil // panics without candidates
	})
}

func TestEntries(t *testing.T) {
	tests := []struct {
		name, entry, question, want, fails string
	}{
		{"a retry", abi.ExportRetry, `{"v":1,"max_failures":3,"later":true}`, `{"v":1,"action":"retry","delay_ms":250,"count":false,"reason":"again"}`, ""},
		{"an error", abi.ExportRetry, `{"v":1}`, "", "no budget"},
		{"a route", abi.ExportRoute, `{"v":1,"candidates":[{"target":"a/m"}]}`, `{"v":1,"targets":["a/m"]}`, ""},
		{"a panic", abi.ExportRoute, `{"v":1}`, "", "panic: runtime error: index out of range"},
		{"a question that is not JSON", abi.ExportRoute, `{`, "", "route: question:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := guest.Fake{In: []byte(tt.question)}
			status := guest.Process().Enter(tt.entry, &h)
			if string(h.Out) != tt.want || (status == 0) != (tt.fails == "") {
				t.Errorf("got status %d, output %s; want %s", status, h.Out, tt.want)
			}
			if tt.fails != "" && (h.Failed == nil || h.Failed.Code != abi.FailInternal || !strings.HasPrefix(h.Failed.Text, tt.fails)) {
				t.Errorf("got %+v, want an internal failure with %q", h.Failed, tt.fails)
			}
		})
	}
}

func TestDescriptor(t *testing.T) {
	text, err := guest.Process().Describe()
	if err != nil {
		t.Fatal(err)
	}
	var d abi.Descriptor
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if d.Name != "test-policy" || strings.Join(d.Kinds, " ") != "retry route" || len(d.WarmUp) != 2 {
		t.Errorf("got %s", text)
	}
	// Each policy can be asked what it declares, by default or by its author.
	for i, entry := range []string{abi.ExportRetry, abi.ExportRoute} {
		var w abi.WarmUp
		if err := json.Unmarshal(d.WarmUp[i], &w); err != nil || (w.Retry != nil) == (w.Route != nil) || w.Tool != "" {
			t.Fatalf("warm-up %d is %s, %v", i, d.WarmUp[i], err)
		}
		h := guest.Fake{In: append(w.Retry, w.Route...)}
		if guest.Process().Enter(entry, &h) != 0 || len(h.Out) == 0 {
			t.Errorf("%s of %s: %+v", entry, h.In, h.Failed)
		}
	}
}

type golden struct {
	SplitMix []struct {
		Seed    string   `json:"seed"`
		Numbers []string `json:"numbers"`
	} `json:"splitmix64"`
	Backoff []struct {
		Seed    string `json:"seed"`
		N       int    `json:"n"`
		BaseMS  int64  `json:"base_ms"`
		MostMS  int64  `json:"most_ms"`
		DelayMS int64  `json:"delay_ms"`
	} `json:"backoff"`
}

func vectors(t *testing.T) golden {
	t.Helper()
	data, err := os.ReadFile("../abi/testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if len(g.SplitMix) == 0 || len(g.Backoff) == 0 {
		t.Fatal("no vectors")
	}
	return g
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestRandVectors(t *testing.T) {
	for _, v := range vectors(t).SplitMix {
		r := policy.Rand(number(t, v.Seed))
		for i, want := range v.Numbers {
			if got := strconv.FormatUint(r.Uint64(), 10); got != want {
				t.Errorf("seed %s, number %d: got %s, want %s", v.Seed, i, got, want)
			}
		}
	}
}

func TestBackoffVectors(t *testing.T) {
	for _, v := range vectors(t).Backoff {
		got := policy.Backoff(number(t, v.Seed), v.N, time.Duration(v.BaseMS)*time.Millisecond, time.Duration(v.MostMS)*time.Millisecond)
		if want := time.Duration(v.DelayMS) * time.Millisecond; got != want {
			t.Errorf("seed %s, n %d: got %v, want %v", v.Seed, v.N, got, want)
		}
	}
}

func TestBackoffSpreads(t *testing.T) {
	const base, most = 500 * time.Millisecond, 30 * time.Second
	for n, ceiling := range []time.Duration{base, 2 * base, 4 * base, 8 * base, 16 * base, 32 * base, most, most} {
		low, high := ceiling, time.Duration(0)
		for seed := range int64(2000) {
			d := policy.Backoff(seed, n, base, most)
			low, high = min(low, d), max(high, d)
		}
		if high > ceiling || high < ceiling*99/100 || low > ceiling/100 {
			t.Errorf("after %d failures: delays from %v to %v, want nearly 0 to %v", n, low, high, ceiling)
		}
	}
	if got := policy.Backoff(1, 1<<30, base, 0); got != 0 {
		t.Errorf("with no room: got %v, want 0", got)
	}
}

func TestBelow(t *testing.T) {
	r := policy.Rand(7)
	if got := policy.Below(r, 0); got != 0 {
		t.Errorf("below 0: got %d", got)
	}
	for range 1000 {
		if got := policy.Below(r, 3); got > 2 {
			t.Fatalf("below 3: got %d", got)
		}
	}
}

func TestHopeless(t *testing.T) {
	step := func(effects abi.Effects) abi.StepInfo { return abi.StepInfo{Kind: "tool_call", Effects: effects} }
	tests := []struct {
		name string
		q    abi.RetryQuestion
		want string
	}{
		{"a model call", abi.RetryQuestion{Step: abi.StepInfo{Kind: "model_call"}, Outcome: abi.FailedTry{Class: abi.ClassUpstreamTimeout}}, ""},
		{"visible output", abi.RetryQuestion{Outcome: abi.FailedTry{Class: abi.ClassUpstreamNetwork, VisibleOutputSent: true}}, "output was seen already"},
		{"canceled", abi.RetryQuestion{Outcome: abi.FailedTry{Class: abi.ClassCanceled}}, "canceled"},
		{"past the deadline", abi.RetryQuestion{Outcome: abi.FailedTry{Class: abi.ClassDeadline}}, "past the deadline"},
		{"abandoned", abi.RetryQuestion{Outcome: abi.FailedTry{Class: abi.ClassStepAbandoned}}, "abandoned"},
		{"success", abi.RetryQuestion{Outcome: abi.FailedTry{Class: abi.ClassOK}}, "nothing failed"},
		{"a pure tool", abi.RetryQuestion{Step: step(abi.EffectsPure), Outcome: abi.FailedTry{Class: abi.ClassGuestError}}, ""},
		{"an idempotent tool", abi.RetryQuestion{Step: step(abi.EffectsIdempotent), Outcome: abi.FailedTry{Class: abi.ClassGuestError}}, ""},
		{"a once tool", abi.RetryQuestion{Step: step(abi.EffectsOnce), Outcome: abi.FailedTry{Class: abi.ClassGuestError}}, "the tool may have acted already"},
		{"a tool that says nothing", abi.RetryQuestion{Step: step(""), Outcome: abi.FailedTry{Class: abi.ClassGuestTrap}}, "the tool may have acted already"},
		{"a tool of unknown effects", abi.RetryQuestion{Step: step("often"), Outcome: abi.FailedTry{Class: abi.ClassGuestTrap}}, "the tool may have acted already"},
		{"a once tool that did not begin", abi.RetryQuestion{Step: step(abi.EffectsOnce), Outcome: abi.FailedTry{Class: abi.ClassGuestThrottled}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := policy.Hopeless(tt.q); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	for ms, want := range map[int64]time.Duration{
		0: 0, 1500: 1500 * time.Millisecond, 1<<63 - 1: math.MaxInt64 / time.Millisecond * time.Millisecond,
	} {
		got, ok := policy.RetryAfter(abi.RetryQuestion{Outcome: abi.FailedTry{RetryAfterMS: ms}})
		if !ok || got != want {
			t.Errorf("%d ms: got %v, %v; want %v", ms, got, ok, want)
		}
	}
	if got, ok := policy.RetryAfter(abi.RetryQuestion{Outcome: abi.FailedTry{RetryAfterMS: -1}}); ok {
		t.Errorf("not said: got %v", got)
	}
}

func TestStatusMayPass(t *testing.T) {
	want := map[int]bool{
		0: false, 200: false, 400: false, 401: false, 404: false, 408: true, 409: true, 422: false, 425: true,
		429: true, 499: true, 500: true, 501: false, 502: true, 503: true, 504: true, 505: false, 508: false, 529: true,
	}
	for status, w := range want {
		if got := policy.StatusMayPass(status); got != w {
			t.Errorf("%d: got %v, want %v", status, got, w)
		}
	}
}
