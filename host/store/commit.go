package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Options bounds a Store. The zero value is usable.
type Options struct {
	MaxWrites   int           // queued or in flight; 0: 4096
	MaxBytes    int64         // of them, about; 0: 64 MiB
	BatchWrites int           // most in one transaction; 0: 256
	BatchBytes  int64         // of them, about; 0: 4 MiB
	Drain       time.Duration // how long Run goes on after its context ended; 0: 10 s
}

func (o Options) withDefaults() Options {
	if o.MaxWrites <= 0 {
		o.MaxWrites = 4096
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.BatchWrites <= 0 {
		o.BatchWrites = 256
	}
	if o.BatchBytes <= 0 {
		o.BatchBytes = 4 << 20
	}
	if o.Drain <= 0 {
		o.Drain = 10 * time.Second
	}
	return o
}

const (
	firstPause = 10 * time.Millisecond // before a batch is tried again
	longPause  = time.Second
	slowCommit = 5 * time.Second // a commit that takes longer is not healthy
)

// Store is what every stage holds: the rules for all databases over one Driver.
// Its writes are committed in groups, in the order they came, by Run; while the
// database is away they wait in memory, up to the bounds in Options. It is safe
// for concurrent use.
type Store struct {
	driver Driver
	o      Options
	lost   atomic.Uint64
	asked  atomic.Uint64 // claims, to count out the urgent ones

	mu      sync.Mutex
	ran     bool
	closed  bool
	queue   []*entry
	held    int      // writes queued or in flight
	bytes   int64    // of them
	waiting []*entry // for room, in the order they came
	wake    chan struct{}
	since   time.Time // the commit in flight began; zero: none
	err     error     // of the last try, nil when it worked
}

// entry is one queued write.
type entry struct {
	write   Write
	size    int64
	invalid error // found before it was queued; it keeps its place in the order
	done    func(error)
	room    chan struct{} // closed when it was queued or refused; nil: it did not wait
	refused bool          // the store was closed while it waited
	givenUp bool          // while it was in flight; Store.mu guards it
}

// New returns a Store on d. Nothing is committed before Run is called.
func New(d Driver, o Options) *Store {
	return &Store{driver: d, o: o.withDefaults(), wake: make(chan struct{}, 1)}
}

// Run commits queued writes until ctx ends, each group as soon as the one
// before it was committed. Then it commits what is queued for at most
// Options.Drain, gives the rest an error that wraps ErrClosed and returns nil.
// It may be called once.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	again := s.ran
	s.ran = true
	s.mu.Unlock()
	if again {
		return fmt.Errorf("store: run: called twice")
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(s.o.Drain, cancel)
		context.AfterFunc(work, func() { late.Stop() })
	})
	defer stop()
	for {
		batch := s.take(ctx, work)
		if batch == nil {
			break
		}
		s.commit(work, batch)
	}
	for batch := s.next(); batch != nil; batch = s.next() {
		s.finishAll(batch, fmt.Errorf("store: not committed before the end: %w", ErrClosed))
	}
	return nil
}

// take waits for writes and returns the next group, or nil at the end.
func (s *Store) take(ctx, work context.Context) []*entry {
	for {
		if work.Err() == nil {
			if batch := s.next(); batch != nil {
				return batch
			}
		}
		ended := ctx.Done()
		if ctx.Err() != nil {
			if s.close(work.Err() != nil) {
				return nil
			}
			ended = work.Done()
		}
		select {
		case <-s.wake:
		case <-ended:
		}
	}
}

// close refuses all further writes, unless some are queued, or about to be, and
// force is false.
func (s *Store) close(force bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue)+len(s.waiting) > 0 && !force {
		return false
	}
	s.closed = true
	for _, e := range s.waiting {
		e.refused = true
		close(e.room)
	}
	s.waiting = nil
	return true
}

// next takes the next group off the queue.
func (s *Store) next() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var batch []*entry
	var bytes int64
	for len(s.queue) > 0 && len(batch) < s.o.BatchWrites {
		e := s.queue[0]
		if len(batch) > 0 && bytes+e.size > s.o.BatchBytes {
			break
		}
		s.queue[0] = nil
		s.queue = s.queue[1:]
		bytes += e.size
		batch = append(batch, e)
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
	return batch
}

