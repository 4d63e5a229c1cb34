package policy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/host/policy"
	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/sdk/abi"
)

// withdrawn takes what there is.
func withdrawn(b *policy.Budget, model string) (n int) {
	for b.Withdraw(model) {
		n++
	}
	return n
}

func TestBudget(t *testing.T) {
	tests := []struct {
		name string
		o    policy.BudgetOptions
		do   func(b *policy.Budget)
		want int
	}{
		{"its reserve is full at first", policy.BudgetOptions{}, func(*policy.Budget) {}, 20},
		{"first tries pay in", policy.BudgetOptions{}, func(b *policy.Budget) { deposits(b, 100) }, 40},
		{"the reserve fills with time", policy.BudgetOptions{}, func(b *policy.Budget) {
			withdrawn(b, "m")
			<-time.After(3 * time.Second)
		}, 6},
		{"and is full some time", policy.BudgetOptions{}, func(b *policy.Budget) {
			withdrawn(b, "m")
			<-time.After(time.Hour)
		}, 20},
		{"what was paid in fades", policy.BudgetOptions{}, func(b *policy.Budget) {
			deposits(b, 1000)
			<-time.After(10 * time.Second)
		}, 20 + 200*1000/2719},
		{"what goes back is there again", policy.BudgetOptions{}, func(b *policy.Budget) {
			withdrawn(b, "m")
			b.Refund("m")
			b.Refund("m")
		}, 2},
		{"the reserve takes back what it holds", policy.BudgetOptions{}, func(b *policy.Budget) {
			for range 50 {
				b.Refund("m")
			}
		}, 20},
		{"another model's is its own", policy.BudgetOptions{}, func(b *policy.Budget) { deposits(b, 1); withdrawn(b, "other") }, 20},
		{"own ratio", policy.BudgetOptions{Ratio: 0.5, MinPerSecond: -1}, func(b *policy.Budget) { deposits(b, 9) }, 4},
		{"no reserve still takes one back", policy.BudgetOptions{Ratio: 1, MinPerSecond: -1}, func(b *policy.Budget) {
			deposits(b, 1)
			b.Withdraw("m")
			b.Refund("m")
		}, 1},
		{"own reserve", policy.BudgetOptions{Ratio: -1, MinPerSecond: 0.3}, func(b *policy.Budget) { deposits(b, 100) }, 3},
		{"nothing", policy.BudgetOptions{Ratio: math.NaN(), MinPerSecond: math.Inf(1)}, func(b *policy.Budget) { deposits(b, 100) }, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := policy.NewBudget(tt.o)
				tt.do(b)
				if c, ok := b.Counts()["m"]; ok && int(c.Left+1e-6) != tt.want {
					t.Errorf("%.2f are left, want %d", c.Left, tt.want)
				}
				if got := withdrawn(b, "m"); got != tt.want {
					t.Errorf("paid for %d retries, want %d", got, tt.want)
				}
			})
		})
	}
	var none *policy.Budget
	none.Deposit("m")
	none.Refund("m")
	if !none.Withdraw("m") || len(none.Counts()) != 0 {
		t.Error("no budget refuses")
	}
}

func deposits(b *policy.Budget, n int) {
	for range n {
		b.Deposit("m")
	}
}

// TestBudgetHoldsInEverySpan checks what the budget is for: whatever comes in
// whichever order, no span of time has more retries than its first tries and
// the time pay for, and what was left when it began.
func TestBudgetHoldsInEverySpan(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			b := policy.NewBudget(policy.BudgetOptions{})
			type moment struct {
				at                  time.Duration
				paid, paidFor, left float64
			}
			start := time.Now()
			var all []moment
			for range 300 {
				<-time.After(time.Duration(random.ExpFloat64() * float64(200*time.Millisecond)))
				for range random.IntN(10) {
					b.Deposit("m")
				}
				for range random.IntN(6) {
					if b.Withdraw("m") && random.IntN(4) == 0 {
						b.Refund("m")
					}
				}
				c := b.Counts()["m"]
				at := time.Since(start)
				all = append(all, moment{
					at: at, paid: float64(c.Paid) - float64(c.Refunds), paidFor: 0.2*float64(c.Deposits) + 2*at.Seconds(), left: c.Left,
				})
			}
			for i, from := range all {
				for _, to := range all[i:] {
					if got, most := to.paid-from.paid, to.paidFor-from.paidFor+from.left; got > most+1e-6 {
						t.Fatalf("seed %d: from %v to %v: %.0f retries in vain, want at most %.1f", seed, from.at, to.at, got, most)
					}
				}
			}
		})
	}
}

