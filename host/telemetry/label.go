package telemetry

import (
	"sync"
	"unicode/utf8"
)

// other stands for every value that a label may not have.
const other = "other"

// set is the values of a label that are known when the program is built.
type set map[string]struct{}

func newSet(values []string) set {
	s := make(set, len(values))
	for _, v := range values {
		s[v] = struct{}{}
	}
	return s
}

// of returns v if it is in the set.
func (s set) of(v string) string {
	if _, ok := s[v]; ok {
		return v
	}
	return other
}

// names is the values of a label that an operator configured. It only grows, to
// a bound: a series that is gone would look like a restart.
type names struct {
	most int

	mu    sync.RWMutex
	known set
}

func (n *names) add(values []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = set{}
	}
	for _, v := range values {
		if len(n.known) >= n.most {
			return
		}
		if utf8.ValidString(v) { // no other text is a label
			n.known[v] = struct{}{}
		}
	}
}

// of returns v if it was added.
func (n *names) of(v string) string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.known.of(v)
}
