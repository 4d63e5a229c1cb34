package stream_test

import (
	"context"
	"fmt"
	"sync"

	"github.com/casemate/casemate/host/queue"
	"github.com/casemate/casemate/host/response"
	"github.com/casemate/casemate/host/store"
)

// fakeLog is an event log in memory.
type fakeLog struct {
	mu      sync.Mutex
	events  map[queue.ID][]response.Event
	states  map[queue.ID]queue.State
	reads   int
	cursors int   // of the last read
	err     error // of every read
}

func newLog() *fakeLog {
	return &fakeLog{events: map[queue.ID][]response.Event{}, states: map[queue.ID]queue.State{}}
}

func (l *fakeLog) append(id queue.ID, events ...response.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events[id] = append(l.events[id], events...)
	if _, ok := l.states[id]; !ok {
		l.states[id] = queue.Processing
	}
}

func (l *fakeLog) end(id queue.ID, s queue.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[id] = s
}

func (l *fakeLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *fakeLog) count() (reads, cursors int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads, l.cursors
}

func (l *fakeLog) Events(_ context.Context, cursors []store.Cursor, limit int) (map[queue.ID]store.Tail, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	l.cursors = len(cursors)
	if l.err != nil {
		return nil, l.err
	}
	found := map[queue.ID]store.Tail{}
	for _, c := range cursors {
		s, ok := l.states[c.ID]
		if !ok {
			continue
		}
		if _, twice := found[c.ID]; twice {
			return nil, fmt.Errorf("cursor %s twice", c.ID)
		}
		tail := store.Tail{State: s}
		for _, e := range l.events[c.ID] {
			if e.Seq > c.After && len(tail.Events) < limit {
				tail.Events = append(tail.Events, e)
			}
		}
		found[c.ID] = tail
	}
	return found, nil
}