func TestBudgetIsBounded(t *testing.T) {
	b := policy.NewBudget(policy.BudgetOptions{})
	for i := range 10_000 {
		b.Deposit(fmt.Sprint("model ", i))
	}
	if n := len(b.Counts()); n > 4097 {
		t.Errorf("%d models have a budget of their own", n)
	}
	if !b.Withdraw("yet another") || b.Counts()[""].Deposits == 0 {
		t.Error("those beyond do not share one")
	}
}

func TestBudgetHammer(t *testing.T) {
	b := policy.NewBudget(policy.BudgetOptions{Ratio: 0.25, MinPerSecond: -1})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				b.Deposit("m")
				if b.Withdraw("m") {
					b.Refund("m")
					b.Withdraw("m")
				}
				b.Counts()
			}
		})
	}
	wg.Wait()
	c := b.Counts()["m"]
	if c.Deposits != 8000 || c.Paid-c.Refunds > 2000 || c.Paid < 1000 {
		t.Errorf("got %+v, want 8000 first tries and the retries that they paid for", c)
	}
}

func TestPutOff(t *testing.T) {
	for earlier, most := range map[int]time.Duration{-1: 20, 0: 20, 1: 20, 2: 30, 5: 60, 1000: 60} {
		var least, longest time.Duration = time.Hour, 0
		for range 1000 {
			d := policy.PutOff(earlier)
			least, longest = min(least, d), max(longest, d)
		}
		most *= time.Second
		if span := most - 10*time.Second; least < 10*time.Second || longest > most || longest-least < span*9/10 {
			t.Errorf("put off %d times before: %v to %v, want 10 s to %v", earlier, least, longest, most)
		}
	}
}

// TestRetryIsPaidFor checks what the budget makes of a verdict.
func TestRetryIsPaidFor(t *testing.T) {
	const again = `{"v":1,"action":"retry","delay_ms":%d,"count":%v,"reason":"again"}`
	tests := []struct {
		name     string
		delay    int
		class    queue.Class
		realtime bool
		empty    bool
		deadline int64
		want     policy.Verdict
		paid     uint64
	}{
		{name: "here", delay: 1000, want: policy.Verdict{Retry: true, Delay: time.Second, Count: true, Reason: "again", Paid: true}, paid: 1},
		{name: "later, by who claims it", delay: 3000, want: policy.Verdict{Retry: true, Delay: 3 * time.Second, Count: true, Reason: "again"}},
		{name: "later, realtime", delay: 3000, realtime: true, want: policy.Verdict{Retry: true, Delay: 3 * time.Second, Count: true, Reason: "again", Paid: true}, paid: 1},
		{name: "empty", delay: 1000, empty: true, want: policy.Verdict{Retry: true, Delay: 10 * time.Second, Count: true, Reason: "again", Clamped: true}},
		{name: "empty, rate limited", delay: 1000, class: queue.RateLimited, empty: true, want: policy.Verdict{Retry: true, Delay: 10 * time.Second, Reason: "again", Clamped: true}},
		{name: "empty, with time for it", delay: 1000, empty: true, deadline: 20_001, want: policy.Verdict{Retry: true, Delay: 10 * time.Second, Count: true, Reason: "again", Clamped: true}},
		{name: "empty, no time", delay: 1000, empty: true, deadline: 10_000, want: policy.Verdict{Reason: "the retry budget is spent", Clamped: true, RetryAfter: 10 * time.Second}},
		{name: "empty, realtime", delay: 1000, empty: true, realtime: true, want: policy.Verdict{Reason: "the retry budget is spent", Clamped: true, RetryAfter: 10 * time.Second}},
		{name: "empty, later", delay: 3000, empty: true, want: policy.Verdict{Retry: true, Delay: 3 * time.Second, Count: true, Reason: "again"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.class == "" {
					tt.class = queue.UpstreamNetwork
				}
				d := policy.New(nil)
				d.SetRetry(&module{name: "m", answer: fmt.Sprintf(again, tt.delay, tt.class != queue.RateLimited)})
				b := policy.NewBudget(policy.BudgetOptions{})
				if tt.empty {
					withdrawn(b, "m")
				}
				paid := b.Counts()["m"].Paid
				q := with(failed(tt.class), func(q *abi.RetryQuestion) { q.DeadlineInMS = tt.deadline })
				got, dec := d.Retry(t.Context(), q, policy.Bounds{MaxFailures: 3, Budget: b, Model: "m", Realtime: tt.realtime, InPlace: 2 * time.Second})
				for _, d := range []*time.Duration{&got.Delay, &got.RetryAfter} {
					if *d > 10*time.Second && *d <= 20*time.Second {
						*d = 10 * time.Second
					}
				}
				if got != tt.want {
					t.Errorf("got %+v, want %+v", got, tt.want)
				}
				if n := b.Counts()["m"].Paid - paid; n != tt.paid {
					t.Errorf("paid for %d, want %d", n, tt.paid)
				}
				if row := string(dec.Answer); !got.Retry != (row == `{"v":1,"action":"fail","delay_ms":0,"reason":"the retry budget is spent"}`) {
					t.Errorf("the row says %s", row)
				}
			})
		})
	}
}

