// Package store holds the rules that are the same on every database, for
// requests, conversations, files and batches: group commit, fencing by claim,
// and what each write may contain. Driver is what a database must do. It takes
// no decision about a request's next state and knows no SQL.
package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
)

// Driver is what a database must do. Implementations are safe for concurrent
// use, take all times from the database's clock, decide nothing about states
// (every state change is checked by queue.Move) and return errors that wrap
// the sentinels of package queue. A method whose context ends returns promptly.
type Driver interface {
	Conversations
	Files
	Batches

	// Write commits all writes in one transaction, in order, and returns one
	// error per write: nil, a *LeaseLost, *Repeated or *ConversationBusy, or one
	// that wraps queue.ErrAtCap, queue.ErrNotFound, ErrExists, ErrConflict or, for
	// events that leave a gap, ErrInvalid. A write that is refused leaves nothing
	// behind but its Usage. The second result is an error of the database: then
	// nothing was committed.
	Write(ctx context.Context, writes []Write) ([]error, error)

	// Claim moves up to c.N pending requests to Claimed, and with c.Start on to
	// Processing, by lanes: c.Urgent of
	// them by the earliest head among lanes whose head is due within c.Window,
	// the rest, and what the first left free, weighted start-time fair; both are
	// charged to the same virtual time. Within a lane it goes by order, never
	// beyond the cap of the lane or of its tenant's gate, less what is reserved
	// for realtime requests. A lane that is capped, parked or empty costs it
	// nothing. The error wraps queue.ErrLeaseLost when the worker was reaped.
	Claim(ctx context.Context, c ClaimRequest) ([]queue.Claim, error)

	// Heartbeat extends a worker's lease, or starts a worker, and shares out the
	// slots of the targets that the beat names: see TargetUse.
	Heartbeat(ctx context.Context, b Beat) (Pulse, error)

	// Sweep moves on what time alone moves: waiting requests that are due,
	// requests past their deadline, requests of dead workers, plugins' keys
	// whose time is up, requests that ended longer ago than they are kept; it
	// recomputes lanes. Any number of hosts may call it at once.
	Sweep(ctx context.Context, s SweepRequest) (Swept, error)

	// Cancel moves a request to Canceled where the state table allows it and
	// returns it as it then stands; did says whether this call canceled it.
	// Code says why on the row, queue.CodeClientGone or "" for its user. Tenant ""
	// matches every tenant. It wraps queue.ErrNotFound.
	Cancel(ctx context.Context, tenant string, id queue.ID, code string) (r Record, did bool, err error)

	// Keyed returns what an insert with the key would be refused with; nil: it
	// would not.
	Keyed(ctx context.Context, tenant string, k Key) (*Repeated, error)

	// Get returns one request; parts says which of its larger parts to read.
	// Tenant "" matches every tenant. It wraps queue.ErrNotFound.
	Get(ctx context.Context, tenant string, id queue.ID, parts Parts) (Record, error)

	// Events returns what each cursor has not seen yet, by one query for all,
	// at most limit events a cursor, and the state of each request. The states
	// are read before the events, so the tail of a request in a final state is
	// complete when it is shorter than limit. Unknown ids are absent.
	Events(ctx context.Context, cursors []Cursor, limit int) (map[queue.ID]Tail, error)

	// Delete removes a request in a final state and all that belongs to it but
	// its usage. It wraps queue.ErrNotFound or queue.ErrRunning.
	Delete(ctx context.Context, tenant string, id queue.ID) error

	// KVGet returns the committed value of a plugin's key. To it, to KVList and
	// KVUsed, and to checked puts, a key whose time is up is not there.
	KVGet(ctx context.Context, tenant, plugin, key string) (value []byte, ok bool, err error)

	// KVList returns the committed keys in a range, ascending by their bytes.
	KVList(ctx context.Context, r KVRange) (keys []string, err error)

	// KVUsed counts the committed keys of a plugin, and the bytes of them and
	// their values.
	KVUsed(ctx context.Context, tenant, plugin string) (keys int, bytes int64, err error)

	// SetLimits creates or changes lanes and gates. Setting a cap counts what
	// runs; a gate without a cap goes.
	SetLimits(ctx context.Context, l Limits) error

	// Watch calls f with hints that come from other hosts, and lets them have
	// this host's, until ctx ends; then it returns nil. It heals a broken
	// connection itself. Hints may be lost, late or wrong: they only make
	// faster what polling and heartbeats do as well. f must not block.
	Watch(ctx context.Context, f func(Hint)) error

	// Stats counts requests by state and the counters of lanes and gates; for
	// tests, metrics and operators, not for the request path.
	Stats(ctx context.Context) (Stats, error)

	// Inspect reads what a doctor looks at. It changes nothing and looks at
	// every row that is not final.
	Inspect(ctx context.Context) (Report, error)

	Close() error
}

