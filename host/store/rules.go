package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

var (
	// ErrUnavailable says that the database could not be reached or was too busy, and
	// nothing was committed. The same call may succeed later.
	ErrUnavailable = errors.New("database is unavailable")
	// ErrExists says that a request with this id, or an event with this or a
	// later sequence number, is stored already.
	ErrExists = errors.New("already stored")
	// ErrConflict says that another write changed a plugin's state that this
	// one was computed from.
	ErrConflict = errors.New("plugin state was changed meanwhile")
	// ErrInvalid says that the write breaks a rule of this package, or that its
	// events leave a gap after those stored.
	ErrInvalid = errors.New("invalid write")
	// ErrInFlight says that nobody knows yet whether the write is committed.
	ErrInFlight = errors.New("may have been written")
	// ErrClosed says that Run has ended, so nothing is committed any more.
	ErrClosed = errors.New("store is closed")
)

// Releases reports whether the move takes the request away from its worker,
// which frees the lane's slot. A canceled request keeps both until its worker
// lets go.
func (m Move) Releases() bool { return !m.To.Owned() && m.To != queue.Canceled }

// MaxPark is the longest that a rate limit parks a lane or a target: what is
// said to last longer is asked again after it.
const MaxPark = time.Hour

// parked returns the move with its Park cut to MaxPark.
func (m *Move) parked() *Move {
	if m == nil || m.Park <= MaxPark {
		return m
	}
	c := *m
	c.Park = MaxPark
	return &c
}

// Fenced returns what the write must find in the row, or what its Insert is
// about to put there.
func (w *Write) Fenced() queue.Fence {
	switch {
	case w.Insert == nil:
		return w.Fence
	case w.Insert.Worker != 0:
		return queue.Fence{ID: w.Insert.ID, Attempt: 1, State: queue.Processing}
	}
	return queue.Fence{ID: w.Insert.ID, State: queue.Pending}
}

// UsedBy returns the tenant and model of u when the request has no row.
func (w *Write) UsedBy(u Usage) (tenant, model string) {
	if w.Insert != nil {
		return w.Insert.Tenant, w.Insert.Model
	}
	return u.Tenant, u.Model
}

// Holds reports whether a checked put may be made, given the value that is
// there, or that none is. A put that is not checked always may.
func (p *KVPut) Holds(value []byte, have bool) bool {
	return !p.Checked || (p.Had == have && bytes.Equal(p.Was, value))
}

// Bounds returns the keys of the range as an interval: least ≤ key < end, but
// for After itself. An end of "" is none. The prefix is no pattern, so no
// character in it means anything but itself.
func (r KVRange) Bounds() (least, end string) { return max(r.Prefix, r.After), afterPrefix(r.Prefix) }

// afterPrefix returns the least text that comes, by bytes, after all that begin
// with prefix; "" when there is none. It is UTF-8 where prefix is: a database
// would not take it otherwise.
func afterPrefix(prefix string) string {
	for prefix != "" {
		r, n := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-n]
		switch {
		case r == utf8.MaxRune:
		case r+1 == surrogateMin:
			return prefix + string(rune(surrogateMax+1))
		default:
			return prefix + string(r+1)
		}
	}
	return ""
}

// Runes between these are no text.
const surrogateMin, surrogateMax = 0xD800, 0xDFFF

// After returns why the events of w may not follow the one stored last, -1 for
// none: an error that wraps ErrExists or ErrInvalid.
func (w *Write) After(last int64) error {
	switch {
	case len(w.Events) == 0 || w.Events[0].Seq == last+1:
		return nil
	case w.Events[0].Seq <= last:
		return fmt.Errorf("event %d after event %d: %w", w.Events[0].Seq, last, ErrExists)
	}
	return fmt.Errorf("event %d after event %d leaves a gap: %w", w.Events[0].Seq, last, ErrInvalid)
}