// TestRetryAfterIsAFloor checks that nobody comes back before the upstream said,
// nor all at once: neither what the built-in rules nor what a module says.
func TestRetryAfterIsAFloor(t *testing.T) {
	for _, class := range []queue.Class{queue.RateLimited, queue.UpstreamStatus} {
		for _, answer := range []string{"", `{"v":1,"action":"retry","delay_ms":0,"count":false}`} {
			for _, said := range []time.Duration{600 * time.Millisecond, 20 * time.Second, 30 * time.Minute} {
				least, most := time.Duration(math.MaxInt64), time.Duration(0)
				for seed := range int64(500) {
					d := policy.New(nil)
					if answer != "" {
						d.SetRetry(&module{name: "m", answer: answer})
					}
					v, _ := d.Retry(t.Context(), with(failed(class), func(q *abi.RetryQuestion) {
						q.Outcome.Status, q.Seed, q.Outcome.RetryAfterMS = 503, seed, said.Milliseconds()
					}), bounds)
					if !v.Retry || v.Count != (class != queue.RateLimited) {
						t.Fatalf("%s: got %+v", class, v)
					}
					least, most = min(least, v.Delay), max(most, v.Delay)
				}
				if spread := min(said/2, 30*time.Second); least < said || most > said+spread || most-least < spread*9/10 {
					t.Errorf("%s, %q, asked for %v: got %v to %v, want it spread over %v", class, answer, said, least, most, spread)
				}
			}
		}
	}
}

// A delay that the host cut is spread as well: below what is the longest.
func TestLongestDelayIsSpread(t *testing.T) {
	d := policy.New(nil)
	d.SetRetry(&module{name: "m", answer: `{"v":1,"action":"retry","delay_ms":9007199254740991}`})
	least, most := time.Duration(math.MaxInt64), time.Duration(0)
	for seed := range int64(500) {
		v, _ := d.Retry(t.Context(), with(failed(queue.UpstreamNetwork), func(q *abi.RetryQuestion) { q.Seed = seed }), bounds)
		least, most = min(least, v.Delay), max(most, v.Delay)
	}
	if least < 9*time.Minute || most > 10*time.Minute || most-least < 50*time.Second {
		t.Errorf("got %v to %v, want 9 to 10 minutes", least, most)
	}
}

// TestRateLimitDoesNotKeepAClientForEver checks a rate limit that lasts: queued
// work goes on, who waits for the answer is told when to come back.
func TestRateLimitDoesNotKeepAClientForEver(t *testing.T) {
	for _, tt := range []struct {
		said     time.Duration
		tries    int
		realtime bool
		retry    bool
	}{
		{time.Second, 0, true, true},
		{time.Second, 2, true, true},
		{time.Second, 3, true, false},
		{time.Second, 3, false, true},
		{8 * time.Second, 0, true, true},
		{11 * time.Second, 0, true, false},
		{11 * time.Second, 0, false, true},
	} {
		q := with(failed(queue.RateLimited), func(q *abi.RetryQuestion) { q.Outcome.RetryAfterMS = tt.said.Milliseconds() })
		v, _ := policy.New(nil).Retry(t.Context(), q, policy.Bounds{MaxFailures: 3, Tries: tt.tries, Realtime: tt.realtime})
		if v.Retry != tt.retry || !v.Retry && v.RetryAfter < tt.said {
			t.Errorf("%+v: got %+v", tt, v)
		}
	}
}
