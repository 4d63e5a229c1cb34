package policy

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// BudgetOptions bounds the retries of one model's calls. Zero fields take the
// defaults.
type BudgetOptions struct {
	Ratio        float64 // retries that each first try pays for, 0.2; < 0: none
	MinPerSecond float64 // retries a second that nothing has to pay for, 2; < 0: none
}

const (
	// budgetTime is how long what first tries paid for is good: it fades by so
	// much that the rest of it is worth budgetTime of first tries. The reserve
	// holds as much as comes in so long.
	budgetTime = 10 * time.Second
	// maxBudgets bounds the models that have a budget of their own; those that
	// come later share one.
	maxBudgets = 4096
	// rounding is what adding up ratios may lose.
	rounding = 1e-6
)

// Budget keeps the retries of upstream calls in proportion to the first tries,
// per model: while an upstream fails for everybody, tries again of what failed
// are the load that keeps it down. A nil Budget pays for everything. It is safe
// for concurrent use.
type Budget struct {
	ratio, perSecond float64

	mu     sync.Mutex
	start  time.Time
	models map[string]*account
}

// account is the budget of one model.
type account struct {
	at      time.Duration // since Budget.start: earned and reserve are as of then
	earned  float64       // by first tries
	reserve float64
	counts  BudgetCounts
}

// BudgetCounts says what became of one model's budget since NewBudget.
type BudgetCounts struct {
	Deposits uint64  // first tries
	Paid     uint64  // retries
	Refunds  uint64  // of Paid: those that succeeded, or made no call
	Refused  uint64  // retries that there was no budget for
	Left     float64 // retries that it would pay for now
}

// NewBudget returns a Budget whose reserves are full.
func NewBudget(o BudgetOptions) *Budget {
	return &Budget{
		ratio: share(o.Ratio, 0.2), perSecond: share(o.MinPerSecond, 2),
		start: time.Now(), models: map[string]*account{},
	}
}

// share returns an option's value: unset for 0, none for what is no number
// from 0.
func share(v, unset float64) float64 {
	switch {
	case v == 0:
		return unset
	case v > 0 && !math.IsInf(v, 0):
		return v
	}
	return 0
}

// Deposit counts a first try of a call of model.
func (b *Budget) Deposit(model string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(model)
	a.counts.Deposits++
	a.earned += b.ratio
}

// Withdraw pays for a retry of a call of model; false: there is no budget for it.
func (b *Budget) Withdraw(model string) bool {
	if b == nil {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(model)
	switch {
	case a.earned+a.reserve < 1-rounding:
		a.counts.Refused++
		return false
	case a.earned >= 1:
		a.earned--
	default: // what fades goes first
		a.reserve = max(a.reserve-(1-a.earned), 0)
		a.earned = 0
	}
	a.counts.Paid++
	return true
}

// Refund gives back what a retry of a call of model was paid with, since it
// succeeded or made no call: it was no load in vain. So what an outage left
// waiting is tried as fast as it succeeds once that is over.
func (b *Budget) Refund(model string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.account(model)
	a.counts.Refunds++
	a.reserve = min(a.reserve+1, max(b.full(), 1))
}

// Counts returns the counts of each model that was called.
func (b *Budget) Counts() map[string]BudgetCounts {
	all := map[string]BudgetCounts{}
	if b == nil {
		return all
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for model := range b.models {
		a := b.account(model)
		counts := a.counts
		counts.Left = a.earned + a.reserve
		all[model] = counts
	}
	return all
}

// full is what a reserve holds at most.
func (b *Budget) full() float64 { return b.perSecond * budgetTime.Seconds() }

// account returns the account of model as of now; b.mu is held.
func (b *Budget) account(model string) *account {
	now := time.Since(b.start)
	a := b.models[model]
	if a == nil && len(b.models) >= maxBudgets {
		model = ""
		a = b.models[model]
	}
	if a == nil {
		a = &account{at: now, reserve: b.full()}
		b.models[model] = a
	}
	if passed := now - a.at; passed > 0 {
		a.earned *= math.Exp(-float64(passed) / float64(budgetTime))
		if full := b.full(); a.reserve < full {
			a.reserve = min(a.reserve+b.perSecond*passed.Seconds(), full)
		}
		a.at = now
	}
	return a
}

// PutOff is how long a retry waits that there was no budget for: from 10 s to
// 20 s, at random, so that what was put off together does not come back
// together; to 60 s for a request that was put off several times before, so that
// many of them do not keep the queue busy with nothing.
func PutOff(earlier int) time.Duration {
	return putOff + rand.N(putOff*time.Duration(min(max(earlier, 1), maxPutOffs)))
}

const (
	putOff     = 10 * time.Second
	maxPutOffs = 5
)
