// Package queue is the vocabulary of a queued request: its id, states and the
// only moves between them, claim, outcome and outcome classes. It does no I/O
// and stores nothing.
package queue

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// The errors of every store and stage; decide with errors.Is.
var (
	// ErrLeaseLost: the row is not what the claim says any more. Stop at once
	// and drop the result; its usage was kept.
	ErrLeaseLost = errors.New("lease lost")
	// ErrIllegalMove: the state table has no such move.
	ErrIllegalMove = errors.New("illegal move")
	// ErrNotFound: no such request, or another tenant's.
	ErrNotFound = errors.New("request not found")
	// ErrAtCap: the lane has as many requests running as it may.
	ErrAtCap = errors.New("lane is at its cap")
	// ErrRunning: refused while the request is not in a final state.
	ErrRunning = errors.New("request is still running")
)

// HopHeader is on every call that a host makes to a model endpoint. A host
// refuses requests that carry it: it was configured as its own upstream.
const HopHeader = "X-Casemate-Hop"

// ID is the public id of a request, a UUIDv7: it sorts by creation time.
type ID [16]byte

// NewID returns a fresh ID.
func NewID() ID { return ID(uuid.Must(uuid.NewV7())) }

// ParseID reads the 32 hex digits that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("queue: id %q: want 32 hex digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("queue: id %q: want 32 hex digits", s)
	}
	return id, nil
}

// String returns 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Time returns the creation time that the id holds, to the millisecond.
func (id ID) Time() time.Time {
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	return time.UnixMilli(ms).UTC()
}

// New is a request to be inserted.
type New struct {
	ID         ID
	Tenant     string
	Model      string // the alias asked for; with Tenant it names the lane
	Path       string // "/v1/responses", "/v1/chat/completions", …
	Tier       string // service tier asked for: "default", "flex"
	Stream     bool
	Background bool
	// Store keeps body, steps, events and result after the end; without it they
	// go in the transaction that ends the request.
	Store      bool
	DeadlineIn time.Duration // from now; 0: none
	Body       []byte
	// Worker is the host that runs a realtime request: the row is born in
	// Processing with attempt 1. 0: the row is born in Pending.
	Worker int64
	// Secret is what only the run may read: it is gone with the end of the
	// request, whatever Store says. nil: none.
	Secret []byte
	// Batch and Line say which line of which batch the request is; zero: none.
	Batch ID
	Line  int
}

// Fence is what a write must find in the row: the claim's id, attempt and state.
type Fence struct {
	ID      ID
	Attempt int
	State   State
}

// Claim is the right to run one request, as long as the worker's lease lasts.
type Claim struct {
	ID         ID
	Tenant     string
	Model      string
	Path       string
	Tier       string
	Stream     bool
	Background bool
	Store      bool
	Realtime   bool // born in Processing: somebody waits for the answer on this host
	Attempt    int
	State      State
	Failures   int
	Reaps      int
	// Escalated is the model that serves this attempt in place of Model, "" for
	// none. The request holds a slot of the lanes of both.
	Escalated string
	Created   time.Time     // the database's clock
	Age       time.Duration // at the time of the claim
	Remaining time.Duration // to the deadline at the time of the claim; 0: no deadline
	Body      []byte
	Secret    []byte // New.Secret
}

// Served returns the model that serves this attempt.
func (c Claim) Served() string {
	if c.Escalated != "" {
		return c.Escalated
	}
	return c.Model
}

// Fence returns what the next write of this claim must find.
func (c Claim) Fence() Fence { return Fence{ID: c.ID, Attempt: c.Attempt, State: c.State} }

// Outcome is how an attempt ended.
type Outcome struct {
	// To is Completed, Failed, Waiting (a retry was decided), Pending (handed
	// back) or Canceled (this worker lets go of a canceled request).
	To    State
	By    Cause
	Class Class
	// Status is the HTTP status to answer, Code and Message the error to show.
	Status  int
	Code    string
	Message string
	// Param names what of the request is to blame; "": nothing. It is not stored.
	Param string
	// Rejected: the route policy refused the request. Status, Code, Message and
	// RetryAfter are its own words and reach the client as they are.
	Rejected bool
	// Final: the same request would end the same again, so a client should not
	// send it again by itself.
	Final bool
	// Delay is the least time until the next claim, when To is Waiting.
	Delay time.Duration
	// Park keeps the whole lane from being claimed, or admitted to, for so long:
	// its model was rate limited and has no other target. 0: no.
	Park time.Duration
	// Failures is how many of the request's failures this attempt spent and has
	// not yet written.
	Failures    int
	RetryAfter  time.Duration // told to the client; 0: nothing
	ContentType string        // of Body
	Body        []byte        // what the client gets; nil when it was streamed and is not stored
}

// Lane is the queue of one tenant's requests for one model.
type Lane struct {
	Tenant  string
	Model   string
	Weight  float64 // share of the claims; 1 unless configured
	Cap     int     // most requests claimed or processing; 0: no cap
	Reserve Reserve // of Cap
}

// Gate caps what one tenant runs, of all its lanes together.
type Gate struct {
	Tenant  string
	Cap     int // most requests claimed or processing; 0: no cap, and no gate
	Reserve Reserve
}

// Reserve parts a cap between realtime and queued requests, so that neither
// keeps the other out. Their sum is at most the cap less one.
type Reserve struct {
	// Realtime slots are never taken by queued requests.
	Realtime int
	// Queued slots are not taken by realtime requests while requests are queued.
	Queued int
}

// Escalation runs queued requests of one model on another when their deadline
// is near.
type Escalation struct {
	To     string        // the other model
	Within time.Duration // of the deadline
}

// Patience orders a request without a deadline among those with one: in its
// lane, and by how urgent it is, it counts as due so long after it came.
const Patience = time.Hour