// check returns an error that wraps ErrInvalid or queue.ErrIllegalMove when the
// write breaks a rule that holds on every database.
func (w *Write) check() error {
	f := w.Fenced()
	if f.ID == (queue.ID{}) {
		return fmt.Errorf("store: write without an id: %w", ErrInvalid)
	}
	for _, rule := range []func(queue.Fence) error{w.checkInsert, w.checkMove, w.checkFinal, w.checkEvents, w.checkNames, w.checkCounts, w.checkOnce, w.checkTalk} {
		if err := rule(f); err != nil {
			return fmt.Errorf("store: request %s: %w", f.ID, err)
		}
	}
	return nil
}

func (w *Write) checkInsert(f queue.Fence) error {
	n := w.Insert
	switch {
	case n == nil:
		return nil
	case w.Fence != queue.Fence{} && w.Fence != f:
		return fmt.Errorf("fence is not the one of the insert: %w", ErrInvalid)
	case w.LetGo:
		return fmt.Errorf("insert lets go: %w", ErrInvalid)
	case n.Worker < 0 || n.DeadlineIn < 0:
		return fmt.Errorf("worker %d or deadline %s is negative: %w", n.Worker, n.DeadlineIn, ErrInvalid)
	case n.Tenant == "" || n.Model == "" || n.Path == "":
		return fmt.Errorf("insert without tenant, model or path: %w", ErrInvalid)
	case !counts(n.Line) || (n.Line > 0 && n.Batch == queue.ID{}):
		return fmt.Errorf("insert of line %d of batch %s: %w", n.Line, n.Batch, ErrInvalid)
	}
	return names("insert", n.Tenant, n.Model, n.Path, n.Tier)
}

// checkMove asks the state table, and refuses the moves that belong to Claim
// and Sweep.
func (w *Write) checkMove(f queue.Fence) error {
	m := w.Move
	if m == nil {
		return nil
	}
	if err := queue.Move(f.State, m.To, m.By); err != nil {
		return err
	}
	switch m.By {
	case queue.ByStart, queue.ByOutcome, queue.ByRetry, queue.ByHandBack, queue.ByCancel:
	case queue.ByClaim, queue.ByPromote, queue.ByReap, queue.ByDeadline:
		return fmt.Errorf("a write moves by %s: %w", m.By, queue.ErrIllegalMove)
	}
	if m.Park < 0 || (m.Park > 0 && m.To != queue.Waiting && m.To != queue.Failed && m.To != queue.Pending) {
		return fmt.Errorf("park of %s for a move to %s: %w", m.Park, m.To, ErrInvalid)
	}
	if m.Delay < 0 || (m.Delay > 0 && m.To != queue.Waiting) {
		return fmt.Errorf("delay %s for a move to %s: %w", m.Delay, m.To, ErrInvalid)
	}
	if m.Result != nil && !m.To.Final() {
		return fmt.Errorf("result for a move to %s: %w", m.To, ErrInvalid)
	}
	if m.Result != nil && !nameable(m.Result.ContentType) {
		return fmt.Errorf("content type %q holds NUL or is not UTF-8: %w", m.Result.ContentType, ErrInvalid)
	}
	return names("move", string(m.Class), m.Code)
}

// checkFinal holds that nothing is added to a request that has ended: its
// worker may only let go, and report what it used.
func (w *Write) checkFinal(f queue.Fence) error {
	more := len(w.Steps)+len(w.Events)+len(w.Decisions)+len(w.KV)+w.Failures != 0 || w.Move != nil
	switch {
	case w.LetGo && f.State != queue.Canceled:
		return fmt.Errorf("lets go of a %s request: %w", f.State, queue.ErrIllegalMove)
	case w.LetGo && more:
		return fmt.Errorf("lets go and writes more than usage: %w", ErrInvalid)
	case f.State.Final() && more:
		return fmt.Errorf("writes to a %s request: %w", f.State, ErrInvalid)
	case w.Failures < 0:
		return fmt.Errorf("failures %d is negative: %w", w.Failures, ErrInvalid)
	}
	return nil
}

func (w *Write) checkEvents(queue.Fence) error {
	for i, e := range w.Events {
		if e.Seq < 0 {
			return fmt.Errorf("event %d is negative: %w", e.Seq, ErrInvalid)
		}
		if i > 0 && e.Seq != w.Events[i-1].Seq+1 {
			return fmt.Errorf("event %d follows event %d: %w", e.Seq, w.Events[i-1].Seq, ErrInvalid)
		}
	}
	if w.Insert != nil {
		return w.After(-1)
	}
	return nil
}

