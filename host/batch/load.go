package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/casemate/casemate/host/store"
)

// load makes requests of the next lines, or waits for the end of all when there
// are no more, or no time.
func (h *held) load(ctx context.Context) (more bool, err error) {
	if h.left() <= 0 {
		return h.await(ctx)
	}
	lines, err := h.store.Lines(ctx, h.b.ID, h.b.Line, h.opt.Group)
	if err != nil {
		return false, fmt.Errorf("batch: lines: %w", err)
	}
	if len(lines) == 0 {
		return h.await(ctx)
	}
	s := store.BatchStep{Batch: h.b}
	var bytes int64
	var wait error // why the rest of the group has to wait
	for _, l := range lines {
		if bytes += int64(l.Size); bytes > h.opt.GroupBytes && len(s.Made) > 0 {
			break
		}
		if wait = h.make(ctx, &s, l); wait != nil {
			break
		}
	}
	if len(s.Made) == 0 {
		return wait == nil, wait // nil: the time is up
	}
	more, err = h.work(ctx, s)
	if err == nil {
		err = wait
	}
	return more, err
}

// make adds one line's request to the step, or why it makes none.
func (h *held) make(ctx context.Context, s *store.BatchStep, l store.Line) error {
	made := store.Line{Line: l.Line}
	body, err := h.body(ctx, l)
	if err != nil {
		return err
	}
	n, events, err := h.maker.Prepare(ctx, h.b.Tenant, h.b.Endpoint, body)
	var no refusal
	left := h.left()
	switch {
	case errors.As(err, &no):
		made.Status, made.Refusal = no.Refusal()
		s.Batch.Refused++
	case err != nil:
		return fmt.Errorf("batch: line %d: %w", l.Line, err)
	case left <= 0:
		return nil // the time is up: the rest is not begun
	default:
		// What a line answers is kept, whatever the line says of that, until the
		// batch's files hold it.
		n.Store, n.Batch, n.Line, n.DeadlineIn = true, h.b.ID, l.Line, max(left, time.Millisecond)
		made.Request = n.ID
		s.Requests = append(s.Requests, store.Write{Insert: &n, Events: events})
	}
	s.Made = append(s.Made, made)
	s.Batch.Line = l.Line
	return nil
}

// body returns the body of a line.
func (h *held) body(ctx context.Context, l store.Line) ([]byte, error) {
	data, err := h.input.read(ctx, l.Offset, l.Size)
	if err != nil {
		return nil, err
	}
	var e entry
	if err := json.Unmarshal(bytes.TrimPrefix(data, byteOrderMark), &e); err != nil {
		return nil, fmt.Errorf("batch: line %d is not what it was: %w", l.Line, err)
	}
	return e.Body, nil
}

// await looks whether all requests have ended, and comes back later if not: the
// longer the batch has run, the later.
func (h *held) await(ctx context.Context) (more bool, err error) {
	open, err := h.store.OpenLines(ctx, h.b.ID)
	if err != nil {
		return false, fmt.Errorf("batch: open lines: %w", err)
	}
	s := store.BatchStep{Batch: h.b}
	if !open {
		s.Batch.State = store.BatchFinalizing
		return h.work(ctx, s)
	}
	window := h.b.Expires.Sub(h.b.Started) // by the database's clock, as Left is
	if h.b.Started.IsZero() {
		window = h.b.Expires.Sub(h.b.Created)
	}
	s.Again = min(max((window-h.left())/20, h.opt.Poll), longWait)
	if left := h.left(); left > 0 && left < s.Again {
		s.Again = left
	}
	return false, h.step(ctx, s)
}

// cancelSome is how many requests are canceled in one transaction.
const cancelSome = 100

// cancel ends what has not ended, then writes the files.
func (h *held) cancel(ctx context.Context) (more bool, err error) {
	if h.b.Started.IsZero() {
		s := store.BatchStep{Batch: h.b}
		s.Batch.State, s.Batch.Settled, s.Batch.Total = store.BatchCanceled, true, 0
		return false, h.step(ctx, s)
	}
	for {
		n, err := h.store.CancelLines(ctx, h.b.ID, cancelSome)
		switch {
		case err != nil:
			return false, fmt.Errorf("batch: cancel lines: %w", err)
		case n > 0 && h.over():
			return h.work(ctx, store.BatchStep{Batch: h.b})
		case n > 0:
			continue
		}
		open, err := h.store.OpenLines(ctx, h.b.ID)
		switch {
		case err != nil:
			return false, fmt.Errorf("batch: open lines: %w", err)
		case open: // somebody writes to them just now
			return false, h.step(ctx, store.BatchStep{Batch: h.b, Again: h.opt.Poll})
		}
		return h.finalize(ctx)
	}
}

// settleSome is how many lines are settled in one transaction.
const settleSome = 200

// settle forgets what nobody needs any more of a batch that has ended. Line is how
// far it is.
func (h *held) settle(ctx context.Context) error {
	s := store.BatchStep{Batch: h.b}
	for {
		last, err := h.store.SettleLines(ctx, h.b.ID, s.Batch.Line, settleSome)
		if err != nil {
			return fmt.Errorf("batch: settle: %w", err)
		}
		if s.Batch.Settled = last == 0; s.Batch.Settled {
			return h.step(ctx, s)
		}
		if s.Batch.Line = last; h.over() {
			return h.step(ctx, s) // due again at once, after the others
		}
	}
}
