package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/host/queue"
)

// Write queues w and returns when it was committed or refused: nil, an error
// that wraps ErrInvalid, queue.ErrIllegalMove, queue.ErrLeaseLost,
// queue.ErrAtCap, ErrExists, ErrConflict or ErrClosed, or one of the database.
// When ctx ends first and w was not taken yet, it is withdrawn; when it is in
// flight the error wraps ErrInFlight: it may have been committed, or may yet be. The caller must not
// change what w points to before it was committed.
func (s *Store) Write(ctx context.Context, w Write) error {
	answer := make(chan error, 1)
	e, err := s.push(ctx, w, func(err error) { answer <- err })
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
	}
	if s.withdraw(e) {
		s.poke()
		return fmt.Errorf("store: request %s: not written: %w", w.Fenced().ID, context.Cause(ctx))
	}
	select {
	case err := <-answer:
		return err
	default:
		return fmt.Errorf("store: request %s: %w: %w", w.Fenced().ID, ErrInFlight, context.Cause(ctx))
	}
}

// WriteAsync queues w and returns; it blocks only while the queue is full, and
// then until ctx ends at most: w was not queued then. An ended ctx does not keep
// it from being queued where there is room, nor from being committed. done gets
// what Write would have returned. It is called by Run in the order of the queue,
// must not block and must not call WriteAsync; for what was not queued it is
// called before WriteAsync returns.
func (s *Store) WriteAsync(ctx context.Context, w Write, done func(error)) {
	if _, err := s.push(ctx, w, done); err != nil {
		done(err)
	}
}

// push queues w once there is room for it. Those that wait for room get it in
// the order they came, so that a large write is not passed by small ones for
// ever.
func (s *Store) push(ctx context.Context, w Write, done func(error)) (*entry, error) {
	w.Move = w.Move.parked()
	e := &entry{write: w, size: w.size(), invalid: w.check(), done: done}
	s.mu.Lock()
	if len(s.waiting) == 0 && !s.closed && s.roomFor(e) {
		s.join(e)
		s.mu.Unlock()
		s.poke()
		return e, nil
	}
	if s.closed {
		s.mu.Unlock()
		return nil, fmt.Errorf("store: request %s: %w", w.Fenced().ID, ErrClosed)
	}
	e.room = make(chan struct{})
	s.waiting = append(s.waiting, e)
	s.mu.Unlock()
	select {
	case <-e.room:
	case <-ctx.Done():
	}
	return s.admitted(ctx, e)
}

// admitted returns e if it got room, and gives up its turn if it did not.
func (s *Store) admitted(ctx context.Context, e *entry) (*entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.waiting, e)
	switch {
	case i >= 0:
		s.waiting = slices.Delete(s.waiting, i, i+1)
		s.admit() // it may have been in the way of a smaller one
		s.poke()
		return nil, fmt.Errorf("store: request %s: queue of writes is full: %w", e.write.Fenced().ID, context.Cause(ctx))
	case e.refused:
		return nil, fmt.Errorf("store: request %s: %w", e.write.Fenced().ID, ErrClosed)
	}
	return e, nil
}

// admit queues those that wait, in turn, while there is room; s.mu is held.
func (s *Store) admit() {
	for len(s.waiting) > 0 && s.roomFor(s.waiting[0]) {
		e := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		s.join(e)
		close(e.room)
	}
}

// join puts e at the end of the queue; s.mu is held.
func (s *Store) join(e *entry) {
	s.queue = append(s.queue, e)
	s.held++
	s.bytes += e.size
}

// roomFor reports whether there is room for e; s.mu is held. A write that is
// larger than the whole queue gets in when it is empty.
func (s *Store) roomFor(e *entry) bool {
	return s.held == 0 || (s.held < s.o.MaxWrites && s.bytes+e.size <= s.o.MaxBytes)
}

// poke makes Run look at the queue again.
func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// withdraw reports whether e was still queued; then it is never written, and its
// room is free. One in flight is not tried again.
func (s *Store) withdraw(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(s.queue, e)
	if i < 0 {
		e.givenUp = true
		return false
	}
	s.queue = slices.Delete(s.queue, i, i+1)
	s.release(e)
	return true
}

func isLost(err error) bool { return errors.Is(err, queue.ErrLeaseLost) }
