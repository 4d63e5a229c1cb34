package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/casemate/casemate/host/queue"
)

// Batches is what a database must do for batches: files of requests that go
// through the queue. Whoever goes on with a batch reads it with its version and
// writes it back in steps, each of which is made only while the version is still
// that; so of two hosts that hold a batch at once, one goes on.
type Batches interface {
	// CreateBatch stores a batch whose input is a file of its tenant that is Ready,
	// else it wraps queue.ErrNotFound. It expires window from now. It returns the
	// batch as stored.
	CreateBatch(ctx context.Context, b Batch, window time.Duration) (Batch, error)

	// Batch returns one batch. Tenant "" matches every tenant.
	Batch(ctx context.Context, tenant string, id queue.ID) (Batch, error)

	// ListBatches returns a page of a tenant's batches, and whether there are more.
	ListBatches(ctx context.Context, tenant string, p BatchPage) (batches []Batch, more bool, err error)

	// CancelBatch makes a batch BatchCanceling that is BatchValidating or
	// BatchRunning, and due at once. It returns the batch as it then stands.
	CancelBatch(ctx context.Context, tenant string, id queue.ID) (Batch, error)

	// HoldBatch returns the batch that has been due the longest, which is due again
	// after hold; ok says whether there is one. Its lines are not counted.
	HoldBatch(ctx context.Context, hold time.Duration) (b Batch, ok bool, err error)

	// StepBatch makes a step, or nothing: then the error wraps ErrConflict when the
	// batch is not of the version, else it is one of a write of the step.
	StepBatch(ctx context.Context, s BatchStep) error

	// OpenLines reports whether a request of the batch is in no final state. It
	// looks at one of them at most.
	OpenLines(ctx context.Context, id queue.ID) (bool, error)

	// CancelLines cancels at most limit requests of the batch that are in no final
	// state, and returns how many.
	CancelLines(ctx context.Context, id queue.ID, limit int) (int, error)

	// KnownIDs returns those of the custom ids that lines of the batch have.
	KnownIDs(ctx context.Context, id queue.ID, custom []string) ([]string, error)

	// Lines returns the lines of a batch that come after a line, ascending, at most
	// limit.
	Lines(ctx context.Context, id queue.ID, after, limit int) ([]Line, error)

	// LineResults returns the results of requests; one without is absent.
	LineResults(ctx context.Context, ids []queue.ID) (map[queue.ID]Result, error)

	// SettleLines forgets, of the lines of a batch after a line, at most limit,
	// those that succeeded, and removes the requests of lines with Forget. It
	// returns the last line that it looked at, 0: there are no more.
	SettleLines(ctx context.Context, id queue.ID, after, limit int) (last int, err error)
}

// BatchState is where a batch stands. The numbers are stored: never reuse one.
type BatchState int16

// The states. Those from BatchCompleted on are final.
const (
	BatchValidating BatchState = 0 // its lines are read and checked
	BatchRunning    BatchState = 1 // its lines become requests, and these end
	BatchFinalizing BatchState = 2 // all have ended: its files are written
	BatchCanceling  BatchState = 3
	BatchCompleted  BatchState = 10
	BatchFailed     BatchState = 11 // its input is not valid
	BatchCanceled   BatchState = 12
	BatchExpired    BatchState = 13 // its window closed before all lines had ended
)

// Final reports whether the batch has ended.
func (s BatchState) Final() bool { return s >= BatchCompleted }

// String returns the name that clients see.
func (s BatchState) String() string {
	switch s {
	case BatchValidating:
		return "validating"
	case BatchRunning:
		return "in_progress"
	case BatchFinalizing:
		return "finalizing"
	case BatchCanceling:
		return "cancelling"
	case BatchCompleted:
		return "completed"
	case BatchFailed:
		return "failed"
	case BatchCanceled:
		return "cancelled"
	case BatchExpired:
		return "expired"
	}
	return fmt.Sprintf("state(%d)", int16(s))
}

