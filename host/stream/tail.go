package stream

import (
	"context"
	"sync"
	"time"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/store"
)

// tails are the listeners that wait for the log.
type tails struct {
	mu      sync.Mutex
	waiting map[*Listener]bool // to whether it waits for the next poll only
	kick    chan struct{}
	stopped bool
}

// add makes l wait for the log. A listener that waits already stays as it is.
func (s *tails) add(l *Listener) error {
	l.t.mu.Lock()
	urgent := l.urgent
	l.t.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return ErrStopped
	}
	first := len(s.waiting) == 0
	s.waiting[l] = !urgent
	if urgent || first {
		s.signal()
	}
	return nil
}

func (s *tails) remove(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, l)
}

func (s *tails) signal() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// due returns the listeners to read for: all, or only those that cannot wait.
// They wait no more.
func (s *tails) due(all bool) []*Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []*Listener
	for l, patient := range s.waiting {
		if all || !patient {
			due = append(due, l)
			delete(s.waiting, l)
		}
	}
	return due
}

// idle reports whether nobody waits.
func (s *tails) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) == 0
}

func (s *tails) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for l := range s.waiting {
		l.poke()
	}
}

// Run reads the log for the listeners that memory cannot serve: one query for
// all of them each Options.Poll, one at once for those that catch up, none
// while there are none. It returns nil when ctx ends; listeners that need the
// log then get ErrStopped. A log that fails is asked again, and nobody's
// stream ends for it.
func (h *Hub) Run(ctx context.Context) error {
	defer h.tails.stop()
	timer := time.NewTimer(h.o.Poll)
	defer timer.Stop()
	last := time.Now() // of the last read for all
	failing := false
	for {
		var tick <-chan time.Time
		if !h.tails.idle() {
			timer.Reset(max(0, h.o.Poll-time.Since(last)))
			tick = timer.C
		}
		all := false
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
			all = true
		case <-h.tails.kick:
			all = time.Since(last) >= h.o.Poll
		}
		due := h.tails.due(all || failing)
		if all {
			last = time.Now()
		}
		if len(due) == 0 {
			continue
		}
		err := h.read(ctx, due)
		switch {
		case err != nil && ctx.Err() == nil && !failing:
			h.o.Logger.Warn("event log cannot be read, trying again", "error", err, "tails", len(due))
		case err == nil && failing:
			h.o.Logger.Info("event log can be read again")
		}
		if failing = err != nil; failing && !pause(ctx, h.o.Poll) {
			return nil
		}
	}
}

// pause waits for d; false: ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// read asks the log once for all of due and hands out what it finds. After an
// error, they wait again.
func (h *Hub) read(ctx context.Context, due []*Listener) error {
	at := make(map[queue.ID]int, len(due))
	epochs := make(map[queue.ID]int, len(due))
	var cursors []store.Cursor
	for _, l := range due {
		t := l.t
		t.mu.Lock()
		after, epoch := l.next-1, 0
		if t.producer != nil {
			epoch = t.epoch
		}
		t.mu.Unlock()
		if i, ok := at[t.id]; ok {
			cursors[i].After = min(cursors[i].After, after)
			continue
		}
		at[t.id], epochs[t.id] = len(cursors), epoch
		cursors = append(cursors, store.Cursor{ID: t.id, After: after})
	}
	ctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	found, err := h.log.Events(ctx, cursors, h.o.Batch)
	if err != nil {
		for _, l := range due {
			l.poke()
		}
		return err
	}
	for _, l := range due {
		tail, ok := found[l.t.id]
		l.deliver(tail, ok, len(tail.Events) >= h.o.Batch, epochs[l.t.id], h.o.Unknown)
	}
	return nil
}