// checkNames leaves CallID, Tool, Detail and Log alone: a model or a guest wrote
// them, so they are stored as bytes and any text is legal.
func (w *Write) checkNames(queue.Fence) error {
	for _, s := range w.Steps {
		if err := names("step", s.Scope, string(s.Kind), string(s.State), s.Plugin, s.Effects, s.Generation, string(s.Class), s.Code); err != nil {
			return err
		}
	}
	for _, d := range w.Decisions {
		if err := names("decision", d.Step, d.Kind, d.Generation, d.Fallback); err != nil {
			return err
		}
	}
	for _, kv := range w.KV {
		if kv.Plugin == "" || kv.Key == "" {
			return fmt.Errorf("kv without plugin or key: %w", ErrInvalid)
		}
		if err := names("kv", kv.Plugin, kv.Key); err != nil {
			return err
		}
		switch {
		case !kv.Had && len(kv.Was) > 0:
			return fmt.Errorf("kv %q %q: was something and was not there: %w", kv.Plugin, kv.Key, ErrInvalid)
		case kv.TTL < 0:
			return fmt.Errorf("kv %q %q: ttl %s is negative: %w", kv.Plugin, kv.Key, kv.TTL, ErrInvalid)
		case kv.Delete && (len(kv.Value) > 0 || kv.TTL != 0):
			return fmt.Errorf("kv %q %q: deletes and puts: %w", kv.Plugin, kv.Key, ErrInvalid)
		}
	}
	for _, u := range w.Usage {
		if err := names("usage", u.Scope, u.Target, u.Tenant, u.Model); err != nil {
			return err
		}
	}
	return nil
}

func (w *Write) checkCounts(queue.Fence) error {
	for _, s := range w.Steps {
		if len(s.Detail) > response.MaxDetail || len(s.Log) > response.MaxLog {
			return fmt.Errorf("step %s: detail of %d bytes, log of %d: %w", s.Key(), len(s.Detail), len(s.Log), ErrInvalid)
		}
		if s.Ordinal < 0 || s.Ordinal > math.MaxInt32 || s.Fuel > math.MaxInt64 {
			return fmt.Errorf("step %s: ordinal or fuel out of range: %w", s.Key(), ErrInvalid)
		}
	}
	for _, d := range w.Decisions {
		if d.Fuel > math.MaxInt64 {
			return fmt.Errorf("decision on %q: fuel out of range: %w", d.Step, ErrInvalid)
		}
	}
	return nil
}

// names refuses what one of the databases cannot hold as text.
func names(what string, all ...string) error {
	for _, s := range all {
		if !nameable(s) {
			return fmt.Errorf("%s: name %q holds NUL or is not UTF-8: %w", what, s, ErrInvalid)
		}
	}
	return nil
}

func nameable(s string) bool { return !strings.ContainsRune(s, 0) && utf8.ValidString(s) }

// size returns about how many bytes of memory the write holds.
func (w *Write) size() int64 {
	n := 512
	if w.Insert != nil {
		n += 256 + len(w.Insert.Body) + len(w.Insert.Secret)
	}
	for _, s := range w.Steps {
		n += 256 + len(s.Input) + len(s.Output) + len(s.Detail) + len(s.Log)
	}
	for _, e := range w.Events {
		n += 32 + len(e.Data)
	}
	for _, d := range w.Decisions {
		n += 128 + len(d.Question) + len(d.Answer)
	}
	for _, kv := range w.KV {
		n += 64 + len(kv.Key) + len(kv.Value) + len(kv.Was)
	}
	n += 128 * len(w.Usage)
	if w.Append != nil {
		for _, it := range w.Append.Items {
			n += 64 + len(it.ID) + len(it.Data)
		}
	}
	if w.Move != nil && w.Move.Result != nil {
		n += len(w.Move.Result.Body)
	}
	return int64(n)
}