// batchMoves are the moves that steps make; CancelBatch makes the others.
var batchMoves = map[BatchState][]BatchState{
	BatchValidating: {BatchRunning, BatchFailed},
	BatchRunning:    {BatchFinalizing},
	BatchFinalizing: {BatchCompleted, BatchExpired},
	BatchCanceling:  {BatchCanceled},
}

// Batch is one batch. Zero times are unset.
type Batch struct {
	ID         queue.ID
	Tenant     string
	Endpoint   string // the path of its requests
	Window     string // as its client said, "24h"
	Input      queue.ID
	InputBytes int64
	Parent     queue.ID // whose lines that did not succeed it tries again; zero: none
	Metadata   []byte   // a JSON object of strings; nil: none
	State      BatchState
	Version    int64
	Created    time.Time
	Expires    time.Time
	Started    time.Time // BatchRunning
	Finalized  time.Time // BatchFinalizing
	Canceling  time.Time
	Ended      time.Time
	Left       time.Duration // until Expires, when it was read; below 0: past
	Output     queue.ID      // its files; zero: none
	Errors     queue.ID
	OutputKeep time.Duration // of its files, from its end; 0: for ever
	// Line is how many lines were read, in BatchRunning the last that became a
	// request, and after the end the last that was settled; Offset is how many
	// bytes were read.
	Line   int
	Offset int64
	// Total is how many lines it has. Completed and Failed are counted while it
	// runs and stored when it ends. Refused of the failed made no request.
	Total, Completed, Failed, Refused int
	Faults                            []byte // JSON, of the validation; nil: none
	Usage                             []byte // JSON: the tokens that its lines used, once it has ended; nil: not known
	// Settled: nothing is left to do for it.
	Settled bool
}

// Line is one line of a batch's input.
type Line struct {
	Line     int // from 1
	CustomID string
	Offset   int64 // where it begins in the input
	Size     int   // bytes, without the line's end
	// Forget: its request is removed once the batch's files hold its result.
	Forget bool
	// Request is zero until it was made. One that could not be made has in place
	// of it the status and body that answered it.
	Request queue.ID
	Status  int
	Refusal []byte

	// Read only, of the request. Lost: it is gone.
	Lost   bool
	State  queue.State
	Class  queue.Class
	Code   string
	Result int64 // bytes of its result
}

// BatchPage is a part of a tenant's batches, newest first.
type BatchPage struct {
	Limit int
	After queue.ID // the batch before the page; zero: from the first
}

// BatchStep is one transaction of a batch.
type BatchStep struct {
	// From is the state that Batch was read in. Of Batch are written: State, Line,
	// Offset, Total, Completed, Failed, Refused, Faults, Usage, Output, Errors; it is due
	// again after Again, and never when it is Settled.
	From  BatchState
	Batch Batch
	Again time.Duration
	// Lines are new, or Request, Status and Refusal of those that are there.
	Lines []Line
	Made  []Line
	// Requests are inserts of requests, with their first events.
	Requests []Write
	Grow     []File      // new ones, Growing
	Chunks   []PartOf    // of files that are Growing
	Grown    []GrownFile // that are Growing and end so
}

// PartOf is a chunk of a file.
type PartOf struct {
	File queue.ID
	N    int
	Data []byte
}

// GrownFile ends a file that was Growing: Ready, or Gone where it has no bytes.
type GrownFile struct {
	ID queue.ID
	FileEnd
}