// Write is one fenced change of one request: all of it commits, or nothing but
// its Usage does.
type Write struct {
	// Insert creates the request that the rest is fenced by; Fence is then
	// Insert's own and need not be set.
	Insert *queue.New
	Fence  queue.Fence
	// Steps are inserted, or replace what is stored under their key. A stored
	// step that is settled is never changed.
	Steps []response.Step
	// Events go on where the stored ones end, the first of all with 0.
	Events    []response.Event
	Decisions []Decision
	KV        []KVPut
	// Failures is added to the request's failures.
	Failures int
	// Usage is written even when the fence does not hold.
	Usage []Usage
	// Key, with Insert: a key of the tenant that stands for a request already,
	// for KeepKeys after it was first used, refuses the insert with a *Repeated.
	// What refuses the insert otherwise leaves the key free.
	Key *Key
	// Join, with Insert: the write is refused with a *ConversationBusy or
	// queue.ErrNotFound, or holds the conversation until the request is final.
	Join *Join
	// Append, with Move to a final state.
	Append *Append
	// Rowless: the request has no row, so the write is fenced by nothing. Nothing
	// else may be set but Usage.
	Rowless bool
	// Took, with an Insert and a Move to a final state, is how long ago the
	// request began: see Recorded.
	Took time.Duration
	// Move changes the state; nil leaves it.
	Move *Move
	// LetGo: the fence is a Canceled row that still names the worker; the
	// worker is cleared and the lane's slot freed. Nothing else may be set but
	// Usage.
	LetGo bool
}

// Move is the change of state of a Write.
type Move struct {
	To    queue.State
	By    queue.Cause
	Delay time.Duration // not-before, when To is Waiting
	Park  time.Duration // the lane is parked for at least so long from now; 0: as it is
	Class queue.Class   // of a final state
	Code  string        // of a final state that is an error
	// Result is stored with a final state if the request's Store is set; else
	// the request's body, steps and events go, and so do the questions of its
	// decisions, which may repeat what the client sent.
	Result *Result
}

// Result is what a finished request answers.
type Result struct {
	Status      int // HTTP
	ContentType string
	Body        []byte
}

// Decision is one question to a policy and its answer.
type Decision struct {
	Step       string // Step.Key, or "" on the default path
	Try        int
	Kind       string // "route" or "retry"
	Question   []byte // JSON
	Answer     []byte // JSON, as used (after clamping)
	Generation string // digest of the module that decided, or "builtin"
	Fallback   string // why the built-in policy answered in place of the plugin; "" if it did not
	Fuel       uint64
}

// KVPut is one write to a plugin's state, in the tenant of the request.
type KVPut struct {
	Plugin string
	Key    string
	Value  []byte
	Delete bool // the key goes, if it is there; Value and TTL are not set
	// TTL is how long the key stays, by the database's clock, from this write
	// on; 0: for ever.
	TTL time.Duration
	// Checked: the write is refused with ErrConflict unless the value before
	// it is still Was or, where Had is not set, there still is none.
	Checked bool
	Was     []byte
	Had     bool
}

