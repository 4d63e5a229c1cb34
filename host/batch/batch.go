// Package batch turns the lines of an input file into queued requests, and
// follows a batch from its validation to its end. It answers no HTTP and runs no
// request.
package batch

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// Store is what a Runner needs of the store; see store.Batches and store.Files.
type Store interface {
	Reader
	HoldBatch(ctx context.Context, hold time.Duration) (store.Batch, bool, error)
	StepBatch(ctx context.Context, s store.BatchStep) error
	OpenLines(ctx context.Context, id queue.ID) (bool, error)
	CancelLines(ctx context.Context, id queue.ID, limit int) (int, error)
	KnownIDs(ctx context.Context, id queue.ID, custom []string) ([]string, error)
	SettleLines(ctx context.Context, id queue.ID, after, limit int) (int, error)
	Chunk(ctx context.Context, id queue.ID, n int) ([]byte, error)
	Tidy(ctx context.Context, r store.TidyRequest) (store.Tidied, error)
}

// Maker makes requests of lines.
type Maker interface {
	// MayUse reports whether the tenant may ask for a model.
	MayUse(tenant, model string) bool
	// Prepare makes a request of a line's body, with its first events. An error
	// that has a method Refusal() (status int, body []byte) is the line's own
	// fault and answers it; after any other the line is tried again.
	Prepare(ctx context.Context, tenant, path string, body []byte) (queue.New, []response.Event, error)
}

// refusal is an error that answers a line.
type refusal interface {
	error
	Refusal() (status int, body []byte)
}

// Options of a Runner. Zero fields take the defaults given.
type Options struct {
	Poll time.Duration // between two looks for a batch that is due, 1 s
	// Hold is how long a batch is left to the host that took it up, 10 s: then
	// another goes on with it.
	Hold time.Duration
	// Slice is how long a host goes on with one batch before it looks for others, 1 s.
	Slice      time.Duration
	Group      int   // most lines in one transaction, 200
	GroupBytes int64 // about most bytes of them, 4 MiB
	MaxLines   int   // of a batch, 100,000
	MaxLine    int   // bytes of a line, 32 MiB
	MaxFaults  int   // that validation reports, 100: then it stops
	// Settle is how long after the end of a batch its lines stay as they are, for
	// who reads them just then, 1 min.
	Settle time.Duration
	Tidy   time.Duration     // between two looks for what can be removed, 10 s
	Keep   store.TidyRequest // what is
	Logger hclog.Logger      // nil: no log
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *time.Duration
		unset time.Duration
	}{
		{&o.Poll, time.Second},
		{&o.Hold, 10 * time.Second},
		{&o.Slice, time.Second},
		{&o.Settle, time.Minute},
		{&o.Tidy, 10 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.unset
		}
	}
	for _, n := range []struct {
		field *int
		unset int
	}{{&o.Group, 200}, {&o.MaxLines, 100_000}, {&o.MaxLine, 32 << 20}, {&o.MaxFaults, 100}} {
		if *n.field <= 0 {
			*n.field = n.unset
		}
	}
	if o.GroupBytes <= 0 {
		o.GroupBytes = 4 << 20
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// longWait is the longest between two looks at a batch whose requests run.
const longWait = 30 * time.Second

// Runner goes on with batches, beside the Runners of other hosts. It remembers
// nothing of a batch from one look to the next.
type Runner struct {
	store   Store
	maker   Maker
	outputs Outputs
	opt     Options
	wake    chan struct{}
}

// New returns a Runner.
func New(s Store, m Maker, outputs Outputs, o Options) *Runner {
	return &Runner{store: s, maker: m, outputs: outputs, opt: o.withDefaults(), wake: make(chan struct{}, 1)}
}

// Wake makes the Runner look for a batch at once.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run goes on with batches until ctx ends, and returns nil.
func (r *Runner) Run(ctx context.Context) error {
	var tidied time.Time
	for ctx.Err() == nil {
		worked := r.once(ctx)
		if time.Since(tidied) >= r.opt.Tidy {
			done, err := r.store.Tidy(ctx, r.opt.Keep)
			r.warn(ctx, "tidy", queue.ID{}, err)
			if err != nil || !done.More {
				tidied = time.Now()
			}
			worked = worked || err == nil && done.More
		}
		if worked {
			continue
		}
		select {
		case <-time.After(r.opt.Poll):
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// once goes on with one batch, if one is due.
func (r *Runner) once(ctx context.Context) bool {
	b, ok, err := r.store.HoldBatch(ctx, r.opt.Hold)
	if err != nil || !ok {
		r.warn(ctx, "look for batches", queue.ID{}, err)
		return false
	}
	h := &held{Runner: r, b: b, began: time.Now()}
	if err := h.goOn(ctx); err != nil && !errors.Is(err, store.ErrConflict) {
		r.warn(ctx, "batch", b.ID, err)
		// Whoever is next need not wait until the hold is over.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		again := 5 * r.opt.Poll
		if ctx.Err() != nil {
			again = 0
		}
		_ = h.step(after, store.BatchStep{Batch: h.b, Again: again})
	}
	return true
}

func (r *Runner) warn(ctx context.Context, what string, id queue.ID, err error) {
	if err != nil && ctx.Err() == nil {
		r.opt.Logger.Warn(what, "batch", id, "error", err)
	}
}

// held is a batch that this host goes on with, as it is stored.
type held struct {
	*Runner
	b     store.Batch
	began time.Time
	input chunks
}

// goOn makes steps until the slice is over or there is nothing to do now.
func (h *held) goOn(ctx context.Context) error {
	h.input = chunks{store: h.store, file: h.b.Input}
	for {
		var more bool
		var err error
		switch h.b.State {
		case store.BatchValidating:
			more, err = h.validate(ctx)
		case store.BatchRunning:
			more, err = h.load(ctx)
		case store.BatchFinalizing:
			more, err = h.finalize(ctx)
		case store.BatchCanceling:
			more, err = h.cancel(ctx)
		case store.BatchCompleted, store.BatchFailed, store.BatchCanceled, store.BatchExpired:
			err = h.settle(ctx)
		}
		if err != nil || !more {
			return err
		}
	}
}

// left is how long the batch has yet.
func (h *held) left() time.Duration { return h.b.Left - time.Since(h.began) }

// over reports whether other batches should have their turn.
func (h *held) over() bool { return time.Since(h.began) >= h.opt.Slice }

// step makes a step from the batch as it is stored.
func (h *held) step(ctx context.Context, s store.BatchStep) error {
	s.From = h.b.State
	if err := h.store.StepBatch(ctx, s); err != nil {
		return err
	}
	h.b = s.Batch
	h.b.Version++
	return nil
}

// work makes a step after which there is more to do at once. It reports whether
// this host should go on with it.
func (h *held) work(ctx context.Context, s store.BatchStep) (more bool, err error) {
	s.Again = h.opt.Hold
	if h.over() {
		s.Again = 0
	}
	err = h.step(ctx, s)
	return s.Again > 0 && err == nil, err
}