func (s *BatchStep) check() error {
	b := &s.Batch
	fail := func(err error) error { return fmt.Errorf("store: batch %s: %w", b.ID, err) }
	switch {
	case s.From != b.State && !slices.Contains(batchMoves[s.From], b.State):
		return fail(fmt.Errorf("%s → %s: %w", s.From, b.State, queue.ErrIllegalMove))
	case b.Settled && !b.State.Final():
		return fail(fmt.Errorf("it is %s and settled: %w", b.State, ErrInvalid))
	}
	for i := range s.Requests {
		w := &s.Requests[i]
		if w.Insert == nil || w.Insert.Worker != 0 || w.Insert.Batch != b.ID {
			return fail(fmt.Errorf("a write is no insert of a queued request of it: %w", ErrInvalid))
		}
		if err := w.check(); err != nil {
			return fail(err)
		}
	}
	for _, l := range s.Lines {
		if l.Line < 1 || l.CustomID == "" || l.Offset < 0 || l.Size < 0 {
			return fail(fmt.Errorf("line %d: %w", l.Line, ErrInvalid))
		}
		if err := names("line", l.CustomID); err != nil {
			return fail(err)
		}
	}
	for i := range s.Grow {
		if err := s.Grow[i].check(); err != nil {
			return fail(err)
		}
	}
	for _, c := range s.Chunks {
		if c.N < 0 || len(c.Data) == 0 || len(c.Data) > FileChunk {
			return fail(fmt.Errorf("chunk %d of %d bytes: %w", c.N, len(c.Data), ErrInvalid))
		}
	}
	return nil
}

// CreateBatch stores a batch; see Batches.
func (s *Store) CreateBatch(ctx context.Context, b Batch, window time.Duration) (Batch, error) {
	if b.ID == (queue.ID{}) || b.Tenant == "" || b.Endpoint == "" || window <= 0 || b.OutputKeep < 0 {
		return Batch{}, fmt.Errorf("store: batch %s: without tenant, endpoint or window: %w", b.ID, ErrInvalid)
	}
	if err := names("batch", b.Tenant, b.Endpoint, b.Window); err != nil {
		return Batch{}, fmt.Errorf("store: %w", err)
	}
	return s.driver.CreateBatch(ctx, b, window)
}

// Batch returns one batch; see Batches.
func (s *Store) Batch(ctx context.Context, tenant string, id queue.ID) (Batch, error) {
	return s.driver.Batch(ctx, tenant, id)
}

// ListBatches returns a page of a tenant's batches; see Batches.
func (s *Store) ListBatches(ctx context.Context, tenant string, p BatchPage) ([]Batch, bool, error) {
	if p.Limit <= 0 {
		return nil, false, nil
	}
	return s.driver.ListBatches(ctx, tenant, p)
}

// CancelBatch begins to cancel a batch; see Batches.
func (s *Store) CancelBatch(ctx context.Context, tenant string, id queue.ID) (Batch, error) {
	return s.driver.CancelBatch(ctx, tenant, id)
}

// HoldBatch returns a batch that is due; see Batches.
func (s *Store) HoldBatch(ctx context.Context, hold time.Duration) (Batch, bool, error) {
	return s.driver.HoldBatch(ctx, hold)
}

// StepBatch makes a step of a batch; see Batches.
func (s *Store) StepBatch(ctx context.Context, step BatchStep) error {
	if err := step.check(); err != nil {
		return err
	}
	return s.driver.StepBatch(ctx, step)
}

// OpenLines reports whether a request of the batch goes on; see Batches.
func (s *Store) OpenLines(ctx context.Context, id queue.ID) (bool, error) {
	return s.driver.OpenLines(ctx, id)
}

// CancelLines cancels requests of a batch; see Batches.
func (s *Store) CancelLines(ctx context.Context, id queue.ID, limit int) (int, error) {
	return s.driver.CancelLines(ctx, id, limit)
}

// KnownIDs returns the custom ids that are taken; see Batches.
func (s *Store) KnownIDs(ctx context.Context, id queue.ID, custom []string) ([]string, error) {
	if len(custom) == 0 {
		return nil, nil
	}
	return s.driver.KnownIDs(ctx, id, custom)
}

// Lines returns lines of a batch; see Batches.
func (s *Store) Lines(ctx context.Context, id queue.ID, after, limit int) ([]Line, error) {
	return s.driver.Lines(ctx, id, after, limit)
}

// LineResults returns results of requests; see Batches.
func (s *Store) LineResults(ctx context.Context, ids []queue.ID) (map[queue.ID]Result, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	return s.driver.LineResults(ctx, ids)
}

// SettleLines forgets lines of a batch that ended; see Batches.
func (s *Store) SettleLines(ctx context.Context, id queue.ID, after, limit int) (int, error) {
	return s.driver.SettleLines(ctx, id, after, limit)
}