// KVRange is a part of a plugin's keys: those that begin with Prefix and come
// after After.
type KVRange struct {
	Tenant, Plugin string
	Prefix         string // "": any
	After          string // "": from the first
	Limit          int    // at most so many keys
}

// Usage is what one try used: append-only.
type Usage struct {
	Scope   string
	Ordinal int
	Try     int
	Target  string // "upstream/model"
	Tokens  response.Usage
	// Tenant and Model are those of the request. What the request's row says
	// is stored; these are for a row that is gone.
	Tenant string
	Model  string
}

// LeaseLost says what a write found in place of its fence. It wraps
// queue.ErrLeaseLost. State and Attempt are zero when the row is gone.
type LeaseLost struct {
	ID      queue.ID
	State   queue.State
	Attempt int
	Gone    bool
}

func (e *LeaseLost) Error() string {
	if e.Gone {
		return fmt.Sprintf("store: request %s: lease lost: it is gone", e.ID)
	}
	return fmt.Sprintf("store: request %s: lease lost: it is %s, attempt %d", e.ID, e.State, e.Attempt)
}

// Unwrap returns queue.ErrLeaseLost.
func (e *LeaseLost) Unwrap() error { return queue.ErrLeaseLost }

// AtCap says which cap refused a realtime request. It wraps queue.ErrAtCap.
type AtCap struct {
	Tenant, Model string
	Gate          bool // the tenant's cap, not the lane's
	// Wait is how long the lane is parked yet; 0: it waits for a slot.
	Wait time.Duration
}

func (e *AtCap) Error() string {
	switch {
	case e.Gate:
		return fmt.Sprintf("store: tenant %q: gate: %s", e.Tenant, queue.ErrAtCap)
	case e.Wait > 0:
		return fmt.Sprintf("store: lane %q %q: parked for %s: %s", e.Tenant, e.Model, e.Wait, queue.ErrAtCap)
	}
	return fmt.Sprintf("store: lane %q %q: %s", e.Tenant, e.Model, queue.ErrAtCap)
}

// Unwrap returns queue.ErrAtCap.
func (e *AtCap) Unwrap() error { return queue.ErrAtCap }

// RetryAfter returns how long the client should wait, at least a second.
func (e *AtCap) RetryAfter() time.Duration { return max(e.Wait, time.Second) }

// ErrOutdated is returned for a database that a newer binary migrated.
var ErrOutdated = errors.New("database is newer than this binary")

// ErrInUse is returned for a database that takes one server only and has one.
var ErrInUse = errors.New("database is in use by another server")

// ClaimRequest asks for work.
type ClaimRequest struct {
	Worker int64
	Models []string // only these
	N      int      // at most
	// Urgent of N are taken by earliest deadline; Store counts them out, one in
	// five over time, so callers leave it 0.
	Urgent int
	Window time.Duration // a head that is due within it is urgent; 0: 10 min
	// Escalate says, by model, which requests run on another model: those whose
	// deadline is near, if the lane of the other model has a slot too.
	Escalate map[string]queue.Escalation
	// OnlyEscalate are models of Models that can serve nothing themselves now:
	// only requests that are escalated are taken from their lanes.
	OnlyEscalate []string
	// Start: the claims begin at once. They are moved on to Processing in the
	// same transaction, so that to start them costs no commit of its own.
	Start bool
}

// WithDefaults returns c with what was not set.
func (c ClaimRequest) WithDefaults() ClaimRequest {
	if c.Window == 0 {
		c.Window = 10 * time.Minute
	}
	return c
}

// Beat is one heartbeat.
type Beat struct {
	Worker   int64 // 0: start a worker; the Pulse has its id, never used before
	Host     string
	Version  string
	Lease    time.Duration
	Draining bool
	Leave    bool // ends the lease now; the row stays while a request names it
	Targets  []TargetUse
}