// release makes room; s.mu is held.
func (s *Store) release(e *entry) {
	s.held--
	s.bytes -= e.size
	s.admit()
}

// commit writes the group. When the database refuses it for what it holds, the
// group is halved until the write that does not fit is alone with its error.
func (s *Store) commit(ctx context.Context, batch []*entry) {
	batch, results, err := s.try(ctx, batch)
	switch {
	case err == nil:
		s.finish(batch, results)
	case len(batch) > 1 && ctx.Err() == nil:
		s.commit(ctx, batch[:len(batch)/2])
		s.commit(ctx, batch[len(batch)/2:])
	case ctx.Err() != nil:
		s.finishAll(batch, fmt.Errorf("store: not committed before the end: %w: %w", ErrClosed, err))
	default:
		s.finishAll(batch, fmt.Errorf("store: commit: %w", err))
	}
}

// try writes until the database answers; while it is unavailable the group is
// held, until ctx ends, but for the writes that nobody waits for any more: whoever
// gave up was told that it failed. It returns what is left of the group.
func (s *Store) try(ctx context.Context, batch []*entry) (left []*entry, results []error, err error) {
	pause := firstPause
	for {
		var writes []Write
		for _, e := range batch {
			if e.invalid == nil {
				writes = append(writes, e.write)
			}
		}
		if len(writes) == 0 {
			s.note(time.Time{}, nil) // nothing is left to try with: the next write finds out
			return batch, nil, nil
		}
		s.note(time.Now(), s.Err())
		results, err = s.driver.Write(ctx, writes)
		if err == nil && len(results) != len(writes) {
			err = fmt.Errorf("store: driver: %d results for %d writes", len(results), len(writes))
		}
		if !errors.Is(err, ErrUnavailable) {
			s.note(time.Time{}, nil)
			return batch, results, err
		}
		s.note(time.Time{}, err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, longPause)
		case <-ctx.Done():
			return batch, nil, err
		}
		batch = s.waitedFor(batch)
	}
}

// waitedFor drops the entries of a group, of which nothing was committed, that
// were given up meanwhile.
func (s *Store) waitedFor(batch []*entry) []*entry {
	var left, dropped []*entry
	s.mu.Lock()
	for _, e := range batch {
		if e.givenUp {
			dropped = append(dropped, e)
			continue
		}
		left = append(left, e)
	}
	s.mu.Unlock()
	for _, e := range dropped {
		s.settle(e, fmt.Errorf("store: request %s: not written: nobody waits for it", e.write.Fenced().ID))
	}
	return left
}

func (s *Store) note(since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since, s.err = since, err
}

// finish hands out the results of a committed group. Those of writes that were
// invalid are not among them.
func (s *Store) finish(batch []*entry, results []error) {
	for _, e := range batch {
		err := e.invalid
		if err == nil {
			err, results = results[0], results[1:]
		}
		s.settle(e, err)
	}
}

func (s *Store) finishAll(batch []*entry, err error) {
	for _, e := range batch {
		if e.invalid != nil {
			s.settle(e, e.invalid)
			continue
		}
		s.settle(e, err)
	}
}

func (s *Store) settle(e *entry, err error) {
	if isLost(err) {
		s.lost.Add(1)
	}
	s.mu.Lock()
	s.release(e)
	s.mu.Unlock()
	s.poke()
	e.done(err)
}

// Backlog returns how many writes are queued or in flight.
func (s *Store) Backlog() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// crowded reports whether more than half of what may wait for the database
// does: then what is running will need the rest for its results, and no more
// should be begun.
func (s *Store) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held > s.o.MaxWrites/2 || s.bytes > s.o.MaxBytes/2
}

// Healthy reports whether commits work: the last one did, and the one in flight
// does not take suspiciously long.
func (s *Store) Healthy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && (s.since.IsZero() || time.Since(s.since) < slowCommit)
}

// Err returns why the database is unavailable, nil when the last commit worked.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Lost returns how many writes came too late: their claim was no longer theirs.
func (s *Store) Lost() uint64 { return s.lost.Load() }
