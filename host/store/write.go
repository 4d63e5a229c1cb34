package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/casemate/casemate/host/queue"
)

// Write queues w and returns when it was committed or refused: nil, an error
// that wraps ErrInvalid, queue.ErrIllegalMove, queue.ErrLeaseLost,
// queue.ErrAtCap, ErrExists, ErrConflict or ErrClosed, or one of the database.
// When ctx ends first and w was not taken yet, it is withdrawn; when it is in
// flight the error says that it may have been committed. The caller must not
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
		return fmt.Errorf("store: request %s: not written: %w", w.Fenced().ID, context.Cause(ctx))
	}
	select {
	case err := <-answer:
		return err
	default:
		return fmt.Errorf("store: request %s: may have been written: %w", w.Fenced().ID, context.Cause(ctx))
	}
}

// WriteAsync queues w and returns; it blocks only while the queue is full. done
// gets what Write would have returned. It is called by Run in the order of the
// queue, must not block and must not call WriteAsync; after Run has ended it is
// called before WriteAsync returns.
func (s *Store) WriteAsync(w Write, done func(error)) {
	if _, err := s.push(context.Background(), w, done); err != nil {
		done(err)
	}
}

// push queues w once there is room for it.
func (s *Store) push(ctx context.Context, w Write, done func(error)) (*entry, error) {
	e := &entry{write: w, size: w.size(), invalid: w.check(), done: done}
	s.mu.Lock()
	for !s.closed && !s.roomFor(e) {
		s.waiting++
		space := s.space
		s.mu.Unlock()
		var err error
		select {
		case <-space:
		case <-ctx.Done():
			err = fmt.Errorf("store: request %s: queue of writes is full: %w", w.Fenced().ID, context.Cause(ctx))
		}
		s.mu.Lock()
		s.waiting--
		if err != nil {
			s.mu.Unlock()
			s.poke()
			return nil, err
		}
	}
	defer s.poke()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("store: request %s: %w", w.Fenced().ID, ErrClosed)
	}
	s.queue = append(s.queue, e)
	s.held++
	s.bytes += e.size
	return e, nil
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

// withdraw reports whether e was still queued; then it is never written.
func (s *Store) withdraw(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.taken {
		return false
	}
	e.withdrawn = true
	return true
}

func isLost(err error) bool { return errors.Is(err, queue.ErrLeaseLost) }