// TargetUse is what a worker says of an upstream target.
type TargetUse struct {
	Target string // "upstream/model"
	// Limit is how many calls the target takes at once from the whole fleet; 0:
	// any number, and then only Cooldown counts. The last host to say wins.
	Limit int
	// Keep is the part of its share that the worker may be using until it has
	// the answer: the share is not made smaller than that. Want is what it could
	// use.
	Keep, Want int
	// Cooldown is how long the target asked to be left alone; 0: it did not.
	Cooldown time.Duration
}

// TargetShare is a worker's part of a target's limit. It lasts as long as the
// worker's lease. The shares of a target never add up to more than its limit,
// those of dead workers included until they are reaped or have left.
type TargetShare struct {
	Target   string
	Slots    int           // of Limit; not set without one
	Cooldown time.Duration // the longest that any worker said, less the time since
}

// Pulse is the answer to a Beat.
type Pulse struct {
	Worker int64
	// Lost: the lease had run out and was reaped, or the row is gone.
	Lost bool
	// Held are the rows that name this worker: those it claimed or runs, and
	// canceled ones that it has not let go of yet.
	Held    []Held
	Targets []TargetShare // of each target that the beat named
}

// Hint says that looking again may be worth it.
type Hint struct {
	Ready    bool  // requests became claimable
	Canceled int64 // this worker has canceled requests to stop; 0: none
}

// Limits are the caps and weights that an operator sets.
type Limits struct {
	Lanes []queue.Lane
	Gates []queue.Gate
}

// Held is one row that names a worker.
type Held struct {
	queue.Fence
	// Alone: the request is realtime and leaves nothing that another worker
	// could go on from.
	Alone bool
}

// SweepRequest says how to sweep.
type SweepRequest struct {
	Reap     bool          // return requests of dead workers; only a host that was healthy for a lease may
	Grace    time.Duration // a worker is dead this long after its lease ran out
	MaxReaps int           // then Failed with class worker_lost
	Limit    int           // of rows moved per kind in one transaction; 0: 500
	// Keep is how long what ended is kept, with all that belongs to it but its
	// usage; 0: for ever.
	Keep time.Duration
}

// WithDefaults returns r with what was not set.
func (r SweepRequest) WithDefaults() SweepRequest {
	if r.Limit <= 0 {
		r.Limit = 500
	}
	return r
}

// KeepKeys is how long an idempotency key stands for the request it came with.
const KeepKeys = 24 * time.Hour

// ExpireRounds is how many times Limit a sweep expires at most, requests and
// plugins' keys alike, each time in a transaction of its own: many deadlines may
// pass at once, and what ended so is in the way of what did not.
const ExpireRounds = 20

// Swept counts what a sweep moved.
type Swept struct {
	Promoted, Expired, Reaped, Lost int // Lost: reaped into Failed
	Keys                            int // of plugins, whose time was up: removed
	Removed                         int // requests that were kept long enough
}

// Parts says which parts of a request Get reads.
type Parts struct {
	Body, Result, Steps, Events, Decisions, Usage bool
}

// Record is a request as stored. Zero times are unset.
type Record struct {
	ID         queue.ID
	Tenant     string
	Model      string
	Path       string
	Tier       string
	Stream     bool
	Background bool
	Store      bool
	Realtime   bool
	State      queue.State
	Attempt    int
	Failures   int
	Reaps      int
	Worker     int64
	Escalated  string // the model that serves the attempt in place of Model
	Batch      queue.ID
	Line       int // of Batch
	Class      queue.Class
	Code       string
	Created    time.Time
	Started    time.Time // first Processing
	Finished   time.Time
	NotBefore  time.Time
	Deadline   time.Time
	Body       []byte
	Result     *Result
	Steps      []response.Step // by scope, ordinal
	Events     []response.Event
	Decisions  []Decision
	Usage      []Usage
}

// Cursor is how far a listener has read.
type Cursor struct {
	ID    queue.ID
	After int64 // last sequence number seen, -1: none
}

// Tail is what a listener has not seen yet.
type Tail struct {
	State  queue.State
	Events []response.Event
}
