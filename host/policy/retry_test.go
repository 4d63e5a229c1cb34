package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/sdk/abi"
)

var bounds = policy.Bounds{MaxFailures: 3}

func failed(class queue.Class) abi.RetryQuestion {
	return abi.RetryQuestion{
		V: 1, Seed: 11, MaxFailures: 3,
		Step:    abi.StepInfo{Kind: "model_call"},
		Outcome: abi.FailedTry{Class: string(class), RetryAfterMS: -1},
	}
}

func tool(effects abi.Effects, class queue.Class) abi.RetryQuestion {
	q := failed(class)
	q.Step = abi.StepInfo{Kind: "tool_call", Tool: "notes", Effects: effects}
	return q
}

func with(q abi.RetryQuestion, edit func(*abi.RetryQuestion)) abi.RetryQuestion {
	edit(&q)
	return q
}

const day = 24 * 60 * 60 * 1000 // milliseconds

func TestRetryClamps(t *testing.T) {
	const again = `{"v":1,"action":"retry","delay_ms":1000,"reason":"again"}`
	began := policy.Bounds{MaxFailures: 3, Began: true}
	tests := []struct {
		name   string
		answer string
		q      abi.RetryQuestion
		b      policy.Bounds
		want   policy.Verdict
		spread time.Duration // the delay may be so much longer
	}{
		{"as it is", again, failed(queue.UpstreamNetwork), bounds, policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"}, 0},
		{"fail stands", `{"v":1,"action":"fail","reason":"no"}`, failed(queue.UpstreamNetwork), bounds, policy.Verdict{Reason: "no"}, 0},
		{"negative delay", `{"v":1,"action":"retry","delay_ms":-5}`, failed(queue.UpstreamNetwork), bounds, policy.Verdict{Retry: true, Count: true, Clamped: true}, 0},
		{"long delay", `{"v":1,"action":"retry","delay_ms":9007199254740991}`, failed(queue.UpstreamNetwork), bounds, policy.Verdict{Retry: true, Delay: 9 * time.Minute, Count: true, Clamped: true}, time.Minute},
		{"own longest delay", again, failed(queue.UpstreamNetwork), policy.Bounds{MaxFailures: 1, MaxDelay: 300 * time.Millisecond}, policy.Verdict{Retry: true, Delay: 270 * time.Millisecond, Count: true, Reason: "again", Clamped: true}, 30 * time.Millisecond},
		{
			"sooner than asked", again, with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = 7000 }), bounds,
			policy.Verdict{Retry: true, Delay: 7 * time.Second, Reason: "again", Clamped: true},
			3500 * time.Millisecond,
		},
		{
			"past the deadline", again, with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) { q.DeadlineInMS = 1000 }), bounds,
			policy.Verdict{Reason: "the deadline comes before the next try", Clamped: true},
			0,
		},
		{"past the host's deadline", again, failed(queue.UpstreamNetwork), policy.Bounds{MaxFailures: 3, Deadline: 900 * time.Millisecond}, policy.Verdict{Reason: "the deadline comes before the next try", Clamped: true}, 0},
		{"deadline passed", again, failed(queue.UpstreamNetwork), policy.Bounds{MaxFailures: 3, Deadline: -1}, policy.Verdict{Reason: "the deadline has passed", Clamped: true}, 0},
		{
			"no failures left", again, with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) { q.Failures = 3 }), bounds,
			policy.Verdict{Reason: "no failures left", Clamped: true},
			0,
		},
		{"none allowed", again, with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) { q.MaxFailures = 0 }), policy.Bounds{}, policy.Verdict{Reason: "no failures left", Clamped: true}, 0},
		{
			"a rate limit spends none", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Failures = 3 }), bounds,
			policy.Verdict{Retry: true, Delay: time.Second},
			0,
		},
		{
			"a free retry after what upstream asked for", `{"v":1,"action":"retry","delay_ms":0,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS, q.History = 600, make([]abi.HistoryTry, 9) }), bounds,
			policy.Verdict{Retry: true, Delay: 600 * time.Millisecond, Clamped: true},
			300 * time.Millisecond,
		},
		{
			"a rate limit spends none, whatever the policy counts", `{"v":1,"action":"retry","delay_ms":1000,"count":true}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Failures = 3 }), bounds,
			policy.Verdict{Retry: true, Delay: time.Second, Clamped: true},
			0,
		},
		{
			"an empty account is no rate limit", again,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Outcome.Code = "insufficient_quota" }), bounds,
			policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"},
			0,
		},
		{
			"a rate limit that goes on and on counts", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Request.AgeMS = day }), bounds,
			policy.Verdict{Retry: true, Delay: time.Second, Count: true, Clamped: true},
			0,
		},
		{
			"and ends", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Request.AgeMS, q.Failures = day, 3 }), bounds,
			policy.Verdict{Reason: "no failures left", Clamped: true},
			0,
		},
		{
			"but with a deadline, by that", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) {
				q.Request.AgeMS, q.Failures, q.DeadlineInMS = 2*day, 3, 1001
			}), bounds,
			policy.Verdict{Retry: true, Delay: time.Second},
			0,
		},
		{
			"a short Retry-After that did not help ten times", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = 1000 }),
			policy.Bounds{MaxFailures: 3, Tries: 10},
			policy.Verdict{Retry: true, Delay: 30 * time.Second, Clamped: true},
			15 * time.Second,
		},
		{
			"what upstream asked for is not cut", again,
			with(failed(queue.UpstreamStatus), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = 45 * 60_000 }), bounds,
			policy.Verdict{Retry: true, Delay: 45 * time.Minute, Count: true, Reason: "again", Clamped: true},
			30 * time.Second,
		},
		{
			"but not for days", again,
			with(failed(queue.UpstreamStatus), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = 3 * day }), bounds,
			policy.Verdict{Retry: true, Delay: time.Hour, Count: true, Reason: "again", Clamped: true},
			30 * time.Second,
		},
		{
			"others spend one", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`, failed(queue.UpstreamStatus), bounds,
			policy.Verdict{Retry: true, Delay: time.Second, Count: true, Clamped: true},
			0,
		},
		{
			"others that spend none have an end", `{"v":1,"action":"retry","delay_ms":1000,"count":false}`,
			with(failed(queue.UpstreamStatus), func(q *abi.RetryQuestion) { q.Failures = 3 }), bounds,
			policy.Verdict{Reason: "no failures left", Clamped: true},
			0,
		},
		{"once that began", again, tool(abi.EffectsOnce, queue.GuestError), began, policy.Verdict{Reason: "a once step began", Clamped: true}, 0},
		{"nothing declared, began", again, tool("", queue.GuestError), began, policy.Verdict{Reason: "a once step began", Clamped: true}, 0},
		{"unknown effects, began", again, tool("perhaps", queue.GuestError), began, policy.Verdict{Reason: "a once step began", Clamped: true}, 0},
		{"once that did not begin", again, tool(abi.EffectsOnce, queue.GuestThrottled), bounds, policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"}, 0},
		{"idempotent that began", again, tool(abi.EffectsIdempotent, queue.GuestError), began, policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"}, 0},
		{"pure that began", again, tool(abi.EffectsPure, queue.GuestError), began, policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"}, 0},
		{"model call that began", again, failed(queue.UpstreamTimeout), began, policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again"}, 0},
		{
			"output was sent", again, with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) { q.Outcome.VisibleOutputSent = true }), bounds,
			policy.Verdict{Reason: "output was sent", Clamped: true},
			0,
		},
		{"canceled", again, failed(queue.ClassCanceled), bounds, policy.Verdict{Reason: "nothing to try again", Clamped: true}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := policy.New(nil)
			d.SetRetry(&module{name: "m", answer: tt.answer})
			got, dec := d.Retry(t.Context(), tt.q, tt.b)
			if more := got.Delay - tt.want.Delay; more > 0 && more <= tt.spread {
				tt.want.Delay = got.Delay
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v and up to %v more", got, tt.want, tt.spread)
			}
			if dec.Generation != "m" || dec.Fallback != "" {
				t.Errorf("got generation %q, fallback %q, want m, none", dec.Generation, dec.Fallback)
			}
			var row abi.RetryAnswer
			if err := json.Unmarshal(dec.Answer, &row); err != nil {
				t.Fatal(err)
			}
			if (row.Action == abi.ActionRetry) != tt.want.Retry || row.DelayMS != tt.want.Delay.Milliseconds() {
				t.Errorf("row: got %s, want the verdict %+v", dec.Answer, tt.want)
			}
			if got := d.Counts()["retry.clamped"] == 1; got != tt.want.Clamped {
				t.Errorf("clamped: got %v, want %v", got, tt.want.Clamped)
			}
		})
	}
}

// A retry that spends no failure has a floor under its delay: else a policy
// that says 0 comes back as fast as a rate-limited upstream answers.
func TestFreeRetryHasAFloor(t *testing.T) {
	for tries, floor := range map[int]time.Duration{
		0: 500 * time.Millisecond, 1: time.Second, 3: 4 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 99: 30 * time.Second,
	} {
		for _, asked := range []int64{-1, 0, 20} {
			var least, most time.Duration
			for seed := range int64(200) {
				q := with(failed(queue.RateLimited), func(q *abi.RetryQuestion) {
					q.Seed, q.Outcome.RetryAfterMS, q.History = seed, asked, make([]abi.HistoryTry, tries)
				})
				d := policy.New(nil)
				d.SetRetry(&module{name: "m", answer: `{"v":1,"action":"retry","delay_ms":0,"count":false}`})
				v, _ := d.Retry(t.Context(), q, bounds)
				if !v.Retry || v.Count || !v.Clamped || v.Delay < floor || v.Delay > floor*3/2 {
					t.Fatalf("%d tries, asked %d: got %+v, want a free retry after %v to %v", tries, asked, v, floor, floor*3/2)
				}
				if least, most = min(least, v.Delay), max(most, v.Delay); seed == 0 {
					least = v.Delay
				}
				d.SetRetry(nil)
				if b, _ := d.Retry(t.Context(), q, bounds); b.Clamped || b.Count || b.Delay < floor {
					t.Fatalf("%d tries, asked %d: built-in: got %+v, want at least %v, not clamped", tries, asked, b, floor)
				}
			}
			if most-least < floor/3 {
				t.Errorf("%d tries: got %v to %v, want them spread", tries, least, most)
			}
		}
	}
}

// A clamp is a warning: one line, with kind, code and generation and nothing of
// the question.
func TestClampIsLogged(t *testing.T) {
	var out bytes.Buffer
	d := policy.New(hclog.New(&hclog.LoggerOptions{Output: &out, JSONFormat: true}))
	q := failed(queue.RateLimited)
	q.Request.Tenant = "tenant-name"
	d.SetRetry(&module{name: "sha256:m", answer: `{"v":1,"action":"retry","delay_ms":0,"count":false,"reason":"words"}`})
	rq := routeQuestion("up/a")
	rq.Request.Tenant = "tenant-name"
	d.SetRoute(&module{name: "sha256:r", answer: `{"v":1,"targets":["up/a","up/tenant-name"]}`})
	for range 50 {
		d.Retry(t.Context(), q, bounds)
		d.Route(t.Context(), rq)
	}
	began := policy.Bounds{MaxFailures: 3, Began: true}
	d.SetRetry(&module{name: "sha256:m", answer: `{"v":1,"action":"retry"}`})
	d.Retry(t.Context(), tool(abi.EffectsOnce, queue.GuestError), began)
	d.SetRetry(nil) // what the built-in rules say is not a policy's answer
	d.Retry(t.Context(), failed(queue.UpstreamNetwork), policy.Bounds{MaxFailures: 3, MaxDelay: time.Nanosecond})
	var got []string
	for line := range strings.Lines(out.String()) {
		var l struct{ Level, Kind, Code, Generation string }
		if err := json.Unmarshal([]byte(strings.ReplaceAll(line, `"@level"`, `"level"`)), &l); err != nil {
			t.Fatal(err)
		}
		got = append(got, l.Level+" "+l.Kind+" "+l.Code+" "+l.Generation)
	}
	want := []string{"warn retry delay sha256:m", "warn route answer sha256:r", "warn retry once_began sha256:m"}
	if !slices.Equal(got, want) {
		t.Errorf("got lines %q, want %q", got, want)
	}
	if strings.Contains(out.String(), "tenant-name") || strings.Contains(out.String(), "words") {
		t.Errorf("a line holds words of the question or answer: %s", &out)
	}
}

func TestBuiltinRetryClasses(t *testing.T) {
	status := func(n int) abi.RetryQuestion {
		return with(failed(queue.UpstreamStatus), func(q *abi.RetryQuestion) { q.Outcome.Status = n })
	}
	guest := func(code string) abi.RetryQuestion {
		return with(tool(abi.EffectsPure, queue.GuestError), func(q *abi.RetryQuestion) { q.Outcome.Code = code })
	}
	yes := []abi.RetryQuestion{
		failed(queue.UpstreamNetwork), failed(queue.UpstreamTimeout), failed(queue.UpstreamInvalid), failed(queue.RateLimited),
		failed(queue.HostError), status(408), status(409), status(429), status(499), status(500), status(502), status(503),
		status(504), status(529), guest("transient"), guest("internal"), tool(abi.EffectsIdempotent, queue.GuestThrottled),
	}
	no := []abi.RetryQuestion{
		status(400), status(401), status(402), status(403), status(404), status(413), status(422), status(302), status(501),
		status(508), guest("permanent"), guest("invalid_args"), guest(""), tool(abi.EffectsPure, queue.GuestTrap), tool(abi.EffectsPure, queue.GuestDeadline),
		with(guest("internal"), func(q *abi.RetryQuestion) { q.History = []abi.HistoryTry{{Class: "guest_error"}} }),
		tool(abi.EffectsPure, queue.GuestFuel), tool(abi.EffectsPure, queue.GuestMemory), tool(abi.EffectsPure, queue.GuestDenied),
		tool(abi.EffectsOnce, queue.GuestDeadline), tool("", queue.GuestDeadline), failed(queue.ClassCanceled),
		failed(queue.ClassDeadline), failed(queue.StepAbandoned), failed("a class of tomorrow"),
	}
	for want, questions := range map[bool][]abi.RetryQuestion{true: yes, false: no} {
		for _, q := range questions {
			if got := policy.BuiltinRetry(q).Action == abi.ActionRetry; got != want {
				t.Errorf("%+v %+v: got retry %v, want %v", q.Step, q.Outcome, got, want)
			}
		}
	}
}

func TestBuiltinRetryCount(t *testing.T) {
	limited := with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Failures = 3 })
	if a := policy.BuiltinRetry(limited); a.Action != abi.ActionRetry || a.Count == nil || *a.Count {
		t.Errorf("rate limit: got %+v, want an uncounted retry", a)
	}
	limited.Outcome.Code = "insufficient_quota"
	if a := policy.BuiltinRetry(limited); a.Action != abi.ActionFail {
		t.Errorf("empty account: got %+v, want fail: it spends failures", a)
	}
	q := failed(queue.UpstreamNetwork)
	if a := policy.BuiltinRetry(q); a.Count == nil || !*a.Count {
		t.Errorf("network: got %+v, want a counted retry", a)
	}
	q.Failures = 3
	if a := policy.BuiltinRetry(q); a.Action != abi.ActionFail {
		t.Errorf("failures spent: got %+v, want fail", a)
	}
}

func TestBuiltinRetryDelay(t *testing.T) {
	for tries, top := range map[int]int64{0: 500, 1: 1000, 3: 4000, 5: 16_000, 6: 30_000, 1000: 30_000} {
		var sum, most int64
		for seed := range int64(2000) {
			q := with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) {
				q.Seed, q.History = seed, make([]abi.HistoryTry, tries)
			})
			a := policy.BuiltinRetry(q)
			if again := policy.BuiltinRetry(q); again.DelayMS != a.DelayMS {
				t.Fatalf("the same question got %d ms, then %d", a.DelayMS, again.DelayMS)
			}
			sum, most = sum+a.DelayMS, max(most, a.DelayMS)
			if a.DelayMS < 0 || a.DelayMS >= top {
				t.Fatalf("%d tries: got %d ms, want 0 to %d", tries, a.DelayMS, top)
			}
		}
		if mean := sum / 2000; mean < top*45/100 || mean > top*55/100 || most < top*95/100 {
			t.Errorf("%d tries: got mean %d, most %d; want full jitter up to %d", tries, mean, most, top)
		}
	}
}

func TestBuiltinRetryAfterAndDeadline(t *testing.T) {
	for seed := range int64(100) {
		q := with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Seed, q.Outcome.RetryAfterMS = seed, 2000 })
		if d := policy.BuiltinRetry(q).DelayMS; d < 2000 || d > 3000 {
			t.Fatalf("seed %d: got %d ms, want 2000 to 3000", seed, d)
		}
		q.DeadlineInMS = 2100 // what is added never goes past it
		if a := policy.BuiltinRetry(q); a.Action != abi.ActionRetry || a.DelayMS < 2000 || a.DelayMS >= 2100 {
			t.Fatalf("seed %d: got %+v, want a retry before the deadline", seed, a)
		}
		d := policy.New(nil)
		d.SetRetry(&module{name: "m", answer: `{"v":1,"action":"retry","delay_ms":0}`})
		if v, _ := d.Retry(t.Context(), q, bounds); !v.Retry || v.Delay < 2*time.Second || v.Delay >= 2100*time.Millisecond {
			t.Fatalf("seed %d: clamped: got %+v, want a retry before the deadline", seed, v)
		}
		q.DeadlineInMS = 2000
		if a := policy.BuiltinRetry(q); a.Action != abi.ActionFail {
			t.Fatalf("seed %d: got %+v, want fail: the deadline comes first", seed, a)
		}
	}
}

// Work that nobody waits for outlives an outage of its upstream of minutes, also
// if that answers with a short Retry-After. Who waits is answered soon.
func TestBuiltinRetryOutlastsAnOutage(t *testing.T) {
	for _, tt := range []struct {
		name        string
		edit        func(*abi.RetryQuestion)
		least, most time.Duration // until the failures are spent
	}{
		{"queued", func(q *abi.RetryQuestion) {}, 170 * time.Second, 342 * time.Second},
		{"a short Retry-After", func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = 1000 }, 172 * time.Second, 343 * time.Second},
		{"a deadline", func(q *abi.RetryQuestion) { q.DeadlineInMS = 60_000 }, 40 * time.Second, 82 * time.Second},
		{"somebody waits", func(q *abi.RetryQuestion) { q.Request.Queued = false }, 0, 16 * time.Second},
		{"a tool", func(q *abi.RetryQuestion) {
			q.Step = abi.StepInfo{Kind: "tool_call", Effects: abi.EffectsPure}
			q.Outcome.Class, q.Outcome.Code = string(queue.GuestError), "transient"
		}, 0, 16 * time.Second},
	} {
		for seed := range int64(500) {
			q := with(failed(queue.UpstreamStatus), func(q *abi.RetryQuestion) {
				q.MaxFailures, q.Request.Queued, q.Outcome.Status = 5, true, 503
			})
			tt.edit(&q)
			var sum int64
			for ; q.Failures <= 5; q.Failures++ {
				q.Seed = seed*10 + int64(q.Failures)
				a := policy.BuiltinRetry(q)
				if (a.Action == abi.ActionRetry) != (q.Failures < 5) {
					t.Fatalf("%s: failure %d: got %+v", tt.name, q.Failures+1, a)
				}
				sum += a.DelayMS
			}
			if took := time.Duration(sum) * time.Millisecond; took < tt.least || took > tt.most {
				t.Fatalf("%s: five tries took %s, want %s to %s", tt.name, took, tt.least, tt.most)
			}
		}
	}
}

// The rules that step in for the shipped module say the same as it does: of each
// question of its decision table, with a delay from the same range.
func TestBuiltinRetryIsTheShippedPolicy(t *testing.T) {
	text, err := os.ReadFile("../../policies/retry-default/testdata/decisions.json")
	if err != nil {
		t.Fatal(err)
	}
	var table []struct {
		Name     string
		Question abi.RetryQuestion
		Answer   abi.RetryAnswer
	}
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	for _, c := range table {
		least, most := int64(math.MaxInt64), int64(-1)
		for seed := range int64(300) {
			c.Question.Seed = seed
			a := policy.BuiltinRetry(c.Question)
			least, most = min(least, a.DelayMS), max(most, a.DelayMS)
			if a.Action != c.Answer.Action || a.Action == abi.ActionRetry && *a.Count != (c.Answer.Count == nil || *c.Answer.Count) {
				t.Errorf("%s: got %+v, the module %+v", c.Name, a, c.Answer)
				break
			}
		}
		if slack := max(most-least, 100) / 20; c.Answer.DelayMS < least-slack || c.Answer.DelayMS > most+slack {
			t.Errorf("%s: got from %d ms to %d ms, the module %d ms", c.Name, least, most, c.Answer.DelayMS)
		}
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"v":1,"targets":["up/a"],"timeout_ms":5}`))
	f.Add([]byte(`{"v":1,"action":"retry","delay_ms":-1,"count":false}`))
	f.Add([]byte(`{"v":1,"reject":{"status":404,"code":"x","message":"y"}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		d := policy.New(nil)
		m := &module{name: "m", answer: string(answer)}
		d.SetRoute(m)
		d.SetRetry(m)
		ans, dec := d.Route(t.Context(), routeQuestion("up/a", "up/b"))
		if (len(ans.Targets) == 0) == (ans.Reject == nil) || !json.Valid(dec.Answer) {
			t.Fatalf("got %+v", ans)
		}
		for _, target := range ans.Targets {
			if target != "up/a" && target != "up/b" {
				t.Fatalf("unknown target %q", target)
			}
		}
		v, dec := d.Retry(t.Context(), tool(abi.EffectsOnce, queue.GuestError), policy.Bounds{MaxFailures: 3, Began: true})
		if v.Retry || !json.Valid(dec.Answer) {
			t.Fatalf("a once step that began is tried again: %s", fmt.Sprint(v))
		}
	})
}
