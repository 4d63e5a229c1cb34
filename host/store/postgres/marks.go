package postgres

import (
	"sync"
	"time"
)

// markLasts is how long a mark counts: what a lane may be late that got behind it.
const markLasts = time.Second

// busyLasts is how long a claim may go by which models had something before,
// while it gets all that it asks for.
const busyLasts = 100 * time.Millisecond

// marks are low-water marks by model: the least virtual time that this driver
// last saw among the lanes that compete. A scan that begins there passes over
// none of the dead index entries that it and others left behind.
type marks struct {
	mu      sync.Mutex
	byModel map[string]mark
	busy    map[string]busy // by asksKey
}

// busy are the models that had something when a claim looked.
type busy struct {
	models map[string]bool
	seen   time.Time
}

// fewKeys is how many kinds of claims are remembered.
const fewKeys = 100

// remember notes which models have something.
func (m *marks) remember(key string, ready []*ask) {
	if key == "" {
		return
	}
	k := busy{models: make(map[string]bool, len(ready)), seen: time.Now()}
	for _, a := range ready {
		k.models[a.model] = true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy == nil || len(m.busy) >= fewKeys {
		m.busy = make(map[string]busy)
	}
	m.busy[key] = k
}

// recall returns which of asks had something a moment ago, none if it is not
// known.
func (m *marks) recall(key string, asks []*ask) (ready []*ask) {
	m.mu.Lock()
	k, ok := m.busy[key]
	m.mu.Unlock()
	if !ok || time.Since(k.seen) > busyLasts {
		return nil
	}
	for _, a := range asks {
		if k.models[a.model] {
			a.mark = m.get(a.model)
			ready = append(ready, a)
		}
	}
	return ready
}

// forget forgets what remember noted.
func (m *marks) forget(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.busy, key)
}

type mark struct {
	vtime float64
	// thin: lanes had less than a quantum each, so more of them are picked.
	thin bool
	made time.Time
}

// get returns the mark of a model, zero for none.
func (m *marks) get(model string) mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.byModel[model]; time.Since(k.made) < markLasts {
		return k
	}
	return mark{}
}

// set keeps a mark; it lasts from when it was first made, so that it is dropped
// at times however busy the model is.
func (m *marks) set(model string, vtime float64, thin bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byModel == nil {
		m.byModel = make(map[string]mark)
	}
	k := m.byModel[model]
	if time.Since(k.made) >= markLasts {
		k = mark{made: time.Now()}
	}
	k.vtime, k.thin = vtime, k.thin || thin
	m.byModel[model] = k
}

// drop forgets the marks of models.
func (m *marks) drop(models ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range models {
		delete(m.byModel, k)
	}
}
