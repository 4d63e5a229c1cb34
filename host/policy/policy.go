// Package policy asks who serves a request (route) and whether a failed try is
// made again (retry). A loaded module answers if there is one; the built-in
// rules answer whenever it does not, or answers nonsense, and every answer is
// clamped to what the host allows, and to the budget that retries of upstream
// calls are paid from. It does no I/O, keeps no health and waits for nothing:
// the caller acts on the answer.
package policy

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
)

// Builtin is the Generation of a decision that the built-in rules made.
const Builtin = "builtin"

// InvalidAnswer is the Fallback of a module that answered, but not as
// sdk/abi/ABI.md says.
const InvalidAnswer = "invalid_answer"

// Asker is a loaded policy module. Implementations are safe for concurrent use
// and bound their own time.
type Asker interface {
	// Ask returns the module's answer, and the fuel spent, on an error too. An
	// error that is or wraps a Classed names the Fallback.
	Ask(ctx context.Context, q Question) (answer []byte, fuel uint64, err error)
	// Generation returns the digest of what answers.
	Generation() string
}

// Question is what a policy module is asked.
type Question struct {
	Tenant string // whose request it is about
	Text   []byte // JSON
	Seed   int64  // 0 … 2^53-1
	NowMS  int64
}

// Classed is an error of an Asker that knows its outcome class. Other errors
// count as queue.GuestError, or as the end of the context when they wrap it.
type Classed interface {
	error
	Class() queue.Class
}

// Decision is the record of one decision.
type Decision struct {
	Kind     string // abi.KindRoute or abi.KindRetry
	Question []byte // JSON, as the module got or would have got it
	Answer   []byte // JSON, as used: after clamping
	// Generation is the digest of the module that decided, or Builtin.
	Generation string
	// Fallback says why the built-in rules decided although a module is loaded:
	// an outcome class ("guest_trap", "guest_deadline", …) or InvalidAnswer. ""
	// otherwise.
	Fallback string
	Fuel     uint64 // spent by the module, in vain too
}

// Decider decides. It is safe for concurrent use.
type Decider struct {
	log   hclog.Logger
	route atomic.Pointer[Asker]
	retry atomic.Pointer[Asker]

	mu     sync.Mutex
	counts map[string]uint64
	quiet  map[string]*muted // by what happened, kind and code
}

// muted is a warning that was logged a short time ago.
type muted struct {
	until   time.Time
	dropped uint64 // lines since
}

// quietTime is how long one kind of fallback or clamp is logged at most once.
const quietTime = time.Minute

// New returns a Decider without modules. A nil log drops its lines.
func New(log hclog.Logger) *Decider {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return &Decider{log: log, counts: map[string]uint64{}, quiet: map[string]*muted{}}
}

// SetRoute makes a answer the route questions asked from now on; nil: the
// built-in rules. Decisions in flight end on the old one.
func (d *Decider) SetRoute(a Asker) { set(&d.route, a) }

// SetRetry makes a answer the retry questions asked from now on; nil: the
// built-in rules. Decisions in flight end on the old one.
func (d *Decider) SetRetry(a Asker) { set(&d.retry, a) }

func set(p *atomic.Pointer[Asker], a Asker) {
	if a == nil {
		p.Store(nil)
		return
	}
	p.Store(&a)
}

// Counts returns how often what happened since New: "KIND.decisions",
// "KIND.builtin" (no module loaded, or none asked), "KIND.clamped" and
// "KIND.fallback.CODE", where KIND is "route" or "retry".
func (d *Decider) Counts() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

// count adds to the counts of one decision.
func (d *Decider) count(dec Decision, clamped bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[dec.Kind+".decisions"]++
	if dec.Generation == Builtin && dec.Fallback == "" {
		d.counts[dec.Kind+".builtin"]++
	}
	if dec.Fallback != "" {
		d.counts[dec.Kind+".fallback."+dec.Fallback]++
	}
	if clamped {
		d.counts[dec.Kind+".clamped"]++
	}
}

// What warn says.
const (
	msgFallback = "policy fell back to the built-in rules"
	msgClamped  = "policy's answer was clamped"
)

// warn logs a fallback or a clamp, one line a kind, code and quietTime. Never
// the question or the answer: both are about a tenant's request.
func (d *Decider) warn(message, kind, code, generation string) {
	now, key := time.Now(), message+"\x00"+kind+"\x00"+code
	d.mu.Lock()
	m := d.quiet[key]
	if m == nil {
		m = &muted{}
		d.quiet[key] = m
	}
	if now.Before(m.until) {
		m.dropped++
		d.mu.Unlock()
		return
	}
	dropped := m.dropped
	m.until, m.dropped = now.Add(quietTime), 0
	d.mu.Unlock()
	d.log.Warn(message, "kind", kind, "code", code, "generation", generation, "not_logged", dropped)
}

// ask puts question, as the Text of about, to the module of p, if there is one,
// and has take read its answer. It fills Question, Generation, Fallback and Fuel of the Decision and
// reports whether take was content; if not, the built-in rules decide.
func (d *Decider) ask(
	ctx context.Context, p *atomic.Pointer[Asker], kind string, about Question, question any, take func(answer []byte) bool,
) (Decision, bool) {
	dec := Decision{Kind: kind, Generation: Builtin}
	text, err := json.Marshal(question)
	if err != nil { // the question was made fit for JSON before
		dec.Fallback = string(queue.HostError)
		return dec, false
	}
	dec.Question = text
	loaded := p.Load()
	if loaded == nil {
		return dec, false
	}
	module := *loaded
	about.Text = text
	answer, fuel, err := module.Ask(ctx, about)
	dec.Fuel = fuel
	switch {
	case err != nil:
		dec.Fallback = fallback(err)
	case len(answer) > maxAnswer || !take(answer):
		dec.Fallback = InvalidAnswer
	default:
		dec.Generation = module.Generation()
		return dec, true
	}
	d.warn(msgFallback, kind, dec.Fallback, module.Generation())
	return dec, false
}

// fallback returns the code of a module's error: one of the closed set.
func fallback(err error) string {
	var c Classed
	if errors.As(err, &c) {
		for _, class := range queue.Classes() {
			if class == c.Class() && class != queue.OK {
				return string(class)
			}
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return string(queue.GuestDeadline)
	case errors.Is(err, context.Canceled):
		return string(queue.ClassCanceled)
	}
	return string(queue.GuestError)
}

// used returns an answer as it goes into the record.
func used(answer any) []byte {
	text, err := json.Marshal(answer)
	if err != nil { // answers hold strings and integers only
		return nil
	}
	return text
}
